//! The maximum segment size: found, lowered, and the checksum right afterwards.

use proptest::prelude::*;

use super::linux::packet;
use crate::packet::mss::{Clamped, MssLimit, clamp_mss};
use crate::packet::{Fragment, Parsed, Protocol, checksum};

const LIMIT: MssLimit = MssLimit::for_mtu(1380);

fn checksum_is_right(packet: &[u8]) -> bool {
    let parsed = Parsed::from_ip(packet).unwrap();
    let l4 = parsed.l4(packet);
    checksum::pseudo(parsed.source, parsed.destination, Protocol::TCP, l4.len() as u32).bytes(l4).is_right()
}

fn clamp(packet: &mut [u8]) -> Clamped {
    let parsed = Parsed::from_ip(packet).unwrap();
    clamp_mss(packet, &parsed, LIMIT)
}

#[test]
fn syn_and_syn_ack_are_lowered_to_what_fits() {
    assert_eq!(LIMIT, MssLimit { v4: 1340, v6: 1320 });
    for (name, from, l4, to) in [
        ("syn_v4", 1360, 20, 1340u16),
        ("syn_ack_v4", 1460, 20, 1340),
        ("syn_v6", 1340, 40, 1320),
        ("syn_ack_v6", 1440, 40, 1320),
    ] {
        let mut lowered = packet(name);
        assert_eq!(clamp(&mut lowered), Clamped::Lowered { from }, "{name}");
        assert!(checksum_is_right(&lowered), "{name}");
        assert_eq!(lowered[l4 + 22..l4 + 24], to.to_be_bytes());
        // Only the size and the checksum changed.
        let changed = lowered.iter().zip(packet(name)).enumerate().filter(|(_, (a, b))| **a != *b);
        assert!(changed.map(|(at, _)| at - l4).all(|at| [16, 17, 22, 23].contains(&at)));
        assert_eq!(clamp(&mut lowered), Clamped::Fits);
    }
}

#[test]
fn what_opens_no_connection_stays_as_it_is() {
    for name in ["ack_v4", "data_v4", "udp_v4", "udp_v6", "echo_v4"] {
        let mut unchanged = packet(name);
        assert_eq!(clamp(&mut unchanged), Clamped::NotSyn, "{name}");
        assert_eq!(unchanged, packet(name));
    }
    let mut later = packet("syn_v4");
    let parsed = Parsed { fragment: Fragment::Later, ..Parsed::from_ip(&later).unwrap() };
    assert_eq!(clamp_mss(&mut later, &parsed, LIMIT), Clamped::NotSyn);
    let mut reset = packet("syn_v4");
    reset[20 + 13] |= 4;
    assert_eq!(clamp(&mut reset), Clamped::NotSyn);
}

#[test]
fn options_without_a_size_or_without_sense_are_left_alone() {
    for options in
        [[0; 4], [1; 4], [0, 2, 4, 255], [2, 3, 255, 1], [2, 0, 255, 255], [3, 8, 2, 4], [1, 1, 1, 2], [8, 1, 2, 4]]
    {
        let mut segment = packet("syn_v4");
        segment.truncate(20 + 24);
        segment[3] = 44;
        segment[20 + 12] = 6 << 4;
        segment[40..44].copy_from_slice(&options);
        let before = segment.clone();
        assert_eq!(clamp(&mut segment), Clamped::NoOption, "{options:?}");
        assert_eq!(segment, before);
    }
}

proptest! {
    #[test]
    fn a_size_anywhere_among_options_is_lowered_with_a_right_checksum(before in 0usize..34, size in any::<u16>(), v6 in any::<bool>()) {
        let mut segment = packet(if v6 { "syn_v6" } else { "syn_v4" });
        let l4 = if v6 { 40 } else { 20 };
        segment.truncate(l4 + 20);
        // No-operations, so that the size stands at odd offsets too.
        segment.extend(std::iter::repeat_n(1, before));
        segment.extend([2, 4]);
        segment.extend(size.to_be_bytes());
        let header = (segment.len() - l4).next_multiple_of(4);
        segment.resize(l4 + header, 0);
        segment[l4 + 12] = (header as u8 / 4) << 4;
        let (at, length) = if v6 { (4, header) } else { (2, header + 20) };
        segment[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        segment[l4 + 16..l4 + 18].fill(0);
        let parsed = Parsed::from_ip(&segment).unwrap();
        let pseudo = checksum::pseudo(parsed.source, parsed.destination, Protocol::TCP, header as u32);
        let sum = pseudo.bytes(parsed.l4(&segment)).checksum();
        segment[l4 + 16..l4 + 18].copy_from_slice(&sum.to_be_bytes());

        let limit = if v6 { LIMIT.v6 } else { LIMIT.v4 };
        let expected = if size > limit { Clamped::Lowered { from: size } } else { Clamped::Fits };
        prop_assert_eq!(clamp(&mut segment), expected);
        prop_assert_eq!(&segment[l4 + 22 + before..][..2], &size.min(limit).to_be_bytes());
        prop_assert!(checksum_is_right(&segment));
    }

    #[test]
    fn no_segment_panics(tail in prop::collection::vec(any::<u8>(), 0..64), offset in 0u8..16) {
        let mut segment = packet("syn_v4");
        segment.truncate(20 + 20);
        segment.extend(&tail);
        segment[20 + 12] = offset << 4;
        let length = segment.len() as u16;
        segment[2..4].copy_from_slice(&length.to_be_bytes());
        let _ = clamp(&mut segment);
        prop_assert_eq!(&segment[..36], &{ let mut p = packet("syn_v4"); p[2..4].copy_from_slice(&length.to_be_bytes()); p[32] = offset << 4; p }[..36]);
    }
}
