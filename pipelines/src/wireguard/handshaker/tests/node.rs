//! A node with a handshaker, and workers that do as the engine's do.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use jetway_aead::{Aead, Key, OpenJob, SealJob};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::world::{PEER, TUNNEL, WORKERS};
use crate::ids::{NodeId, SlotIndex, WorkerId};
use crate::time::Instant;
use crate::wireguard::constants::{DATA_HEADER_SIZE, TAG_SIZE};
use crate::wireguard::cookie::{CookieChecker, CookieSecrets};
use crate::wireguard::handshaker::{HandshakeError, Handshaker, Settings};
use crate::wireguard::index::{IndexKey, IndexLayout};
use crate::wireguard::kdf::Secret;
use crate::wireguard::message::{Data, MessageType};
use crate::wireguard::peer::Content;
use crate::wireguard::replay::SpareWindows;
use crate::wireguard::x25519::KeyPair;
use crate::wireguard::{Endpoint, Peer, Receiver};

/// A node: its handshaker, and workers that hold receivers and packets.
pub struct Node {
    pub handshaker: Handshaker,
    pub layout: IndexLayout,
    pub address: SocketAddr,
    pub public: [u8; 32],
    pub peer: Arc<Peer>,
    pub checker: CookieChecker,
    pub receivers: HashMap<(WorkerId, SlotIndex), Box<Receiver>>,
    spare_windows: Box<SpareWindows>,
    /// Slots that workers were told to empty, and have emptied but not reported.
    pub leaving: Vec<(WorkerId, SlotIndex)>,
    pub held: VecDeque<Vec<u8>>,
    pub received: Vec<Vec<u8>>,
    pub errors: Vec<HandshakeError>,
    pub drops: HashMap<&'static str, u32>,
    pub given_up: u32,
    pub sent: Vec<(Instant, MessageType, usize)>,
    /// Whether every handshake message must bring a valid mac2.
    pub under_load: bool,
    /// Whether the ring to the handshaker is always full when a session is confirmed.
    pub loses_confirmations: bool,
    aead: Aead,
}

impl Node {
    pub fn new(number: u8, private_key: [u8; 32], remote: [u8; 32], seed: u64) -> Self {
        let layout = IndexLayout::new(NodeId(number), WORKERS, &IndexKey::new([number; 8]));
        let cookie_secrets = Arc::new(CookieSecrets::new(Secret::new([number; 32]), Secret::new([number + 100; 32])));
        let mut handshaker = Handshaker::new(Settings {
            layout: layout.clone(),
            slots_per_worker: 200,
            aead: Aead::best(),
            randomness: Box::new(StdRng::seed_from_u64(seed)),
            cookie_secrets,
        });
        handshaker.add_tunnel(TUNNEL, &private_key);
        let peer = Arc::new(Peer::new(PEER, TUNNEL, remote));
        Self {
            checker: handshaker.cookie_checker(TUNNEL).unwrap(),
            handshaker,
            layout,
            address: SocketAddr::new([192, 0, 2, number].into(), 51820),
            public: *KeyPair::new(&private_key).public(),
            peer,
            receivers: HashMap::new(),
            spare_windows: SpareWindows::new(8),
            leaving: Vec::new(),
            held: VecDeque::new(),
            received: Vec::new(),
            errors: Vec::new(),
            drops: HashMap::new(),
            given_up: 0,
            sent: Vec::new(),
            under_load: false,
            loses_confirmations: false,
            aead: Aead::best(),
        }
    }

    pub fn drop_packet(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// How many messages of a type were sent since `since`.
    pub fn count(&self, message: MessageType, since: Instant) -> usize {
        self.sent.iter().filter(|(at, kind, _)| *kind == message && *at >= since).count()
    }

    /// How many keepalives were sent since `since`.
    pub fn keepalives(&self, since: Instant) -> usize {
        let keepalive = |(at, kind, size): &&(Instant, MessageType, usize)| {
            *at >= since && *kind == MessageType::Data && *size == DATA_HEADER_SIZE + TAG_SIZE
        };
        self.sent.iter().filter(keepalive).count()
    }

    /// Seals a payload with the sending session, if there is one to send with.
    pub fn seal(&mut self, now: Instant, payload: &[u8]) -> Option<Vec<u8>> {
        let session = self.peer.sending_session().filter(|session| !session.is_expired(now))?;
        let mut key = Key::new(&[0; 32]);
        let counter = session.reserve(1, &mut key).ok()?;
        let mut message = Data::header(session.remote_index, counter).to_vec();
        message.extend(payload);
        message.resize(DATA_HEADER_SIZE + payload.len().next_multiple_of(16) + TAG_SIZE, 0);
        let buffer = &mut message[DATA_HEADER_SIZE..];
        self.aead.seal_burst(&mut [SealJob { key: &key, counter, buffer }]);
        Some(message)
    }

    /// Goes on as if `sent` messages had been sent with the sending session, if they are not so many yet.
    pub fn use_up(&self, sent: u64) {
        let session = self.peer.sending_session().expect("there is a session");
        let rest = sent.saturating_sub(session.sent());
        session.reserve(rest, &mut Key::new(&[0; 32])).expect("there are so many");
    }

    /// Opens a data message as its home worker does; says why if it does not.
    pub fn open(&mut self, now: Instant, from: SocketAddr, message: &[u8]) -> Result<Vec<u8>, &'static str> {
        let data = Data::parse(message).map_err(|_| "malformed")?;
        let place = self.layout.decode_local(data.receiver).ok_or("no session")?;
        let receiver = self.receivers.get_mut(&place).ok_or("no session")?;
        if receiver.is_expired(now) || receiver.peer.is_removed() {
            return Err("expired");
        }
        receiver.window.check(data.counter).map_err(|_| "replayed")?;
        let mut packet = data.encrypted_packet.to_vec();
        let mut jobs = [OpenJob { key: &receiver.key, counter: data.counter, buffer: &mut packet, authentic: false }];
        self.aead.open_burst(&mut jobs);
        if !jobs[0].authentic {
            return Err("forged");
        }
        receiver.window.accept(data.counter, &mut self.spare_windows).map_err(|_| "replayed")?;
        packet.truncate(packet.len() - TAG_SIZE);
        let content = if packet.is_empty() { Content::Empty } else { Content::Data };
        receiver.peer.activity.received(now, content);
        let endpoint = Endpoint { remote: from, local: Some(self.address.ip()) };
        if receiver.peer.endpoint.load() != Some(endpoint) {
            receiver.peer.endpoint.store(endpoint);
        }
        Ok(packet)
    }
}
