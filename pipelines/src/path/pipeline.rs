//! A worker's packet logic: its state, and the order of the stages.

use std::sync::Arc;

use arrayvec::ArrayVec;
use jetway_aead::Aead;

use super::admission::Admission;
use super::dispatch::{FragmentFlow, GatewayAdmission, ServerWays};
use super::event::{Command, HandshakeEvent, HandshakeMessage};
use super::held::{Held, Patience, WaitFor};
use super::outputs::Outputs;
use super::packet::{BURST, Origin, Packet, Packets, UNPARSED, Verdict};
use super::slots::Slots;
use super::{classify, dispatch, emit, open, route, seal, sweep};
use crate::buffer::PacketBuf;
use crate::counters::WorkerCounters;
use crate::dispatch::direct_flows::DirectFlows;
use crate::dispatch::flow_table::FlowTable;
use crate::dispatch::fragment_table::FragmentTable;
use crate::drop_reason::DropReason;
use crate::ids::{BackendIndex, NodeId, PortId, TunnelId, WorkerId};
use crate::meter::Meter;
use crate::packet::Parsed;
use crate::tables::{PuntLimit, Tables, Twin};
use crate::time::Instant;
use crate::wireguard::index::IndexLayout;
use crate::wireguard::replay::{READY, SpareWindows};
use crate::wireguard::{Endpoint, Peer, Receiver};

/// What the stages look at besides the packets: the tables and the time of this turn.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'t> {
    /// The tables.
    pub tables: &'t Tables,
    /// The time at the start of the turn.
    pub now: Instant,
}

/// What a pipeline is made with.
#[derive(Debug)]
pub struct Settings {
    /// The node's number in its cluster.
    pub node: NodeId,
    /// The worker that runs this pipeline.
    pub worker: WorkerId,
    /// How receiver indices are made and read.
    pub index_layout: IndexLayout,
    /// Does the encryption.
    pub aead: Aead,
    /// What the worker counts.
    pub counters: Arc<WorkerCounters>,
    /// Flows that the worker remembers at most: 0 for a node without services.
    pub flows: usize,
    /// Flows to servers' own addresses, which all workers share.
    pub direct_flows: Arc<DirectFlows>,
    /// Key of the hashes, so that outsiders cannot aim at one bucket.
    pub hash_key: [u64; 4],
}

/// The packet logic of one worker, with everything that only this worker touches.
#[derive(Debug)]
pub struct Pipeline<B> {
    pub(super) node: NodeId,
    pub(super) worker: WorkerId,
    pub(super) index_layout: IndexLayout,
    pub(super) aead: Aead,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) slots: Slots,
    pub(super) spare_windows: Box<SpareWindows>,
    pub(super) held: Held<Waiting<B>>,
    pub(super) flows: FlowTable,
    pub(super) server_ways: ServerWays,
    pub(super) fragments: FragmentTable<FragmentFlow>,
    pub(super) direct_flows: Arc<DirectFlows>,
    pub(super) admission: Admission,
    pub(super) gateway_admission: GatewayAdmission,
    pub(super) icmp_meter: Meter,
    pub(super) punt_meter: Meter,
    punt_limit: PuntLimit,
    pub(super) discovery_meter: Meter,
    pub(super) ip_id: u16,
}

/// A packet that waits, with what is known of it.
#[derive(Debug)]
pub struct Waiting<B> {
    pub(super) buffer: B,
    pub(super) parsed: Parsed,
    pub(super) origin: Origin,
    pub(super) server: Option<BackendIndex>,
}

/// ICMP errors a second that a worker makes at most, as Linux bounds its own (`icmp_msgs_per_sec`).
const ICMP_RATE: u32 = 1000;
/// ARP and neighbour discovery packets a second that go to the kernel.
const DISCOVERY_RATE: u32 = 2000;
/// Passes that can follow the first: pieces that fit the tunnel, pieces of those that fit the way to the peer, and the
/// news that they do not. Nobody is told about an error message's own fate, so nothing comes after that.
const MADE_PASSES: usize = 3;
/// Fragmented datagrams to and from services that a worker remembers: 600 bytes each.
const FRAGMENTED_DATAGRAMS: usize = 1024;
/// Queues of waiting packets that one turn looks at.
const HELD_LOOKS: usize = 64;
/// Queues of waiting packets that one turn releases.
const HELD_RELEASES: usize = 8;

impl<B: PacketBuf> Pipeline<B> {
    /// A pipeline without sessions.
    pub fn new(settings: Settings) -> Self {
        let punt_limit = PuntLimit::default();
        Self {
            slots: Slots::with_capacity(settings.index_layout.slots_per_worker() as usize),
            spare_windows: SpareWindows::new(READY),
            held: Held::default(),
            flows: FlowTable::new(settings.flows, settings.hash_key),
            server_ways: ServerWays::new(settings.flows),
            direct_flows: settings.direct_flows,
            fragments: FragmentTable::new(FRAGMENTED_DATAGRAMS, settings.hash_key),
            admission: Admission::new(settings.index_layout.workers(), settings.hash_key),
            gateway_admission: GatewayAdmission::new(
                settings.index_layout.workers(),
                settings.worker,
                settings.hash_key,
            ),
            icmp_meter: Meter::new(ICMP_RATE, ICMP_RATE / 10),
            punt_meter: Meter::new(punt_limit.rate, punt_limit.burst),
            punt_limit,
            discovery_meter: Meter::new(DISCOVERY_RATE, DISCOVERY_RATE / 10),
            ip_id: settings.hash_key[0] as u16,
            node: settings.node,
            worker: settings.worker,
            index_layout: settings.index_layout,
            aead: settings.aead,
            counters: settings.counters,
        }
    }

    /// What the worker counts.
    pub fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// Takes up what changed in the tables since the last turn. To be called first in a turn.
    pub fn begin_turn<O: Outputs<B>>(&mut self, scene: &Scene<'_>, out: &mut O) {
        let limit = scene.tables.punt_limit;
        if limit != self.punt_limit {
            self.punt_meter = Meter::new(limit.rate, limit.burst);
            self.punt_limit = limit;
        }
        self.counters.windows_missing.set(self.spare_windows.missing());
        if self.spare_windows.wants_more() && out.tell_handshaker(HandshakeEvent::WindowsWanted).is_err() {
            // The ring is full: ask in a later turn.
            self.spare_windows.ask_again();
        }
    }

    /// Takes the frames that came in by `port` all the way.
    pub fn frames<O: Outputs<B>>(
        &mut self,
        port: PortId,
        frames: &mut ArrayVec<B, BURST>,
        scene: &Scene<'_>,
        out: &mut O,
    ) {
        dispatch::express(port, frames, self, scene, out);
        if frames.is_empty() {
            return;
        }
        open::express(port, frames, self, scene, out);
        if frames.is_empty() {
            return;
        }
        seal::express(port, frames, self, scene, out);
        if frames.is_empty() {
            return;
        }
        let mut packets: Packets<'_, B> = ArrayVec::new();
        classify::classify(frames, &mut packets, port, scene.tables);
        self.run(&mut packets, scene, out);
    }

    /// Takes what the kernel sends through a twin all the way.
    pub fn from_kernel<O: Outputs<B>>(&mut self, twin: Twin, buffer: B, scene: &Scene<'_>, out: &mut O) {
        self.counters.created.add(1);
        let mut packet = Packet::made(buffer, UNPARSED, Verdict::Route);
        match twin {
            Twin::Port(port) => packet.verdict = Verdict::Send(port),
            Twin::Tunnel(tunnel) => match Parsed::from_ip(packet.buffer.data()) {
                Ok(parsed) => {
                    // A raw socket on the twin may send more than the packet says.
                    packet.buffer.truncate(parsed.total_length as usize);
                    packet.parsed = parsed;
                    route::from_twin(&mut packet, tunnel, scene.tables);
                }
                Err(_) => packet.verdict = Verdict::Drop(DropReason::InnerMalformed),
            },
        }
        self.run_one(packet, scene, out);
    }

    /// Sends a finished frame, which may be on its way to a server, on behalf of a worker that has no queue of the port.
    pub fn transmit<O: Outputs<B>>(
        &mut self,
        port: PortId,
        frame: B,
        server: Option<BackendIndex>,
        scene: &Scene<'_>,
        out: &mut O,
    ) {
        let sent = match server {
            Some(server) => out.send_to_server(port, frame, server),
            None => out.send(port, frame),
        };
        if let Err(frame) = sent {
            self.counters.drop_packets(DropReason::TransmitQueueFull, 1);
            out.discard(frame);
            if let Some(server) = server {
                self.lose([(server, DropReason::TransmitQueueFull)], scene);
            }
        }
    }

    /// Counts packets that were dropped on their way out for the servers that they were for. The worker's own count has them.
    pub fn lose(&self, lost: impl IntoIterator<Item = (BackendIndex, DropReason)>, scene: &Scene<'_>) {
        for (server, reason) in lost {
            sweep::lose(scene.tables.services.server(server), reason, self);
        }
    }

    /// Does what the handshaker asks.
    pub fn command<O: Outputs<B>>(&mut self, command: Command, scene: &Scene<'_>, out: &mut O) {
        let answer = match command {
            Command::AddPage(number, page) => self.slots.add_page(number, page).map(HandshakeEvent::SparePage),
            Command::AddWindows(mut windows) => {
                self.spare_windows.add(&mut windows);
                Some(HandshakeEvent::SpareCrate(windows))
            }
            Command::InstallReceiver(slot, receiver) => {
                let replaced = self.slots.install(slot, receiver);
                replaced.map(|receiver| HandshakeEvent::Replaced(self.without_window(receiver)))
            }
            Command::RemoveReceiver(slot) => {
                let removed = self.slots.remove(slot);
                Some(HandshakeEvent::Removed(slot, removed.map(|receiver| self.without_window(receiver))))
            }
            Command::SendKeepalive(peer) => {
                self.send_keepalive(&peer, scene, out);
                None
            }
            Command::SendMessage { tunnel, to, message } => {
                self.send_message(tunnel, to, &message, scene, out);
                None
            }
        };
        if let Some(event) = answer
            && out.tell_handshaker(event).is_err()
        {
            self.counters.events_lost.add(1);
        }
    }

    /// Keeps the replay window of a session that ends, for another.
    fn without_window(&mut self, mut receiver: Box<Receiver>) -> Box<Receiver> {
        receiver.window.end(&mut self.spare_windows);
        receiver
    }

    /// Releases packets whose session or neighbour has come, and drops those that waited too long.
    pub fn release_held<O: Outputs<B>>(&mut self, scene: &Scene<'_>, out: &mut O) {
        if self.held.is_empty() {
            return;
        }
        for _ in 0..HELD_RELEASES {
            let fragments = &self.fragments;
            let found = self.held.look(scene.now, HELD_LOOKS, |waits_for| patience(waits_for, scene, fragments));
            let Some((queue, outcome)) = found else { break };
            let Some(waits_for) = self.held.waits_for(&queue).cloned() else { break };
            let mut packets: Packets<'_, B> = ArrayVec::new();
            while !packets.is_full() {
                let Some(Waiting { buffer, parsed, origin, server }) = self.held.take(&queue) else { break };
                let verdict = match (outcome, &waits_for) {
                    (Patience::Ready | Patience::Wait, WaitFor::Session(peer)) => Verdict::Seal(peer),
                    (Patience::Ready | Patience::Wait, WaitFor::Neighbour(port, address)) => {
                        Verdict::Emit { port: *port, next_hop: *address }
                    }
                    (Patience::Ready | Patience::Wait, WaitFor::FirstFragment(_)) => match origin {
                        // Not when the last service has gone meanwhile: nobody would dispatch it.
                        Origin::Port(port) if !scene.tables.services.is_empty() => {
                            Verdict::Dispatch { port, l3_offset: 0 }
                        }
                        Origin::Port(_) | Origin::Tunnel(_) | Origin::Node => Verdict::Route,
                    },
                    (Patience::GiveUp, WaitFor::FirstFragment(_)) => Verdict::Drop(DropReason::FragmentUnknown),
                    (Patience::GiveUp, WaitFor::Session(_)) => Verdict::Drop(DropReason::NoSendSession),
                    (Patience::GiveUp, WaitFor::Neighbour(..)) => Verdict::Drop(DropReason::NoNeighbour),
                };
                let server = server.and_then(|index| scene.tables.services.server(index));
                packets.push(Packet { buffer, parsed, origin, server, verdict });
            }
            self.run(&mut packets, scene, out);
        }
        self.counters.held.set(self.held.len() as u64);
    }

    /// An empty message, which keeps the peer's session and any middlebox on the way alive.
    fn send_keepalive<O: Outputs<B>>(&mut self, peer: &Arc<Peer>, scene: &Scene<'_>, out: &mut O) {
        let Some(buffer) = self.allocate(out) else { return };
        let packet = Packet::made(buffer, UNPARSED, Verdict::Seal(peer));
        self.run_one(packet, scene, out);
    }

    fn send_message<O: Outputs<B>>(
        &mut self,
        tunnel: TunnelId,
        to: Endpoint,
        message: &HandshakeMessage,
        scene: &Scene<'_>,
        out: &mut O,
    ) {
        let Some(mut buffer) = self.allocate(out) else { return };
        let verdict = match seal::wrap_message(&mut buffer, tunnel, to, message, &mut self.ip_id, scene.tables) {
            Ok(verdict) => verdict,
            Err(reason) => Verdict::Drop(reason),
        };
        let packet = Packet::made(buffer, UNPARSED, verdict);
        self.run_one(packet, scene, out);
    }

    fn allocate<O: Outputs<B>>(&mut self, out: &mut O) -> Option<B> {
        let buffer = out.allocate();
        match buffer {
            Some(_) => self.counters.created.add(1),
            None => self.counters.pool_empty.add(1),
        }
        buffer
    }

    fn run_one<'t, O: Outputs<B>>(&mut self, packet: Packet<'t, B>, scene: &Scene<'t>, out: &mut O) {
        let mut packets: Packets<'t, B> = ArrayVec::new();
        packets.push(packet);
        self.run(&mut packets, scene, out);
    }

    /// The stages in their order, then again for what was made on the way.
    fn run<'t, O: Outputs<B>>(&mut self, packets: &mut Packets<'t, B>, scene: &Scene<'t>, out: &mut O) {
        let mut made: Packets<'t, B> = ArrayVec::new();
        open::open(packets, self, scene, out);
        self.forward(packets, &mut made, scene, out);
        self.forward_made(&mut made, scene, out);
    }

    /// Takes packets that came out of tunnels all the way, and leaves `packets` empty.
    #[inline(never)]
    pub(super) fn forward_opened<'t, O: Outputs<B>>(
        &mut self,
        packets: &mut Packets<'t, B>,
        scene: &Scene<'t>,
        out: &mut O,
    ) {
        let mut made: Packets<'t, B> = ArrayVec::new();
        self.forward(packets, &mut made, scene, out);
        self.forward_made(&mut made, scene, out);
    }

    /// Takes what was made on the way to its end, and leaves `made` empty.
    pub(super) fn forward_made<'t, O: Outputs<B>>(
        &mut self,
        made: &mut Packets<'t, B>,
        scene: &Scene<'t>,
        out: &mut O,
    ) {
        if !made.is_empty() {
            self.forward_passes(made, scene, out);
        }
    }

    /// Apart, so that what is rare needs no room on the stack of what is not.
    #[cold]
    #[inline(never)]
    fn forward_passes<'t, O: Outputs<B>>(&mut self, made: &mut Packets<'t, B>, scene: &Scene<'t>, out: &mut O) {
        for _ in 0..MADE_PASSES {
            if made.is_empty() {
                return;
            }
            let mut more: Packets<'t, B> = ArrayVec::new();
            self.forward(made, &mut more, scene, out);
            *made = more;
        }
        sweep::sweep(made, self, scene, out);
    }

    fn forward<'t, O: Outputs<B>>(
        &mut self,
        packets: &mut Packets<'t, B>,
        made: &mut Packets<'t, B>,
        scene: &Scene<'t>,
        out: &mut O,
    ) {
        dispatch::dispatch(packets, made, self, scene, out);
        route::route(packets, made, self, scene, out);
        seal::seal(packets, made, self, scene, out);
        emit::emit(packets, scene.tables);
        sweep::sweep(packets, self, scene, out);
    }
}

/// Whether what packets wait for is there.
fn patience(waits_for: &WaitFor, scene: &Scene<'_>, fragments: &FragmentTable<FragmentFlow>) -> Patience {
    let there = match waits_for {
        WaitFor::Session(peer) => {
            if peer.is_removed() {
                return Patience::GiveUp;
            }
            peer.sending_session().is_some_and(|session| !session.is_expired(scene.now))
        }
        WaitFor::Neighbour(port, address) => scene.tables.neighbours.contains_key(&(*port, *address)),
        WaitFor::FirstFragment(datagram) => fragments.knows(datagram, scene.now),
    };
    if there { Patience::Ready } else { Patience::Wait }
}
