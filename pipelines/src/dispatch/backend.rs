//! A server of a virtual service: where it is, and the state that workers read whenever they use it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

use super::loss::{Loss, Losses};
use crate::counters::Counter;
use crate::drop_reason::DropReason;
use crate::ids::{BackendIndex, WorkerId};

/// What health checks say of a server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Health {
    /// It answers, or nobody asks it.
    Up = 0,
    /// It gave a sign of trouble and is being asked out of turn; it still serves.
    Suspect = 1,
    /// It does not answer.
    Down = 2,
}

/// What the operator wants of a server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Administration {
    /// It serves.
    Enabled = 0,
    /// It keeps its flows and gets no new ones.
    Draining = 1,
    /// It gets nothing.
    Disabled = 2,
}

/// What a worker may do with a server: what its health and its operator come to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BackendState {
    /// It gets new flows.
    Up,
    /// It gets new flows, and is being asked whether it should.
    Suspect,
    /// It gets nothing: its flows go elsewhere at once.
    Down,
    /// It keeps its flows and gets no new ones.
    Draining,
    /// It gets nothing, as its operator wants.
    Disabled,
}

impl BackendState {
    /// Whether new flows may go there.
    pub const fn takes_new_flows(self) -> bool {
        matches!(self, Self::Up | Self::Suspect)
    }

    /// Whether flows that are there may stay.
    pub const fn keeps_flows(self) -> bool {
        matches!(self, Self::Up | Self::Suspect | Self::Draining)
    }

    /// The word for people and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// A server of one service.
///
/// Control makes it, and tables refer to it for as long as the server is configured, so that a change of anything
/// else leaves its state and counts alone.
#[derive(Debug)]
pub struct Backend {
    /// Its number in this process.
    pub index: BackendIndex,
    /// The server's address.
    pub address: IpAddr,
    /// The server's port.
    pub port: u16,
    health: AtomicU8,
    administration: AtomicU8,
    signalled: AtomicBool,
    path_mtu: AtomicU16,
    traffic: Box<[BackendTraffic]>,
    losses: Box<[Losses]>,
}

/// What one worker sent to a server. Aligned so that no two workers share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct BackendTraffic {
    /// Flows that were given to it.
    pub flows: Counter,
    /// Flows that were taken from it because it was down.
    pub moved: Counter,
    /// Packets that were sent on to it.
    pub packets: Counter,
    /// Bytes of those packets, from the IP header on, without encapsulation.
    pub bytes: Counter,
    /// Packets that came back from it, where they pass the node.
    pub returned_packets: Counter,
    /// Bytes of those.
    pub returned_bytes: Counter,
}

impl Backend {
    /// A server that is up and enabled, to be used by `workers` workers.
    pub fn new(index: BackendIndex, address: IpAddr, port: u16, workers: usize) -> Self {
        Self {
            index,
            address,
            port,
            health: AtomicU8::new(Health::Up as u8),
            administration: AtomicU8::new(Administration::Enabled as u8),
            signalled: AtomicBool::new(false),
            path_mtu: AtomicU16::new(u16::MAX),
            traffic: (0..workers).map(|_| BackendTraffic::default()).collect(),
            losses: (0..workers).map(|_| Losses::default()).collect(),
        }
    }

    /// What may be done with it now.
    #[inline]
    pub fn state(&self) -> BackendState {
        match (self.administration(), self.health()) {
            (Administration::Disabled, _) => BackendState::Disabled,
            (Administration::Enabled | Administration::Draining, Health::Down) => BackendState::Down,
            (Administration::Draining, Health::Up | Health::Suspect) => BackendState::Draining,
            (Administration::Enabled, Health::Suspect) => BackendState::Suspect,
            (Administration::Enabled, Health::Up) => BackendState::Up,
        }
    }

    /// What health checks say of it.
    #[inline]
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Up,
            1 => Health::Suspect,
            _ => Health::Down,
        }
    }

    /// Sets what health checks say of it. Workers see it at their next packet.
    pub fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Relaxed);
    }

    /// What the operator wants of it.
    #[inline]
    pub fn administration(&self) -> Administration {
        match self.administration.load(Ordering::Relaxed) {
            0 => Administration::Enabled,
            1 => Administration::Draining,
            _ => Administration::Disabled,
        }
    }

    /// Sets what the operator wants of it. Workers see it at their next packet.
    pub fn set_administration(&self, administration: Administration) {
        self.administration.store(administration as u8, Ordering::Relaxed);
    }

    /// Notes a sign of trouble. Returns whether it is the first since [`Backend::lower_signal`], and so has to be told.
    pub fn raise_signal(&self) -> bool {
        !self.signalled.load(Ordering::Relaxed) && !self.signalled.swap(true, Ordering::AcqRel)
    }

    /// Opens the way for the next sign of trouble.
    pub fn lower_signal(&self) {
        self.signalled.store(false, Ordering::Release);
    }

    /// The longest packet that routers let through on the way to it, as far as they said; else `u16::MAX`.
    #[inline]
    pub fn path_mtu(&self) -> u16 {
        self.path_mtu.load(Ordering::Relaxed)
    }

    /// Sets what routers let through on the way to it; `None` for whatever the route says.
    pub fn set_path_mtu(&self, mtu: Option<u16>) {
        self.path_mtu.store(mtu.unwrap_or(u16::MAX), Ordering::Relaxed);
    }

    /// What a worker sent to it; only that worker may add to it. `None` for a worker that the node does not have.
    #[inline]
    pub fn traffic(&self, worker: WorkerId) -> Option<&BackendTraffic> {
        self.traffic.get(worker.index())
    }

    /// Counts a packet that `worker`, who calls this, dropped on its way to the server.
    #[cold]
    pub fn lose(&self, worker: WorkerId, reason: DropReason) {
        if let Some(losses) = self.losses.get(worker.index()) {
            losses.count(reason);
        }
    }

    /// Packets that all workers dropped on their way to it.
    pub fn lost(&self, loss: Loss) -> u64 {
        self.losses.iter().map(|losses| losses.get(loss)).sum()
    }

    /// What all workers sent to it.
    pub fn all_traffic(&self) -> &[BackendTraffic] {
        &self.traffic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_outranks_health_and_a_dead_server_is_not_drained() {
        let backend = Backend::new(BackendIndex(0), "192.0.2.1".parse().unwrap(), 80, 1);
        assert_eq!(backend.state(), BackendState::Up);
        backend.set_health(Health::Suspect);
        assert_eq!(backend.state(), BackendState::Suspect);
        backend.set_administration(Administration::Draining);
        assert_eq!(backend.state(), BackendState::Draining);
        backend.set_health(Health::Down);
        assert_eq!(backend.state(), BackendState::Down);
        backend.set_administration(Administration::Disabled);
        backend.set_health(Health::Up);
        assert_eq!(backend.state(), BackendState::Disabled);
        backend.set_administration(Administration::Enabled);
        assert_eq!(backend.state(), BackendState::Up);
    }
}
