//! Settings that a running node cannot change.

use std::fmt;

use serde::Serialize;

use crate::intent::{Config, Port};

/// A setting that keeps its old value until the node is started anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestartNeeded {
    /// The setting, for example `engine.cores` or `port "wan".device`.
    pub path: String,
    /// Why it cannot change while the node runs.
    pub why: &'static str,
}

impl fmt::Display for RestartNeeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} changes only with a restart: {}", self.path, self.why)
    }
}

const IDENTITY: &str = "sessions, sockets and shared memory bear the node's identity";
const THREADS: &str = "threads are pinned when the engine starts";
const MEMORY: &str = "packet memory is laid out when the engine starts";
const DEVICE: &str = "devices are opened and set up when the engine starts";
const TWIN: &str = "the twin in the kernel is made when the engine starts";

/// Every setting that differs and that a running node cannot change.
pub(super) fn needed(old: &Config, new: &Config) -> Vec<RestartNeeded> {
    let (engine, wanted) = (&old.engine, &new.engine);
    let settings = [
        ("node.name", old.node.name != new.node.name, IDENTITY),
        ("node.id", old.node.id != new.node.id, IDENTITY),
        ("node.index_key_file", old.node.index_key != new.node.index_key, IDENTITY),
        ("engine.cores", engine.cores != wanted.cores, THREADS),
        ("engine.control_cores", engine.control_cores != wanted.control_cores, THREADS),
        ("engine.idle", engine.idle != wanted.idle, THREADS),
        ("engine.memory", engine.memory.kind != wanted.memory.kind, MEMORY),
        ("engine.memory_mib", engine.memory.size_mib != wanted.memory.size_mib, MEMORY),
        ("engine.buffers", engine.buffers != wanted.buffers, MEMORY),
        ("engine.flows", engine.flows != wanted.flows, "workers take the memory for their flows when they start"),
        ("engine.aead", engine.aead != wanted.aead, "keys are prepared for the implementation chosen at the start"),
        ("api.socket", old.api.socket != new.api.socket, "the command line would lose the node that it talks to"),
    ];
    let settings = settings.into_iter().filter(|(_, differs, _)| *differs);
    let mut needed: Vec<_> = settings.map(|(path, _, why)| RestartNeeded { path: path.to_owned(), why }).collect();
    let appeared = new.ports.iter().filter(|port| old.port(port.name.as_str()).is_none());
    let gone = old.ports.iter().filter(|port| new.port(port.name.as_str()).is_none());
    needed.extend(appeared.chain(gone).map(|port| RestartNeeded { path: path(port, ""), why: DEVICE }));
    let both = new.ports.iter().filter_map(|port| Some((old.port(port.name.as_str())?, port)));
    needed.extend(both.flat_map(|(old, new)| port(old, new)));
    needed
}

fn port<'a>(old: &'a Port, new: &'a Port) -> impl Iterator<Item = RestartNeeded> + use<'a> {
    let settings = [
        (".device", old.device != new.device, DEVICE),
        (".mtu", old.mtu != new.mtu, DEVICE),
        (".queues", old.queues != new.queues, DEVICE),
        (".mac", old.mac != new.mac, DEVICE),
        (".host_interface", old.host_interface != new.host_interface, TWIN),
    ];
    let settings = settings.into_iter().filter(|(_, differs, _)| *differs);
    settings.map(|(setting, _, why)| RestartNeeded { path: path(new, setting), why })
}

fn path(port: &Port, setting: &str) -> String {
    format!("port \"{}\"{setting}", port.name)
}
