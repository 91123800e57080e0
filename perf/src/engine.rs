//! Whole turns of a worker on ports that cost nothing: decrypt and forward, and encrypt, beside boringtun and gotatun.

use std::time::{Duration, Instant};

use jetway_aead::{OpenJob, SealJob};
use jetway_pipelines::buffer::{HeapBuf, PacketBuf};
use jetway_pipelines::packet::{ethernet, ipv4, udp};
use jetway_pipelines::wireguard::constants::{DATA_HEADER_SIZE, TAG_SIZE};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::gotatun;
use crate::line::refill;
use crate::result::{Part, Quantity, Row, USUAL_BURST};
use crate::sample::{Contestant, Effort, compare, ratio};
use crate::stock::{self, Pair};
use crate::system;
use crate::traffic::{self, SERVER, Size};
use crate::world::{Client, NOW, TUNNEL_MTU, World};

/// What the measurements differ in; everything else is as in [`USUAL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Vary {
    /// The packets' size.
    Size,
    /// How many packets go together.
    Burst,
    /// How many peers there are.
    Peers,
}

/// Which way packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Direction {
    /// From clients to the server.
    Decrypt,
    /// From the server to clients.
    Encrypt,
}

impl Direction {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::Decrypt, Self::Encrypt];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decrypt => "decrypt",
            Self::Encrypt => "encrypt",
        }
    }

    /// The ports by which packets come and go.
    pub fn ports(self) -> (usize, usize) {
        match self {
            Self::Decrypt => (0, 1),
            Self::Encrypt => (1, 0),
        }
    }
}

/// What one measurement does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// Which way packets go.
    pub direction: Direction,
    /// Their size.
    pub size: Size,
    /// How many go together.
    pub burst: usize,
    /// How many peers they belong to.
    pub peers: usize,
}

/// Measures what `vary` says, or everything.
pub fn measure(vary: Option<Vary>, effort: Effort) -> Part {
    let mut part = Part::default();
    let wanted = |this| vary.is_none_or(|vary| vary == this);
    let both = Direction::BOTH;
    let ends = [Size::Fixed(64), Size::Fixed(1420)];
    let mut cases = Vec::new();
    if wanted(Vary::Size) {
        let sizes = |direction| Size::ALL.map(|size| Case { direction, size, burst: USUAL_BURST, peers: 1 });
        cases.extend(both.into_iter().flat_map(sizes));
    }
    if wanted(Vary::Burst) {
        for (direction, size, burst) in each(both, ends, [1, 4, 8, 16, 64]) {
            cases.push(Case { direction, size, burst, peers: 1 });
        }
    }
    let mut world = World::new(1);
    for case in cases {
        run(&mut world, case, effort, &mut part);
    }
    if wanted(Vary::Peers) {
        // With everything measured, the cases of one peer have come with the sizes and the bursts.
        let one = vary.map(|_| 1);
        for peers in one.into_iter().chain([1_000, 100_000, 1_000_000]) {
            let before = system::resident_of_this();
            world = World::new(peers);
            // The clients' side is the harness's own.
            let clients = (peers * size_of::<Client>()) as u64;
            let grown = system::resident_of_this().saturating_sub(before + clients) as f64;
            if peers == 1_000_000 {
                let quantity = Quantity::new("1000000 peers with sessions: resident for each", grown / 1e6, "bytes")
                    .at_most(1200.0);
                part.quantities.push(quantity);
            }
            for (direction, size, burst) in each(both, ends, [USUAL_BURST, 64]) {
                run(&mut world, Case { direction, size, burst, peers }, effort, &mut part);
            }
        }
    }
    part
}

fn each<const B: usize>(
    directions: [Direction; 2],
    sizes: [Size; 2],
    bursts: [usize; B],
) -> impl Iterator<Item = (Direction, Size, usize)> {
    let with_size = directions.into_iter().flat_map(move |direction| sizes.map(move |size| (direction, size)));
    with_size.flat_map(move |(direction, size)| bursts.map(move |burst| (direction, size, burst)))
}

fn run(world: &mut World, case: Case, effort: Effort, part: &mut Part) {
    let world = std::cell::RefCell::new(world);
    let mut pair = Pair::new();
    let mut other_pair = gotatun::Pair::new(crate::world::TUNNEL_MTU);
    let turns = std::cell::RefCell::new(Turns::new(case));
    let mut packets = Packets::new(case);
    let mut others = Packets::new(case);
    let contestant = |name, run| Contestant { name, packets: case.burst, run };
    let mut contestants = vec![
        contestant(
            "jetway",
            Box::new(|| turns.borrow_mut().run(*world.borrow_mut(), &mut packets)) as Box<dyn FnMut() -> Duration>,
        ),
        contestant("aead alone", Box::new(|| turns.borrow_mut().aead_alone(*world.borrow_mut(), &mut others))),
    ];
    // The others keep no table of peers: who uses them brings one.
    if case.peers == 1 {
        contestants.push(contestant("boringtun", Box::new(|| boringtun(&mut pair, case))));
        contestants.push(contestant("gotatun", Box::new(|| gotatun(&mut other_pair, case))));
    }
    let outcomes = compare(&mut contestants, effort);
    drop(contestants);
    assert!(turns.borrow().passed(), "{case:?}: the worker dropped packets: this measures nothing");
    let scenario = case.direction.name();
    for outcome in &outcomes {
        let mut row = Row::new(scenario, outcome.name, outcome.nanoseconds, outcome.spread)
            .size(case.size.name(), case.size.mean())
            .flows(case.peers, Some(case.burst));
        row.ratio = Some(ratio(outcome, &outcomes[0]));
        part.rows.push(row);
    }
    let beyond: Vec<f64> = outcomes[0].rounds.iter().zip(&outcomes[1].rounds).map(|(turn, aead)| turn - aead).collect();
    let (median, _) = crate::sample::median_and_spread(&mut beyond.clone());
    let (_, spread) = crate::sample::median_and_spread(&mut beyond.clone());
    let mut row = Row::new(format!("{scenario} beyond the AEAD"), "jetway", median, spread)
        .size(case.size.name(), case.size.mean())
        .flows(case.peers, Some(case.burst));
    row.gbps = None;
    part.rows.push(row);
}

/// Which client's packet comes next.
pub struct Packets {
    case: Case,
    random: StdRng,
    number: usize,
}

impl Packets {
    /// The packets of a case, the same in each run.
    pub fn new(case: Case) -> Self {
        // Another order of peers for each case: what one case fetched shall not help the next.
        let seed = (case.size.mean() as u64) << 8 | (case.burst as u64) << 1 | (case.direction as u64);
        Self { case, random: StdRng::seed_from_u64(seed), number: 0 }
    }

    /// The next client, and its frame as it comes to the worker.
    pub fn frame<B: PacketBuf + 'static, L>(&mut self, world: &mut World<B, L>) -> (usize, Vec<u8>) {
        let client = self.random.random_range(0..self.case.peers);
        let length = self.case.size.of(self.number);
        self.number += 1;
        let frame = match self.case.direction {
            Direction::Decrypt => world.sealed_frame(client, length),
            Direction::Encrypt => world.plain_frame(client, length),
        };
        (client, frame)
    }
}

/// The worker, one turn at a time.
pub struct Turns {
    case: Case,
    buffers: Vec<HeapBuf>,
    turns: u64,
    sent: u64,
}

impl Turns {
    /// No turn yet.
    pub fn new(case: Case) -> Self {
        let buffers = (0..case.burst).map(|_| HeapBuf::with_room(2048)).collect();
        Self { case, buffers, turns: 0, sent: 0 }
    }

    /// One burst through one turn; returns how long the turn took.
    pub fn run(&mut self, world: &mut World, packets: &mut Packets) -> Duration {
        let (from, to) = self.case.direction.ports();
        for buffer in &mut self.buffers {
            refill(buffer, &packets.frame(world).1);
        }
        // Ports give the last frame first.
        world.lines[from].lay(self.buffers.drain(..).rev());
        let start = Instant::now();
        world.worker.turn(NOW);
        let took = start.elapsed();
        world.lines[to].take_sent(&mut self.buffers);
        self.turns += 1;
        self.sent += self.buffers.len() as u64;
        let missing = self.case.burst - self.buffers.len();
        self.buffers.extend((0..missing).map(|_| HeapBuf::with_room(2048)));
        took
    }

    /// Whether all packets came out.
    pub fn passed(&self) -> bool {
        self.sent == self.turns * self.case.burst as u64
    }
}

/// Where a message begins in a frame.
pub const MESSAGE: usize = ethernet::HEADER_LENGTH + ipv4::HEADER_LENGTH + udp::HEADER_LENGTH;

impl Turns {
    /// The AEAD on such messages, and nothing else. It works in the worker's own buffers: at 1,420 bytes a burst about fills the
    /// nearest cache, and where its buffers lie makes a twentieth of the AEAD's time.
    fn aead_alone(&mut self, world: &mut World, packets: &mut Packets) -> Duration {
        let mut ways = Vec::with_capacity(self.case.burst);
        for buffer in &mut self.buffers {
            let (client, frame) = packets.frame(world);
            refill(buffer, &frame);
            let counter = match self.case.direction {
                Direction::Decrypt => {
                    buffer.trim_front(MESSAGE + DATA_HEADER_SIZE);
                    let counter = frame[MESSAGE..DATA_HEADER_SIZE + MESSAGE].last_chunk().expect("a data header");
                    u64::from_le_bytes(*counter)
                }
                Direction::Encrypt => {
                    buffer.trim_front(ethernet::HEADER_LENGTH);
                    let length = buffer.data().len();
                    let padded = length.next_multiple_of(16).min(TUNNEL_MTU.into());
                    buffer.grow_back(padded - length + TAG_SIZE).expect("room for a tag");
                    0
                }
            };
            ways.push((client, counter));
        }
        let sealed = self.buffers.iter_mut().zip(ways).map(|(buffer, (client, counter))| {
            let key = &world.clients[client].key;
            (key, counter, buffer.data_mut())
        });
        match self.case.direction {
            Direction::Decrypt => {
                let open = |(key, counter, buffer)| OpenJob { key, counter, buffer, authentic: false };
                let mut jobs: Vec<_> = sealed.map(open).collect();
                let start = Instant::now();
                world.aead.open_burst(&mut jobs);
                let took = start.elapsed();
                assert!(jobs.iter().all(|job| job.authentic));
                took
            }
            Direction::Encrypt => {
                let mut jobs: Vec<_> = sealed.map(|(key, counter, buffer)| SealJob { key, counter, buffer }).collect();
                let start = Instant::now();
                world.aead.seal_burst(&mut jobs);
                start.elapsed()
            }
        }
    }
}

/// The inner packets of a piece of work.
fn packets(case: Case) -> Vec<Vec<u8>> {
    let packet = |number| traffic::packet(traffic::client(0), SERVER, case.size.of(number), number);
    (0..case.burst).map(packet).collect()
}

/// As many packets through gotatun, one by one, as its interface has it.
fn gotatun(pair: &mut gotatun::Pair, case: Case) -> Duration {
    match case.direction {
        Direction::Decrypt => pair.decapsulate(&packets(case)),
        Direction::Encrypt => pair.encapsulate(&packets(case)),
    }
}

/// As many packets through boringtun, one by one, as its interface has it.
fn boringtun(pair: &mut Pair, case: Case) -> Duration {
    let mut room = [0; stock::ROOM];
    let packets = packets(case);
    match case.direction {
        Direction::Decrypt => {
            let seal = |packet: &Vec<u8>| match pair.client.encapsulate(packet, &mut room) {
                boringtun::noise::TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
                _ => panic!("boringtun's client has no session any more"),
            };
            let datagrams: Vec<_> = packets.iter().map(seal).collect();
            let mut opened = 0;
            let start = Instant::now();
            for datagram in &datagrams {
                let result = pair.server.decapsulate(None, datagram, &mut room);
                opened += usize::from(matches!(result, boringtun::noise::TunnResult::WriteToTunnelV4(..)));
            }
            let took = start.elapsed();
            assert_eq!(opened, case.burst, "boringtun refused packets");
            took
        }
        Direction::Encrypt => {
            let mut sealed = 0;
            let start = Instant::now();
            for packet in &packets {
                let result = pair.server.encapsulate(packet, &mut room);
                sealed += usize::from(matches!(result, boringtun::noise::TunnResult::WriteToNetwork(_)));
            }
            let took = start.elapsed();
            assert_eq!(sealed, case.burst, "boringtun refused packets");
            took
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_case_passes_all_its_packets() {
        let mut world = World::new(300);
        let mut part = Part::default();
        let effort = Effort { rounds: 1, pieces: 3 };
        for (direction, size, burst) in
            each([Direction::Decrypt, Direction::Encrypt], [Size::Imix, Size::Fixed(1420)], [1, 64])
        {
            run(&mut world, Case { direction, size, burst, peers: 300 }, effort, &mut part);
        }
        run(
            &mut World::new(1),
            Case { direction: Direction::Decrypt, size: Size::Imix, burst: 5, peers: 1 },
            effort,
            &mut part,
        );
        assert_eq!(part.rows.len(), 8 * 3 + 5);
    }
}
