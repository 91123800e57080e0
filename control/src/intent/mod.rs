//! What the operator wants of tunnels and peers, merged from the configuration and from `wg`: pure.

mod change;
mod index;
mod tunnel;

use std::collections::BTreeMap;

use jetway_config::{Config, Secret};
use jetway_pipelines::ids::{PeerIndex, TunnelId};

use crate::uapi::{SecretChange, SetRequest, UapiError};

pub use change::{Changes, PeerChange, PeerSpec, PeerUpdate, TunnelChange};
pub use index::PeerIndices;
pub use tunnel::{Origin, PeerIntent, TunnelIntent};

/// Every tunnel and peer as it shall be.
///
/// It changes by [`Intent::reload`] and by [`Intent::set`], and each says what the engine has to do. Peers in the
/// file are as the file says after every reload; peers that only `wg` added stay until `wg` removes them or a
/// peer of the file takes their key.
#[derive(Debug, Default)]
pub struct Intent {
    tunnels: BTreeMap<String, TunnelIntent>,
    indices: PeerIndices,
}

impl Intent {
    /// No tunnels yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a configuration: the first one, or one that was loaded again.
    pub fn reload(&mut self, config: &Config) -> Changes {
        let mut changes = Changes::default();
        self.remove_missing_tunnels(config, &mut changes);
        for wanted in &config.tunnels {
            let name = wanted.name.as_str();
            if !self.tunnels.contains_key(name) {
                let id = self.free_tunnel_id();
                self.tunnels.insert(name.to_owned(), TunnelIntent::new(id, wanted));
                changes.tunnels.push(TunnelChange::Added { tunnel: id, name: name.to_owned() });
            }
            if let Some(tunnel) = self.tunnels.get_mut(name) {
                tunnel.reload(wanted, &mut self.indices, &mut changes);
            }
        }
        changes
    }

    /// Takes in a request of `wg`, all of it or, with an error, nothing.
    pub fn set(&mut self, tunnel: &str, request: SetRequest) -> Result<Changes, UapiError> {
        // Everything that can fail comes first.
        let listens_there = |other: &TunnelIntent| Some(other.listen_port()) == request.listen_port;
        if let Some((other, _)) = self.tunnels().find(|(name, other)| *name != tunnel && listens_there(other)) {
            return Err(UapiError::port_in_use(other));
        }
        let tunnel = self.tunnels.get_mut(tunnel).ok_or_else(|| UapiError::no_such_tunnel(tunnel))?;
        if request.private_key == Some(SecretChange::Clear) {
            return Err(UapiError::invalid("a tunnel of this node cannot be without a private key"));
        }
        let mut changes = Changes::default();
        tunnel.set(request, &mut self.indices, &mut changes);
        Ok(changes)
    }

    /// Gives back the number of a removed peer, once no thread knows it any more.
    pub fn release(&mut self, index: PeerIndex) {
        self.indices.release(index);
    }

    /// The tunnel of this name.
    pub fn tunnel(&self, name: &str) -> Option<&TunnelIntent> {
        self.tunnels.get(name)
    }

    /// Every tunnel, by name.
    pub fn tunnels(&self) -> impl Iterator<Item = (&str, &TunnelIntent)> {
        self.tunnels.iter().map(|(name, tunnel)| (name.as_str(), tunnel))
    }

    fn remove_missing_tunnels(&mut self, config: &Config, changes: &mut Changes) {
        self.tunnels.retain(|name, tunnel| {
            if config.tunnel(name).is_some() {
                return true;
            }
            tunnel.remove_all_peers(changes);
            changes.tunnels.push(TunnelChange::Removed { tunnel: tunnel.id() });
            false
        });
    }

    fn free_tunnel_id(&self) -> TunnelId {
        let is_taken = |id: &TunnelId| self.tunnels.values().any(|tunnel| tunnel.id() == *id);
        // The configuration has far fewer tunnels than there are numbers.
        (0..=u16::MAX).map(TunnelId).find(|id| !is_taken(id)).unwrap_or_default()
    }
}

/// Whether two optional secrets are the same; takes the same time wherever they differ.
fn is_same_secret(one: Option<&Secret>, other: Option<&Secret>) -> bool {
    one == other
}

#[cfg(test)]
mod tests;
