//! What a node says would happen to a packet.

use serde::{Deserialize, Serialize};

use super::flow_report::FlowReport;

/// Asks what would happen to a packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainQuery {
    /// The packet: hex, or such as `tcp 10.8.0.2:1234 > 10.100.0.10:443`.
    pub packet: String,
    /// The port or tunnel by which it comes; `None`: the one to which its source is routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What would happen to a packet.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExplainReport {
    /// The packet in words.
    pub packet: String,
    /// What it is taken to carry, if that was not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assumed: Option<String>,
    /// The packet inside it, in words, if that is taken out: all of the rest is about that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<String>,
    /// The port or tunnel by which it is taken to come.
    pub from: String,
    /// The client in that tunnel, if it is one.
    pub peer: Option<String>,
    /// What it is to the node: `service`, `answer`, `error`, `fragment`, `tunnel`, `local`, `encapsulated`, `foreign` or
    /// `forwarded`.
    pub role: String,
    /// What decided that, in words.
    pub rule: String,
    /// How a server is found, if it is for a service.
    pub service: Option<ServiceExplanation>,
    /// Where it goes, in words.
    pub goes: String,
    /// The reason for which it is dropped, if it is.
    pub dropped: Option<String>,
}

/// How the server of a packet is found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ServiceExplanation {
    /// The service.
    pub vip: String,
    /// What the choice goes by: `flow`, `client_address`, `client_peer` or `receiver`.
    pub basis: String,
    /// The slot of the table.
    pub slot: Option<usize>,
    /// Slots of the table.
    pub slots: u32,
    /// The server to which the slot belongs.
    pub slot_backend: Option<BackendExplanation>,
    /// The server that it goes to.
    pub backend: Option<BackendExplanation>,
    /// Why it goes there, in words.
    pub reason: String,
    /// Its flow, if a worker remembers it.
    pub flow: Option<FlowReport>,
    /// The server that the client is bound to, if a worker remembers that.
    pub bound_to: Option<String>,
    /// Whether it may pass, if it is a handshake message to gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<HandshakeExplanation>,
}

/// What a handshake message to gateways is judged by before it gets to one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HandshakeExplanation {
    /// Whether it shows a good cookie.
    pub shows_cookie: bool,
    /// What each worker would do with it now: `pass`, `cookie` (answer it with one) or `drop`.
    pub workers: Vec<String>,
}

/// A server, as it is now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BackendExplanation {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: String,
    /// `up`, `suspect`, `down`, `draining` or `disabled`.
    pub state: String,
}
