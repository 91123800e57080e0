//! Everybody's way to ask the node: each question is done by the node's task, one after the other.

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::Node;
use crate::api::{
    BackendOrder, DryRun, ExplainQuery, ExplainReport, Failure, FlowsQuery, FlowsReport, NodeControl, PeerReport,
    PeersQuery, Readiness, Reloaded, StatsReport, VipChange, VipReport, VipsQuery,
};
use crate::uapi::{SetRequest, TunnelControl, TunnelStatus, UapiError};

/// Requests that wait for the node.
const REQUESTS: usize = 64;

/// Something that the node is to do between its other work.
pub(super) type Action = Box<dyn FnOnce(&mut Node) + Send>;

/// Everybody's way to ask the node.
#[derive(Clone)]
pub struct NodeHandle {
    requests: mpsc::Sender<Action>,
}

impl NodeHandle {
    /// A handle, and what is asked through it and its copies.
    pub(super) fn new() -> (Self, mpsc::Receiver<Action>) {
        let (requests, requested) = mpsc::channel(REQUESTS);
        (Self { requests }, requested)
    }

    /// Has `action` done by the node's task; `None` when the node has ended.
    async fn ask<R: Send + 'static>(&self, action: impl FnOnce(&mut Node) -> R + Send + 'static) -> Option<R> {
        let (reply, answer) = oneshot::channel();
        let action: Action = Box::new(move |node| {
            // The asker may have gone away; what was asked is done all the same.
            let _ = reply.send(action(node));
        });
        self.requests.send(action).await.ok()?;
        answer.await.ok()
    }
}

fn stopping() -> Failure {
    Failure::new("the node is stopping", "start it again")
}

impl NodeControl for NodeHandle {
    fn stats(&self) -> BoxFuture<'_, StatsReport> {
        async {
            let asked = self.ask(|node| (node.stats(), node.vip_reports(&VipsQuery::default()))).await;
            let Some((mut stats, vips)) = asked else { return StatsReport::default() };
            if let Ok(vips) = vips {
                stats.vips = vips.complete().await;
            }
            stats
        }
        .boxed()
    }

    fn peers(&self, query: PeersQuery) -> BoxFuture<'_, Result<Vec<PeerReport>, Failure>> {
        async move { self.ask(move |node| node.peer_reports(&query)).await.unwrap_or_else(|| Err(stopping())) }.boxed()
    }

    fn vips(&self, query: VipsQuery) -> BoxFuture<'_, Result<Vec<VipReport>, Failure>> {
        async move {
            let asked = self.ask(move |node| node.vip_reports(&query)).await;
            Ok(asked.unwrap_or_else(|| Err(stopping()))?.complete().await)
        }
        .boxed()
    }

    fn order_backend(&self, order: BackendOrder) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let outcome = self.ask(move |node| node.services.order(&order, node.engine.clock.now())).await;
            outcome.unwrap_or_else(|| Err(stopping()))
        }
        .boxed()
    }

    fn flows(&self, query: FlowsQuery) -> BoxFuture<'_, Result<FlowsReport, Failure>> {
        async move {
            let asked = self.ask(move |node| node.ask_for_flows(&query)).await.unwrap_or_else(|| Err(stopping()))?;
            let found = asked.await.map_err(|_| stopping())?;
            self.ask(|node| node.flows_report(found)).await.ok_or_else(stopping)
        }
        .boxed()
    }

    fn explain(&self, query: ExplainQuery) -> BoxFuture<'_, Result<ExplainReport, Failure>> {
        async move {
            let begun =
                self.ask(move |node| node.begin_explanation(&query)).await.unwrap_or_else(|| Err(stopping()))?;
            let remembered = begun.wait().await;
            self.ask(move |node| node.explain_report(&remembered)).await.ok_or_else(stopping)
        }
        .boxed()
    }

    fn dry_run(&self, order: DryRun) -> BoxFuture<'_, Result<Vec<VipChange>, Failure>> {
        async move {
            let begun = self.ask(move |node| node.begin_dry_run(&order.path)).await;
            begun.unwrap_or_else(|| Err(stopping()))?.complete().await
        }
        .boxed()
    }

    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, Failure>> {
        async {
            let asked = self.ask(|node| (node.reload(), node.dispatch.settled())).await;
            let (report, settled) = asked.ok_or_else(stopping)?;
            // Clients may use a new service as soon as the operator knows that it is there.
            let _ = settled.await;
            report
        }
        .boxed()
    }

    fn drain(&self) -> BoxFuture<'_, Result<(), Failure>> {
        async { self.ask(Node::drain).await.ok_or_else(stopping) }.boxed()
    }

    fn readiness(&self) -> BoxFuture<'_, Readiness> {
        let stopping = || Readiness::Starting { waits_for: "nothing any more: it is stopping".to_owned() };
        async move { self.ask(|node| node.readiness()).await.unwrap_or_else(stopping) }.boxed()
    }
}

impl TunnelControl for NodeHandle {
    fn status<'a>(&'a self, tunnel: &'a str) -> BoxFuture<'a, Result<TunnelStatus, UapiError>> {
        let name = tunnel.to_owned();
        async move {
            let status = self.ask(move |node| node.tunnel_status(&name)).await;
            status.unwrap_or_else(|| Err(UapiError::no_such_tunnel(tunnel)))
        }
        .boxed()
    }

    fn apply<'a>(&'a self, tunnel: &'a str, request: SetRequest) -> BoxFuture<'a, Result<(), UapiError>> {
        let name = tunnel.to_owned();
        async move {
            let outcome = self.ask(move |node| node.set(&name, request)).await;
            outcome.unwrap_or_else(|| Err(UapiError::no_such_tunnel(tunnel)))
        }
        .boxed()
    }
}
