//! What a node says about the flows of its virtual services.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Which flows are meant: those that fit everything that is said.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FlowsFilter {
    /// Only those to the service of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// Only those of clients with these addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpNet>,
    /// Only those at the server of this name; where services have servers of one name, with `vip` or as SERVICE/BACKEND.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

/// What is wanted of flows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlowsQuery {
    /// Which are meant.
    #[serde(flatten)]
    pub filter: FlowsFilter,
    /// What is wanted of them.
    pub action: FlowsAction,
}

/// What is wanted of the flows that are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowsAction {
    /// To see them, at most so many.
    List(u32),
    /// To know how many there are at each server.
    Count,
    /// To have them forgotten.
    Flush,
}

/// The flows that were asked for.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct FlowsReport {
    /// How many are meant; with `has_more`, at least so many.
    pub total: u64,
    /// Whether there are more than are shown.
    pub has_more: bool,
    /// The flows, if they were to be listed.
    pub flows: Vec<FlowReport>,
    /// How many there are at each server, if they were to be counted or forgotten; servers without any are left out.
    pub by_backend: Vec<FlowCount>,
}

/// A flow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FlowReport {
    /// The service; `None` if it is configured no more.
    pub vip: Option<String>,
    /// The server; `None` if it is configured no more.
    pub backend: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The service's address and port.
    pub service: SocketAddr,
    /// The server's address and port.
    pub server: Option<SocketAddr>,
    /// The port of the node that stands for the client towards the server, if one does.
    pub translated_port: Option<u16>,
    /// `opening`, `established` or `closing` of TCP; `active` of others.
    pub state: String,
    /// Seconds since its client last sent something.
    pub idle_seconds: f64,
    /// Seconds until it is forgotten if nothing comes.
    pub expires_seconds: f64,
    /// The worker that has it.
    pub worker: u16,
}

/// How many flows a server has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlowCount {
    /// The service; `None` if it is configured no more.
    pub vip: Option<String>,
    /// The server; `None` if it is configured no more.
    pub backend: Option<String>,
    /// Its flows.
    pub flows: u64,
}
