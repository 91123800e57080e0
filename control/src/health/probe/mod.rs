//! Asks a server whether it lives, over ordinary sockets: through the kernel's tables and the twins, as users' packets go.
//!
//! A probe asks for liveness, not for identity: an HTTPS certificate is not verified, so that a server whose certificate
//! expired, or names the service and not the server's address, is not taken out of service for it.

mod agent;
mod http;
mod icmp;
mod load;
mod tcp;
mod tls;
mod udp;
mod wireguard;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jetway_config::{Health, HealthKind, Load, LoadSource, PublicKey};

use icmp::Pinger;
use tls::Connector;
use wireguard::Handshake;

/// What a probe asks of whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server's address.
    pub address: IpAddr,
    /// The port to ask at; without meaning for ICMP.
    pub port: u16,
    /// What is asked.
    pub question: Question,
    /// Where the server says how busy it is, if it does.
    pub load: Option<LoadQuestion>,
}

/// Where a server says how busy it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoadQuestion {
    /// In this header field of its answers.
    Header(Arc<str>),
    /// To who connects to this TCP port.
    Agent(u16),
}

/// What a server that lives answered.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Answer {
    /// How long it took.
    pub took: Duration,
    /// How busy the server says it is, from 0 to 1.
    pub load: Option<f64>,
}

/// What a probe asks.
#[derive(Clone, Debug)]
pub enum Question {
    /// An ICMP echo.
    Icmp,
    /// A TCP connection.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An HTTP request.
    Http {
        /// Its path.
        path: Arc<str>,
    },
    /// An HTTPS request.
    Https {
        /// Its path.
        path: Arc<str>,
    },
    /// A WireGuard handshake.
    WireGuard(Arc<Handshake>),
}

/// Why a server is not taken to live.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nothing came.
    #[error("no answer in {0:?}")]
    Timeout(Duration),
    /// The server, or a router before it, says that there is nobody.
    #[error("{0}")]
    Refused(String),
    /// Its HTTP answer is not of the 200s or 300s.
    #[error("HTTP status {0}")]
    Status(u16),
    /// What came is no HTTP answer.
    #[error("the answer is not HTTP")]
    NotHttp,
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(String),
    /// The node could not ask: it says nothing about the server.
    #[error("the node could not ask: {0}")]
    Own(String),
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EPERM | libc::EACCES) => {
                Self::Own(error.to_string())
            }
            _ => Self::Refused(describe(&error)),
        }
    }
}

/// The system's words without its number.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    words.to_lowercase()
}

impl Target {
    /// The probe of a server that listens at `port`, as `health` says. `gateway_key` is the key that the gateways of a
    /// WireGuard service share.
    pub fn new(
        health: &Health,
        load: Option<&Load>,
        gateway_key: Option<&PublicKey>,
        address: IpAddr,
        port: u16,
    ) -> Result<Self, wireguard::Unusable> {
        let question = match &health.kind {
            HealthKind::Icmp => Question::Icmp,
            HealthKind::Tcp => Question::Tcp,
            HealthKind::Udp => Question::Udp,
            HealthKind::Http { path } => Question::Http { path: path.as_str().into() },
            HealthKind::Https { path } => Question::Https { path: path.as_str().into() },
            HealthKind::WireGuard { private_key } => {
                let gateway = gateway_key.ok_or(wireguard::Unusable)?;
                Question::WireGuard(Arc::new(Handshake::new(private_key, gateway)?))
            }
        };
        let load = load.map(|load| match &load.from {
            LoadSource::Header { name } => LoadQuestion::Header(name.as_str().into()),
            LoadSource::Agent { port } => LoadQuestion::Agent(*port),
        });
        Ok(Self { address, port: health.port.unwrap_or(port), question, load })
    }

    fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// Everything that probes share.
pub struct Prober {
    pinger: Pinger,
    tls: Connector,
}

impl Prober {
    /// For the network namespace of the calling thread. Must be called on a tokio runtime.
    pub fn open() -> Result<Self, ProbeError> {
        Ok(Self { pinger: Pinger::new(), tls: Connector::new()? })
    }

    /// Asks `target`, and says what it answered. Never takes longer than `timeout`.
    ///
    /// Datagrams that are answered by silence count as arrived: only an error from the network or the server fails.
    pub async fn ask(&self, target: &Target, timeout: Duration) -> Result<Answer, ProbeError> {
        let begun = Instant::now();
        let to = target.socket_address();
        let field = match &target.load {
            Some(LoadQuestion::Header(name)) => Some(&**name),
            Some(LoadQuestion::Agent(_)) | None => None,
        };
        let answer = async {
            match &target.question {
                Question::Icmp => self.pinger.echo(target.address).await.map(|()| None),
                Question::Tcp => tcp::connect(to).await.map(|_| None),
                Question::Udp => udp::ask(to).await.map(|()| None),
                Question::Http { path } => http::get(tcp::connect_to_speak(to).await?, to, path, field).await,
                // What these need is on the heap, so that every other probe does without: a task is moved as a whole.
                Question::Https { path } => Box::pin(self.ask_https(to, path, field)).await,
                Question::WireGuard(handshake) => Box::pin(handshake.ask(to)).await.map(|()| None),
            }
        };
        let load = match (tokio::time::timeout(timeout, answer).await, &target.question) {
            (Ok(answer), _) => answer?,
            (Err(_), Question::Udp) => None,
            (Err(_), _) => return Err(ProbeError::Timeout(timeout)),
        };
        let took = begun.elapsed();
        let Some(LoadQuestion::Agent(port)) = target.load else { return Ok(Answer { took, load }) };
        // An agent that does not answer says nothing about the server's life.
        let agent = Box::pin(agent::ask(SocketAddr::new(target.address, port)));
        let said = tokio::time::timeout(timeout.saturating_sub(took), agent).await;
        Ok(Answer { took, load: said.ok().and_then(Result::ok).flatten() })
    }

    async fn ask_https(&self, to: SocketAddr, path: &str, field: Option<&str>) -> Result<Option<f64>, ProbeError> {
        let stream = tcp::connect_to_speak(to).await?;
        // The request must not wait for the acknowledgement of what ends the TLS handshake.
        stream.set_nodelay(true)?;
        http::get(self.tls.connect(stream, to.ip()).await?, to, path, field).await
    }
}

#[cfg(test)]
mod tests;
