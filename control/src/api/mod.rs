//! The node's own interfaces: a local socket for the command line, and Prometheus metrics.
//!
//! The node implements [`NodeControl`]. On the local socket each request is a line of JSON ([`Request`]) and so is
//! its answer ([`Response`]).

pub mod client;
mod dry_run;
mod explanation;
mod exposition;
mod flow_report;
mod http;
mod message;
mod report;
mod server;
mod vip_report;

use futures::future::BoxFuture;

pub use client::ApiError;
pub use dry_run::{BackendChange, Change, DryRun, VipChange};
pub use explanation::{BackendExplanation, ExplainQuery, ExplainReport, HandshakeExplanation, ServiceExplanation};
pub use exposition::exposition;
pub use flow_report::{FlowCount, FlowReport, FlowsAction, FlowsFilter, FlowsQuery, FlowsReport};
pub use http::MetricsServer;
pub use message::{Failure, PeersQuery, Readiness, Reloaded, Request, Response};
pub use report::{
    Count, CountKind, LoadReport, PeerReport, PortLoadReport, PortLossReport, PortReport, StatsReport, TunnelReport,
    WorkerReport,
};
pub use server::ApiServer;
pub use vip_report::{BackendAction, BackendOrder, BackendReport, LatencyReport, ProbeReport, VipReport, VipsQuery};

/// What the interfaces need of the node.
pub trait NodeControl: Send + Sync {
    /// Everything that is counted.
    fn stats(&self) -> BoxFuture<'_, StatsReport>;
    /// The peers that `query` asks for, by tunnel and then by name or key.
    fn peers(&self, query: PeersQuery) -> BoxFuture<'_, Result<Vec<PeerReport>, Failure>>;
    /// Reads the configuration again and carries out what is different; on an error nothing changes.
    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, Failure>>;
    /// Stops taking new sessions, keeps those that are there.
    fn drain(&self) -> BoxFuture<'_, Result<(), Failure>>;
    /// The virtual services that `query` asks for, by name.
    fn vips(&self, query: VipsQuery) -> BoxFuture<'_, Result<Vec<VipReport>, Failure>>;
    /// The flows that `query` asks for.
    fn flows(&self, query: FlowsQuery) -> BoxFuture<'_, Result<FlowsReport, Failure>>;
    /// What would happen to a packet; changes nothing.
    fn explain(&self, query: ExplainQuery) -> BoxFuture<'_, Result<ExplainReport, Failure>>;
    /// What a configuration would move; changes nothing.
    fn dry_run(&self, order: DryRun) -> BoxFuture<'_, Result<Vec<VipChange>, Failure>>;
    /// Does with a server what its operator wants.
    fn order_backend(&self, order: BackendOrder) -> BoxFuture<'_, Result<(), Failure>>;
    /// Whether the node carries traffic.
    fn readiness(&self) -> BoxFuture<'_, Readiness>;
}
