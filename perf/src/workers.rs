//! Two workers beside one: each on a core of its own, with its own peer, or both encrypting for one fat tunnel.

use jetway_pipelines::dispatch::service::Services;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use jetway_aead::Aead;
use jetway_engine::exits::{PortAccess, PortShare};
use jetway_engine::links::{self, OtherEnds};
use jetway_engine::worker::Worker;
use jetway_pipelines::buffer::HeapBuf;
use jetway_pipelines::counters::WorkerCounters;
use jetway_pipelines::ids::{SlotIndex, WorkerId};
use jetway_pipelines::path::slots::Page;
use jetway_pipelines::path::{Command, Pipeline, Settings};
use jetway_pipelines::tables::Tables;
use jetway_sync::published::Publisher;

use crate::engine::Direction;
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
/// Below this share of its time, a worker's core was not its own.
const FREE: f64 = 0.97;

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

/// Measures two workers beside one, on `core` and another core.
pub fn measure(core: usize, effort: Effort) -> Part {
    let mut part = Part::default();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let Some(second) = cores.into_iter().map(|core| core.id).find(|other| *other != core) else {
        part.lacks("two workers beside one", "a second core");
        return part;
    };
    for load in [Load::OwnPeer(Direction::Decrypt), Load::OwnPeer(Direction::Encrypt), Load::OneTunnel] {
        run(load, [core, second], effort, &mut part);
    }
    part
}

fn run(load: Load, cores: [usize; 2], effort: Effort, part: &mut Part) {
    let Team { members, _publisher, _others } = Team::new(load);
    let (start, gates) = (Barrier::new(2), [Gate::default(), Gate::default()]);
    let outcomes: Vec<Vec<Round>> = std::thread::scope(|scope| {
        let run = |(mut member, core): (Member, usize)| {
            let (start, gates) = (&start, &gates);
            scope.spawn(move || {
                system::pin(core);
                let round = |_| {
                    start.wait();
                    // While the first works alone, the second sleeps at the barrier.
                    let alone = (member.number == 0).then(|| member.round(&gates[0], 1, effort.pieces));
                    start.wait();
                    Round { alone, together: member.round(&gates[1], 2, effort.pieces) }
                };
                (0..=effort.rounds).map(round).skip(1).collect()
            })
        };
        let threads: Vec<_> = members.into_iter().zip(cores).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("no worker panics")).collect()
    });
    tell(load, &outcomes, part);
}

/// What a member needed in a round: nanoseconds a packet, and the share of the time that it had its core.
#[derive(Clone, Copy, Debug)]
struct Figure {
    nanoseconds: f64,
    share: f64,
}

struct Round {
    alone: Option<Figure>,
    together: Figure,
}

fn tell(load: Load, outcomes: &[Vec<Round>], part: &mut Part) {
    let [first, second] = outcomes else { return };
    let (mut one, mut two, mut ratios, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (first, second) in first.iter().zip(second) {
        let Some(alone) = first.alone else { continue };
        let together = 1.0 / (1.0 / first.together.nanoseconds + 1.0 / second.together.nanoseconds);
        one.push(alone.nanoseconds);
        two.push(together);
        ratios.push(alone.nanoseconds / together);
        shares.push(first.together.share.min(second.together.share));
    }
    let name = load.name();
    for (workers, mut figures) in [(1, one), (2, two)] {
        let (nanoseconds, spread) = median_and_spread(&mut figures);
        let row = Row::new(format!("{name}, workers: {workers}"), "jetway", nanoseconds, spread);
        part.rows.push(row.size(LENGTH.to_string(), LENGTH as f64).flows(workers, Some(BURST)));
    }
    let (ratio, _) = median_and_spread(&mut ratios);
    let (share, _) = median_and_spread(&mut shares);
    let quantity = Quantity::new(format!("two workers, {name} {LENGTH}: rate by that of one"), ratio, "");
    part.quantities.push(Quantity::new(format!("two workers, {name}: least share of its core"), share, ""));
    if share >= FREE {
        part.quantities.push(quantity.at_least(1.8));
    } else {
        part.quantities.push(quantity);
        let taken = (1.0 - share) * 100.0;
        part.lacks(
            &format!("{name}: the goal for two workers"),
            &format!("a second free core: others had {taken:.0} % of one"),
        );
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
    members: Vec<Member>,
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
    pieces: u64,
}

impl Team {
    fn new(load: Load) -> Self {
        let (aead, layout) = (Aead::best(), world::layout(2));
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
            members.push(Member { number, worker, lines, load, client, aead, counters, buffers, pieces: 0 });
        }
        Self { members, _publisher: publisher, _others: others }
    }
}

impl Member {
    /// Does `pieces` pieces of work, each beginning together with the other threads at `gate`.
    fn round(&mut self, gate: &Gate, threads: usize, pieces: usize) -> Figure {
        let (mut times, mut cpu) = (Vec::with_capacity(pieces), Duration::ZERO);
        for _ in 0..pieces {
            let (wall, own) = self.piece(gate, threads);
            times.push(wall);
            cpu += own;
        }
        let wall: Duration = times.iter().sum();
        let nanoseconds = median_nanoseconds(&mut times) / (BURST * TURNS) as f64;
        Figure { nanoseconds, share: cpu.as_secs_f64() / wall.as_secs_f64() }
    }

    /// One piece: the wall clock's time and the thread's own.
    fn piece(&mut self, gate: &Gate, threads: usize) -> (Duration, Duration) {
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
        let times = (start.elapsed(), system::thread_cpu_time().saturating_sub(cpu));
        self.lines[to].take_sent(&mut self.buffers);
        self.pieces += 1;
        let expected = self.pieces * (BURST * TURNS) as u64;
        assert_eq!(self.counters.sent.get(), expected, "the worker dropped packets: this measures nothing");
        times
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

    #[test]
    fn both_workers_pass_all_their_packets_whatever_they_carry() {
        let mut part = Part::default();
        for load in [Load::OwnPeer(Direction::Decrypt), Load::OwnPeer(Direction::Encrypt), Load::OneTunnel] {
            run(load, [0, 0], Effort { rounds: 1, pieces: 2 }, &mut part);
        }
        assert_eq!(part.rows.len(), 6);
        assert!(part.rows.iter().all(|row| row.ns_per_packet > 0.0), "{:#?}", part.rows);
    }
}
