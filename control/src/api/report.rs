//! What a node says about itself.

use std::net::SocketAddr;

use ipnet::IpNet;
use jetway_engine::exits::PortLosses;
use jetway_engine::port::{PortInfo, PortStatistics};
use jetway_pipelines::counters::WorkerCounters;
use jetway_pipelines::drop_reason::DropReason;
use serde::{Deserialize, Serialize};

use super::vip_report::VipReport;

/// Everything that a node counts.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StatsReport {
    /// The node's name.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// Seconds since the node carries traffic.
    pub uptime_seconds: f64,
    /// Which implementation of ChaCha20-Poly1305 runs.
    pub aead_backend: String,
    /// What each worker counts.
    pub workers: Vec<WorkerReport>,
    /// What each port's driver counts.
    pub ports: Vec<PortReport>,
    /// What is known of each tunnel.
    pub tunnels: Vec<TunnelReport>,
    /// What is known of each virtual service.
    #[serde(default)]
    pub vips: Vec<VipReport>,
    /// How busy the node is; `None` in its first seconds.
    #[serde(default)]
    pub load: Option<LoadReport>,
    /// What belongs to no worker: handshakes, the host path, netlink, table swaps.
    pub counters: Vec<Count>,
}

impl StatsReport {
    /// Drops of all workers by reason, only those that occurred, most frequent first.
    pub fn drops(&self) -> Vec<Count> {
        let mut sums: Vec<Count> = Vec::new();
        for drop in self.workers.iter().flat_map(|worker| &worker.drops) {
            match sums.iter_mut().find(|sum| sum.name == drop.name) {
                Some(sum) => sum.value += drop.value,
                None => sums.push(drop.clone()),
            }
        }
        sums.retain(|sum| sum.value != 0);
        sums.sort_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
        sums
    }

    /// A counter summed over all workers.
    pub fn sum(&self, name: &str) -> u64 {
        let counters = self.workers.iter().flat_map(|worker| &worker.counters);
        counters.filter(|counter| counter.name == name).map(|counter| counter.value).sum()
    }

    /// Packets that are not accounted for, over all workers: not zero only by what is under way while it is read.
    pub fn unaccounted(&self) -> i64 {
        self.workers.iter().map(|worker| worker.unaccounted).sum()
    }
}

/// How busy a node was in the last seconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// The share of each worker's turns in which there was something to do, from 0 to 1.
    pub workers_busy: Vec<f64>,
    /// The share of the machine's processor time that was used, from 0 to 1.
    pub system_busy: f64,
    /// The machine's memory, in bytes.
    pub memory_total: u64,
    /// What programs could still get of it, in bytes.
    pub memory_available: u64,
    /// What the node has of it in ordinary pages, in bytes.
    pub process_memory: u64,
    /// What each port lost.
    #[serde(default)]
    pub ports: Vec<PortLoadReport>,
}

/// What a port lost in the last seconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PortLoadReport {
    /// The port's name.
    pub name: String,
    /// The share of packets that came to the port and got no further, from 0 to 1.
    pub receive_loss: f64,
    /// The share of packets that should have left by the port and did not, from 0 to 1.
    pub transmit_loss: f64,
}

/// A counter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Count {
    /// Its name, in lower case with underscores.
    pub name: String,
    /// What it counts, in one line.
    pub meaning: String,
    /// How much so far, or now.
    pub value: u64,
    /// Whether it only grows.
    #[serde(default)]
    pub kind: CountKind,
}

/// Whether a counter only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountKind {
    /// It counts since the start.
    #[default]
    Counter,
    /// It says how much there is now.
    Gauge,
}

impl Count {
    /// What counts since the start.
    pub fn new(name: impl Into<String>, meaning: impl Into<String>, value: u64) -> Self {
        Self { name: name.into(), meaning: meaning.into(), value, kind: CountKind::Counter }
    }

    /// What says how much there is now.
    pub fn gauge(name: impl Into<String>, meaning: impl Into<String>, value: u64) -> Self {
        Self { kind: CountKind::Gauge, ..Self::new(name, meaning, value) }
    }
}

/// What a worker counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its number.
    pub worker: u16,
    /// The CPU on which it runs.
    pub core: usize,
    /// Its counters.
    pub counters: Vec<Count>,
    /// Its drops, by reason.
    pub drops: Vec<Count>,
    /// Packets that came and neither went nor wait; not zero only by what is under way while it is read.
    pub unaccounted: i64,
}

impl WorkerReport {
    /// Reads a worker's counters.
    pub fn read(worker: u16, core: usize, counters: &WorkerCounters) -> Self {
        // What there is at the moment also falls.
        let named = counters.named().into_iter().map(|(name, meaning, value)| match name {
            "held" | "flows" => Count::gauge(name, meaning, value),
            _ => Count::new(name, meaning, value),
        });
        let drops = DropReason::ALL.iter().zip(&counters.drops);
        Self {
            worker,
            core,
            counters: named.collect(),
            drops: drops.map(|(reason, count)| Count::new(reason.name(), reason.meaning(), count.get())).collect(),
            unaccounted: i64::try_from(counters.unaccounted()).unwrap_or(i64::MAX),
        }
    }

    /// One of its counters; 0 if there is none of this name.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.iter().find(|counter| counter.name == name).map_or(0, |counter| counter.value)
    }

    /// All its drops.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(|drop| drop.value).sum()
    }
}

/// What a port's driver counts, and what workers lost on their way out of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortReport {
    /// Its name in the configuration.
    pub name: String,
    /// The driver's name.
    pub driver: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Queue pairs.
    pub queues: u16,
    /// `up` or `down`.
    pub link: String,
    /// The name of its twin in the kernel.
    pub host_interface: String,
    /// The driver's counters.
    pub counters: Vec<Count>,
    /// What each worker lost on its way out of it.
    #[serde(default)]
    pub losses: Vec<PortLossReport>,
}

/// What a worker lost on its way out of a port. The worker's drops have it, too.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortLossReport {
    /// The worker's number.
    pub worker: u16,
    /// Packets that found the port's transmit queue full.
    pub transmit_queue_full: u64,
    /// Packets that found no room on their way to the worker that has a queue of the port.
    pub handoff_queue_full: u64,
}

impl PortLossReport {
    /// Reads what a worker counts.
    pub fn read(worker: u16, losses: &PortLosses) -> Self {
        Self {
            worker,
            transmit_queue_full: losses.transmit_queue_full.get(),
            handoff_queue_full: losses.handoff_queue_full.get(),
        }
    }
}

impl PortReport {
    /// Puts together what is known of a port, except what workers lost on their way out of it.
    pub fn new(name: &str, host_interface: &str, info: &PortInfo, link: &str, statistics: PortStatistics) -> Self {
        let count = |name: &str, meaning: &str, value| Count::new(name, meaning, value);
        let counters = vec![
            count("received_packets", "Packets received", statistics.received_packets),
            count("received_bytes", "Bytes received", statistics.received_bytes),
            count("transmitted_packets", "Packets transmitted", statistics.transmitted_packets),
            count("transmitted_bytes", "Bytes transmitted", statistics.transmitted_bytes),
            count("missed_packets", "Packets that arrived and found no room", statistics.missed),
            count("receive_errors", "Packets that arrived damaged", statistics.receive_errors),
            count("transmit_errors", "Packets that could not be transmitted", statistics.transmit_errors),
            count("no_buffer", "Receive buffers that could not be had", statistics.no_buffer),
        ];
        let mac = jetway_config::MacAddress(info.mac).to_string();
        Self {
            name: name.to_owned(),
            driver: info.driver.clone(),
            mac,
            queues: info.queues,
            link: link.to_owned(),
            host_interface: host_interface.to_owned(),
            counters,
            losses: Vec::new(),
        }
    }

    /// One of its counters; 0 if there is none of this name.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.iter().find(|counter| counter.name == name).map_or(0, |counter| counter.value)
    }

    /// What all workers lost on their way out of it.
    pub fn lost(&self) -> u64 {
        self.losses.iter().map(|loss| loss.transmit_queue_full + loss.handoff_queue_full).sum()
    }
}

/// What is known of a tunnel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TunnelReport {
    /// Its name.
    pub name: String,
    /// The UDP port on which it listens.
    pub listen_port: u16,
    /// Its public key.
    pub public_key: String,
    /// Peers that may connect.
    pub peers: u64,
    /// Peers whose last handshake is less than 180 seconds old.
    pub peers_connected: u64,
    /// Bytes of data messages received.
    pub received_bytes: u64,
    /// Bytes of data messages sent.
    pub sent_bytes: u64,
}

/// What is known of a peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its tunnel.
    pub tunnel: String,
    /// Its name in the configuration; `None` for one that only `wg` knows.
    pub name: Option<String>,
    /// Its public key.
    pub public_key: String,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last completed handshake; `None` for never.
    pub handshake_age_seconds: Option<f64>,
    /// Bytes of data messages received from it.
    pub received_bytes: u64,
    /// Bytes of data messages sent to it.
    pub sent_bytes: u64,
    /// Seconds between keepalives; 0 for none.
    pub persistent_keepalive: u16,
    /// Its inner networks.
    pub allowed_ips: Vec<IpNet>,
}
