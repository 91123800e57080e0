//! Errors about packets. The input is a packet and a last byte that says what is wrong with it.

use jetway_pipelines::packet::icmp_error::{Arrival, Cause, IcmpError};
use jetway_pipelines::packet::{Fragment, Parsed, Protocol, checksum};

use crate::fuzz::Outcome;

/// Whatever is answered is a right packet of bounded length that is itself never answered.
pub fn icmp_error(data: &[u8]) -> Outcome {
    let Some((choice, packet)) = data.split_last() else { return Outcome::of("empty") };
    let Ok(parsed) = Parsed::from_ip(packet) else { return Outcome::of("no packet") };
    let cause = match choice & 7 {
        0 => Cause::TimeExceeded,
        1 => Cause::TooBig { mtu: u32::from(*choice) << 8 },
        2 => Cause::NoRoute,
        3 => Cause::AddressUnreachable,
        4 => Cause::Prohibited,
        _ => Cause::PortUnreachable,
    };
    let arrival = if choice & 8 == 0 { Arrival::Unicast } else { Arrival::Group };
    let error = match IcmpError::about(packet, &parsed, arrival, cause) {
        Ok(error) => error,
        Err(refused) => return Outcome::of(refused.to_string()),
    };
    assert_ne!(parsed.fragment, Fragment::Later);
    let mut out = [0xaa; 1500];
    let written = error.write(parsed.destination, &mut out).expect("every error fits 1,280 bytes");
    assert_eq!(written, error.length());
    let answer = Parsed::from_ip(&out[..written]).expect("we make whole packets");
    assert_eq!((answer.source, answer.destination), (parsed.destination, parsed.source));
    assert_eq!(answer.total_length as usize, written);
    assert!(out[written..].iter().all(|byte| *byte == 0xaa));
    assert_eq!(answer.verify_header_checksum(&out), Ok(()));
    let l4 = answer.l4(&out);
    if parsed.is_ipv4() {
        assert!(written <= 576 && answer.protocol == Protocol::ICMP && checksum::checksum(l4) == 0);
    } else {
        let pseudo = checksum::pseudo(answer.source, answer.destination, Protocol::ICMPV6, l4.len() as u32);
        assert!(written <= 1280 && answer.protocol == Protocol::ICMPV6 && pseudo.bytes(l4).is_right());
    }
    assert!(packet.starts_with(&l4[8..]), "the error quotes the packet");
    assert!(IcmpError::about(&out[..written], &answer, Arrival::Unicast, cause).is_err());
    Outcome::of((parsed.is_ipv4(), choice & 15, written > 500))
}
