//! Whole turns of a worker on ports that cost nothing: decrypt and forward, and encrypt, beside boringtun and gotatun.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use jetway_aead::{OpenJob, SealJob};
use jetway_pipelines::buffer::{HeapBuf, PacketBuf};
use jetway_pipelines::packet::{ethernet, ipv4, udp};
use jetway_pipelines::wireguard::constants::{DATA_HEADER_SIZE, TAG_SIZE};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::gotatun;
use crate::interleave::Interleaved;
use crate::line::refill;
use crate::result::{Quantity, Row, USUAL_BURST};
use crate::sample::{Contestant, clock_cost, difference, ratio};
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

/// Whose figure a turn's encryption alone is in results.
pub const AEAD_ALONE: &str = "aead alone";

/// Whose figure it is what a turn takes beside its encryption.
const BEYOND_AEAD: &str = "beyond the AEAD";

/// Packets after which caches hold of many peers what they hold of them while traffic goes on.
const WARMTH: usize = 100_000;

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

/// Prepares what `vary` says, or everything.
pub fn prepare(vary: Option<Vary>, run: &mut Interleaved) {
    let wanted = |this| vary.is_none_or(|vary| vary == this);
    let both = Direction::BOTH;
    let ends = [Size::Fixed(64), Size::Fixed(1420)];
    let one_peer = Rc::new(RefCell::new(World::new(1)));
    if wanted(Vary::Size) {
        for (direction, size) in both.into_iter().flat_map(|direction| Size::ALL.map(|size| (direction, size))) {
            add(run, &one_peer, Case { direction, size, burst: USUAL_BURST, peers: 1 });
        }
    }
    if wanted(Vary::Burst) {
        for (direction, size, burst) in each(both, ends, [1, 4, 8, 16, 64]) {
            add(run, &one_peer, Case { direction, size, burst, peers: 1 });
        }
    }
    if wanted(Vary::Peers) {
        // With everything measured, the cases of one peer have come with the sizes and the bursts.
        let one = vary.map(|_| 1);
        for peers in one.into_iter().chain([1_000, 100_000, 1_000_000]) {
            let before = system::resident_of_this();
            let world = Rc::new(RefCell::new(World::new(peers)));
            // The clients' side is the harness's own.
            let clients = (peers * size_of::<Client>()) as u64;
            let grown = system::resident_of_this().saturating_sub(before + clients) as f64;
            if peers == 1_000_000 {
                let quantity = Quantity::new("1000000 peers with sessions: resident for each", grown / 1e6, "bytes")
                    .at_most(1200.0);
                run.told(move |part| part.quantities.push(quantity.clone()));
            }
            for (direction, size, burst) in each(both, ends, [USUAL_BURST, 64]) {
                add(run, &world, Case { direction, size, burst, peers });
            }
        }
    }
}

fn each<const B: usize>(
    directions: [Direction; 2],
    sizes: [Size; 2],
    bursts: [usize; B],
) -> impl Iterator<Item = (Direction, Size, usize)> {
    let with_size = directions.into_iter().flat_map(move |direction| sizes.map(move |size| (direction, size)));
    with_size.flat_map(move |(direction, size)| bursts.map(move |burst| (direction, size, burst)))
}

fn add(run: &mut Interleaved, world: &Rc<RefCell<World>>, case: Case) {
    let turns = Rc::new(RefCell::new(Turns::new(case)));
    let contestant = {
        let (turns, mut packets) = (Rc::clone(&turns), Packets::new(case));
        on_world(case, "jetway", world, move |world| turns.borrow_mut().run(world, &mut packets))
    };
    let aead_alone = {
        let (turns, mut packets) = (Rc::clone(&turns), Packets::new(case));
        on_world(case, AEAD_ALONE, world, move |world| turns.borrow_mut().aead_alone(world, &mut packets))
    };
    let mut contestants = vec![contestant, aead_alone];
    // The others keep no table of peers: who uses them brings one.
    if case.peers == 1 {
        contestants.push(beyond_aead(&turns, world, case));
        let (mut pair, mut other_pair) = (Pair::new(), gotatun::Pair::new(TUNNEL_MTU));
        contestants.push(Contestant::new("boringtun", case.burst, move || boringtun(&mut pair, case)));
        contestants.push(Contestant::new("gotatun", case.burst, move || gotatun(&mut other_pair, case)));
    }
    run.compare(contestants, move |outcomes, part| {
        assert!(turns.borrow().passed(), "{case:?}: the worker dropped packets: this measures nothing");
        let scenario = case.direction.name();
        let row = |scenario: String, peer, nanoseconds, spread| {
            Row::new(scenario, peer, nanoseconds, spread)
                .size(case.size.name(), case.size.mean())
                .flows(case.peers, Some(case.burst))
        };
        for outcome in outcomes.iter().filter(|outcome| outcome.name != BEYOND_AEAD) {
            let mut row = row(scenario.to_owned(), outcome.name, outcome.nanoseconds, outcome.spread);
            row.ratio = Some(ratio(outcome, &outcomes[0]));
            part.rows.push(row);
        }
        let paired = outcomes.iter().find(|outcome| outcome.name == BEYOND_AEAD);
        let (median, spread) = match paired {
            Some(outcome) => (outcome.nanoseconds, outcome.spread),
            None => difference(&outcomes[0], &outcomes[1]),
        };
        let beyond = row(format!("{scenario} beyond the AEAD"), "jetway", median, spread);
        part.rows.push(Row { gbps: None, ..beyond });
    });
}

/// A turn less its encryption alone, burst by burst: the machine's moods last longer than two bursts, and both find the caches and
/// predictors as the other left them.
fn beyond_aead(turns: &Rc<RefCell<Turns>>, world: &Rc<RefCell<World>>, case: Case) -> Contestant {
    let (turns, mut packets) = (Rc::clone(turns), Packets::new(case));
    let clock = clock_cost();
    on_world(case, BEYOND_AEAD, world, move |world| {
        let mut turns = turns.borrow_mut();
        let turn = turns.run(world, &mut packets);
        // Each of both times has the clock's cost in it, and who compares takes that off once more.
        (turn + clock).saturating_sub(turns.aead_alone(world, &mut packets))
    })
}

/// A contestant that works on `world`. With many peers it has as many packets first, as far as caches have room for what these
/// leave there.
fn on_world(
    case: Case,
    name: &'static str,
    world: &Rc<RefCell<World>>,
    work: impl FnMut(&mut World) -> Duration + 'static,
) -> Contestant {
    let (work, world) = (Rc::new(RefCell::new(work)), Rc::clone(world));
    let piece = move || work.borrow_mut()(&mut world.borrow_mut());
    let again = piece.clone();
    let pieces = if case.peers > 1 { case.peers.min(WARMTH) / case.burst } else { 0 };
    Contestant::new(name, case.burst, piece).warmed(move || (0..pieces).for_each(|_| _ = again()))
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
    /// nearest cache, so that where its buffers lie may matter.
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
    use crate::sample::Effort;

    #[test]
    fn every_kind_of_case_passes_all_its_packets() {
        let mut run = Interleaved::default();
        let world = Rc::new(RefCell::new(World::new(300)));
        for (direction, size, burst) in each(Direction::BOTH, [Size::Imix, Size::Fixed(1420)], [1, 64]) {
            add(&mut run, &world, Case { direction, size, burst, peers: 300 });
        }
        let world = Rc::new(RefCell::new(World::new(1)));
        add(&mut run, &world, Case { direction: Direction::Decrypt, size: Size::Imix, burst: 5, peers: 1 });
        assert_eq!(run.measure_all(Effort { rounds: 2, pieces: 3, settling: Duration::ZERO }).rows.len(), 8 * 3 + 5);
    }
}
