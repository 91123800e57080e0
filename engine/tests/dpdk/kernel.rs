//! Ports whose other end is the kernel: packet rings on veth, and TAP devices.

use std::collections::{HashMap, HashSet};

use jetway_engine::port::{Port, PortInfo};
use jetway_pipelines::buffer::{ChecksumState, Network, PacketBuf, Transport};

use crate::frames::{L4Frame, l4_frame};
use crate::world::{RawSocket, Rig, frame, in_own_namespace, ip, is_test_frame};

/// Frames both ways between a port and the kernel's interface `peer`, whole and each once.
fn exchange(rig: &mut Rig, peer: &str, sizes: impl Iterator<Item = usize> + Clone) {
    let socket = RawSocket::open(peer);
    let frames: Vec<_> = (0..).zip(sizes).map(|(number, size)| frame(number, size)).collect();
    for part in frames.chunks(32) {
        part.iter().for_each(|frame| socket.send(frame));
        let mut got = rig.receive(part.len(), is_test_frame);
        // All have the same addresses, so one queue has them in order; broadcast may yet be spread.
        got.sort_by_key(|frame| frame[14..18].to_vec());
        assert_eq!(got, part, "from the kernel to the port");
    }
    for (index, frame) in frames.iter().enumerate() {
        let packet = rig.packet(frame);
        let queue = index % rig.queues.len();
        rig.send(queue, packet);
        assert_eq!(&socket.receive(), frame, "from the port to the kernel");
    }
}

fn veth(mtu: u16) {
    ip(&format!("link add jw-wire mtu {mtu} numtxqueues 4 numrxqueues 4 type veth peer name jw-peer mtu {mtu}"));
    ip("link set jw-wire up");
    ip("link set jw-peer up");
}

#[test]
fn a_packet_ring_on_veth_carries_frames_both_ways() {
    in_own_namespace("kernel::a_packet_ring_on_veth_carries_frames_both_ways", || {
        veth(1500);
        let mut rig = Rig::open("net_af_packet0,iface=jw-wire", 2, 1500);
        let PortInfo { driver, queues, receive_side_scaling, .. } = rig.port.info();
        assert_eq!((driver.as_str(), queues, receive_side_scaling), ("net_af_packet", 2, true));
        assert!(rig.port.link_up());
        exchange(&mut rig, "jw-peer", (60..=1514).step_by(7).chain([1514]));
        assert_eq!(rig.close(), 0, "buffers leaked");
    });
}

#[test]
fn a_packet_ring_carries_jumbo_frames() {
    in_own_namespace("kernel::a_packet_ring_carries_jumbo_frames", || {
        veth(1500);
        ip("link set jw-peer mtu 9000");
        let mut rig = Rig::open("net_af_packet0,iface=jw-wire", 1, 9000);
        exchange(&mut rig, "jw-peer", (8000..=9014).step_by(13).chain([9014]));
        assert_eq!(rig.close(), 0, "buffers leaked");
    });
}

#[test]
fn an_xdp_socket_on_veth_carries_frames_both_ways_on_its_one_queue() {
    in_own_namespace("kernel::an_xdp_socket_on_veth_carries_frames_both_ways_on_its_one_queue", || {
        ip("link add jw-wire type veth peer name jw-peer");
        ip("link set jw-wire up");
        ip("link set jw-peer up");
        let mut rig = Rig::open("net_af_xdp0,iface=jw-wire", 2, 1500);
        let PortInfo { driver, queues, receive_side_scaling, .. } = rig.port.info();
        assert_eq!((driver.as_str(), queues, receive_side_scaling), ("net_af_xdp", 1, false));
        exchange(&mut rig, "jw-peer", (60..=1514).step_by(7).chain([1514]));
        // Not asserted: this driver (of 22.11) keeps the buffers of its fill ring when it closes.
        rig.close();
    });
}

#[test]
fn a_tap_device_carries_frames_both_ways() {
    in_own_namespace("kernel::a_tap_device_carries_frames_both_ways", || {
        let mut rig = Rig::open("net_tap0,iface=jw-tap", 2, 1500);
        let PortInfo { driver, queues, receive_side_scaling, .. } = rig.port.info();
        assert_eq!((driver.as_str(), queues, receive_side_scaling), ("net_tap", 2, true));
        ip("link set jw-tap up");
        exchange(&mut rig, "jw-tap", (60..=1514).step_by(7).chain([1514]));
        assert_eq!(rig.close(), 0, "buffers leaked");
        assert!(nix::net::if_::if_nametoindex("jw-tap").is_err(), "the interface goes with its port");
    });
}

/// Sends packets of many flows from `peer`; asserts that each flow keeps to one queue and that no queue is idle.
fn flows_spread(rig: &mut Rig, peer: &str) {
    const FLOWS: u16 = 64;
    // The kernel hashes what it is told to be IPv4.
    let socket = RawSocket::open_for(0x0800, peer);
    let mut queues: HashMap<Vec<u8>, HashSet<usize>> = HashMap::new();
    for round in 0..4 {
        for flow in 0..FLOWS {
            socket.send(&l4_frame(Network::V4, Transport::Udp, 1000 + flow, round * 10).bytes);
        }
        rig.look(usize::from(FLOWS), |queue, packet| {
            queues.entry(packet.data()[34..36].to_vec()).or_default().insert(queue);
        });
    }
    assert_eq!(queues.len(), usize::from(FLOWS));
    assert!(queues.values().all(|queues| queues.len() == 1), "a flow came in on several queues: {queues:?}");
    let used: HashSet<_> = queues.values().flatten().collect();
    assert_eq!(used.len(), rig.queues.len(), "a queue got nothing of {FLOWS} flows");
}

#[test]
fn a_packet_ring_spreads_flows_over_its_queues() {
    in_own_namespace("kernel::a_packet_ring_spreads_flows_over_its_queues", || {
        veth(1500);
        let mut rig = Rig::open("net_af_packet0,iface=jw-wire", 2, 1500);
        flows_spread(&mut rig, "jw-peer");
    });
}

#[test]
fn a_tap_device_spreads_flows_over_its_queues() {
    in_own_namespace("kernel::a_tap_device_spreads_flows_over_its_queues", || {
        let mut rig = Rig::open("net_tap0,iface=jw-tap", 2, 1500);
        ip("link set jw-tap up");
        flows_spread(&mut rig, "jw-tap");
    });
}

/// Every protocol over every protocol, with even and odd payloads.
fn l4_frames() -> impl Iterator<Item = L4Frame> {
    [Network::V4, Network::V6].into_iter().flat_map(|network| {
        [Transport::Udp, Transport::Tcp].into_iter().flat_map(move |transport| {
            [1, 2, 63, 1000, 1401].into_iter().map(move |payload| l4_frame(network, transport, 77, payload))
        })
    })
}

#[test]
fn an_offloaded_checksum_leaves_the_port_right() {
    in_own_namespace("kernel::an_offloaded_checksum_leaves_the_port_right", || {
        let mut rig = Rig::open("net_tap0,iface=jw-tap", 1, 1500);
        ip("link set jw-tap up");
        assert!(rig.port.info().transmit_l4_checksum);
        let sockets = [RawSocket::open_for(0x0800, "jw-tap"), RawSocket::open_for(0x86dd, "jw-tap")];
        for frame in l4_frames() {
            let mut packet = rig.packet(&frame.bytes);
            packet.data_mut()[frame.checksum.clone()].copy_from_slice(&frame.pseudo);
            packet.offload_l4_checksum(frame.layout);
            rig.send(0, packet);
            let socket = match frame.layout.network {
                Network::V4 => &sockets[0],
                Network::V6 => &sockets[1],
            };
            assert_eq!(socket.receive(), frame.bytes, "{:?}", frame.layout);
        }
    });
}

#[test]
fn a_port_that_checks_checksums_tells_good_from_bad() {
    in_own_namespace("kernel::a_port_that_checks_checksums_tells_good_from_bad", || {
        let mut rig = Rig::open("net_tap0,iface=jw-tap", 1, 1500);
        ip("link set jw-tap up");
        assert!(rig.port.info().receive_checksum);
        let socket = RawSocket::open("jw-tap");
        for mut frame in l4_frames() {
            for wanted in [ChecksumState::Good, ChecksumState::Bad] {
                socket.send(&frame.bytes);
                rig.look(1, |_, packet| assert_eq!(packet.l4_checksum(), wanted, "{:?}", frame.layout));
                frame.bytes[frame.checksum.start] ^= 1;
            }
        }
    });
}

#[test]
fn a_port_takes_in_the_multicast_that_neighbour_discovery_needs() {
    in_own_namespace("kernel::a_port_takes_in_the_multicast_that_neighbour_discovery_needs", || {
        veth(1500);
        let mut rig = Rig::open("net_af_packet0,iface=jw-wire", 1, 1500);
        let socket = RawSocket::open("jw-peer");
        let mut solicitation = frame(1, 86);
        solicitation[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 1]);
        socket.send(&solicitation);
        assert_eq!(rig.receive(1, is_test_frame), [solicitation]);
    });
}
