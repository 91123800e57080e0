//! Virtual services in a node's configuration, as an operator writes them.

use std::fmt::Write as _;

/// How packets get to a server, in the configuration's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Addresses and ports are rewritten.
    Nat,
    /// The MAC address is rewritten; the server bears the service's address.
    L2,
    /// IP in IP.
    Ipip,
    /// GRE.
    Gre,
    /// GUE, variant 1.
    Gue,
}

impl Forward {
    /// The configuration's word.
    pub fn word(self) -> &'static str {
        match self {
            Forward::Nat => "nat",
            Forward::L2 => "l2",
            Forward::Ipip => "ipip",
            Forward::Gre => "gre",
            Forward::Gue => "gue",
        }
    }
}

/// One `[[vip]]`.
#[derive(Clone)]
pub struct VipConfig {
    /// Its name.
    pub name: String,
    /// The address that clients use.
    pub address: String,
    /// The port that clients use.
    pub port: u16,
    /// `tcp`, `udp` or `wireguard`.
    pub protocol: &'static str,
    /// How packets get to a server.
    pub forward: Forward,
    /// Its servers.
    pub backends: Vec<BackendConfig>,
    /// More lines: persistence, health.
    pub more: Vec<String>,
}

/// One `[[vip.backend]]`.
#[derive(Clone)]
pub struct BackendConfig {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its share.
    pub weight: u32,
    /// The gateway's node number.
    pub node: Option<u32>,
}

impl VipConfig {
    /// The text of its section.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut line = |line: &str| writeln!(text, "{line}").expect("a string takes any line");
        line(&format!("\n[[vip]]\nname = \"{}\"\naddress = \"{}\"\nport = {}", self.name, self.address, self.port));
        line(&format!("protocol = \"{}\"\nforward = \"{}\"", self.protocol, self.forward.word()));
        self.more.iter().for_each(|more| line(more));
        for backend in &self.backends {
            line(&format!("\n[[vip.backend]]\nname = \"{}\"\naddress = \"{}\"", backend.name, backend.address));
            line(&format!("weight = {}", backend.weight));
            if let Some(node) = backend.node {
                line(&format!("node = {node}"));
            }
        }
        text
    }
}
