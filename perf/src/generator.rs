//! The process that sends packets to a device under test at a given rate, and takes and times what comes back.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jetway_aead::{Aead, SealJob};
use jetway_engine::dpdk::device::Device;
use jetway_engine::dpdk::mbuf::{Mbuf, free_burst};
use jetway_engine::dpdk::pool::Allocator;
use jetway_engine::dpdk::port::{DpdkPort, Reception};
use jetway_engine::port::{Burst, Port, PortQueue};
use jetway_pipelines::buffer::PacketBuf;
use jetway_pipelines::wireguard::constants::DATA_HEADER_SIZE;
use serde::{Deserialize, Serialize};

use crate::devices::{Devices, filled};
use crate::engine::{Direction, MESSAGE};
use crate::traffic::{self, LISTEN_PORT, SERVER, Size};
use crate::world::{self, Client, LAN};

/// What one trial is to send.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Packets a second; as fast as it goes without one.
    pub rate: Option<f64>,
    /// Packets at most.
    pub packets: u64,
    /// Seconds at most.
    pub seconds: f64,
}

/// What came of a trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Packets that were offered; those among them that found the device's queue full are lost.
    pub offered: u64,
    /// Packets that came back.
    pub received: u64,
    /// How long the sending took.
    pub seconds: f64,
    /// From the first packet that was sent to the last that came back.
    pub until_last: f64,
    /// Microseconds from transmit to receive at [`PERCENTILES`], if nothing was lost.
    pub latency: Option<[f64; 3]>,
}

/// At which latencies are told.
pub const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// Packets that are sent together at most.
const BURST: usize = 32;
/// Times of sending are kept for so many packets: more than are ever on their way.
const KEPT: usize = 1 << 16;
/// Nothing came for so long after the last was sent: nothing comes any more.
const SILENCE: Duration = Duration::from_millis(30);
/// How long the devices may take to have a link.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves orders, one JSON object a line, from standard input until that ends; says `ready` once the devices have a link.
pub fn run(core: usize, devices: [Device; 2], direction: Direction, size: Size) -> io::Result<()> {
    let mut generator = Generator::open(core, devices, direction, size)?;
    println!("ready");
    io::stdout().flush()?;
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        println!("{}", serde_json::to_string(&generator.trial(order))?);
        io::stdout().flush()?;
    }
    Ok(())
}

struct Generator {
    out: Box<dyn PortQueue<Mbuf>>,
    back: Box<dyn PortQueue<Mbuf>>,
    allocator: Allocator,
    frames: Frames,
    /// Nanoseconds of the trial at which packets were sent, by the end of their number.
    sent_at: Vec<u64>,
    _ports: [DpdkPort; 2],
    _devices: Devices,
}

/// What came back in a trial.
struct Returned {
    packets: u64,
    last: Duration,
    latency: Histogram<u64>,
    /// The number in the first packet, if numbers are not ours.
    first: Option<u64>,
}

impl Generator {
    fn open(core: usize, [wan, lan]: [Device; 2], direction: Direction, size: Size) -> io::Result<Self> {
        let mut devices = Devices::start(core, &[wan.clone(), lan.clone()])?;
        let wan = devices.open(wan, None, Reception::Everything)?;
        let lan = devices.open(lan, None, Reception::Everything)?;
        let start = Instant::now();
        while !(wan.port.link_up() && lan.port.link_up()) {
            if start.elapsed() > PATIENCE {
                return Err(io::Error::other("the devices have no link"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let (out, back) = match direction {
            Direction::Decrypt => (wan.queue, lan.queue),
            Direction::Encrypt => (lan.queue, wan.queue),
        };
        let allocator = devices.allocator()?;
        let ports = [wan.port, lan.port];
        let frames = Frames::new(direction, size);
        Ok(Self { out, back, allocator, frames, sent_at: vec![0; KEPT], _ports: ports, _devices: devices })
    }

    fn trial(&mut self, order: Order) -> Report {
        let latency = Histogram::new(3).expect("three digits are within its bounds");
        let mut returned = Returned { packets: 0, last: Duration::ZERO, latency, first: None };
        let (start, mut offered) = (Instant::now(), 0);
        let sending = loop {
            let now = start.elapsed();
            if offered >= order.packets || now.as_secs_f64() >= order.seconds {
                break now;
            }
            let due = order.rate.map_or(u64::MAX, |rate| (now.as_secs_f64() * rate) as u64).min(order.packets);
            let count = due.saturating_sub(offered).min(BURST as u64);
            if count > 0 {
                self.send(offered, count as usize, start);
                offered += count;
            }
            self.collect(start, &mut returned);
        };
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < SILENCE {
            if self.collect(start, &mut returned) > 0 {
                quiet_since = Instant::now();
            }
        }
        let complete = returned.packets == offered && offered > 0;
        let at = |share| returned.latency.value_at_quantile(share) as f64 / 1e3;
        Report {
            offered,
            received: returned.packets,
            seconds: sending.as_secs_f64(),
            until_last: returned.last.as_secs_f64(),
            latency: complete.then(|| PERCENTILES.map(|(_, share)| at(share))),
        }
    }

    fn send(&mut self, first: u64, count: usize, start: Instant) {
        let mut burst = Burst::new();
        self.frames.make(first, count, &mut self.allocator, &mut burst);
        let now = start.elapsed().as_nanos() as u64;
        for number in first..first + count as u64 {
            self.sent_at[number as usize % KEPT] = now;
        }
        self.out.transmit(&mut burst);
        free_burst(&mut burst);
    }

    fn collect(&mut self, start: Instant, returned: &mut Returned) -> usize {
        let mut burst = Burst::new();
        let count = self.back.receive(&mut burst);
        if count == 0 {
            return 0;
        }
        let now = start.elapsed();
        for frame in &burst {
            let Some(number) = number_of(frame.data(), &mut returned.first) else { continue };
            let sent = self.sent_at[number as usize % KEPT];
            // A histogram that grows by itself takes every value.
            let _ = returned.latency.record((now.as_nanos() as u64).saturating_sub(sent));
            returned.packets += 1;
        }
        returned.last = now;
        free_burst(&mut burst);
        count
    }
}

/// Where UDP's source port is in a frame, and where the number of our packets.
const SOURCE_PORT: usize = MESSAGE - 8;
const COUNTER: usize = 8;

/// The number of the packet of a frame. A message of the device's own tunnel has its counter instead: numbers begin with that of
/// the first one, and are right when nothing was lost.
fn number_of(frame: &[u8], first: &mut Option<u64>) -> Option<u64> {
    let word = |at: usize| Some(u64::from_le_bytes(frame.get(at..at + 8)?.try_into().ok()?));
    let from_tunnel = frame.get(SOURCE_PORT..SOURCE_PORT + 2)? == LISTEN_PORT.to_be_bytes();
    if !from_tunnel {
        return word(MESSAGE);
    }
    let counter = word(MESSAGE + COUNTER)?;
    Some(counter.saturating_sub(*first.get_or_insert(counter)))
}

/// Makes the frames of a direction.
struct Frames {
    direction: Direction,
    /// The sizes' frames in their order, complete but for number and encryption.
    templates: Vec<Template>,
    client: Client,
    aead: Aead,
}

struct Template {
    frame: Vec<u8>,
    /// Where the number goes.
    number: usize,
}

impl Frames {
    fn new(direction: Direction, size: Size) -> Self {
        let aead = Aead::best();
        let mut client = Client::new(0, &world::layout(1), aead);
        let cycle = 12;
        let templates = (0..cycle).map(|number| {
            let length = size.of(number);
            let packet = traffic::packet(SERVER, traffic::client(0), length, 0);
            match direction {
                Direction::Encrypt => Template { frame: traffic::frame(LAN.index(), &packet), number: MESSAGE },
                Direction::Decrypt => {
                    let mut frame = client.sealed_frame(0, length, aead);
                    let inner = MESSAGE + DATA_HEADER_SIZE;
                    let packet = traffic::packet(traffic::client(0), SERVER, length, 0);
                    frame[inner..].fill(0);
                    frame[inner..inner + packet.len()].copy_from_slice(&packet);
                    // Behind the inner headers of 28 bytes.
                    Template { frame, number: inner + 28 }
                }
            }
        });
        let templates = templates.collect();
        // The receiver has seen none of those messages: counters begin anew.
        client.counter = 0;
        Self { direction, templates, client, aead }
    }

    /// Appends the packets of the numbers from `first` to `burst`, as far as there are buffers.
    fn make(&mut self, first: u64, count: usize, allocator: &mut Allocator, burst: &mut Burst<Mbuf>) {
        for number in first..first + count as u64 {
            let template = &self.templates[number as usize % self.templates.len()];
            let Some(mut buffer) = filled(allocator, &template.frame) else { break };
            buffer.data_mut()[template.number..][..8].copy_from_slice(&number.to_le_bytes());
            burst.push(buffer);
        }
        if self.direction == Direction::Decrypt {
            self.seal(burst);
        }
    }

    fn seal(&mut self, burst: &mut Burst<Mbuf>) {
        let Self { client, aead, .. } = self;
        let mut jobs = arrayvec::ArrayVec::<SealJob<'_>, BURST>::new();
        for frame in burst.iter_mut() {
            let (header, buffer) = frame.data_mut().split_at_mut(MESSAGE + DATA_HEADER_SIZE);
            header[MESSAGE + COUNTER..].copy_from_slice(&client.counter.to_le_bytes());
            jobs.push(SealJob { key: &client.key, counter: client.counter, buffer });
            client.counter += 1;
        }
        aead.seal_burst(&mut jobs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_known_again_by_their_number_or_by_their_tunnels_counter() {
        let frames = Frames::new(Direction::Encrypt, Size::Fixed(64));
        let mut frame = frames.templates[0].frame.clone();
        frame[MESSAGE..][..8].copy_from_slice(&77_u64.to_le_bytes());
        assert_eq!(number_of(&frame, &mut None), Some(77));
        frame[SOURCE_PORT..][..2].copy_from_slice(&LISTEN_PORT.to_be_bytes());
        frame[MESSAGE + COUNTER..][..8].copy_from_slice(&1005_u64.to_le_bytes());
        assert_eq!(number_of(&frame, &mut Some(1000)), Some(5));
        assert_eq!(number_of(&frame[..40], &mut None), None);
    }
}
