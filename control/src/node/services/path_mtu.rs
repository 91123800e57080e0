//! How long packets to servers may be, as routers on the way said.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jetway_config::Forward;
use jetway_pipelines::dispatch::Backend;
use jetway_pipelines::path::PathMtu;
use jetway_pipelines::time::Instant;

use super::Services;

/// After this long a way may carry more again (RFC 1191 section 6.3, RFC 8201 section 4).
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// When what is known of the ways to servers is forgotten, by the servers' addresses: at most as many as there are servers.
#[derive(Clone, Debug, Default)]
pub(super) struct PathMtus(pub(super) BTreeMap<IpAddr, Instant>);

impl Services {
    /// Takes note of what the way to a server carries, for all services that send packets inside others to it.
    pub fn learn_path_mtu(&mut self, told: PathMtu, now: Instant) {
        let mut is_server = false;
        for (forward, backend) in self.backends_at(told.server) {
            if matches!(forward, Forward::Nat | Forward::L2) {
                continue;
            }
            is_server = true;
            if told.mtu < backend.path_mtu() {
                backend.set_path_mtu(Some(told.mtu));
            }
        }
        if is_server {
            tracing::info!(server = %told.server, mtu = told.mtu, "the way to a server carries less than its route says");
            self.path_mtus.0.insert(told.server, now + FORGET_AFTER);
        }
    }

    /// Forgets what was learned long ago.
    pub fn forget_path_mtus(&mut self, now: Instant) {
        while let Some(address) = self.path_mtus.0.iter().find_map(|(address, due)| (*due <= now).then_some(*address)) {
            self.path_mtus.0.remove(&address);
            self.backends_at(address).for_each(|(_, backend)| backend.set_path_mtu(None));
        }
    }

    fn backends_at(&self, address: IpAddr) -> impl Iterator<Item = (Forward, &Backend)> {
        self.running
            .values()
            .flat_map(|service| {
                service.servers.iter().map(move |server| (service.vip.forward, server.backend.as_ref()))
            })
            .filter(move |(_, backend)| backend.address == address)
    }
}
