//! Two workers beside one: each on a core of its own, with its own peer, or both encrypting for one fat tunnel.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use jetway_aead::Aead;
use jetway_engine::exits::{PortAccess, PortShare};
use jetway_engine::links::{self, OtherEnds};
use jetway_engine::worker::Worker;
use jetway_pipelines::buffer::HeapBuf;
use jetway_pipelines::counters::WorkerCounters;
use jetway_pipelines::dispatch::service::Services;
use jetway_pipelines::ids::{SlotIndex, WorkerId};
use jetway_pipelines::path::slots::Page;
use jetway_pipelines::path::{Command, Pipeline, Settings};
use jetway_pipelines::tables::Tables;
use jetway_sync::published::Publisher;

use crate::aead;
use crate::engine::Direction;
use crate::interleave::{Interleaved, Measurement};
use crate::line::{Line, refill};
use crate::result::{Part, Quantity, Row};
use crate::sample::{Effort, median_and_spread, median_nanoseconds};
use crate::system;
use crate::traffic::{self, SERVER};
use crate::world::{self, Client, LAN, NOW, NoPool};

/// Packets of a turn: as many as one takes.
const BURST: usize = jetway_engine::port::BURST;
/// Turns of a piece of work. Its packets fit a core's own cache.
const TURNS: usize = 4;
const LENGTH: usize = 1420;
/// Below this share of its time, a worker's core was not its own: a piece of which that is true does not count.
const FREE: f64 = 0.97;
/// The least pieces that count of which a round's figure is made; and how often a round is made again for the want of them.
const ENOUGH: usize = 8;
const TRIES: usize = 4;

/// Whose packets the two workers have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    /// Each one those of a peer of its own.
    OwnPeer(Direction),
    /// Both those to one peer.
    OneTunnel,
}

impl Load {
    fn name(self) -> String {
        match self {
            Self::OwnPeer(direction) => direction.name().to_owned(),
            Self::OneTunnel => "encrypt, one tunnel".to_owned(),
        }
    }
}

/// Prepares two workers beside one, on `core` and another core.
pub fn prepare(core: usize, run: &mut Interleaved) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let Some(second) = cores.into_iter().map(|core| core.id).find(|other| *other != core) else {
        return run.told(|part| part.lacks("two workers beside one", "a second core"));
    };
    for load in [Load::OwnPeer(Direction::Decrypt), Load::OwnPeer(Direction::Encrypt), Load::OneTunnel] {
        run.add(TwoWorkers { team: Team::new(load), load, cores: [core, second], rounds: Vec::new(), wanted: 0 });
    }
}

/// Two workers under one load.
struct TwoWorkers {
    team: Team,
    load: Load,
    cores: [usize; 2],
    rounds: Vec<Round>,
    /// How many rounds should count.
    wanted: usize,
}

impl Measurement for TwoWorkers {
    fn visit(&mut self, effort: Effort) {
        // As many pieces as elsewhere, in more and shorter rounds: a clock that drifts then treats both alike.
        let effort = Effort { rounds: effort.rounds * 4, pieces: effort.pieces.div_ceil(4), ..effort };
        let mut round = || round(&mut self.team.members, self.cores, effort.pieces);
        // The first warms caches and predictors and is not counted.
        let _ = round();
        self.wanted += effort.rounds;
        let mut counted = 0;
        for _ in 0..effort.rounds * TRIES {
            let round = round();
            counted += usize::from(round.counts());
            self.rounds.push(round);
            if counted == effort.rounds {
                break;
            }
        }
    }

    fn tell(&self, part: &mut Part) {
        tell(self.load, &self.rounds, self.wanted, part);
    }
}

/// Each worker alone, while the other sleeps, then both together.
fn round(members: &mut [Member; 2], cores: [usize; 2], pieces: usize) -> Round {
    let (turn, gates) = (Barrier::new(2), [Gate::default(), Gate::default()]);
    let run = |member: &mut Member, core| {
        system::pin(core);
        let mut alone = Vec::new();
        for number in 0..2 {
            if member.number == number {
                alone = member.pieces(&gates[0], 1, pieces);
            }
            turn.wait();
        }
        (alone, member.pieces(&gates[1], 2, pieces))
    };
    let [zero, one] = members;
    let [first, second] = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| run(zero, cores[0])), scope.spawn(|| run(one, cores[1]))];
        threads.map(|thread| thread.join().expect("no worker panics"))
    });
    Round::of([&first.0, &second.0], [&first.1, &second.1])
}

/// The time of a piece by the wall clock, and how much of it the thread had its core.
#[derive(Clone, Copy, Debug)]
struct Piece {
    wall: Duration,
    cpu: Duration,
}

impl Piece {
    fn is_whole(&self) -> bool {
        self.cpu.as_secs_f64() >= self.wall.as_secs_f64() * FREE
    }
}

/// What a round found out: nanoseconds a packet of one worker and of both, and of how many pieces that is made.
#[derive(Clone, Copy, Debug)]
struct Round {
    one: f64,
    two: f64,
    whole: usize,
    pieces: usize,
}

impl Round {
    /// Of the pieces of each alone, and of both together, of which those at the same place happened at the same time.
    ///
    /// One worker is what both cores are on average: neighbours on the host may slow down one of them for a while, which says
    /// nothing of what two workers take from each other.
    fn of(alone: [&[Piece]; 2], together: [&[Piece]; 2]) -> Self {
        let pairs: Vec<_> = together[0].iter().zip(together[1]).collect();
        let whole_pairs: Vec<_> = pairs.iter().filter(|(a, b)| a.is_whole() && b.is_whole()).copied().collect();
        let whole_alone = alone.map(|pieces| pieces.iter().filter(|piece| piece.is_whole()).collect::<Vec<_>>());
        let whole = whole_pairs.len().min(whole_alone[0].len()).min(whole_alone[1].len());
        let mut round = Self { one: 0.0, two: 0.0, whole, pieces: pairs.len() };
        // Where too few are whole, all of them have to say something.
        let (pairs, alone) = match round.counts() {
            true => (whole_pairs, whole_alone),
            false => (pairs, alone.map(|pieces| pieces.iter().collect())),
        };
        let nanoseconds = |times: Vec<Duration>| median_nanoseconds(&mut { times }) / (BURST * TURNS) as f64;
        let rate = |times| 1.0 / nanoseconds(times);
        let [first, second] = alone.map(|pieces| rate(pieces.iter().map(|piece| piece.wall).collect()));
        round.one = 2.0 / (first + second);
        let first = rate(pairs.iter().map(|pair| pair.0.wall).collect());
        let second = rate(pairs.iter().map(|pair| pair.1.wall).collect());
        round.two = 1.0 / (first + second);
        round
    }

    /// Whether enough of its pieces were whole.
    fn counts(&self) -> bool {
        self.whole >= ENOUGH.min(self.pieces)
    }
}

fn tell(load: Load, rounds: &[Round], wanted: usize, part: &mut Part) {
    let mut counted: Vec<_> = rounds.iter().filter(|round| round.counts()).collect();
    let is_judged = counted.len() * 2 >= wanted;
    if !is_judged {
        counted = rounds.iter().collect();
    }
    let name = load.name();
    let figures =
        |of: fn(&Round) -> f64| median_and_spread(&mut counted.iter().map(|round| of(round)).collect::<Vec<_>>());
    for (workers, (nanoseconds, spread)) in [(1, figures(|round| round.one)), (2, figures(|round| round.two))] {
        let row = Row::new(format!("{name}, workers: {workers}"), "jetway", nanoseconds, spread);
        part.rows.push(row.size(LENGTH.to_string(), LENGTH as f64).flows(workers, Some(BURST)));
    }
    let (ratio, _) = figures(|round| round.one / round.two);
    let of_all = |of: fn(&Round) -> usize| rounds.iter().map(of).sum::<usize>() as f64;
    let share = of_all(|round| round.whole) / of_all(|round| round.pieces);
    part.quantities.push(Quantity::new(
        format!("two workers, {name}: pieces with both cores to themselves"),
        share,
        "",
    ));
    let quantity = Quantity::new(format!("two workers, {name} {LENGTH}: rate by that of one"), ratio, "");
    if is_judged {
        part.quantities.push(quantity.at_least(1.8));
    } else {
        part.quantities.push(quantity);
        let taken =
            format!("a second free core: others had one of both in {:.0} % of the pieces", (1.0 - share) * 100.0);
        part.lacks(&format!("{name}: the goal for two workers"), &taken);
    }
}

/// Lets a number of threads go at the same moment, again and again.
#[derive(Default)]
struct Gate(AtomicUsize);

impl Gate {
    /// Waits, without sleeping, until `threads` threads wait.
    fn pass(&self, threads: usize) {
        let arrived = self.0.fetch_add(1, Ordering::AcqRel);
        let target = (arrived / threads + 1) * threads;
        while self.0.load(Ordering::Acquire) < target {
            std::hint::spin_loop();
        }
    }
}

/// Two workers of one node.
struct Team {
    members: [Member; 2],
    _publisher: Publisher<Tables>,
    _others: OtherEnds<HeapBuf>,
}

/// A worker with its ports' other ends, and its client.
struct Member {
    number: usize,
    worker: Worker<HeapBuf>,
    lines: [Line; 2],
    load: Load,
    client: Client,
    aead: Aead,
    counters: Arc<WorkerCounters>,
    buffers: Vec<HeapBuf>,
    done: u64,
}

impl Team {
    fn new(load: Load) -> Self {
        let (aead, layout) = (aead::chosen(), world::layout(2));
        let peers: Vec<_> = (0..2).map(world::peer).collect();
        let mut publisher = Publisher::new(Arc::new(world::tables(world::allowed_ips(&peers), Services::default())));
        let (links, mut others) = links::connect(2);
        let mut members = Vec::new();
        for (number, links) in links.into_iter().enumerate() {
            let counters = Arc::new(WorkerCounters::default());
            let id = WorkerId(number as u16);
            let settings = Settings { worker: id, ..world::settings(layout.clone(), aead, &counters) };
            let lines = [Line::default(), Line::default()];
            let ports = lines.iter().map(|line| PortShare::new(PortAccess::Queue(line.queue()))).collect();
            let pipeline = Pipeline::new(settings);
            let mut worker =
                Worker::new(publisher.reader(), pipeline, links, ports, Box::new(NoPool), Arc::clone(&counters));
            let slot = SlotIndex(0);
            let index = layout.encode(id, slot);
            let commands = &mut others.handshaker[number].commands;
            commands.send(Command::AddPage(Page::of(slot), Page::new()));
            let receiver = world::receiver(number, &peers[number], index, aead);
            commands.send(Command::InstallReceiver(slot, Box::new(receiver)));
            while others.handshaker[number].commands.outstanding() > 0 {
                others.handshaker[number].commands.flush();
                worker.turn(NOW);
            }
            let client = Client::with_index(number, index, aead);
            let buffers = (0..BURST * TURNS).map(|_| HeapBuf::with_room(2048)).collect();
            members.push(Member { number, worker, lines, load, client, aead, counters, buffers, done: 0 });
        }
        let members = members.try_into().unwrap_or_else(|_| unreachable!("there are two links"));
        Self { members, _publisher: publisher, _others: others }
    }
}

impl Member {
    /// Does `pieces` pieces of work, each beginning together with the other threads at `gate`.
    fn pieces(&mut self, gate: &Gate, threads: usize, pieces: usize) -> Vec<Piece> {
        (0..pieces).map(|_| self.piece(gate, threads)).collect()
    }

    fn piece(&mut self, gate: &Gate, threads: usize) -> Piece {
        let direction = match self.load {
            Load::OwnPeer(direction) => direction,
            Load::OneTunnel => Direction::Encrypt,
        };
        let (from, to) = direction.ports();
        for number in 0..self.buffers.len() {
            let frame = self.frame(direction);
            refill(&mut self.buffers[number], &frame);
        }
        self.lines[from].lay(self.buffers.drain(..).rev());
        gate.pass(threads);
        let (start, cpu) = (Instant::now(), system::thread_cpu_time());
        for _ in 0..TURNS {
            self.worker.turn(NOW);
        }
        let piece = Piece { wall: start.elapsed(), cpu: system::thread_cpu_time().saturating_sub(cpu) };
        self.lines[to].take_sent(&mut self.buffers);
        self.done += 1;
        let expected = self.done * (BURST * TURNS) as u64;
        assert_eq!(self.counters.sent.get(), expected, "the worker dropped packets: this measures nothing");
        piece
    }

    fn frame(&mut self, direction: Direction) -> Vec<u8> {
        match (direction, self.load) {
            (Direction::Decrypt, _) => self.client.sealed_frame(self.number, LENGTH, self.aead),
            (Direction::Encrypt, Load::OneTunnel) => plain(0),
            (Direction::Encrypt, Load::OwnPeer(_)) => plain(self.number),
        }
    }
}

/// A server's packet to a client.
fn plain(client: usize) -> Vec<u8> {
    traffic::frame(LAN.index(), &traffic::packet(SERVER, traffic::client(client), LENGTH, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(microseconds: u64, share: f64) -> Piece {
        let wall = Duration::from_micros(microseconds);
        Piece { wall, cpu: wall.mul_f64(share) }
    }

    #[test]
    fn pieces_during_which_others_had_a_core_do_not_count_unless_nearly_all_are_such() {
        let (whole, torn) = (piece(256, 1.0), piece(2560, 0.1));
        let mut first = vec![whole; 20];
        first[..12].fill(torn);
        let round = Round::of([&[whole; 20]; 2], [&first, &[whole; 20]]);
        assert!(round.counts() && round.whole == 8, "{round:?}");
        assert!((round.one / round.two - 2.0).abs() < 1e-9, "{round:?}");
        first[..13].fill(torn);
        let round = Round::of([&[whole; 20]; 2], [&first, &[whole; 20]]);
        assert!(!round.counts() && round.one / round.two < 1.2, "{round:?}");
    }

    #[test]
    fn a_core_that_is_slower_than_the_other_takes_nothing_from_what_two_workers_do() {
        let (fast, slow) = ([piece(200, 1.0); 20], [piece(300, 1.0); 20]);
        let round = Round::of([&fast, &slow], [&fast, &slow]);
        assert!((round.one / round.two - 2.0).abs() < 1e-9, "{round:?}");
        let slower = [piece(400, 1.0); 20];
        let round = Round::of([&fast, &slow], [&slower, &slow]);
        assert!(round.one / round.two < 1.5, "{round:?}");
    }

    #[test]
    fn both_workers_pass_all_their_packets_whatever_they_carry() {
        let mut run = Interleaved::default();
        prepare(0, &mut run);
        let part = run.measure_all(Effort { rounds: 1, pieces: 2, settling: Duration::ZERO });
        assert_eq!(part.rows.len(), 6);
        assert!(part.rows.iter().all(|row| row.ns_per_packet > 0.0), "{:#?}", part.rows);
    }
}
