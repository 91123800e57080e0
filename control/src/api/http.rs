//! Serves metrics and readiness over HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::{NodeControl, Readiness, exposition};

/// Answers `GET /metrics` (Prometheus) and `GET /ready` (200 or 503).
pub struct MetricsServer {
    listener: TcpListener,
    node: Arc<dyn NodeControl>,
}

impl MetricsServer {
    /// Listens at `address`, a port of 0 being any.
    pub async fn bind(address: SocketAddr, node: Arc<dyn NodeControl>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot serve metrics at {address}: {error}; choose another [api] metrics"),
            )
        })?;
        Ok(Self { listener, node })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped.
    pub async fn run(self) -> io::Result<()> {
        let routes = Router::new().route("/metrics", get(metrics)).route("/ready", get(ready)).with_state(self.node);
        axum::serve(self.listener, routes).await
    }
}

async fn metrics(State(node): State<Arc<dyn NodeControl>>) -> Response {
    const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, FORMAT)], exposition(&node.stats().await)).into_response()
}

async fn ready(State(node): State<Arc<dyn NodeControl>>) -> Response {
    match node.readiness().await {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::Starting { waits_for } => (StatusCode::SERVICE_UNAVAILABLE, format!("starting: {waits_for}\n")),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
    }
    .into_response()
}
