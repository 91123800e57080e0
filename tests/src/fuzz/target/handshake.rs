//! Two handshakers between which an input carries, loses, repeats, changes and forges messages.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jetway_aead::{Aead, Key, OpenJob, SealJob};
use jetway_pipelines::ids::{NodeId, PeerIndex, SlotIndex, TunnelId, WorkerId};
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::constants::{DATA_HEADER_SIZE, TAG_SIZE};
use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieJar, CookieSecrets};
use jetway_pipelines::wireguard::handshaker::{CookieRequest, Handshaker, Output, Settings};
use jetway_pipelines::wireguard::index::{IndexKey, IndexLayout};
use jetway_pipelines::wireguard::kdf::Secret;
use jetway_pipelines::wireguard::message::{Data, MessageType, classify};
use jetway_pipelines::wireguard::peer::Content;
use jetway_pipelines::wireguard::replay::SpareWindows;
use jetway_pipelines::wireguard::timestamp::WallClock;
use jetway_pipelines::wireguard::x25519::KeyPair;
use jetway_pipelines::wireguard::{Endpoint, Peer, Receiver};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::fuzz::Outcome;
use crate::fuzz::source::Source;

const TUNNEL: TunnelId = TunnelId(0);
const PEER: PeerIndex = PeerIndex(0);
const WORKERS: u16 = 2;
/// Few, so that they run out.
const SLOTS_PER_WORKER: u32 = 6;
/// Steps that one input makes at most.
const MAX_STEPS: usize = 150;
/// Messages that wait on each way at most.
const MAX_WAITING: usize = 32;
/// What the handshaker may ask for after one step, at most.
const MAX_OUTPUTS: usize = 64;

/// Whatever happens between them: slots are installed empty and removed full, and a packet is opened only if the other
/// side sealed it, and once.
pub fn handshake(data: &[u8]) -> Outcome {
    let mut source = Source::new(data);
    let mut world = World::new(source.byte());
    for _ in 0..MAX_STEPS {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
    Outcome::of((world.errors, world.opened.len().min(3), world.sealed.min(3)))
}

struct Side {
    handshaker: Handshaker,
    peer: Arc<Peer>,
    checker: CookieChecker,
    layout: IndexLayout,
    address: SocketAddr,
    public: [u8; 32],
    receivers: HashMap<(WorkerId, SlotIndex), Box<Receiver>>,
    spare_windows: Box<SpareWindows>,
    leaving: Vec<(WorkerId, SlotIndex)>,
    /// Messages on their way to the other side.
    waiting: VecDeque<Vec<u8>>,
    under_load: bool,
}

struct World {
    sides: [Side; 2],
    now: Instant,
    wall: Duration,
    aead: Aead,
    /// Messages that went by, to be repeated.
    seen: Vec<Vec<u8>>,
    /// How many packets were sealed: each holds its number and its sender.
    sealed: u64,
    opened: HashSet<(usize, u64)>,
    errors: BTreeSet<String>,
}

impl Side {
    fn new(number: u8, remote: [u8; 32], preshared_key: Option<[u8; 32]>, now: Instant) -> Self {
        let layout = IndexLayout::new(NodeId(number), WORKERS, &IndexKey::new([number; 8]));
        let secrets = CookieSecrets::new(Secret::new([number + 10; 32]), Secret::new([number + 20; 32]));
        let mut handshaker = Handshaker::new(Settings {
            layout: layout.clone(),
            slots_per_worker: SLOTS_PER_WORKER,
            aead: Aead::best(),
            randomness: Box::new(StdRng::seed_from_u64(number.into())),
            cookie_secrets: Arc::new(secrets),
        });
        handshaker.add_tunnel(TUNNEL, &[number; 32]);
        let peer = Arc::new(Peer::new(PEER, TUNNEL, remote));
        handshaker.add_peer(Arc::clone(&peer), preshared_key, now).expect("the first peer");
        Self {
            checker: handshaker.cookie_checker(TUNNEL).expect("the tunnel was added"),
            handshaker,
            peer,
            layout,
            address: address(number),
            public: public(number),
            receivers: HashMap::new(),
            spare_windows: SpareWindows::new(8),
            leaving: Vec::new(),
            waiting: VecDeque::new(),
            under_load: false,
        }
    }

    /// Removes the peer and adds it anew.
    fn replace_peer(&mut self, preshared_key: Option<[u8; 32]>, now: Instant) {
        self.handshaker.remove_peer(PEER, now);
        self.peer = Arc::new(Peer::new(PEER, TUNNEL, self.peer.public_key));
        self.handshaker.add_peer(Arc::clone(&self.peer), preshared_key, now).expect("the number is free again");
    }

    fn send(&mut self, message: Vec<u8>) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(message);
        }
    }
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::new([192, 0, 2, number].into(), 51820)
}

fn public(number: u8) -> [u8; 32] {
    *KeyPair::new(&[number; 32]).public()
}

impl World {
    fn new(choice: u8) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let key = (choice & 1 != 0).then_some([9; 32]);
        let sides = [Side::new(1, public(2), key, now), Side::new(2, public(1), key, now)];
        sides[0].peer.endpoint.store(Endpoint::configured(sides[1].address));
        Self {
            sides,
            now,
            wall: Duration::from_secs(1_700_000_000),
            aead: Aead::best(),
            seen: Vec::new(),
            sealed: 0,
            opened: HashSet::new(),
            errors: BTreeSet::new(),
        }
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let choice = source.byte();
        let (now, wall, from, to) =
            (self.now, WallClock(self.wall), usize::from(choice >> 7), usize::from(choice >> 7 ^ 1));
        match choice & 15 {
            0 => self.sides[from].handshaker.handle_wanted(now, wall, PEER),
            1 | 2 => self.carry(from, to),
            3 => drop(self.sides[from].waiting.pop_front()),
            4 => self.change(from, source),
            5 => self.repeat(from, source),
            6 => self.pass(Duration::from_millis(u64::from(source.byte()) * 20)),
            7 => self.pass(Duration::from_secs(source.byte().into())),
            8 => self.sides[from].send(source.bytes(200).to_vec()),
            9 => self.forge(from, to, source),
            10 | 11 => self.send_packet(from),
            12 => self.acknowledge(from),
            13 => self.sides[from].under_load = source.byte() & 1 != 0,
            14 => self.administer(from, source),
            _ => self.roam(from, source),
        }
        self.settle(from);
        self.settle(to);
    }

    /// Carries the oldest message to the other side.
    fn carry(&mut self, from: usize, to: usize) {
        let Some(message) = self.sides[from].waiting.pop_front() else { return };
        if self.seen.len() < 64 {
            self.seen.push(message.clone());
        }
        self.receive(to, &message);
    }

    fn receive(&mut self, to: usize, message: &[u8]) {
        let remote = address(2 - to as u8);
        let from = Endpoint { remote, local: Some(self.sides[to].address.ip()) };
        match classify(message) {
            Err(malformed) => drop(self.errors.insert(malformed.to_string())),
            Ok(MessageType::Data) => self.open(to, from, message),
            Ok(MessageType::Initiation | MessageType::Response | MessageType::CookieReply) => {
                let side = &mut self.sides[to];
                let is_cookie_reply = classify(message) == Ok(MessageType::CookieReply);
                if !is_cookie_reply && !side.checker.has_valid_mac1(message) {
                    self.errors.insert("mac1".into());
                    return;
                }
                let proved = is_cookie_reply || !side.under_load || side.checker.has_valid_mac2(message, remote);
                let cookie = if proved { CookieRequest::None } else { CookieRequest::Reply };
                let worker = WorkerId(self.sealed as u16 % WORKERS);
                let wall = WallClock(self.wall);
                let handled = side.handshaker.handle_message(self.now, wall, TUNNEL, from, worker, message, cookie);
                if let Err(error) = handled {
                    self.errors.insert(error.to_string());
                }
            }
        }
    }

    /// Flips a bit of the message that goes next.
    fn change(&mut self, from: usize, source: &mut Source<'_>) {
        let at = usize::from(u16::from_le_bytes(source.array()));
        if let Some(message) = self.sides[from].waiting.front_mut()
            && !message.is_empty()
        {
            let bit = at % (message.len() * 8);
            message[bit / 8] ^= 1 << (bit % 8);
        }
    }

    fn repeat(&mut self, from: usize, source: &mut Source<'_>) {
        let at = usize::from(source.byte());
        if !self.seen.is_empty() {
            let message = self.seen[at % self.seen.len()].clone();
            self.sides[from].send(message);
        }
    }

    /// Sends a message of the attacker's making, with a mac1 that is right.
    fn forge(&mut self, from: usize, to: usize, source: &mut Source<'_>) {
        let mut body = source.bytes(116).to_vec();
        let (kind, size) = if source.byte() & 1 == 0 { (1, 116) } else { (2, 60) };
        body.resize(size, 0);
        body[..4].copy_from_slice(&[kind, 0, 0, 0]);
        let message = CookieJar::default().complete(&self.sides[to].public, &body, self.now);
        self.sides[from].send(message.to_vec());
    }

    fn pass(&mut self, duration: Duration) {
        self.now += duration;
        self.wall += duration;
        for side in &mut self.sides {
            side.handshaker.handle_timeout(self.now, WallClock(self.wall));
            assert!(side.handshaker.next_timeout().is_none_or(|next| next > self.now), "a timer is overdue");
        }
    }

    fn administer(&mut self, from: usize, source: &mut Source<'_>) {
        let side = &mut self.sides[from];
        match source.byte() & 3 {
            0 => side.replace_peer(Some([9; 32]), self.now),
            1 => side.handshaker.set_preshared_key(PEER, None),
            2 => side.handshaker.set_preshared_key(PEER, Some([9; 32])),
            _ => side.handshaker.set_private_key(TUNNEL, &[from as u8 + 1; 32]),
        }
    }

    fn roam(&mut self, from: usize, source: &mut Source<'_>) {
        let side = &mut self.sides[from];
        let remote = SocketAddr::new([192, 0, 2, 2 - from as u8].into(), 51820 + u16::from(source.byte() & 3));
        side.peer.endpoint.store(Endpoint::configured(remote));
        side.handshaker.handle_peer_changed(self.now, PEER);
    }

    /// Workers report the slots that they have emptied.
    fn acknowledge(&mut self, of: usize) {
        let side = &mut self.sides[of];
        for (worker, slot) in std::mem::take(&mut side.leaving) {
            side.handshaker.receiver_removed(worker, slot);
        }
    }

    /// Sends a packet that holds its number and its sender.
    fn send_packet(&mut self, from: usize) {
        let packet = [self.sealed.to_le_bytes(), (from as u64).to_le_bytes()].concat();
        if self.seal(from, &packet) {
            self.sealed += 1;
        }
    }

    /// Seals a packet and sends it, if there is a session for it.
    fn seal(&mut self, from: usize, packet: &[u8]) -> bool {
        let side = &mut self.sides[from];
        let peer = Arc::clone(&side.peer);
        let Some(session) = peer.sending_session().filter(|session| !session.is_expired(self.now)) else {
            return false;
        };
        let mut key = Key::new(&[0; 32]);
        let Ok(counter) = session.reserve(1, &mut key) else { return false };
        let mut message = Data::header(session.remote_index, counter).to_vec();
        message.extend(packet);
        message.extend([0; TAG_SIZE]);
        let buffer = &mut message[DATA_HEADER_SIZE..];
        self.aead.seal_burst(&mut [SealJob { key: &key, counter, buffer }]);
        let content = if packet.is_empty() { Content::Empty } else { Content::Data };
        side.peer.activity.sent(self.now, content);
        side.send(message);
        true
    }

    /// Opens a data message as its home worker does.
    fn open(&mut self, to: usize, from: Endpoint, message: &[u8]) {
        let side = &mut self.sides[to];
        let Ok(data) = Data::parse(message) else { return };
        let place = side.layout.decode_local(data.receiver);
        let Some(receiver) = place.and_then(|place| side.receivers.get_mut(&place)) else { return };
        if receiver.is_expired(self.now) || receiver.peer.is_removed() || receiver.window.check(data.counter).is_err() {
            return;
        }
        let mut packet = data.encrypted_packet.to_vec();
        let mut jobs = [OpenJob { key: &receiver.key, counter: data.counter, buffer: &mut packet, authentic: false }];
        self.aead.open_burst(&mut jobs);
        if !jobs[0].authentic || receiver.window.accept(data.counter, &mut side.spare_windows).is_err() {
            return;
        }
        packet.truncate(packet.len() - TAG_SIZE);
        let content = if packet.is_empty() { Content::Empty } else { Content::Data };
        receiver.peer.activity.received(self.now, content);
        receiver.peer.endpoint.store(from);
        if receiver.confirm() {
            side.handshaker.handle_confirmed(self.now, PEER, data.receiver);
        }
        if let Some((number, rest)) = packet.split_first_chunk() {
            let number = u64::from_le_bytes(*number);
            assert_eq!(rest.first().copied().map(usize::from), Some(to ^ 1), "a packet came back to its sender");
            assert!(number < self.sealed, "a packet was opened that nobody sealed");
            assert!(self.opened.insert((to, number)), "a packet was opened twice");
        }
    }

    /// Does what a handshaker asks for.
    fn settle(&mut self, of: usize) {
        for _ in 0..MAX_OUTPUTS {
            let side = &mut self.sides[of];
            let Some(output) = side.handshaker.poll_output() else { return };
            match output {
                Output::Send { message, .. } => {
                    assert!(classify(&message).is_ok(), "what we send is well-formed");
                    side.send(message.to_vec());
                }
                Output::InstallReceiver { worker, slot, receiver } => {
                    assert!(!side.leaving.contains(&(worker, slot)), "the slot is still being emptied");
                    assert!(side.receivers.insert((worker, slot), receiver).is_none(), "the slot was not empty");
                }
                Output::RemoveReceiver { worker, slot } => {
                    assert!(side.receivers.remove(&(worker, slot)).is_some(), "the slot was empty");
                    side.leaving.push((worker, slot));
                }
                Output::SendKeepalive { .. } => drop(self.seal(of, &[])),
                Output::SessionReady { .. } | Output::GiveUp { .. } => {}
            }
        }
        panic!("the handshaker asks for more and more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: &[u8]) -> World {
        let mut source = Source::new(steps);
        let mut world = World::new(0);
        while !source.is_empty() {
            world.step(&mut source);
        }
        world
    }

    #[test]
    fn an_undisturbed_exchange_opens_every_packet() {
        // A handshake, then a packet each way; the same after two minutes, when both sides may have begun by themselves.
        let carry_all = [0x01, 0x81].repeat(4);
        let exchange = [&[0x00][..], &carry_all, &[0x0a, 0x8a], &carry_all].concat();
        let world = run(&[&exchange[..], &[7, 121], &exchange].concat());
        assert_eq!((world.opened.len(), world.sealed), (4, 4));
        assert!(world.errors.is_empty(), "{:?}", world.errors);
    }

    #[test]
    fn load_makes_the_initiator_prove_its_address() {
        let world = run(&[0x8d, 1, 0x00, 0x01, 0x81, 7, 6, 0x01, 0x81, 0x0a, 0x01, 0x01]);
        assert_eq!(world.opened.len(), 1);
    }

    #[test]
    fn a_repeated_initiation_is_refused() {
        let world = run(&[0x00, 0x01, 0x81, 0x05, 0, 0x01, 0x01]);
        assert!(world.errors.contains("the initiation was sent before"), "{:?}", world.errors);
    }
}
