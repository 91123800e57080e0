//! Which packets are answered by an ICMP error, and where it fits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::linux::packet;
use crate::buffer::{HeapBuf, NoRoom, PacketBuf};
use crate::packet::icmp_error::{Arrival, Cause, IcmpError, NotAnswered};
use crate::packet::{Parsed, checksum, ipv4};

const CAUSES: [Cause; 6] = [
    Cause::TimeExceeded,
    Cause::TooBig { mtu: 1280 },
    Cause::NoRoute,
    Cause::AddressUnreachable,
    Cause::Prohibited,
    Cause::PortUnreachable,
];

fn answer(packet: &[u8], change: impl Fn(&mut Parsed), arrival: Arrival, cause: Cause) -> Result<(), NotAnswered> {
    let mut parsed = Parsed::from_ip(packet).unwrap();
    change(&mut parsed);
    IcmpError::about(packet, &parsed, arrival, cause).map(drop)
}

#[test]
fn errors_and_later_fragments_are_never_answered() {
    let errors =
        ["time_exceeded_v4", "fragmentation_needed", "host_unreachable_v4", "time_exceeded_v6", "packet_too_big"];
    for cause in CAUSES {
        for name in errors {
            assert_eq!(answer(&packet(name), |_| (), Arrival::Unicast, cause), Err(NotAnswered::IsError), "{name}");
        }
        for name in ["later_fragment_v4", "later_fragment_v6"] {
            assert_eq!(answer(&packet(name), |_| (), Arrival::Unicast, cause), Err(NotAnswered::LaterFragment));
        }
        for name in
            ["echo_v4", "echo_v6", "echo_reply_v4", "first_fragment_v4", "first_fragment_v6", "udp_v4", "syn_v6"]
        {
            assert_eq!(answer(&packet(name), |_| (), Arrival::Unicast, cause), Ok(()), "{name}");
        }
    }
    let mut redirect = packet("echo_v6");
    redirect[40] = 137;
    assert_eq!(answer(&redirect, |_| (), Arrival::Unicast, Cause::NoRoute), Err(NotAnswered::IsError));
    let cut = [&packet("echo_v4")[..20], &[8, 0]].concat();
    let cut_to = |parsed: &mut Parsed| parsed.total_length = 22;
    assert_eq!(
        IcmpError::about(
            &cut,
            &{
                let mut p = Parsed::from_ip(&packet("echo_v4")).unwrap();
                cut_to(&mut p);
                p
            },
            Arrival::Unicast,
            Cause::NoRoute
        ),
        Err(NotAnswered::IsError)
    );
}

#[test]
fn what_is_not_between_two_hosts_is_not_answered_except_too_big_over_ipv6() {
    let (v4, v6) = (packet("udp_v4"), packet("udp_v6"));
    let to = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        move |parsed: &mut Parsed| parsed.destination = address
    };
    let from = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        move |parsed: &mut Parsed| parsed.source = address
    };
    for cause in CAUSES {
        let exception = if matches!(cause, Cause::TooBig { .. }) { Ok(()) } else { Err(NotAnswered::Group) };
        for destination in ["224.0.0.1", "255.255.255.255"] {
            assert_eq!(answer(&v4, to(destination), Arrival::Unicast, cause), Err(NotAnswered::Group));
        }
        assert_eq!(answer(&v4, |_| (), Arrival::Group, cause), Err(NotAnswered::Group));
        assert_eq!(answer(&v6, to("ff02::1"), Arrival::Unicast, cause), exception);
        assert_eq!(answer(&v6, |_| (), Arrival::Group, cause), exception);
        for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
            assert_eq!(answer(&v4, from(source), Arrival::Unicast, cause), Err(NotAnswered::Source), "{source}");
        }
        for source in ["::", "::1", "ff02::1"] {
            assert_eq!(answer(&v6, from(source), Arrival::Unicast, cause), Err(NotAnswered::Source), "{source}");
        }
    }
}

#[test]
fn an_error_needs_its_whole_room_and_a_source_of_its_family() {
    let about = packet("echo_v4");
    let parsed = Parsed::from_ip(&about).unwrap();
    let error = IcmpError::about(&about, &parsed, Arrival::Unicast, Cause::NoRoute).unwrap();
    assert_eq!((error.length(), error.destination()), (28 + 84, parsed.source));
    let source = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(error.write(source, &mut [0; 111]), Err(NoRoom(1)));
    assert_eq!(error.write(source, &mut [0; 112]), Ok(112));
    assert_eq!(error.write(Ipv6Addr::LOCALHOST.into(), &mut [0; 112]), Ok(0));
    let mut small = HeapBuf::with_room(111);
    assert!(error.append(source, &mut small).is_err() && small.data().is_empty());
    let mut buffer = HeapBuf::with_room(112);
    assert_eq!(error.append(source, &mut buffer), Ok(()));
    assert_eq!(Parsed::from_ip(buffer.data()).map(|parsed| parsed.total_length), Ok(112));
}

proptest! {
    #[test]
    fn every_error_is_a_right_packet_of_bounded_length(
        v6 in any::<bool>(), length in 0usize..2000, cause in 0usize..CAUSES.len(), mtu in any::<u32>(),
    ) {
        let mut about = packet(if v6 { "udp_v6" } else { "udp_v4" });
        let headers = if v6 { 48 } else { 28 };
        about.truncate(headers);
        about.resize(headers + length, 0xa5);
        let total = if v6 { length + 8 } else { length + 28 } as u16;
        let at = if v6 { 4 } else { 2 };
        about[at..at + 2].copy_from_slice(&total.to_be_bytes());
        let parsed = Parsed::from_ip(&about).unwrap();
        let cause = match CAUSES[cause] { Cause::TooBig { .. } => Cause::TooBig { mtu }, cause => cause };
        let error = IcmpError::about(&about, &parsed, Arrival::Unicast, cause).unwrap();
        let mut out = vec![0xff; 1500];
        let written = error.write(parsed.destination, &mut out).unwrap();
        prop_assert_eq!(written, error.length());
        let most = if v6 { 1280 } else { 576 };
        prop_assert!(written <= most);
        let answer = Parsed::from_ip(&out[..written]).unwrap();
        prop_assert_eq!((answer.source, answer.destination), (parsed.destination, parsed.source));
        prop_assert_eq!(answer.total_length as usize, written);
        let l4 = answer.l4(&out);
        let right = if v6 {
            checksum::pseudo(answer.source, answer.destination, answer.protocol, l4.len() as u32).bytes(l4).is_right()
        } else {
            ipv4::checksum_is_right(&out) && checksum::checksum(l4) == 0
        };
        prop_assert!(right);
        prop_assert!(about.starts_with(&l4[8..]));
        prop_assert!(out[written..].iter().all(|byte| *byte == 0xff));
    }
}
