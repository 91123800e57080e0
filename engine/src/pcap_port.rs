//! A port that receives what a capture file holds and writes what it transmits to another.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jetway_pipelines::buffer::{BufferPool, PacketBuf};
use jetway_pipelines::ids::QueueId;

use crate::pcap::{PcapError, Reader, Writer};
use crate::port::{Burst, Port, PortInfo, PortQueue, PortStatistics};
use crate::virtual_clock::VirtualClock;

/// What a [`PcapPort`] reads and writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PcapFiles {
    /// The capture whose packets the port receives; none: it receives nothing.
    pub receive: Option<PathBuf>,
    /// The capture that the port makes of what it transmits; none: that is thrown away.
    pub transmit: Option<PathBuf>,
}

/// When a packet of the capture arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// As fast as the worker polls.
    AsPolled,
    /// As long after the clock's origin as it was captured after the capture's first packet.
    AsCaptured,
}

/// A port on capture files, with one queue.
pub struct PcapPort<B: PacketBuf> {
    mac: [u8; 6],
    queue: Option<Box<dyn PortQueue<B>>>,
    counts: Arc<Counts>,
}

impl<B: PacketBuf + 'static> PcapPort<B> {
    /// A port with the address `mac`. The capture is read as a whole now, so that a damaged one is refused here and not
    /// in mid-flight; packets that were captured only in part count as receive errors. Transmitted packets are stamped by `clock`.
    pub fn open(
        mac: [u8; 6],
        files: &PcapFiles,
        pace: Pace,
        pool: Box<dyn BufferPool<B>>,
        clock: VirtualClock,
    ) -> Result<Self, PcapError> {
        let counts = Arc::new(Counts::default());
        let capture = files.receive.as_ref().map(|path| Capture::read(path, &counts)).transpose()?.unwrap_or_default();
        let writer = files.transmit.as_ref().map(|path| Writer::create(path)).transpose()?;
        let queue = PcapQueue { capture, next: 0, pace, pool, writer, clock, counts: Arc::clone(&counts) };
        Ok(Self { mac, queue: Some(Box::new(queue)), counts })
    }
}

impl<B: PacketBuf> Port<B> for PcapPort<B> {
    fn info(&self) -> PortInfo {
        PortInfo {
            mac: self.mac,
            driver: "pcap".into(),
            queues: 1,
            transmit_l4_checksum: false,
            receive_checksum: false,
            receive_side_scaling: false,
            numa_node: None,
        }
    }

    fn take_queues(&mut self) -> Vec<Box<dyn PortQueue<B>>> {
        self.queue.take().into_iter().collect()
    }

    fn statistics(&self) -> PortStatistics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        PortStatistics {
            received_packets: get(&self.counts.received_packets),
            received_bytes: get(&self.counts.received_bytes),
            transmitted_packets: get(&self.counts.transmitted_packets),
            transmitted_bytes: get(&self.counts.transmitted_bytes),
            receive_errors: get(&self.counts.receive_errors),
            transmit_errors: get(&self.counts.transmit_errors),
            no_buffer: get(&self.counts.no_buffer),
            missed: 0,
        }
    }

    fn link_up(&self) -> bool {
        true
    }
}

/// The packets of a capture, one after the other in one piece of memory.
#[derive(Debug, Default)]
struct Capture {
    bytes: Vec<u8>,
    packets: Vec<(Duration, std::ops::Range<usize>)>,
}

impl Capture {
    fn read(path: &std::path::Path, counts: &Counts) -> Result<Self, PcapError> {
        let mut reader = Reader::open(path)?;
        let mut capture = Self::default();
        let mut first = None;
        loop {
            let start = capture.bytes.len();
            let Some(record) = reader.next(&mut capture.bytes)? else { return Ok(capture) };
            let range = start..capture.bytes.len();
            if range.len() < record.original_length as usize {
                add(&counts.receive_errors, 1);
                continue;
            }
            let at = record.at.saturating_sub(*first.get_or_insert(record.at));
            capture.packets.push((at, range));
        }
    }
}

/// The queue of a [`PcapPort`]. What it wrote is complete in the file when it is dropped.
struct PcapQueue<B: PacketBuf> {
    capture: Capture,
    next: usize,
    pace: Pace,
    pool: Box<dyn BufferPool<B>>,
    writer: Option<Writer>,
    clock: VirtualClock,
    counts: Arc<Counts>,
}

impl<B: PacketBuf> PortQueue<B> for PcapQueue<B> {
    fn id(&self) -> QueueId {
        QueueId(0)
    }

    fn receive(&mut self, burst: &mut Burst<B>) -> usize {
        let before = burst.len();
        let now = Duration::from_nanos(self.clock.now().as_nanos());
        while !burst.is_full()
            && let Some((at, range)) = self.capture.packets.get(self.next)
            && (self.pace == Pace::AsPolled || *at <= now)
        {
            // As at a NIC without buffers, packets wait until there are some; unlike there, none is lost meanwhile.
            let Some(mut buffer) = self.pool.allocate() else {
                add(&self.counts.no_buffer, 1);
                break;
            };
            self.next += 1;
            if buffer.grow_back(range.len()).is_err() {
                add(&self.counts.receive_errors, 1);
                continue;
            }
            buffer.data_mut().copy_from_slice(&self.capture.bytes[range.clone()]);
            add(&self.counts.received_packets, 1);
            add(&self.counts.received_bytes, range.len() as u64);
            burst.push(buffer);
        }
        burst.len() - before
    }

    fn transmit(&mut self, burst: &mut Burst<B>) -> usize {
        let now = Duration::from_nanos(self.clock.now().as_nanos());
        let count = burst.len();
        for packet in burst.drain(..) {
            match self.writer.as_mut().map(|writer| writer.write(now, packet.data())) {
                Some(Ok(())) | None => {
                    add(&self.counts.transmitted_packets, 1);
                    add(&self.counts.transmitted_bytes, packet.data().len() as u64);
                }
                Some(Err(error)) => {
                    add(&self.counts.transmit_errors, 1);
                    tracing::error!(%error, "the capture of transmitted packets ends here");
                    self.writer = None;
                }
            }
        }
        count
    }
}

impl<B: PacketBuf> Drop for PcapQueue<B> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.writer.as_mut().map(Writer::flush) {
            tracing::error!(%error, "the capture of transmitted packets is incomplete");
        }
    }
}

/// What a port counts.
#[derive(Debug, Default)]
struct Counts {
    received_packets: AtomicU64,
    received_bytes: AtomicU64,
    transmitted_packets: AtomicU64,
    transmitted_bytes: AtomicU64,
    receive_errors: AtomicU64,
    transmit_errors: AtomicU64,
    no_buffer: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::AcqRel);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap_pool::HeapPool;
    use crate::test_frames::udp_frame;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn what_one_port_transmits_another_receives_at_the_captured_pace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wire.pcap");
        let (clock, pool) = (VirtualClock::default(), HeapPool::new(100, 2048));
        let open = |files: PcapFiles| {
            let pool = Box::new(pool.clone());
            PcapPort::open(MAC, &files, Pace::AsCaptured, pool, clock.clone()).unwrap()
        };
        let mut sender = open(PcapFiles { receive: None, transmit: Some(path.clone()) });
        let mut queue = sender.take_queues().remove(0);
        let frames: Vec<_> = (0..3).map(|number| udp_frame(1, 2, number, b"payload")).collect();
        for frame in &frames {
            let mut buffer = pool.clone().allocate().unwrap();
            buffer.grow_back(frame.len()).unwrap();
            buffer.data_mut().copy_from_slice(frame);
            let mut burst = Burst::new();
            burst.push(buffer);
            assert_eq!((queue.transmit(&mut burst), burst.len()), (1, 0));
            clock.advance_by(Duration::from_millis(10));
        }
        drop(queue);
        assert_eq!(sender.statistics().transmitted_packets, 3);
        assert!(sender.take_queues().is_empty());

        let clock = VirtualClock::default();
        let files = PcapFiles { receive: Some(path), transmit: None };
        let mut receiver =
            PcapPort::open(MAC, &files, Pace::AsCaptured, Box::new(pool.clone()), clock.clone()).unwrap();
        let mut queue = receiver.take_queues().remove(0);
        let mut burst = Burst::new();
        for (number, frame) in frames.iter().enumerate() {
            assert_eq!(queue.receive(&mut burst), 1, "frame {number}");
            assert_eq!(queue.receive(&mut burst), 0, "frame {number}");
            assert_eq!(burst.pop().unwrap().data(), frame);
            clock.advance_by(Duration::from_millis(10));
        }
        assert_eq!(receiver.statistics().received_packets, 3);
        assert_eq!(pool.available(), 100);
    }

    #[test]
    fn packets_cut_by_the_capture_or_too_big_for_a_buffer_are_counted_and_not_delivered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.pcap");
        let mut writer = Writer::create(&path).unwrap();
        for length in [60, 3000, 61] {
            writer.write(Duration::ZERO, &vec![0; length]).unwrap();
        }
        writer.flush().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[24 + 12] = 99;
        std::fs::write(&path, bytes).unwrap();
        let files = PcapFiles { receive: Some(path), transmit: None };
        let pool = Box::new(HeapPool::new(4, 2048));
        let mut port = PcapPort::open(MAC, &files, Pace::AsPolled, pool, VirtualClock::default()).unwrap();
        let mut burst = Burst::new();
        assert_eq!(port.take_queues().remove(0).receive(&mut burst), 1);
        assert_eq!(burst[0].data().len(), 61);
        assert_eq!(port.statistics().receive_errors, 2);
    }
}
