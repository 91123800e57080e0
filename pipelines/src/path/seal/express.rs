//! The short way of what nearly all packets into tunnels are: whole UDP and TCP packets without options, from a port, to peers whose
//! session and way are known.
//!
//! ```text
//! frames --> candidates --> their peers, sessions and ways --> messages with all headers --> AEAD --> sent
//!     '--> stay for the stages  <--'
//! ```
//!
//! It decides nothing otherwise than the stages do, and they see nothing of a packet that goes this way. No packet overtakes another of
//! its flow: all of a burst to one peer go this way, or none, but for those behind the first that is not so simple.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use jetway_aead::SealJob;

use super::frame_message;
use super::runs::{Keys, NO_KEY, NO_RUN, Ready, Runs};
use crate::buffer::{NoRoom, PacketBuf};
use crate::drop_reason::DropReason;
use crate::ids::PortId;
use crate::packet::tcp::Flags;
use crate::packet::{MacAddress, ecn, ethernet, ipv4, ipv6};
use crate::path::classify::{check_origin, may_forward};
use crate::path::emit::LinkHeaders;
use crate::path::outer::{LastWay, Outer};
use crate::path::outputs::Outputs;
use crate::path::packet::BURST;
use crate::path::pipeline::{Pipeline, Scene};
use crate::path::route::PeerSearch;
use crate::path::simple::{Addresses, Simple, Unfit, offer};
use crate::path::sweep::discard;
use crate::tables::Tables;
use crate::wireguard::constants::DATA_HEADER_SIZE;
use crate::wireguard::message::Data;
use crate::wireguard::peer::Content;

/// A packet that may go into a tunnel.
struct Candidate {
    /// Bytes of it.
    length: u16,
    traffic_class: u8,
    is_ipv4: bool,
    /// Its place in the burst.
    frame: u8,
    /// Its stretch.
    stretch: u8,
    fate: Fate,
}

/// What became of a candidate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing: it is for the stages.
    Stays,
    /// It is a frame that can be sent.
    Sealed,
    /// Its buffer has no room for the headers.
    NoRoom,
}

/// Candidates in a row between the same addresses.
struct Stretch {
    addresses: Addresses,
    packets: u16,
    longest: u16,
    /// The number of its peer's run; [`NO_RUN`] while that is not known, or if there is none.
    run: u8,
}

/// What the packets of a run have to fit.
struct Extent {
    /// The longest of them.
    longest: u16,
    /// The longest that may go into the tunnel.
    mtu: u16,
}

/// What a burst has for this way. Large, and so made once and never moved.
struct Findings<'t> {
    candidates: ArrayVec<Candidate, BURST>,
    stretches: ArrayVec<Stretch, BURST>,
    peers: Peers<'t>,
    keys: Keys,
    /// Ends of packets that go elsewhere.
    elsewhere: Option<Addresses>,
}

/// The peers of a burst.
struct Peers<'t> {
    runs: Runs<'t>,
    /// Of each run.
    extents: ArrayVec<Extent, BURST>,
    /// The last address from which packets may come.
    origin: Option<IpAddr>,
}

/// Sends on the packets among the frames that go into tunnels; the other frames stay in `frames`, in their order.
pub fn express<'t, B: PacketBuf, O: Outputs<B>>(
    port: PortId,
    frames: &mut ArrayVec<B, BURST>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let tables = scene.tables;
    // What a packet has to do with a service is known to the stages alone.
    let is_of_use = !tables.listeners.is_empty() && tables.services.is_empty();
    let Some(entry) = tables.port(port).filter(|_| is_of_use) else { return };
    let mut findings = Findings {
        candidates: ArrayVec::new_const(),
        stretches: ArrayVec::new_const(),
        peers: Peers { runs: Runs::new(), extents: ArrayVec::new_const(), origin: None },
        keys: Keys::new_const(),
        elsewhere: None,
    };
    findings.gather(frames, entry.mac, tables);
    if findings.candidates.is_empty() {
        return;
    }
    findings.find_peers(tables);
    findings.prepare(pipeline, scene, out);
    findings.encrypt(frames, pipeline);
    findings.send(frames, pipeline, out);
    for run in &findings.peers.runs.all {
        run.note(scene.now);
    }
}

impl<'t> Findings<'t> {
    /// Finds the candidates of a burst.
    #[inline]
    fn gather<B: PacketBuf>(&mut self, frames: &ArrayVec<B, BURST>, mac: MacAddress, tables: &'t Tables) {
        offer(frames, |number, frame| self.add(number, frame, mac, tables));
    }

    /// Adds a frame, if it may go into a tunnel.
    #[inline(always)]
    fn add<B: PacketBuf>(&mut self, number: u8, frame: &B, mac: MacAddress, tables: &'t Tables) -> Result<(), Unfit> {
        let (simple, _) = Simple::of_frame(mac, frame)?;
        // A connection learns from its first segments what fits through the tunnel.
        if simple.flags.contains(Flags::SYN) {
            return Err(Unfit::Intricate);
        }
        let Simple { addresses, length, .. } = simple;
        match self.stretches.last_mut() {
            Some(stretch) if stretch.addresses == addresses => {
                stretch.packets += 1;
                stretch.longest = stretch.longest.max(length);
            }
            last => {
                // The first shows whether the burst is worth it; the peers of the others are looked up together.
                let run = match last {
                    None => self.find_first(addresses, tables)?,
                    Some(_) => NO_RUN,
                };
                self.stretches.push(Stretch { addresses, packets: 1, longest: length, run });
            }
        }
        self.candidates.push(Candidate {
            length,
            traffic_class: simple.inner.traffic_class,
            is_ipv4: matches!(addresses, Addresses::V4(..)),
            frame: number,
            // There are some: the first candidate has pushed one.
            stretch: self.stretches.len().saturating_sub(1) as u8,
            fate: Fate::Stays,
        });
        Ok(())
    }

    /// Finds the peer of the first candidate. After two flows that go elsewhere the others are not looked at.
    fn find_first(&mut self, addresses: Addresses, tables: &'t Tables) -> Result<u8, Unfit> {
        if self.elsewhere == Some(addresses) {
            return Err(Unfit::Other);
        }
        self.peers.find(addresses, tables).ok_or_else(|| match self.elsewhere.replace(addresses) {
            None => Unfit::Other,
            Some(_) => Unfit::Intricate,
        })
    }

    /// Finds the peers of all stretches.
    fn find_peers(&mut self, tables: &'t Tables) {
        let Self { stretches, peers, .. } = self;
        let mut searches = ArrayVec::<_, BURST>::new_const();
        for stretch in stretches.iter().skip(1) {
            searches.push(PeerSearch::begin(stretch.addresses.destination(), tables));
        }
        for search in searches.iter().flatten() {
            search.go_on();
        }
        for (stretch, search) in stretches.iter_mut().skip(1).zip(&searches) {
            let run = search.as_ref().and_then(|search| peers.take(stretch.addresses, search, tables));
            stretch.run = run.unwrap_or(NO_RUN);
        }
        for stretch in stretches {
            let number = usize::from(stretch.run);
            if let (Some(run), Some(extent)) = (peers.runs.all.get_mut(number), peers.extents.get_mut(number)) {
                run.packets += u64::from(stretch.packets);
                extent.longest = extent.longest.max(stretch.longest);
            }
        }
    }

    /// Makes each run ready whose packets can all be encrypted and sent now.
    fn prepare<B: PacketBuf, O: Outputs<B>>(&mut self, pipeline: &Pipeline<B>, scene: &Scene<'t>, out: &mut O) {
        let Peers { runs, extents, .. } = &mut self.peers;
        runs.prefetch_sessions();
        let mut last_way = LastWay::default();
        for (run, extent) in runs.all.iter_mut().zip(extents) {
            self.keys.push(NO_KEY);
            let Some(key) = self.keys.last_mut().filter(|_| extent.longest <= extent.mtu) else { continue };
            if run.prepare(key, &mut last_way, pipeline, scene, out).is_err() {
                continue;
            }
            let ready = run.ready.as_mut().filter(|ready| usize::from(extent.longest) <= ready.room);
            let is_sent = ready.is_some_and(|Ready { outer, .. }| {
                if !outer.is_linked()
                    && let Ok(link) = LinkHeaders::find(outer.port, outer.next_hop, scene.tables)
                {
                    outer.set_link(&link);
                    last_way.set_link(&link);
                }
                outer.is_linked()
            });
            if !is_sent {
                run.ready = None;
            }
        }
    }

    /// Makes messages of the packets of each run that is ready, with all headers before them, and runs the AEAD over all of them.
    fn encrypt<B: PacketBuf>(&mut self, frames: &mut ArrayVec<B, BURST>, pipeline: &mut Pipeline<B>) {
        let mut jobs = ArrayVec::<SealJob<'_>, BURST>::new_const();
        let mut frames = (0..).zip(frames.iter_mut());
        for of_stretch in self.candidates.chunk_by_mut(|a, b| a.stretch == b.stretch) {
            let stretch = of_stretch.first().and_then(|first| self.stretches.get(usize::from(first.stretch)));
            let Some(number) = stretch.map(|stretch| usize::from(stretch.run)) else { continue };
            let run = self.peers.runs.all.get_mut(number);
            let (Some(run), Some(key)) = (run, self.keys.get(number)) else { continue };
            let Some(ready) = run.ready.as_mut() else { continue };
            run.content = Content::Data;
            for candidate in of_stretch {
                let Some((_, frame)) = frames.find(|(place, _)| *place == candidate.frame) else { break };
                let counter = ready.next_counter;
                ready.next_counter += 1;
                let Ok(message) = make_message(frame, candidate, counter, ready, &mut pipeline.ip_id) else {
                    candidate.fate = Fate::NoRoom;
                    continue;
                };
                candidate.fate = Fate::Sealed;
                run.bytes += message.len() as u64;
                let buffer = message.get_mut(DATA_HEADER_SIZE..).unwrap_or_default();
                jobs.push(SealJob { key, counter, buffer });
            }
        }
        pipeline.aead.seal_burst(&mut jobs);
        pipeline.counters.sealed.add(jobs.len() as u64);
    }

    /// Sends what was encrypted.
    fn send<B: PacketBuf, O: Outputs<B>>(&self, frames: &mut ArrayVec<B, BURST>, pipeline: &Pipeline<B>, out: &mut O) {
        let mut rest = ArrayVec::<B, BURST>::new();
        let mut candidates = self.candidates.iter().peekable();
        let mut outer = None;
        for (number, mut frame) in (0..).zip(frames.drain(..)) {
            let candidate = candidates.next_if(|candidate| candidate.frame == number);
            let Some(candidate) = candidate.filter(|candidate| candidate.fate != Fate::Stays) else {
                rest.push(frame);
                continue;
            };
            if outer.is_none_or(|(stretch, _)| stretch != candidate.stretch) {
                outer = self.outer_of(candidate.stretch).map(|outer| (candidate.stretch, outer));
            }
            let Some((_, outer)) = outer.filter(|_| candidate.fate == Fate::Sealed) else {
                discard(frame, DropReason::BufferNoRoom, pipeline, out);
                continue;
            };
            outer.complete(&mut frame, ethernet::HEADER_LENGTH);
            if let Err(frame) = out.send(outer.port, frame) {
                discard(frame, DropReason::TransmitQueueFull, pipeline, out);
            }
        }
        frames.extend(rest);
    }

    fn outer_of(&self, stretch: u8) -> Option<&Outer> {
        let run = self.stretches.get(usize::from(stretch))?.run;
        Some(&self.peers.runs.all.get(usize::from(run))?.ready.as_ref()?.outer)
    }
}

impl<'t> Peers<'t> {
    /// The number of the run of the peer to which packets between these addresses go, if they may go to one.
    #[inline(never)]
    fn find(&mut self, addresses: Addresses, tables: &'t Tables) -> Option<u8> {
        let search = PeerSearch::begin(addresses.destination(), tables)?;
        self.take(addresses, &search, tables)
    }

    /// The same, of a search that was begun.
    #[inline]
    fn take(&mut self, addresses: Addresses, search: &PeerSearch<'t>, tables: &Tables) -> Option<u8> {
        let (source, destination) = (addresses.source(), addresses.destination());
        if tables.is_local(destination) || !may_forward(destination) {
            return None;
        }
        if self.origin != Some(source) {
            check_origin(source, tables).ok()?;
            self.origin = Some(source);
        }
        let (peer, tunnel) = search.finish()?;
        let number = self.runs.number_of(peer);
        if self.extents.len() < self.runs.all.len() {
            self.extents.push(Extent { longest: 0, mtu: tunnel.mtu });
        }
        Some(number)
    }
}

/// A frame that holds a packet becomes one that holds a message to be encrypted, which is returned.
#[inline(always)]
fn make_message<'b, B: PacketBuf>(
    frame: &'b mut B,
    candidate: &Candidate,
    counter: u64,
    ready: &Ready<'_>,
    ip_id: &mut u16,
) -> Result<&'b mut [u8], NoRoom> {
    let length = usize::from(candidate.length);
    frame.narrow(ethernet::HEADER_LENGTH, length);
    // That it has a hop left was seen before.
    let _ = match candidate.is_ipv4 {
        true => ipv4::decrement_ttl(frame.data_mut()),
        false => ipv6::decrement_hop_limit(frame.data_mut()),
    };
    frame_message(frame, Data::header(ready.remote_index, counter), ready.limit.max(length))?;
    let message = frame.data().len();
    ready.outer.put_before(frame, ecn::encapsulate(candidate.traffic_class, ready.tunnel.dscp), ip_id)?;
    let data = frame.data_mut();
    Ok(data.split_at_mut(data.len().saturating_sub(message)).1)
}
