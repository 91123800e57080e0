//! The sections of a configuration file, each read into its part of the intent.

mod api;
mod decapsulate;
mod device;
mod engine;
mod health;
mod load;
mod peer;
mod port;
mod tunnel;
mod vip;

use crate::cross_check::Ledger;
use crate::intent::{Config, Node};
use crate::key_file::secret;
use crate::parse::Surroundings;
use crate::section::Section;
use crate::value;

/// Keys that people look for at the top of the file, with where they are.
const ELSEWHERE: [(&str, &str); 4] = [
    ("peer", "peers belong to a tunnel: write `[[tunnel.peer]]` after their `[[tunnel]]`"),
    ("backend", "servers belong to a service: write `[[vip.backend]]` after their `[[vip]]`"),
    ("Interface", "this is a file for wg-quick; in Jetway's the interface is a `[[tunnel]]`"),
    ("Peer", "this is a file for wg-quick; in Jetway's a peer is a `[[tunnel.peer]]`"),
];

/// Reads the whole file; `None` after a problem was reported.
pub(crate) fn config(mut root: Section<'_>, surroundings: &Surroundings<'_>, ledger: &mut Ledger) -> Option<Config> {
    let node = match root.table("node") {
        Some(section) => node(section, surroundings),
        None => {
            if root.absent("node") {
                root.error("the file has no `[node]`", "begin with [node], name = \"edge-1\" and id = 1");
            }
            None
        }
    };
    let engine = match root.table("engine") {
        Some(section) => engine::read(section, surroundings),
        None => {
            if root.absent("engine") {
                root.error("the file has no `[engine]`", "add [engine] with cores = [1], the CPUs that run workers");
            }
            None
        }
    };
    let ports: Vec<_> = root.tables("port").into_iter().map(|section| port::read(section, ledger)).collect();
    if root.absent("port") {
        root.error(
            "the file has no `[[port]]`",
            "add a [[port]] with name and device: packets come and go through ports",
        );
    }
    let tunnels: Vec<_> =
        root.tables("tunnel").into_iter().map(|section| tunnel::read(section, surroundings, ledger)).collect();
    let vips: Vec<_> = root.tables("vip").into_iter().map(|section| vip::read(section, surroundings, ledger)).collect();
    let decapsulate = root.table("decapsulate").map(|section| decapsulate::read(section, &tunnels));
    let api = api::read(root.table("api"), node.as_ref());
    root.finish(&ELSEWHERE);
    Some(Config {
        node: node?,
        engine: engine?,
        ports: ports.into_iter().collect::<Option<_>>()?,
        tunnels: tunnels.into_iter().collect::<Option<_>>()?,
        vips: vips.into_iter().collect::<Option<_>>()?,
        decapsulate: match decapsulate {
            Some(decapsulate) => Some(decapsulate?),
            None => None,
        },
        api: api?,
    })
}

fn node(mut section: Section<'_>, surroundings: &Surroundings<'_>) -> Option<Node> {
    let name = section.required("name", "give the node a name, for example name = \"edge-1\"");
    let name = name.and_then(|field| value::name(&field));
    let id = section.required("id", "give the node a number from 0 to 255, unique in its cluster: id = 1");
    let id = id.and_then(|field| field.number(0..=255));
    let index_key = section.field("index_key_file").map(|field| secret(&field, surroundings.keys, "wg genpsk"));
    section.finish(&[("index_key", KEY_IN_FILE)]);
    Some(Node { name: name?, id: id?, index_key: index_key.flatten() })
}

/// The hint for a key that stands in the configuration itself.
const KEY_IN_FILE: &str =
    "keys are kept in files: write the path of one with mode 600 under the name that ends in `_file`";
