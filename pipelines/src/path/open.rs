//! The stage that decrypts: every data message of a burst in one call of the AEAD.

mod acceptance;
mod express;
mod heard;

pub(super) use express::express;

use arrayvec::ArrayVec;
use jetway_aead::OpenJob;

use self::acceptance::{accept, prefetch_acceptance};
use self::heard::Source;
use super::outputs::Outputs;
use super::packet::{BURST, Packet, Packets, Verdict};
use super::pipeline::{Pipeline, Scene};
use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::ids::{SlotIndex, TunnelId, WorkerId};
use crate::wireguard::Receiver;
use crate::wireguard::constants::{DATA_HEADER_SIZE, REJECT_AFTER_MESSAGES};
use crate::wireguard::message::{self, Data};

/// A data message on its way to and through the AEAD: its packet's buffer holds the encrypted packet and its tag.
struct Pending {
    counter: u64,
    /// Bytes of the encrypted packet with its tag.
    sealed: u16,
    packet: u8,
    run: u8,
}

/// Messages in a row to one session by one tunnel's port: looked up, judged and noted once.
struct Run {
    slot: SlotIndex,
    tunnel: TunnelId,
    refusal: Option<DropReason>,
}

/// The data messages of one burst and their runs. Large, and so made once and never moved.
struct Messages {
    pending: ArrayVec<Pending, BURST>,
    runs: ArrayVec<Run, BURST>,
}

/// Decrypts the packets that [`Verdict::Open`] names, and admits handshake messages.
pub fn open<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let mut messages = Messages { pending: ArrayVec::new_const(), runs: ArrayVec::new_const() };
    find_messages(packets, &mut messages, pipeline, scene, out);
    if messages.pending.is_empty() {
        return;
    }
    prefetch_sessions(&messages.runs, pipeline);
    for run in &mut messages.runs {
        run.refusal = check_session(run, pipeline, scene).err();
    }
    let authentic = decrypt(packets, &messages, pipeline);
    if messages.runs.len() > 1 {
        let runs = messages.pending.chunk_by(|a, b| a.run == b.run).filter_map(|of_run| of_run.first());
        let firsts = runs.filter_map(|first| {
            let packet = packets.get(usize::from(first.packet))?;
            Some((messages.runs.get(usize::from(first.run))?, packet.buffer.data(), Source::of(&packet.parsed)))
        });
        prefetch_acceptance(firsts, pipeline, scene);
    }
    accept(packets, &messages, authentic, pipeline, scene, out);
}

/// Reads the headers: data messages to this worker go to `messages`, all others get their verdict.
fn find_messages<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    messages: &mut Messages,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let mut last = None;
    for (number, packet) in packets.iter_mut().enumerate() {
        let Verdict::Open { tunnel, port, message, length } = packet.verdict else { continue };
        let (start, length) = (usize::from(message), usize::from(length));
        let bytes = packet.buffer.data().get(start..start + length).unwrap_or_default();
        let Ok(header) = Data::parse(bytes) else {
            packet.verdict = Verdict::Drop(not_data(packet, bytes, tunnel, pipeline, scene, out));
            continue;
        };
        if last != Some((header.receiver, tunnel)) {
            match find_slot(header.receiver, pipeline) {
                Ok(slot) => messages.runs.push(Run { slot, tunnel, refusal: None }),
                Err(Elsewhere::Worker(to)) => {
                    packet.verdict = Verdict::HandOff { to, port };
                    continue;
                }
                Err(Elsewhere::Nowhere) => {
                    packet.verdict = Verdict::Drop(DropReason::WireguardNoSession);
                    continue;
                }
            }
            last = Some((header.receiver, tunnel));
        }
        if header.counter >= REJECT_AFTER_MESSAGES {
            packet.verdict = Verdict::Drop(DropReason::WireguardSessionExpired);
            continue;
        }
        let run = messages.runs.len().wrapping_sub(1) as u8;
        let sealed = length - DATA_HEADER_SIZE;
        messages.pending.push(Pending { counter: header.counter, sealed: sealed as u16, packet: number as u8, run });
        packet.buffer.narrow(start + DATA_HEADER_SIZE, sealed);
    }
}

/// What becomes of a message that is no data message: the handshaker's, or malformed.
#[cold]
fn not_data<B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'_, B>,
    bytes: &[u8],
    tunnel: TunnelId,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'_>,
    out: &mut O,
) -> DropReason {
    match message::classify(bytes) {
        Ok(kind) => pipeline.admission.admit(kind, bytes, tunnel, Source::of(&packet.parsed).endpoint(), scene, out),
        Err(_) => DropReason::WireguardMalformed,
    }
}

enum Elsewhere {
    Worker(WorkerId),
    Nowhere,
}

/// The slot that a receiver index stands for.
fn find_slot<B>(receiver: u32, pipeline: &Pipeline<B>) -> Result<SlotIndex, Elsewhere> {
    let (node, worker, slot) = pipeline.index_layout.decode(receiver).ok_or(Elsewhere::Nowhere)?;
    if node != pipeline.node {
        return Err(Elsewhere::Nowhere);
    }
    if worker != pipeline.worker {
        return Err(Elsewhere::Worker(worker));
    }
    pipeline.slots.prefetch_place(slot);
    Ok(slot)
}

/// Has the memory of all sessions of the burst fetched at once: with many peers none of it is in the cache, and one
/// wait for all is shorter than one after the other.
fn prefetch_sessions<B>(runs: &[Run], pipeline: &Pipeline<B>) {
    for run in runs {
        if let Some(receiver) = pipeline.slots.get(run.slot) {
            receiver.prefetch();
        }
    }
    // Whose session it is, is asked after the AEAD: these loads have its time.
    for run in runs {
        if let Some(receiver) = pipeline.slots.get(run.slot) {
            receiver.prefetch_beyond();
        }
    }
}

/// Whether there is a session for the run that may still be used.
fn check_session<B>(run: &Run, pipeline: &Pipeline<B>, scene: &Scene<'_>) -> Result<(), DropReason> {
    let receiver = pipeline.slots.get(run.slot).filter(|receiver| receiver.tunnel == run.tunnel);
    let receiver = receiver.ok_or(DropReason::WireguardNoSession)?;
    if receiver.is_expired(scene.now) {
        return Err(DropReason::WireguardSessionExpired);
    }
    Ok(())
}

/// The session of a pending message's run, unless [`check_session`] refused it.
fn usable_session<'p, B>(
    wanted: &Pending,
    messages: &Messages,
    pipeline: &'p Pipeline<B>,
) -> Result<&'p Receiver, DropReason> {
    let run = messages.runs.get(usize::from(wanted.run)).ok_or(DropReason::WireguardNoSession)?;
    // Nothing in between changes slots.
    let receiver = pipeline.slots.get(run.slot).ok_or(DropReason::WireguardNoSession);
    run.refusal.map_or(receiver, Err)
}

/// Whether each pending message was authentic, by its number.
type Authentic = u64;

// A bit for each message of a burst.
const _: () = assert!(BURST <= Authentic::BITS as usize);

/// Runs the AEAD over all pending messages whose sessions may be used; the others get their verdict.
fn decrypt<B: PacketBuf>(packets: &mut Packets<'_, B>, messages: &Messages, pipeline: &Pipeline<B>) -> Authentic {
    let mut jobs = ArrayVec::<OpenJob<'_>, BURST>::new_const();
    let mut in_jobs: Authentic = 0;
    let mut current = None;
    // The messages that are pending are those of the packets whose verdict still stands, in the same order.
    let waiting = packets.iter_mut().filter(|packet| matches!(packet.verdict, Verdict::Open { .. }));
    for (number, (packet, wanted)) in waiting.zip(&messages.pending).enumerate() {
        let usable = match current {
            Some((run, usable)) if run == wanted.run => usable,
            Some(_) | None => {
                let usable = usable_session(wanted, messages, pipeline);
                current = Some((wanted.run, usable));
                usable
            }
        };
        match usable {
            Ok(receiver) => {
                let buffer = packet.buffer.data_mut();
                jobs.push(OpenJob { key: &receiver.key, counter: wanted.counter, buffer, authentic: false });
                in_jobs |= 1 << number;
            }
            Err(reason) => packet.verdict = Verdict::Drop(reason),
        }
    }
    open_jobs(&mut jobs, in_jobs, pipeline)
}

/// Runs the AEAD over jobs, which are of the messages that `in_jobs` numbers. Returns which of those were authentic.
#[inline]
fn open_jobs<B>(jobs: &mut [OpenJob<'_>], mut in_jobs: Authentic, pipeline: &Pipeline<B>) -> Authentic {
    pipeline.aead.open_burst(jobs);
    let mut authentic = 0;
    for job in jobs {
        let lowest = in_jobs & in_jobs.wrapping_neg();
        in_jobs ^= lowest;
        authentic |= if job.authentic { lowest } else { 0 };
    }
    authentic
}
