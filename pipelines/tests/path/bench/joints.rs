//! What joins workers, handshaker and clients, as the engine's rings do.

use std::collections::BTreeMap;

use jetway_pipelines::buffer::{HeapBuf, PacketBuf};
use jetway_pipelines::ids::{PortId, WorkerId};
use jetway_pipelines::packet::udp::Udp;
use jetway_pipelines::packet::{Frame, Parsed};
use jetway_pipelines::path::slots::Page;
use jetway_pipelines::path::{Answer, Command, HandshakeEvent, Scene};
use jetway_pipelines::wireguard::handshaker::{CookieRequest, Output};
use jetway_pipelines::wireguard::message::Data;
use jetway_pipelines::wireguard::replay::Crate;

use super::packets::parse_datagram;
use super::{LISTEN_PORT, MACS, PORT_MTU, WAN, Worker, World, neighbour_mac};

impl World {
    /// Workers, handshaker and rings do what there is to do; the clients stay out of it.
    pub fn settle(&mut self) {
        loop {
            let mut work = 0;
            for number in 0..self.workers.len() {
                let scene = Scene { tables: &self.tables, now: self.now };
                let Worker { pipeline, out, .. } = &mut self.workers[number];
                pipeline.release_held(&scene, out);
                work += self.collect(number);
            }
            work += self.carry_out();
            if work == 0 {
                break;
            }
        }
        self.check();
    }

    /// Takes what a worker has put out to where it belongs.
    fn collect(&mut self, number: usize) -> usize {
        let out = &mut self.workers[number].out;
        let (sent, punted) = (std::mem::take(&mut out.sent), std::mem::take(&mut out.punted));
        let (handed_off, events) = (std::mem::take(&mut out.handed_off), std::mem::take(&mut out.handshakes));
        self.control.append(&mut out.control);
        let work = sent.len() + punted.len() + handed_off.len() + events.len();
        self.workers[number].counters.sent.add(sent.len() as u64);
        for (port, frame) in sent {
            self.take_frame(number, port, frame.data());
        }
        self.punted.extend(punted.into_iter().map(|(twin, packet)| (twin, packet.data().to_vec())));
        let mut bursts: BTreeMap<(usize, PortId), Vec<HeapBuf>> = BTreeMap::new();
        for (to, port, frame) in handed_off {
            bursts.entry((to.index(), port)).or_default().push(frame);
        }
        for ((to, port), frames) in bursts {
            self.workers[to].counters.taken_over.add(frames.len() as u64);
            self.process(to, port, frames);
        }
        for event in events {
            self.handle(WorkerId(number as u16), event);
        }
        work
    }

    fn handle(&mut self, worker: WorkerId, event: HandshakeEvent) {
        let (now, wall) = (self.now, self.wall());
        match event {
            HandshakeEvent::Message { tunnel, from, message, answer } => {
                let cookie = match answer {
                    Answer::Handshake => CookieRequest::None,
                    Answer::Cookie => CookieRequest::Reply,
                };
                let outcome = self.handshaker.handle_message(now, wall, tunnel, from, worker, &message, cookie);
                self.refused.extend(outcome.err());
            }
            HandshakeEvent::Wanted(peer) => self.handshaker.handle_wanted(now, wall, peer),
            HandshakeEvent::Confirmed(peer, index) => self.handshaker.handle_confirmed(now, peer, index),
            HandshakeEvent::Removed(slot, _) => self.handshaker.receiver_removed(worker, slot),
            HandshakeEvent::Replaced(_) => panic!("a slot in use was given away"),
            HandshakeEvent::SparePage(_) => panic!("a page was given twice"),
            HandshakeEvent::WindowsWanted => self.command(worker.index(), Command::AddWindows(Crate::new())),
            HandshakeEvent::SpareCrate(_) => {}
        }
    }

    fn carry_out(&mut self) -> usize {
        let mut count = 0;
        while let Some(output) = self.handshaker.poll_output() {
            count += 1;
            match output {
                Output::Send { tunnel, peer: _, to, message } => {
                    let worker = usize::from(to.remote.port()) % self.workers.len();
                    self.command(worker, Command::SendMessage { tunnel, to, message });
                }
                Output::InstallReceiver { worker, slot, receiver } => {
                    let page = Page::of(slot);
                    if self.workers[worker.index()].pages.insert(page) {
                        self.command(worker.index(), Command::AddPage(page, Page::new()));
                    }
                    self.command(worker.index(), Command::InstallReceiver(slot, receiver));
                }
                Output::RemoveReceiver { worker, slot } => {
                    self.command(worker.index(), Command::RemoveReceiver(slot));
                }
                Output::SendKeepalive { peer } => {
                    let worker = peer.index.index() % self.workers.len();
                    self.command(worker, Command::SendKeepalive(peer));
                }
                Output::SessionReady { peer: _ } => {}
                Output::GiveUp { peer } => self.given_up.push(peer.index),
            }
        }
        count
    }

    pub fn command(&mut self, worker: usize, command: Command) {
        let scene = Scene { tables: &self.tables, now: self.now };
        let Worker { pipeline, out, .. } = &mut self.workers[worker];
        pipeline.command(command, &scene, out);
    }

    /// Looks at a frame that leaves, and gives it to its client if there is one.
    fn take_frame(&mut self, worker: usize, port: PortId, bytes: &[u8]) {
        let header = Frame::parse(bytes).expect("a whole frame");
        let packet = header.payload(bytes);
        let Some(ip) = Parsed::from_payload(header.ethertype, packet) else {
            return self.sent.push((port, bytes.to_vec()));
        };
        let ip = ip.expect("what leaves is well-formed");
        assert_eq!(ip.verify_header_checksum(packet), Ok(()));
        assert_eq!(ip.total_length as usize, packet.len(), "a frame ends with its packet");
        assert_eq!(header.source, MACS[port.index()], "frames leave with the port's address");
        assert!(packet.len() <= usize::from(PORT_MTU));
        let client = parse_datagram(packet).and_then(|(from, to, payload)| {
            let client = self.clients.iter().position(|client| client.address == to)?;
            (from.port() == LISTEN_PORT && port == WAN).then_some((client, from, payload))
        });
        let Some((client, from, payload)) = client else { return self.sent.push((port, bytes.to_vec())) };
        assert_eq!(header.destination, neighbour_mac(ip.destination), "it goes to the client's link-layer address");
        let l4 = ip.l4(packet);
        let udp = Udp::parse(l4).expect("a whole datagram");
        // RFC 768 lets it be left out over IPv4; RFC 8200 section 8.1 does not.
        assert!(ip.is_ipv4() && udp.checksum == 0 || udp.verify_checksum(&ip, l4).is_ok() && udp.checksum != 0);
        if let Ok(data) = Data::parse(payload) {
            assert!(self.nonces.insert((data.receiver, data.counter)), "nonce {} was used twice", data.counter);
            self.sealed_by.push((worker, data.receiver, data.counter));
        }
        self.for_clients.push((client, from, ip.traffic_class, payload.to_vec()));
    }
}
