//! The ways out of a worker: transmit queues, and rings to the kernel, other workers, the handshaker and control.

use arrayvec::ArrayVec;
use jetway_pipelines::buffer::{BufferPool, PacketBuf};
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::ids::{BackendIndex, PortId, WorkerId};
use jetway_pipelines::path::{ControlEvent, HandshakeEvent, Outputs, RingFull};
use jetway_pipelines::tables::Twin;
use jetway_sync::spsc::Producer;

use crate::links::{Handoff, Punt};
use crate::port::{BURST, Burst, PortQueue};
use jetway_pipelines::counters::{Counter, WorkerCounters};
use std::sync::Arc;

/// A worker's share of a port.
pub struct PortShare<B: PacketBuf> {
    /// Its queue pair, or the worker that transmits for it because the port has too few queues.
    pub access: PortAccess<B>,
    pending: Burst<B>,
    /// The servers that these are for.
    servers: ArrayVec<Option<BackendIndex>, BURST>,
    losses: Arc<PortLosses>,
}

/// What one worker dropped on its way out of one port. It is counted among the worker's drops, too.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PortLosses {
    /// Packets that found the port's transmit queue full.
    pub transmit_queue_full: Counter,
    /// Packets that found no room on their way to the worker that has a queue of the port.
    pub handoff_queue_full: Counter,
}

/// How a worker reaches a port.
pub enum PortAccess<B: PacketBuf> {
    /// By a queue pair of its own.
    Queue(Box<dyn PortQueue<B>>),
    /// Through another worker's.
    Through(WorkerId),
}

impl<B: PacketBuf> PortShare<B> {
    /// A share with nothing on its way.
    pub fn new(access: PortAccess<B>) -> Self {
        Self { access, pending: Burst::new(), servers: ArrayVec::new(), losses: Arc::default() }
    }

    /// Where its losses are counted.
    pub fn losses(&self) -> Arc<PortLosses> {
        Arc::clone(&self.losses)
    }
}

/// The ways out of a worker.
pub struct Exits<B: PacketBuf> {
    /// The ports, by [`PortId`].
    pub ports: Vec<PortShare<B>>,
    /// Where new buffers come from.
    pub pool: Box<dyn BufferPool<B>>,
    /// To the kernel.
    pub punts: Producer<Punt<B>>,
    /// To the other workers, by number.
    pub handoffs: Vec<Option<Producer<Handoff<B>>>>,
    /// To the handshaker.
    pub handshake_events: Producer<HandshakeEvent>,
    /// To control.
    pub control_events: Producer<ControlEvent>,
    /// What the worker counts.
    pub counters: Arc<WorkerCounters>,
    /// What was dropped of packets to servers, until somebody counts it there.
    pub lost: Lost,
}

/// Packets that were dropped on their way to servers, and why. What finds no room here is counted by worker and port alone.
pub type Lost = ArrayVec<(BackendIndex, DropReason), LOST>;

/// Dropped packets of which the servers can be told at once: more than come of a burst unless it is cut into many fragments.
const LOST: usize = 8 * BURST;

impl<B: PacketBuf> Exits<B> {
    /// What was dropped of packets to servers since the last call.
    pub fn take_lost(&mut self) -> impl Iterator<Item = (BackendIndex, DropReason)> {
        self.lost.drain(..)
    }

    /// Queues a frame for a port.
    #[inline]
    fn queue(&mut self, port: PortId, frame: B, server: Option<BackendIndex>) -> Result<(), B> {
        let Some(share) = self.ports.get_mut(port.index()) else { return Err(frame) };
        match share.pending.try_push(frame) {
            Ok(()) => {
                share.servers.push(server);
                Ok(())
            }
            Err(full) => self.queue_after_flush(port, full.element(), server),
        }
    }

    /// Apart, so that what every packet does is short enough to become a part of the stages.
    #[cold]
    fn queue_after_flush(&mut self, port: PortId, frame: B, server: Option<BackendIndex>) -> Result<(), B> {
        self.flush_port(port.index());
        let Some(share) = self.ports.get_mut(port.index()) else { return Err(frame) };
        share.pending.try_push(frame).map_err(|full| full.element())?;
        share.servers.push(server);
        Ok(())
    }

    /// Hands everything that waits to the ports. What a port does not take is dropped and counted.
    pub fn flush(&mut self) {
        for number in 0..self.ports.len() {
            self.flush_port(number);
        }
    }

    fn flush_port(&mut self, number: usize) {
        let Some(share) = self.ports.get_mut(number) else { return };
        if share.pending.is_empty() {
            return;
        }
        match &mut share.access {
            PortAccess::Queue(queue) => {
                let sent = queue.transmit(&mut share.pending);
                self.counters.sent.add(sent as u64);
                if !share.pending.is_empty() {
                    let lost = share.pending.len() as u64;
                    self.counters.drop_packets(DropReason::TransmitQueueFull, lost);
                    share.losses.transmit_queue_full.add(lost);
                    share.pending.clear();
                    let servers = share.servers.iter().skip(sent).flatten();
                    note(&mut self.lost, servers.copied(), DropReason::TransmitQueueFull);
                }
                share.servers.clear();
            }
            PortAccess::Through(worker) => {
                let (worker, port) = (*worker, PortId(number as u16));
                for (frame, server) in share.pending.drain(..).zip(share.servers.drain(..)) {
                    let ring = self.handoffs.get_mut(worker.index()).and_then(Option::as_mut);
                    match ring.map(|ring| ring.push(Handoff::Transmit(port, frame, server))) {
                        Some(Ok(())) => self.counters.handed_off.add(1),
                        Some(Err(_)) | None => {
                            self.counters.drop_packets(DropReason::HandoffQueueFull, 1);
                            share.losses.handoff_queue_full.add(1);
                            note(&mut self.lost, server, DropReason::HandoffQueueFull);
                        }
                    }
                }
            }
        }
    }

    /// Receives from the port's queue, if this worker has one. Returns how many packets came.
    pub fn receive(&mut self, port: PortId, burst: &mut Burst<B>) -> usize {
        match self.ports.get_mut(port.index()).map(|share| &mut share.access) {
            Some(PortAccess::Queue(queue)) => queue.receive(burst),
            Some(PortAccess::Through(_)) | None => 0,
        }
    }
}

impl<B: PacketBuf> Outputs<B> for Exits<B> {
    #[inline]
    fn send(&mut self, port: PortId, frame: B) -> Result<(), B> {
        self.queue(port, frame, None)
    }

    #[inline]
    fn send_to_server(&mut self, port: PortId, frame: B, server: BackendIndex) -> Result<(), B> {
        self.queue(port, frame, Some(server))
    }

    fn punt(&mut self, to: Twin, buffer: B) -> Result<(), B> {
        self.punts.push(Punt { to, buffer }).map_err(|punt| punt.buffer)
    }

    fn hand_off(&mut self, to: WorkerId, port: PortId, frame: B) -> Result<(), B> {
        let Some(ring) = self.handoffs.get_mut(to.index()).and_then(Option::as_mut) else { return Err(frame) };
        ring.push(Handoff::Received(port, frame)).map_err(|handoff| match handoff {
            Handoff::Received(_, frame) | Handoff::Transmit(_, frame, _) => frame,
        })
    }

    fn tell_handshaker(&mut self, event: HandshakeEvent) -> Result<(), RingFull> {
        self.handshake_events.push(event).map_err(|_| RingFull)
    }

    fn tell_control(&mut self, event: ControlEvent) -> Result<(), RingFull> {
        self.control_events.push(event).map_err(|_| RingFull)
    }

    fn allocate(&mut self) -> Option<B> {
        self.pool.allocate()
    }
}

/// Notes drops of packets to servers.
fn note(lost: &mut Lost, servers: impl IntoIterator<Item = BackendIndex>, reason: DropReason) {
    let room = lost.remaining_capacity();
    lost.extend(servers.into_iter().take(room).map(|server| (server, reason)));
}

#[cfg(test)]
mod tests;
