//! A packet in a DPDK mbuf, owned.

use std::fmt;
use std::mem::{ManuallyDrop, align_of, size_of};
use std::ptr::NonNull;

use dpdk_sys::{self as sys, rte_mbuf};
use jetway_pipelines::buffer::{ChecksumState, L4Offload, Network, NoRoom, PacketBuf, Transport};

use crate::port::Burst;

/// A packet in a DPDK mbuf of one segment, owned alone.
///
/// Its accessors are plain loads and stores in the mbuf's head; DPDK is called only to give it back, on drop.
/// Whole bursts are given back faster by [`free_burst`].
///
/// Invariants, checked by [`Mbuf::from_driver`] and kept by every method: the mbuf has one segment, nobody else
/// uses it or its buffer, and `data_off + data_len <= buf_len`.
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// A burst of `Mbuf` is handed to drivers as an array of mbuf pointers.
const _: () = assert!(size_of::<Mbuf>() == size_of::<*mut rte_mbuf>());
const _: () = assert!(align_of::<Mbuf>() == align_of::<*mut rte_mbuf>());

// SAFETY: an mbuf is owned by whoever holds the pointer, and a mempool may be used from any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes an mbuf over. Gives it back as an error when its packet lies in several segments or not within its
    /// buffer, so that it can never be seen as one piece of memory when it is not.
    ///
    /// # Safety
    /// `mbuf` came from a mempool or a driver, and the caller gives up its ownership of it.
    pub unsafe fn from_driver(mbuf: NonNull<rte_mbuf>) -> Result<Self, NonNull<rte_mbuf>> {
        let this = ManuallyDrop::new(Self(mbuf));
        match this.is_one_piece() {
            true => Ok(ManuallyDrop::into_inner(this)),
            false => Err(mbuf),
        }
    }

    /// Gives the mbuf up to a driver.
    pub fn into_driver(self) -> NonNull<rte_mbuf> {
        ManuallyDrop::new(self).0
    }

    /// Whether the invariants that the driver is to keep hold.
    pub(super) fn is_one_piece(&self) -> bool {
        let head = self.head();
        head.nb_segs == 1 && usize::from(head.data_off) + usize::from(head.data_len) <= usize::from(head.buf_len)
    }

    pub(super) fn as_ptr(&self) -> *mut rte_mbuf {
        self.0.as_ptr()
    }

    fn head(&self) -> &rte_mbuf {
        // SAFETY: the mbuf is ours alone until drop, and its head is initialised by its pool.
        unsafe { self.0.as_ref() }
    }

    fn head_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: as in `head`, and `self` is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    /// Both lengths of a packet of one segment.
    fn set_length(&mut self, length: u16) {
        let head = self.head_mut();
        head.data_len = length;
        head.pkt_len = u32::from(length);
    }
}

/// `count` as the mbuf counts, if it is within `limit`.
fn within(count: usize, limit: usize) -> Result<u16, NoRoom> {
    match u16::try_from(count) {
        Ok(short) if count <= limit => Ok(short),
        Ok(_) | Err(_) => Err(NoRoom(count)),
    }
}

impl PacketBuf for Mbuf {
    fn data(&self) -> &[u8] {
        let head = self.head();
        // SAFETY: buf_addr points to buf_len initialised bytes (the pool's memory was zeroed when it was mapped), of
        // which data_off + data_len lie within by the invariant; they are ours as long as `self` is borrowed.
        unsafe {
            let start = head.buf_addr.cast::<u8>().cast_const().add(usize::from(head.data_off));
            std::slice::from_raw_parts(start, usize::from(head.data_len))
        }
    }

    fn data_mut(&mut self) -> &mut [u8] {
        let head = self.head();
        // SAFETY: as in `data`, and `self` is borrowed exclusively.
        unsafe {
            let start = head.buf_addr.cast::<u8>().add(usize::from(head.data_off));
            std::slice::from_raw_parts_mut(start, usize::from(head.data_len))
        }
    }

    fn headroom(&self) -> usize {
        usize::from(self.head().data_off)
    }

    fn tailroom(&self) -> usize {
        let head = self.head();
        usize::from(head.buf_len) - usize::from(head.data_off) - usize::from(head.data_len)
    }

    fn grow_front(&mut self, count: usize) -> Result<(), NoRoom> {
        let count = within(count, self.headroom())?;
        let head = self.head_mut();
        head.data_off -= count;
        let length = head.data_len + count;
        self.set_length(length);
        Ok(())
    }

    fn grow_back(&mut self, count: usize) -> Result<(), NoRoom> {
        let length = self.head().data_len + within(count, self.tailroom())?;
        self.set_length(length);
        Ok(())
    }

    fn trim_front(&mut self, count: usize) {
        let head = self.head_mut();
        let count = u16::try_from(count).unwrap_or(u16::MAX).min(head.data_len);
        head.data_off += count;
        let length = head.data_len - count;
        self.set_length(length);
    }

    fn truncate(&mut self, length: usize) {
        let length = u16::try_from(length).unwrap_or(u16::MAX).min(self.head().data_len);
        self.set_length(length);
    }

    fn offload_l4_checksum(&mut self, layout: L4Offload) {
        let (transport, l4_length) = match layout.transport {
            Transport::Udp => (sys::SHIM_TX_UDP_CKSUM, 8),
            // Drivers that sum in software start behind the header; without TSO its options make no difference.
            Transport::Tcp => (sys::SHIM_TX_TCP_CKSUM, 20),
        };
        let network = match layout.network {
            Network::V4 => sys::SHIM_TX_IPV4,
            Network::V6 => sys::SHIM_TX_IPV6,
        };
        let head = self.head_mut();
        head.ol_flags = head.ol_flags & !sys::SHIM_TX_OFFLOAD_MASK | transport | network;
        head.tx_offload = header_lengths(layout.l2_length, layout.l3_length, l4_length);
    }

    fn ip_checksum(&self) -> ChecksumState {
        let flags = self.head().ol_flags & sys::SHIM_RX_IP_CKSUM_MASK;
        checksum_state(flags, sys::SHIM_RX_IP_CKSUM_GOOD, sys::SHIM_RX_IP_CKSUM_BAD)
    }

    fn l4_checksum(&self) -> ChecksumState {
        let flags = self.head().ol_flags & sys::SHIM_RX_L4_CKSUM_MASK;
        checksum_state(flags, sys::SHIM_RX_L4_CKSUM_GOOD, sys::SHIM_RX_L4_CKSUM_BAD)
    }

    fn forget_checksums(&mut self) {
        self.head_mut().ol_flags &= !(sys::SHIM_RX_IP_CKSUM_MASK | sys::SHIM_RX_L4_CKSUM_MASK);
    }
}

/// Both flags together mean "intact, but the field holds no checksum": forwarding such a packet would spread it, so
/// it counts as unchecked.
fn checksum_state(flags: u64, good: u64, bad: u64) -> ChecksumState {
    match flags {
        flags if flags == good => ChecksumState::Good,
        flags if flags == bad => ChecksumState::Bad,
        _ => ChecksumState::Unknown,
    }
}

/// The transmit-offload word; each length is cut to its field so that it cannot reach into the next.
fn header_lengths(l2: u8, l3: u16, l4: u8) -> u64 {
    let field = |value: u64, bits: u32| value & ((1 << bits) - 1);
    field(u64::from(l2), sys::TX_OFFLOAD_L2_BITS)
        | field(u64::from(l3), sys::TX_OFFLOAD_L3_BITS) << sys::TX_OFFLOAD_L2_BITS
        | u64::from(l4) << (sys::TX_OFFLOAD_L2_BITS + sys::TX_OFFLOAD_L3_BITS)
}

impl fmt::Debug for Mbuf {
    /// Shapes alone: packets do not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.head();
        f.debug_struct("Mbuf").field("data_off", &head.data_off).field("data_len", &head.data_len).finish()
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: the mbuf is ours, and nobody can reach it through us from here on.
        unsafe { sys::shim_free(self.0.as_ptr()) };
    }
}

/// Gives all mbufs of `burst` back in one call, and leaves it empty.
pub fn free_burst(burst: &mut Burst<Mbuf>) {
    let count = burst.len();
    let first = burst.as_mut_ptr().cast::<*mut rte_mbuf>();
    // SAFETY: the first `count` elements are mbufs of ours, with the layout of pointers (asserted above). The length
    // is set to zero first, so that none is dropped again.
    unsafe {
        burst.set_len(0);
        sys::rte_pktmbuf_free_bulk(first, count as u32);
    }
}

#[cfg(test)]
mod tests;
