//! What a node says about its virtual services, and what it can be told about their servers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What is known of a virtual service.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VipReport {
    /// Its name.
    pub name: String,
    /// The address that clients use.
    pub address: IpAddr,
    /// The port that clients use.
    pub port: u16,
    /// `tcp`, `udp` or `wireguard`.
    pub protocol: String,
    /// `nat`, `l2`, `ipip`, `gre` or `gue`.
    pub forward: String,
    /// `flow` or `client`.
    pub persistence: String,
    /// What is asked of its servers, such as `tcp`; `None` if they are taken to be up.
    pub health: Option<String>,
    /// How long its servers take to answer probes; `None` before the first answer.
    pub probe_latency: Option<LatencyReport>,
    /// Its servers, in the order of the file.
    pub backends: Vec<BackendReport>,
}

/// How long probes took, in seconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct LatencyReport {
    /// Probes that were answered.
    pub count: u64,
    /// What half of them did not exceed.
    pub median: f64,
    /// What 99 in 100 did not exceed.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What is known of a server of a virtual service.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BackendReport {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its weight.
    pub weight: u16,
    /// The share of the table's slots that lead to it, from 0 to 1: of new clients it gets about so many.
    pub share: f64,
    /// How busy it says it is, from 0 to 1; `None` if it does not.
    pub load: Option<f64>,
    /// `up`, `suspect`, `down`, `draining` or `disabled`.
    pub state: String,
    /// Seconds until a drain ends and it is disabled.
    pub drain_ends_seconds: Option<f64>,
    /// What probes found; `None` if nobody asks.
    pub probes: Option<ProbeReport>,
    /// Flows that were given to it.
    pub flows: u64,
    /// Flows that were taken from it because it was down.
    pub moved: u64,
    /// Packets that were sent on to it.
    pub packets: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Packets that came back from it.
    pub returned_packets: u64,
    /// Bytes of those.
    pub returned_bytes: u64,
    /// The longest packet that routers let through on the way to it; `None` if none said that its route is wrong.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// Packets that did not get on their way to it, by reason: `no_route`, `no_neighbour`, `too_big`, `port_full`, `other`.
    #[serde(default)]
    pub lost: BTreeMap<String, u64>,
}

/// How the probes of a server went.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Probes that ended.
    pub count: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Seconds that the last answer took; `None` before the first.
    pub latency: Option<f64>,
    /// Why the last one failed, unless one was answered since.
    pub trouble: Option<String>,
    /// Seconds since the last one ended; `None` before the first.
    pub last_seconds: Option<f64>,
    /// Seconds since the server's health last changed.
    pub unchanged_seconds: f64,
}

/// What a server's operator wants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackendOrder {
    /// The service.
    pub service: String,
    /// The server.
    pub backend: String,
    /// What is wanted.
    pub action: BackendAction,
    /// When a drain ends and the server is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
}

/// What is to be done with a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendAction {
    /// It serves.
    Enable,
    /// It keeps its flows and gets no new ones.
    Drain,
    /// It gets nothing, at once.
    Disable,
}

/// Which services are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VipsQuery {
    /// Only the service of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
