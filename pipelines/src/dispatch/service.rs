//! Virtual services as workers look them up: by what a client's packet is for, and by what a server's packet is from.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::backend::Backend;
use super::flow_table::{FlowKey, address_bytes};
use super::maglev::Maglev;
use super::selection::SelectionHasher;
use crate::ids::{BackendIndex, NodeId};
use crate::packet::{Parsed, Ports, Protocol};
use crate::wireguard::cookie::CookieChecker;
use jetway_config::{AllDown, Encapsulation, Forward, OnDown, Persistence};

/// An address, a port and what is spoken there: UDP or TCP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Socket {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A service with its servers: all of its parts, and what is found by them.
#[derive(Debug)]
pub struct Service {
    parts: ServiceParts,
    positions: HashMap<BackendIndex, u16, ahash::RandomState>,
}

/// What a service is made of.
#[derive(Debug)]
pub struct ServiceParts {
    /// Where clients find it.
    pub socket: Socket,
    /// Whose packets stay at one server.
    pub persistence: Persistence,
    /// How packets get to a server.
    pub forward: Forward,
    /// What becomes of the flows of a server that went down.
    pub on_down: OnDown,
    /// What is done while no server is up.
    pub all_down: AllDown,
    /// The servers, in the order of the table's positions; at most 65,535.
    pub servers: Box<[Arc<Backend>]>,
    /// Which server a hash belongs to.
    pub table: Maglev,
    /// What is known of the servers if they are gateways of a tunnel.
    pub gateways: Option<Gateways>,
}

impl Deref for Service {
    type Target = ServiceParts;

    #[inline]
    fn deref(&self) -> &ServiceParts {
        &self.parts
    }
}

/// What a service of protocol "wireguard" knows of its servers.
#[derive(Debug)]
pub struct Gateways {
    /// Checks mac1 and mac2 of handshake messages by the gateways' shared key.
    pub checker: Arc<CookieChecker>,
    /// The position of each node.
    pub nodes: HashMap<NodeId, u16, ahash::RandomState>,
}

impl Service {
    /// The position of a server; `guess` is where it was the last time.
    #[inline]
    pub fn position(&self, server: BackendIndex, guess: u16) -> Option<u16> {
        match self.servers.get(usize::from(guess)) {
            Some(known) if known.index == server => Some(guess),
            Some(_) | None => self.positions.get(&server).copied(),
        }
    }

    /// The server at a position.
    #[inline]
    pub fn server(&self, position: u16) -> Option<&Arc<Backend>> {
        self.servers.get(usize::from(position))
    }
}

impl From<ServiceParts> for Service {
    fn from(parts: ServiceParts) -> Self {
        let positions = (0..).zip(&parts.servers).map(|(position, server)| (server.index, position)).collect();
        Self { parts, positions }
    }
}

/// All services of the node: one immutable snapshot.
#[derive(Debug, Default)]
pub struct Services {
    list: Vec<Arc<Service>>,
    by_socket: HashMap<Socket, u32, ahash::RandomState>,
    /// Servers to which a service forwards by NAT: what they send is from the service.
    translated: HashMap<Socket, (u32, u16), ahash::RandomState>,
    addresses: HashSet<IpAddr, ahash::RandomState>,
    /// The service and position of each server.
    servers: HashMap<BackendIndex, (u32, u16), ahash::RandomState>,
    /// A server at each address to which a service sends packets inside others, by how it does.
    encapsulated: HashMap<(IpAddr, Encapsulation), (u32, u16), ahash::RandomState>,
    hasher: SelectionHasher,
}

impl Services {
    /// The snapshot of these services. `hash_key` is the same on all nodes that dispatch for the same clients, so that
    /// they agree.
    pub fn new(list: Vec<Arc<Service>>, hash_key: [u64; 2]) -> Self {
        let numbered = || (0u32..).zip(&list);
        let translated =
            numbered().filter(|(_, service)| service.forward == Forward::Nat).flat_map(|(number, service)| {
                (0..).zip(&service.servers).map(move |(position, server)| {
                    let socket =
                        Socket { address: server.address, port: server.port, protocol: service.socket.protocol };
                    (socket, (number, position))
                })
            });
        Self {
            by_socket: numbered().map(|(number, service)| (service.socket, number)).collect(),
            translated: translated.collect(),
            encapsulated: numbered()
                .filter_map(|(number, service)| Some((number, service, service.forward.encapsulation()?)))
                .flat_map(|(number, service, kind)| {
                    let place =
                        move |(position, server): (u16, &Arc<Backend>)| ((server.address, kind), (number, position));
                    (0..).zip(&service.servers).map(place)
                })
                .collect(),
            servers: numbered()
                .flat_map(|(number, service)| {
                    (0..).zip(&service.servers).map(move |(position, server)| (server.index, (number, position)))
                })
                .collect(),
            addresses: list.iter().map(|service| service.socket.address).collect(),
            list,
            hasher: SelectionHasher::new(hash_key),
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether any service forwards by NAT.
    #[inline]
    pub fn translates(&self) -> bool {
        !self.translated.is_empty()
    }

    /// Whether an address is some service's.
    #[inline]
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Every service.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.list.iter()
    }

    /// The service that answers at a socket.
    #[inline]
    pub fn at(&self, socket: &Socket) -> Option<&Arc<Service>> {
        self.list.get(*self.by_socket.get(socket)? as usize)
    }

    /// The service and server whose packets come from a socket, rewritten by NAT.
    #[inline]
    pub fn behind(&self, server: &Socket) -> Option<(&Arc<Service>, &Arc<Backend>)> {
        let (number, position) = self.translated.get(server)?;
        let service = self.list.get(*number as usize)?;
        Some((service, service.server(*position)?))
    }

    /// Whether any service sends packets inside others.
    #[inline]
    pub fn encapsulates(&self) -> bool {
        !self.encapsulated.is_empty()
    }

    /// A server at an address to which a service forwards in this way, inside other packets.
    pub fn encapsulated(&self, address: IpAddr, kind: Encapsulation) -> Option<&Backend> {
        let (number, position) = self.encapsulated.get(&(address, kind))?;
        Some(self.list.get(*number as usize)?.server(*position)?.as_ref())
    }

    /// The server of this number.
    pub fn server(&self, index: BackendIndex) -> Option<&Backend> {
        let (number, position) = self.servers.get(&index)?;
        Some(self.list.get(*number as usize)?.server(*position)?.as_ref())
    }

    /// The hash by which a packet's flow is given to a server.
    pub fn flow_hash(&self, packet: &Parsed) -> u64 {
        let ports = packet.ports.unwrap_or(Ports { source: 0, destination: 0 });
        let ends = (address_bytes(packet.source), address_bytes(packet.destination));
        self.hash_of_flow(ends, ports, packet.protocol)
    }

    /// The same by the flow's key.
    #[inline]
    pub fn flow_hash_of(&self, key: &FlowKey) -> u64 {
        let ports = Ports { source: key.source_port, destination: key.destination_port };
        self.hash_of_flow((key.source, key.destination), ports, key.protocol)
    }

    #[inline]
    fn hash_of_flow(&self, (from, to): ([u8; 16], [u8; 16]), ports: Ports, protocol: Protocol) -> u64 {
        let mut bytes = [0; 40];
        let (addresses, rest) = bytes.split_at_mut(32);
        let (source, destination) = addresses.split_at_mut(16);
        source.copy_from_slice(&from);
        destination.copy_from_slice(&to);
        // At once: reading bytes that were just written one by one has to wait for each of them.
        let ([s0, s1], [d0, d1]) = (ports.source.to_be_bytes(), ports.destination.to_be_bytes());
        rest.copy_from_slice(&u64::from_le_bytes([protocol.0, s0, s1, d0, d1, 0, 0, 0]).to_le_bytes());
        self.hasher.hash(bytes.first_chunk::<37>().unwrap_or(&[0; 37]))
    }

    /// The hash by which a client in clear is given to a server, whatever its port.
    pub fn address_hash(&self, client: IpAddr) -> u64 {
        self.hasher.hash(&address_bytes(client))
    }

    /// The hash by which a tunnel's peer is given to a server, wherever it is.
    pub fn peer_hash(&self, public_key: &[u8; 32]) -> u64 {
        self.hasher.hash(public_key)
    }
}
