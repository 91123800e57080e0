//! What goes over the local socket.

use serde::{Deserialize, Serialize};

use super::dry_run::{DryRun, VipChange};
use super::explanation::{ExplainQuery, ExplainReport};
use super::flow_report::{FlowsQuery, FlowsReport};
use super::report::{PeerReport, StatsReport};
use super::vip_report::{BackendOrder, VipReport, VipsQuery};

/// A question or an order to a running node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Everything that is counted.
    Stats,
    /// Peers.
    Peers(PeersQuery),
    /// Virtual services.
    Vips(VipsQuery),
    /// Drain, disable or enable a server.
    Backend(BackendOrder),
    /// Flows of virtual services.
    Flows(FlowsQuery),
    /// What would happen to a packet.
    Explain(ExplainQuery),
    /// What a configuration would move.
    DryRun(DryRun),
    /// Read the configuration again.
    Reload,
    /// Take no new sessions.
    Drain,
    /// Say whether the node carries traffic.
    Ready,
}

/// Which peers are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PeersQuery {
    /// Only those of this tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// Only those of this name or public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A node's answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Stats`].
    Stats(Box<StatsReport>),
    /// To [`Request::Peers`].
    Peers {
        /// The peers.
        peers: Vec<PeerReport>,
    },
    /// To [`Request::Vips`].
    Vips {
        /// The services.
        vips: Vec<VipReport>,
    },
    /// To [`Request::Backend`].
    Ordered,
    /// To [`Request::Flows`].
    Flows(FlowsReport),
    /// To [`Request::Explain`].
    Explained(Box<ExplainReport>),
    /// To [`Request::DryRun`].
    WouldChange {
        /// The services, as they are and as they would be.
        vips: Vec<VipChange>,
    },
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// To [`Request::Drain`].
    Draining,
    /// To [`Request::Ready`].
    Readiness(Readiness),
    /// To a request that could not be carried out; nothing was changed.
    Failed(Failure),
}

/// What a reload changed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reloaded {
    /// Peers that are new.
    pub peers_added: usize,
    /// Peers that are gone.
    pub peers_removed: usize,
    /// Peers that are different.
    pub peers_changed: usize,
    /// Other changes, each in words.
    pub other: Vec<String>,
    /// Settings that differ in the file but take a restart, each in words.
    pub needs_restart: Vec<String>,
    /// What the configuration's check warns of, one a line.
    pub warnings: Vec<String>,
}

/// Whether a node carries traffic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Readiness {
    /// It does.
    Ready,
    /// Not yet.
    Starting {
        /// What it waits for.
        waits_for: String,
    },
    /// It does, but takes no new sessions.
    Draining,
}

/// Why a request could not be carried out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong, in one line.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: String,
    /// The problems of a configuration, as `jetway check` prints them; empty for other failures.
    #[serde(default)]
    pub details: String,
    /// The same problems for programs, as `jetway check --json` prints them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<serde_json::Value>,
}

impl Failure {
    /// A failure without details.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), ..Self::default() }
    }

    /// A configuration that cannot be used.
    pub fn with_problems(problems: &[jetway_config::Problem]) -> Self {
        Self {
            message: "the configuration has errors; nothing was changed".to_owned(),
            hint: "correct them and try again; `jetway check` shows the same".to_owned(),
            details: jetway_config::render(problems, jetway_config::Style::Plain),
            problems: problems.iter().filter_map(|problem| serde_json::to_value(problem).ok()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow_report::{FlowsAction, FlowsFilter};
    use super::super::vip_report::BackendAction;
    use super::*;

    #[test]
    fn requests_read_as_they_were_written_and_look_simple() {
        assert_eq!(serde_json::to_string(&Request::Stats).unwrap(), r#"{"request":"stats"}"#);
        let peers = Request::Peers(PeersQuery { tunnel: Some("jw0".to_owned()), name: None });
        assert_eq!(serde_json::to_string(&peers).unwrap(), r#"{"request":"peers","tunnel":"jw0"}"#);
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"request":"peers"}"#).unwrap(),
            Request::Peers(PeersQuery::default())
        );
        let drain = Request::Backend(BackendOrder {
            service: "erp".to_owned(),
            backend: "erp-1".to_owned(),
            action: BackendAction::Drain,
            deadline_seconds: Some(300),
        });
        assert_eq!(
            serde_json::to_string(&drain).unwrap(),
            r#"{"request":"backend","service":"erp","backend":"erp-1","action":"drain","deadline_seconds":300}"#
        );
        for request in [
            drain,
            Request::Vips(VipsQuery::default()),
            Request::Flows(FlowsQuery { filter: FlowsFilter::default(), action: FlowsAction::List(10) }),
            Request::Explain(ExplainQuery { packet: "icmp ::1 > ::2".to_owned(), from: None }),
            Request::DryRun(DryRun { path: "/etc/jetway/new.toml".into() }),
            Request::Stats,
            peers,
            Request::Reload,
            Request::Drain,
            Request::Ready,
        ] {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
    }

    #[test]
    fn responses_read_as_they_were_written() {
        for response in [
            Response::Draining,
            Response::Reloaded(Reloaded { peers_added: 3, ..Reloaded::default() }),
            Response::Readiness(Readiness::Starting { waits_for: "links".to_owned() }),
            Response::Failed(Failure::new("no", "yes")),
            Response::Peers { peers: vec![] },
            Response::Vips { vips: vec![] },
            Response::Ordered,
            Response::Flows(FlowsReport::default()),
            Response::WouldChange { vips: vec![] },
        ] {
            let text = serde_json::to_string(&response).unwrap();
            assert_eq!(serde_json::from_str::<Response>(&text).unwrap(), response);
        }
    }
}
