//! Ports whose other end is the kernel: packet rings on veth, and TAP devices.

use jetway_engine::port::{Port, PortInfo};

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
