use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpStream;

use super::*;
use crate::api::client::{ApiError, ask};
use crate::api::{
    BackendAction, BackendOrder, DryRun, ExplainQuery, ExplainReport, FlowsAction, FlowsFilter, FlowsQuery,
    FlowsReport, MetricsServer, PeerReport, PeersQuery, Readiness, Reloaded, StatsReport, VipChange, VipReport,
    VipsQuery,
};

/// A node that only answers.
struct Answers;

impl NodeControl for Answers {
    fn stats(&self) -> BoxFuture<'_, StatsReport> {
        std::future::ready(StatsReport { node: "edge-1".to_owned(), ..StatsReport::default() }).boxed()
    }

    fn peers(&self, query: PeersQuery) -> BoxFuture<'_, Result<Vec<PeerReport>, Failure>> {
        let result = match query.tunnel {
            None => Ok(vec![]),
            Some(tunnel) => Err(Failure::new(format!("there is no tunnel {tunnel}"), "see jetway stats")),
        };
        std::future::ready(result).boxed()
    }

    fn vips(&self, query: VipsQuery) -> BoxFuture<'_, Result<Vec<VipReport>, Failure>> {
        let result = match query.name {
            None => Ok(vec![]),
            Some(name) => Err(Failure::new(format!("there is no service {name}"), "see jetway vips")),
        };
        std::future::ready(result).boxed()
    }

    fn flows(&self, query: FlowsQuery) -> BoxFuture<'_, Result<FlowsReport, Failure>> {
        assert_eq!((query.action, query.filter.vip.as_deref()), (FlowsAction::Flush, Some("erp")));
        std::future::ready(Ok(FlowsReport { total: 7, ..FlowsReport::default() })).boxed()
    }

    fn explain(&self, query: ExplainQuery) -> BoxFuture<'_, Result<ExplainReport, Failure>> {
        std::future::ready(Err(Failure::new(format!("{} is no packet", query.packet), "write another"))).boxed()
    }

    fn dry_run(&self, order: DryRun) -> BoxFuture<'_, Result<Vec<VipChange>, Failure>> {
        assert!(order.path.is_absolute());
        std::future::ready(Ok(vec![])).boxed()
    }

    fn order_backend(&self, order: BackendOrder) -> BoxFuture<'_, Result<(), Failure>> {
        assert_eq!(order.action, BackendAction::Drain);
        std::future::ready(Ok(())).boxed()
    }

    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, Failure>> {
        std::future::ready(Ok(Reloaded { peers_added: 2, ..Reloaded::default() })).boxed()
    }

    fn drain(&self) -> BoxFuture<'_, Result<(), Failure>> {
        std::future::ready(Ok(())).boxed()
    }

    fn readiness(&self) -> BoxFuture<'_, Readiness> {
        std::future::ready(Readiness::Starting { waits_for: "links".to_owned() }).boxed()
    }
}

async fn asked(path: &Path, request: Request) -> Result<Response, ApiError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || ask(&path, &request)).await.unwrap()
}

#[tokio::test]
async fn every_request_gets_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.sock");
    let server = tokio::spawn(ApiServer::bind(&path, Arc::new(Answers)).unwrap().run());
    let Response::Stats(stats) = asked(&path, Request::Stats).await.unwrap() else { panic!("stats") };
    assert_eq!(stats.node, "edge-1");
    let vips = asked(&path, Request::Vips(VipsQuery::default())).await.unwrap();
    assert_eq!(vips, Response::Vips { vips: vec![] });
    let order = BackendOrder {
        service: "erp".to_owned(),
        backend: "erp-1".to_owned(),
        action: BackendAction::Drain,
        deadline_seconds: None,
    };
    assert_eq!(asked(&path, Request::Backend(order)).await.unwrap(), Response::Ordered);
    let flush = FlowsFilter { vip: Some("erp".to_owned()), ..FlowsFilter::default() };
    let flush = Request::Flows(FlowsQuery { filter: flush, action: FlowsAction::Flush });
    let Response::Flows(flushed) = asked(&path, flush).await.unwrap() else { panic!("flows") };
    assert_eq!(flushed.total, 7);
    let dry_run = Request::DryRun(DryRun { path: "/new.toml".into() });
    assert_eq!(asked(&path, dry_run).await.unwrap(), Response::WouldChange { vips: vec![] });
    let explain = Request::Explain(ExplainQuery { packet: "x".to_owned(), from: None });
    let ApiError::Failed(failure) = asked(&path, explain).await.unwrap_err() else { panic!("no packet") };
    assert!(failure.message.contains("x is no packet"), "{failure:?}");
    let peers = asked(&path, Request::Peers(PeersQuery::default())).await.unwrap();
    assert_eq!(peers, Response::Peers { peers: vec![] });
    let reloaded = asked(&path, Request::Reload).await.unwrap();
    assert_eq!(reloaded, Response::Reloaded(Reloaded { peers_added: 2, ..Reloaded::default() }));
    assert_eq!(asked(&path, Request::Drain).await.unwrap(), Response::Draining);
    assert!(matches!(asked(&path, Request::Ready).await.unwrap(), Response::Readiness(Readiness::Starting { .. })));
    let query = PeersQuery { tunnel: Some("jw7".to_owned()), name: None };
    let error = asked(&path, Request::Peers(query)).await.unwrap_err();
    assert!(matches!(&error, ApiError::Failed(failure) if failure.message.contains("jw7")), "{error}");
    server.abort();
    let _ = server.await;
    let error = asked(&path, Request::Stats).await.unwrap_err();
    assert!(error.to_string().contains("is it running?"), "{error}");
}

#[tokio::test]
async fn nonsense_is_answered_and_the_connection_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.sock");
    let server = tokio::spawn(ApiServer::bind(&path, Arc::new(Answers)).unwrap().run());
    let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
    for (request, answer) in [("what?\n", "\"failed\""), ("{\"request\":\"drain\"}\n", "\"draining\"")] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.contains(answer), "{line}");
    }
    server.abort();
}

#[tokio::test]
async fn metrics_and_readiness_are_served_over_http() {
    let server = MetricsServer::bind("127.0.0.1:0".parse().unwrap(), Arc::new(Answers)).await.unwrap();
    let address = server.address().unwrap();
    let task = tokio::spawn(server.run());
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let metrics = get("/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("jetway_info{node=\"edge-1\""), "{metrics}");
    let ready = get("/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("starting: links"), "{ready}");
    assert!(get("/").await.starts_with("HTTP/1.1 404"));
    task.abort();
}
