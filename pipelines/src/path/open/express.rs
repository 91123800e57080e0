//! The short way of what nearly all frames of a tunnel are: data messages in whole datagrams without options, whose inner packets go
//! out of a port to a neighbour that is known.
//!
//! ```text
//! frames --> candidates and their sessions --> AEAD --> inner packets, made frames in place and sent
//!     '--> stay for the stages                     '--> what is not so simple: to the stages, opened
//! ```
//!
//! It decides nothing otherwise than the stages do, and they see nothing of a packet that goes this way to its end. No packet overtakes
//! another of its session: from the first on that stays for the stages, or goes to them opened, all do.

mod lane;

use arrayvec::ArrayVec;
use jetway_aead::OpenJob;

use lane::Lane;

use super::acceptance::{prefetch_acceptance, prove, unwrap};
use super::heard::{Heard, Source};
use super::{Authentic, Elsewhere, Run, check_session, find_slot, open_jobs, prefetch_sessions};
use crate::buffer::{ChecksumState, PacketBuf};
use crate::drop_reason::DropReason;
use crate::ids::{PortId, TunnelId};
use crate::packet::ecn::Ecn;
use crate::packet::udp::{self, Udp};
use crate::packet::{MacAddress, Ports, Protocol, ethernet};
use crate::path::classify::tunnel_at;
use crate::path::outputs::Outputs;
use crate::path::packet::{BURST, Origin, Packet, Packets, UNPARSED, Verdict};
use crate::path::pipeline::{Pipeline, Scene};
use crate::path::simple::{Addresses, Simple, Unfit, offer};
use crate::path::sweep::discard;
use crate::tables::Tables;
use crate::wireguard::constants::{DATA_HEADER_SIZE, REJECT_AFTER_MESSAGES};
use crate::wireguard::message::Data;

/// A data message.
struct Candidate {
    counter: u64,
    /// Where its encrypted packet begins in the frame, and the bytes of that with its tag.
    start: u16,
    sealed: u16,
    /// Its place in the burst.
    frame: u8,
    /// Its session.
    run: u8,
    /// Where it came from.
    source: u8,
    /// What its outer header says.
    ecn: Ecn,
}

/// What a burst has for this way. Large, and so made once and never moved.
struct Findings {
    candidates: ArrayVec<Candidate, BURST>,
    runs: ArrayVec<Run, BURST>,
    sources: ArrayVec<Source, BURST>,
}

/// Opens the data messages among the frames, and sends on what was in them; the other frames stay in `frames`, in their order.
/// What was in a message and is not so simple goes through the stages, before those.
pub fn express<'t, B: PacketBuf, O: Outputs<B>>(
    port: PortId,
    frames: &mut ArrayVec<B, BURST>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let tables = scene.tables;
    let Some(entry) = tables.port(port).filter(|_| !tables.listeners.is_empty()) else { return };
    let mut findings =
        Findings { candidates: ArrayVec::new_const(), runs: ArrayVec::new_const(), sources: ArrayVec::new_const() };
    findings.gather(frames, entry.mac, pipeline, tables);
    if findings.candidates.is_empty() {
        return;
    }
    findings.check_sessions(pipeline, scene);
    let authentic = findings.decrypt(frames, pipeline);
    if findings.runs.len() > 1 {
        prefetch_acceptance(findings.firsts(frames), pipeline, scene);
    }
    let mut intricate: Packets<'t, B> = ArrayVec::new();
    findings.take_in(frames, authentic, &mut intricate, pipeline, scene, out);
    if !intricate.is_empty() {
        pipeline.forward_opened(&mut intricate, scene, out);
    }
}

impl Findings {
    /// Finds the candidates of a burst, and has the places fetched that lead to their sessions.
    #[inline]
    fn gather<B: PacketBuf>(
        &mut self,
        frames: &ArrayVec<B, BURST>,
        mac: MacAddress,
        pipeline: &Pipeline<B>,
        tables: &Tables,
    ) {
        let mut recent = Recent::default();
        offer(frames, |number, frame| self.add(number, frame, mac, &mut recent, pipeline, tables));
    }

    /// Adds a frame, if it is a data message.
    #[inline(always)]
    fn add<B: PacketBuf>(
        &mut self,
        number: u8,
        frame: &B,
        mac: MacAddress,
        recent: &mut Recent,
        pipeline: &Pipeline<B>,
        tables: &Tables,
    ) -> Result<(), Unfit> {
        let (simple, ip) = Simple::of_frame(mac, frame)?;
        // Over a checksum that the NIC found wrong the stages decide.
        if simple.protocol != Protocol::UDP || frame.l4_checksum() == ChecksumState::Bad {
            return Err(Unfit::Other);
        }
        let ends = (simple.addresses, simple.ports);
        let tunnel = match recent.ends {
            Some((known, tunnel)) if known == ends => tunnel,
            Some(_) | None => {
                let Ports { source, destination } = simple.ports;
                let tunnel = tunnel_at(simple.addresses.destination(), destination, tables).ok_or(Unfit::Other)?;
                self.sources.push(Source::new(simple.addresses, source));
                recent.ends = Some((ends, tunnel));
                tunnel
            }
        };
        let header_length = simple.addresses.header_length();
        let datagram = ip.get(header_length..simple.length.into()).unwrap_or_default();
        let length = Udp::parse(datagram).map_err(|_| Unfit::Other)?.length;
        let message = datagram.get(udp::HEADER_LENGTH..length.into()).unwrap_or_default();
        // What comes behind a handshake message may belong to it.
        let Data { receiver, counter, encrypted_packet } = Data::parse(message).map_err(|_| Unfit::Intricate)?;
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(Unfit::Other);
        }
        if recent.session != Some((receiver, tunnel)) {
            let slot =
                find_slot(receiver, pipeline).map_err(|(Elsewhere::Worker(_) | Elsewhere::Nowhere)| Unfit::Other)?;
            self.runs.push(Run { slot, tunnel, refusal: None });
            recent.session = Some((receiver, tunnel));
        }
        self.candidates.push(Candidate {
            counter,
            start: (ethernet::HEADER_LENGTH + header_length + udp::HEADER_LENGTH + DATA_HEADER_SIZE) as u16,
            sealed: encrypted_packet.len() as u16,
            frame: number,
            // There are some of both: the first candidate has pushed them.
            run: self.runs.len().saturating_sub(1) as u8,
            source: self.sources.len().saturating_sub(1) as u8,
            ecn: Ecn::of(simple.inner.traffic_class),
        });
        Ok(())
    }

    /// Leaves to the stages what has no session that may still be used, and all behind it.
    fn check_sessions<B>(&mut self, pipeline: &Pipeline<B>, scene: &Scene<'_>) {
        prefetch_sessions(&self.runs, pipeline);
        if let Some(first) = self.runs.iter().position(|run| check_session(run, pipeline, scene).is_err()) {
            self.runs.truncate(first);
            let count = self.candidates.partition_point(|candidate| usize::from(candidate.run) < first);
            self.candidates.truncate(count);
        }
    }

    /// Leaves of each candidate's frame the encrypted packet, and runs the AEAD over all of them.
    fn decrypt<B: PacketBuf>(&self, frames: &mut ArrayVec<B, BURST>, pipeline: &Pipeline<B>) -> Authentic {
        let mut jobs = ArrayVec::<OpenJob<'_>, BURST>::new_const();
        let mut in_jobs: Authentic = 0;
        let mut current = None;
        let mut frames = (0..).zip(frames.iter_mut());
        for (number, candidate) in self.candidates.iter().enumerate() {
            let Some((_, frame)) = frames.find(|(place, _)| *place == candidate.frame) else { break };
            if current.is_none_or(|(run, _)| run != candidate.run) {
                let run = self.runs.get(usize::from(candidate.run));
                let Some(receiver) = run.and_then(|run| pipeline.slots.get(run.slot)) else { continue };
                current = Some((candidate.run, &receiver.key));
            }
            let Some((_, key)) = current else { continue };
            frame.narrow(candidate.start.into(), candidate.sealed.into());
            jobs.push(OpenJob { key, counter: candidate.counter, buffer: frame.data_mut(), authentic: false });
            in_jobs |= 1 << number;
        }
        open_jobs(&mut jobs, in_jobs, pipeline)
    }

    /// Of each run, its first message.
    fn firsts<'f, B: PacketBuf>(
        &'f self,
        frames: &'f ArrayVec<B, BURST>,
    ) -> impl Iterator<Item = (&'f Run, &'f [u8], Source)> {
        let runs = self.candidates.chunk_by(|a, b| a.run == b.run).filter_map(|of_run| of_run.first());
        runs.filter_map(|first| {
            let frame = frames.get(usize::from(first.frame))?;
            let source = *self.sources.get(usize::from(first.source))?;
            Some((self.runs.get(usize::from(first.run))?, frame.data(), source))
        })
    }

    /// Takes in what was authentic: sends it on, or puts it into `intricate`.
    fn take_in<'t, B: PacketBuf, O: Outputs<B>>(
        &self,
        frames: &mut ArrayVec<B, BURST>,
        authentic: Authentic,
        intricate: &mut Packets<'t, B>,
        pipeline: &mut Pipeline<B>,
        scene: &Scene<'t>,
        out: &mut O,
    ) {
        let mut lane = Lane::new(scene.tables);
        let mut rest = ArrayVec::<B, BURST>::new();
        let mut candidates = self.candidates.iter().enumerate().peekable();
        let mut hearing: Option<Hearing> = None;
        for (number, mut frame) in (0..).zip(frames.drain(..)) {
            let Some((number, candidate)) = candidates.next_if(|(_, candidate)| candidate.frame == number) else {
                rest.push(frame);
                continue;
            };
            if !hearing.as_ref().is_some_and(|hearing| hearing.is_of(candidate)) {
                if let Some(hearing) = hearing.take() {
                    hearing.note(self, pipeline, scene, out);
                }
                hearing = Hearing::begin(candidate, self, pipeline);
            }
            let run = self.runs.get(usize::from(candidate.run));
            let Pipeline { slots, spare_windows, .. } = &mut *pipeline;
            let session = run.and_then(|run| Some((run.tunnel, slots.get_mut(run.slot)?)));
            let (Some((tunnel, receiver)), Some(hearing)) = (session, &mut hearing) else {
                discard(frame, DropReason::WireguardNoSession, pipeline, out);
                continue;
            };
            let proven = match hearing.is_removed {
                true => Err(DropReason::PeerRemoved),
                false => prove(candidate.counter, authentic >> number & 1 == 1, receiver, spare_windows),
            };
            if let Err(reason) = proven {
                discard(frame, reason, pipeline, out);
                continue;
            }
            hearing.heard.add(candidate.sealed.into());
            if intricate.is_empty()
                && let Some(port) = lane.make_frame(&mut frame, (candidate.run, tunnel), candidate.ecn, receiver)
            {
                if let Err(frame) = out.send(port, frame) {
                    discard(frame, DropReason::TransmitQueueFull, pipeline, out);
                }
                continue;
            }
            let origin = Origin::Tunnel(tunnel);
            let mut packet = Packet { buffer: frame, parsed: UNPARSED, origin, server: None, verdict: Verdict::Route };
            match unwrap(&mut packet, candidate.ecn, tunnel, receiver, scene.tables) {
                Ok(()) => intricate.push(packet),
                Err(reason) => discard(packet.buffer, reason, pipeline, out),
            }
        }
        if let Some(hearing) = hearing {
            hearing.note(self, pipeline, scene, out);
        }
        frames.extend(rest);
    }
}

/// What was found out about frames of this burst: mostly it holds for the next one too.
#[derive(Default)]
struct Recent {
    /// The ends of the last datagram to a tunnel, and which that is.
    ends: Option<((Addresses, Ports), TunnelId)>,
    /// The receiver and the tunnel of the last candidate.
    session: Option<(u32, TunnelId)>,
}

/// Messages in a row of one session from one source.
struct Hearing {
    run: u8,
    source: u8,
    is_removed: bool,
    heard: Heard,
}

impl Hearing {
    fn begin<B>(candidate: &Candidate, findings: &Findings, pipeline: &Pipeline<B>) -> Option<Self> {
        let Candidate { run, source, .. } = *candidate;
        let receiver = pipeline.slots.get(findings.runs.get(usize::from(run))?.slot)?;
        let heard = Heard::nothing(*findings.sources.get(usize::from(source))?);
        Some(Self { run, source, is_removed: receiver.peer.is_removed(), heard })
    }

    #[inline(always)]
    fn is_of(&self, candidate: &Candidate) -> bool {
        self.run == candidate.run && self.source == candidate.source
    }

    fn note<B, O: Outputs<B>>(&self, findings: &Findings, pipeline: &mut Pipeline<B>, scene: &Scene<'_>, out: &mut O) {
        let Pipeline { slots, counters, admission, .. } = pipeline;
        let run = findings.runs.get(usize::from(self.run));
        if !self.heard.is_nothing()
            && let Some(receiver) = run.and_then(|run| slots.get_mut(run.slot))
        {
            self.heard.note(receiver, counters, admission, scene.now, out);
        }
    }
}
