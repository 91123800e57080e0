//! Raw bindings to the installed DPDK: what bindgen reads from its headers, the C shim over its inline functions,
//! and the one struct whose fields the fast path touches without a call.
//!
//! Everything here is as unsafe as DPDK itself; `jetway-engine` wraps it.

use core::ffi::c_void;
use core::mem::{align_of, offset_of, size_of};

#[allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    unused_imports,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}
pub use bindings::*;

/// DPDK's packet buffer: the fields that Jetway relies on at their places, the others as padding.
///
/// `sizeof`, alignment and every offset are checked below against the headers of the build.
///
/// ```text
/// buf_addr                      buf_addr + data_off         + data_len            buf_addr + buf_len
/// | ........ headroom ........ | packet .................. | ..... tailroom ..... |
/// ```
#[allow(non_camel_case_types)]
#[repr(C, align(64))]
pub struct rte_mbuf {
    /// Where the buffer starts.
    pub buf_addr: *mut c_void,
    _iova_or_next: u64,
    /// Where the packet starts, counted from `buf_addr`.
    pub data_off: u16,
    /// How many own it.
    pub refcnt: u16,
    /// How many segments the packet has, this one included.
    pub nb_segs: u16,
    _port: u16,
    /// What the driver found (`SHIM_RX_*`) and what it is to do (`SHIM_TX_*`).
    pub ol_flags: u64,
    _packet_type: u32,
    /// Bytes of the packet in all its segments.
    pub pkt_len: u32,
    /// Bytes of the packet in this segment.
    pub data_len: u16,
    _vlan_tci: u16,
    _hash: [u16; 4],
    _vlan_tci_outer: u16,
    /// Bytes of the buffer.
    pub buf_len: u16,
    _pool: *mut c_void,
    _next_or_dynfield: u64,
    /// Lengths of the headers for transmit offloads: `l2_len` (7 bits), `l3_len` (9), `l4_len` (8), from the low end.
    pub tx_offload: u64,
    _rest: [u64; 6],
}

const _: () = {
    assert!(offset_of!(rte_mbuf, buf_addr) == SHIM_MBUF_BUF_ADDR as usize);
    assert!(offset_of!(rte_mbuf, data_off) == SHIM_MBUF_DATA_OFF as usize);
    assert!(offset_of!(rte_mbuf, refcnt) == SHIM_MBUF_REFCNT as usize);
    assert!(offset_of!(rte_mbuf, nb_segs) == SHIM_MBUF_NB_SEGS as usize);
    assert!(offset_of!(rte_mbuf, ol_flags) == SHIM_MBUF_OL_FLAGS as usize);
    assert!(offset_of!(rte_mbuf, pkt_len) == SHIM_MBUF_PKT_LEN as usize);
    assert!(offset_of!(rte_mbuf, data_len) == SHIM_MBUF_DATA_LEN as usize);
    assert!(offset_of!(rte_mbuf, buf_len) == SHIM_MBUF_BUF_LEN as usize);
    assert!(offset_of!(rte_mbuf, tx_offload) == SHIM_MBUF_TX_OFFLOAD as usize);
    assert!(size_of::<rte_mbuf>() == SHIM_MBUF_SIZE as usize);
    assert!(align_of::<rte_mbuf>() == SHIM_MBUF_ALIGN as usize);
};

/// Bits of `l2_len` in [`rte_mbuf::tx_offload`].
pub const TX_OFFLOAD_L2_BITS: u32 = 7;
/// Bits of `l3_len` in [`rte_mbuf::tx_offload`].
pub const TX_OFFLOAD_L3_BITS: u32 = 9;

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    #[test]
    fn the_linked_dpdk_is_the_one_whose_headers_were_bound() {
        // SAFETY: rte_version takes nothing and returns a static string.
        let version = unsafe { CStr::from_ptr(super::rte_version()) }.to_string_lossy().into_owned();
        assert!(version.starts_with("DPDK "), "{version}");
        assert_eq!(super::SHIM_PKTMBUF_HEADROOM, 128);
    }
}
