//! One receive and transmit queue pair of a DPDK port.

use std::ptr;
use std::sync::Arc;

use dpdk_sys::{self as sys, rte_mbuf};
use jetway_pipelines::ids::QueueId;

use super::mbuf::Mbuf;
use super::port::OpenPort;
use crate::port::{BURST, Burst, PortQueue};

/// A queue pair. There is one of each number, so its holder is the only one to poll it.
pub(super) struct DpdkQueue {
    id: QueueId,
    port: Arc<OpenPort>,
}

impl DpdkQueue {
    /// The caller makes one for each number below the port's queue count.
    pub(super) fn new(id: QueueId, port: Arc<OpenPort>) -> Self {
        Self { id, port }
    }

    /// Puts packets that came in several segments into one; drops and counts those that do not fit. No port asks
    /// for scatter, but some drivers chain mbufs all the same.
    #[cold]
    fn join_segments(&self, burst: &mut Burst<Mbuf>, from: usize) {
        let mut dropped = 0;
        for index in (from..burst.len()).rev() {
            // SAFETY: an mbuf of ours; linearising leaves it as it was when it fails.
            let joined = burst[index].is_one_piece() || unsafe { sys::shim_linearize(burst[index].as_ptr()) } == 0;
            if !joined || !burst[index].is_one_piece() {
                drop(burst.remove(index));
                dropped += 1;
            }
        }
        self.port.count_scattered(dropped);
    }
}

impl PortQueue<Mbuf> for DpdkQueue {
    fn id(&self) -> QueueId {
        self.id
    }

    fn receive(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        let before = burst.len();
        let room = (BURST - before) as u16;
        // SAFETY: the port runs as long as `self.port`, and `&mut self` is its queue's only user. There is room for
        // that many pointers behind the burst's packets; as many as are returned are mbufs that we now own.
        unsafe {
            let spare = burst.as_mut_ptr().add(before).cast::<*mut rte_mbuf>();
            let count = sys::shim_rx_burst(self.port.id(), self.id.0, spare, room);
            burst.set_len(before + usize::from(count));
        }
        if !burst[before..].iter().all(Mbuf::is_one_piece) {
            self.join_segments(burst, before);
        }
        burst.len() - before
    }

    fn transmit(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        let count = burst.len();
        // SAFETY: as in `receive`. The driver owns the first `accepted` mbufs now: the others move to the front, and
        // the length shrinks without a drop.
        unsafe {
            let first = burst.as_mut_ptr();
            let packets = first.cast::<*mut rte_mbuf>();
            let accepted = sys::shim_tx_burst(self.port.id(), self.id.0, packets, count as u16);
            let accepted = usize::from(accepted).min(count);
            ptr::copy(first.add(accepted), first, count - accepted);
            burst.set_len(count - accepted);
            accepted
        }
    }
}
