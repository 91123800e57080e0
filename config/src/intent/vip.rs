//! Virtual services and the servers behind them.

use std::net::IpAddr;
use std::time::Duration;

use super::{Encapsulation, Name, PublicKey};
use crate::secret::Secret;

/// One virtual service: an address and port that many servers answer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The service's name, unique in the node.
    pub name: Name,
    /// The address that clients use.
    pub address: IpAddr,
    /// The port that clients use; never 0.
    pub port: u16,
    /// What clients speak.
    pub protocol: Protocol,
    /// Whose packets stay at one server.
    pub persistence: Persistence,
    /// How packets get to the server.
    pub forward: Forward,
    /// How servers are probed; `None`: they are taken to be up.
    pub health: Option<Health>,
    /// How servers say how busy they are; `None`: their weights stay as the file says.
    pub load: Option<Load>,
    /// What becomes of the flows of a server that went down.
    pub on_down: OnDown,
    /// What is done while no server is up.
    pub all_down: AllDown,
    /// Slots of the Maglev table: a prime.
    pub table_size: u32,
    /// The public key that all gateways share; present exactly when `protocol` is WireGuard.
    pub public_key: Option<PublicKey>,
    /// The servers, in the order of the file; never empty.
    pub backends: Vec<VipBackend>,
}

/// One server of a virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipBackend {
    /// The server's name, unique in its service.
    pub name: Name,
    /// The server's address.
    pub address: IpAddr,
    /// The server's port: the service's own unless forwarding is NAT and the file says otherwise.
    pub port: u16,
    /// The server's share relative to the others, 1 to 1000.
    pub weight: u16,
    /// The gateway's node number; present exactly when the service's `protocol` is WireGuard.
    pub node: Option<u8>,
}

/// What clients of a service speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// WireGuard over UDP, dispatched to gateways by receiver index.
    WireGuard,
}

/// Whose packets stay at one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// Those of one flow (addresses, ports, protocol).
    Flow,
    /// Those of one client: its source address, or inside a tunnel its peer.
    Client,
}

/// How packets get to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Addresses and ports are rewritten, and back on the way back.
    Nat,
    /// Only the MAC address is rewritten; the server bears the VIP and answers directly.
    L2,
    /// IP in IP (RFC 2003, RFC 2473).
    Ipip,
    /// GRE (RFC 2784).
    Gre,
    /// GUE (draft-ietf-intarea-gue), variant 1.
    Gue,
}

impl Forward {
    /// What packets are put into on their way, if they are.
    pub const fn encapsulation(self) -> Option<Encapsulation> {
        match self {
            Self::Nat | Self::L2 => None,
            Self::Ipip => Some(Encapsulation::Ipip),
            Self::Gre => Some(Encapsulation::Gre),
            Self::Gue => Some(Encapsulation::Gue),
        }
    }
}

/// How the servers of a service are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub kind: HealthKind,
    /// The time from one probe to the next.
    pub interval: Duration,
    /// The time after which a probe has failed; at most `interval`.
    pub timeout: Duration,
    /// Failures in a row that make a server down.
    pub fall: u8,
    /// Successes in a row that make it up again.
    pub rise: u8,
    /// The port to probe; `None`: the server's own.
    pub port: Option<u16>,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// An ICMP echo.
    Icmp,
    /// A TCP connection.
    Tcp,
    /// A UDP datagram; a port-unreachable answer is a failure.
    Udp,
    /// An HTTP request.
    Http {
        /// The path of the request.
        path: String,
    },
    /// An HTTPS request.
    Https {
        /// The path of the request.
        path: String,
    },
    /// A WireGuard handshake.
    WireGuard {
        /// The key by which the gateways know the prober: they have its public key as a peer.
        private_key: Secret,
    },
}

/// How the servers of a service say how busy they are, so that busy ones get fewer new flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Where they say it.
    pub from: LoadSource,
    /// Slots of the table that may lead to another server on account of it, in any minute.
    pub slots_per_minute: u32,
}

/// Where a server says how busy it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadSource {
    /// In a header field of its answers to HTTP probes: `0.73` or `73%` is how busy it is.
    Header {
        /// The field's name.
        name: String,
    },
    /// In a line that it sends to who connects to a TCP port, as to HAProxy's `agent-check`: `27%` is the share of its
    /// weight that it can take.
    Agent {
        /// The port.
        port: u16,
    },
}

/// What becomes of the flows of a server that went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnDown {
    /// Datagrams and new connections go to another server.
    Move,
    /// TCP connections are reset, so that clients connect anew at once.
    Reset,
}

/// What is done while no server of a service is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllDown {
    /// Packets go to all servers as if they were up.
    Serve,
    /// Packets are refused by ICMP.
    Refuse,
}

impl Vip {
    /// Slots of a Maglev table when the file says nothing.
    pub const DEFAULT_TABLE_SIZE: u32 = 65_537;
}

impl Load {
    /// The field of HTTP answers when the file says nothing.
    pub const DEFAULT_HEADER: &str = "X-Load";

    /// The budget when the file says nothing: one slot in a hundred.
    pub const fn default_budget(table_size: u32) -> u32 {
        table_size.div_ceil(100)
    }
}

impl Health {
    /// The time between probes when the file says nothing.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
    /// A probe's time when the file says nothing.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
    /// Failures to "down" when the file says nothing.
    pub const DEFAULT_FALL: u8 = 3;
    /// Successes to "up" when the file says nothing.
    pub const DEFAULT_RISE: u8 = 2;
}
