//! What an operator wants of one node, as types that cannot be wrong.

mod api;
mod decapsulate;
mod engine;
mod name;
mod node;
mod port;
mod tunnel;
mod vip;

pub use api::Api;
pub use decapsulate::{Decapsulate, Encapsulation};
pub use engine::{AeadChoice, Engine, Idle, Memory, MemoryKind, PuntLimit};
pub use name::{InterfaceName, Name, NameFault};
pub use node::Node;
pub use port::{Device, MacAddress, NotMacAddress, NotPciAddress, PciAddress, Port, VirtualDevice, VirtualDriver};
pub use tunnel::{Peer, PublicKey, Tunnel};
pub use vip::{AllDown, Forward, Health, HealthKind, Load, LoadSource, OnDown, Persistence, Protocol, Vip, VipBackend};

/// The checked intent of one configuration file.
///
/// A value of this type satisfies every rule that [`crate::parse`] checks: names and keys are unique where they
/// must be, networks have no host bits, limits hold. It holds secrets; they are wiped when it is dropped and never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who this node is.
    pub node: Node,
    /// Cores, memory and crypto of the packet engine.
    pub engine: Engine,
    /// The DPDK ports, in the order of the file.
    pub ports: Vec<Port>,
    /// The WireGuard interfaces, in the order of the file.
    pub tunnels: Vec<Tunnel>,
    /// The virtual services, in the order of the file.
    pub vips: Vec<Vip>,
    /// From whom packets inside others are taken, if from anybody.
    pub decapsulate: Option<Decapsulate>,
    /// Where the node's own interfaces listen.
    pub api: Api,
}

impl Config {
    /// The port of this name.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name.as_str() == name)
    }

    /// The tunnel of this name.
    pub fn tunnel(&self, name: &str) -> Option<&Tunnel> {
        self.tunnels.iter().find(|tunnel| tunnel.name.as_str() == name)
    }

    /// The virtual service of this name.
    pub fn vip(&self, name: &str) -> Option<&Vip> {
        self.vips.iter().find(|vip| vip.name.as_str() == name)
    }

    /// Every peer of this name with its tunnel: a name is unique within a tunnel only.
    pub fn peers_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Tunnel, &'a Peer)> {
        self.peers().filter(move |(_, peer)| peer.name.as_str() == name)
    }

    /// Every peer with its tunnel, in the order of the file.
    pub fn peers(&self) -> impl Iterator<Item = (&Tunnel, &Peer)> {
        self.tunnels.iter().flat_map(|tunnel| tunnel.peers.iter().map(move |peer| (tunnel, peer)))
    }

    /// The smallest MTU of all ports in bytes, or `None` without ports.
    pub fn smallest_port_mtu(&self) -> Option<u16> {
        self.ports.iter().map(|port| port.mtu).min()
    }
}
