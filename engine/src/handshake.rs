//! The handshake thread: runs the handshaker for all tunnels, away from the workers.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arrayvec::ArrayVec;
use crossbeam::channel::{Receiver as RequestReceiver, RecvTimeoutError, Sender, unbounded};
use jetway_pipelines::ids::{TunnelId, WorkerId};
use jetway_pipelines::path::slots::Page;
use jetway_pipelines::path::{Answer, Command, HandshakeEvent};
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::Endpoint;
use jetway_pipelines::wireguard::cookie::Message;
use jetway_pipelines::wireguard::handshaker::{CookieRequest, Handshaker, Output, Received};
use jetway_pipelines::wireguard::replay::Crate;
use jetway_pipelines::wireguard::timestamp::WallClock;

use crate::clock::Clock;
use crate::links::HandshakerLink;

/// Events that are taken from one worker before the next has its turn.
const EVENTS_PER_ROUND: usize = 64;
/// Messages that are worked on together: as many initiations share the work of agreeing on secrets, and a response waits for so
/// many at most.
const MESSAGES_TOGETHER: usize = 8;
/// How long the thread sleeps when nothing happens: what a handshake waits for at most, since a worker may not wake it.
const IDLE_SLEEP: Duration = Duration::from_micros(500);

/// Something that control wants done to the handshaker, on its thread.
pub type Request = Box<dyn FnOnce(&mut Handshaker, Instant) + Send>;

/// Control's end of the handshake thread.
#[derive(Clone)]
pub struct Handshakes {
    requests: Sender<Request>,
}

impl Handshakes {
    /// Has `action` done on the handshake thread, after everything asked before.
    pub fn tell(&self, action: impl FnOnce(&mut Handshaker, Instant) + Send + 'static) {
        // The thread outlives every holder of this end, unless it panicked; then there is nobody to tell.
        let _ = self.requests.send(Box::new(action));
    }

    /// Has `action` done on the handshake thread and waits for what it returns; `None` if the thread is gone.
    pub fn ask<R: Send + 'static>(
        &self,
        action: impl FnOnce(&mut Handshaker, Instant) -> R + Send + 'static,
    ) -> Option<R> {
        let (reply, answer) = crossbeam::channel::bounded(1);
        self.tell(move |handshaker, now| {
            let _ = reply.send(action(handshaker, now));
        });
        answer.recv().ok()
    }
}

/// Starts the thread. It ends, and gives the handshaker back, once `stop` is true.
pub fn start(
    handshaker: Handshaker,
    links: Vec<HandshakerLink>,
    clock: Clock,
    stop: Arc<AtomicBool>,
) -> std::io::Result<(Handshakes, JoinHandle<()>)> {
    let (sender, requests) = unbounded();
    let pages = links.iter().map(|_| HashSet::new()).collect();
    let mut service = Service { handshaker, links, pages, clock, requests };
    let thread = thread::Builder::new().name("jw-handshake".into()).spawn(move || {
        crate::idle::tighten_timer();
        while !stop.load(Ordering::Relaxed) {
            service.round();
        }
    })?;
    Ok((Handshakes { requests: sender }, thread))
}

/// A message from a worker that waits for the others of its round.
struct Waiting {
    tunnel: TunnelId,
    from: Endpoint,
    worker: WorkerId,
    message: Message,
    cookie: CookieRequest,
}

impl Waiting {
    fn received(&self) -> Received<'_> {
        let Self { tunnel, from, worker, ref message, cookie } = *self;
        Received { tunnel, from, worker, message, cookie }
    }
}

struct Service {
    handshaker: Handshaker,
    links: Vec<HandshakerLink>,
    /// The pages that each worker has.
    pages: Vec<HashSet<u32>>,
    clock: Clock,
    requests: RequestReceiver<Request>,
}

impl Service {
    fn round(&mut self) {
        let mut work = self.take_events();
        work += self.take_requests();
        let now = self.clock.now();
        if self.handshaker.next_timeout().is_some_and(|due| due <= now) {
            self.handshaker.handle_timeout(now, WallClock(self.clock.wall()));
            work += 1;
        }
        work += self.carry_out();
        let waiting: usize = self.links.iter_mut().map(|link| link.commands.flush()).sum();
        if work == 0 && waiting == 0 {
            self.wait();
        }
    }

    /// Takes what workers tell. Messages are worked on together, after everything else that came with them.
    fn take_events(&mut self) -> usize {
        let mut count = 0;
        let mut waiting = ArrayVec::new();
        for number in 0..self.links.len() {
            let worker = WorkerId(number as u16);
            for _ in 0..EVENTS_PER_ROUND {
                let Some(event) = self.links[number].events.pop() else { break };
                self.handle(worker, event, &mut waiting);
                count += 1;
                if waiting.is_full() {
                    self.handle_messages(&mut waiting);
                }
            }
        }
        self.handle_messages(&mut waiting);
        count
    }

    fn handle_messages(&mut self, waiting: &mut ArrayVec<Waiting, MESSAGES_TOGETHER>) {
        let waiting = std::mem::take(waiting);
        let (now, wall) = (self.clock.now(), WallClock(self.clock.wall()));
        let received: ArrayVec<_, MESSAGES_TOGETHER> = waiting.iter().map(Waiting::received).collect();
        self.handshaker.handle_messages(now, wall, &received, |message, error| {
            tracing::debug!(%error, from = %message.from.remote, tunnel = message.tunnel.0, "handshake message refused");
        });
    }

    fn handle(&mut self, worker: WorkerId, event: HandshakeEvent, waiting: &mut ArrayVec<Waiting, MESSAGES_TOGETHER>) {
        let (now, wall) = (self.clock.now(), WallClock(self.clock.wall()));
        match event {
            HandshakeEvent::Message { tunnel, from, message, answer } => {
                let cookie = match answer {
                    Answer::Handshake => CookieRequest::None,
                    Answer::Cookie => CookieRequest::Reply,
                };
                waiting.push(Waiting { tunnel, from, worker, message, cookie });
            }
            HandshakeEvent::Wanted(peer) => self.handshaker.handle_wanted(now, wall, peer),
            HandshakeEvent::Confirmed(peer, index) => self.handshaker.handle_confirmed(now, peer, index),
            HandshakeEvent::Removed(slot, receiver) => {
                drop(receiver);
                self.handshaker.receiver_removed(worker, slot);
            }
            HandshakeEvent::Replaced(receiver) => drop(receiver),
            HandshakeEvent::SparePage(page) => drop(page),
            HandshakeEvent::WindowsWanted => self.command(worker.index(), Command::AddWindows(Crate::new())),
            HandshakeEvent::SpareCrate(windows) => drop(windows),
        }
    }

    fn take_requests(&mut self) -> usize {
        let mut count = 0;
        while let Ok(request) = self.requests.try_recv() {
            request(&mut self.handshaker, self.clock.now());
            count += 1;
        }
        count
    }

    /// Carries out what the handshaker decided, in its order.
    fn carry_out(&mut self) -> usize {
        let mut count = 0;
        while let Some(output) = self.handshaker.poll_output() {
            count += 1;
            match output {
                Output::Send { tunnel, peer: _, to, message } => {
                    let worker = usize::from(to.remote.port()) % self.links.len();
                    self.command(worker, Command::SendMessage { tunnel, to, message });
                }
                Output::InstallReceiver { worker, slot, receiver } => {
                    let page = Page::of(slot);
                    if self.pages[worker.index()].insert(page) {
                        self.command(worker.index(), Command::AddPage(page, Page::new()));
                    }
                    self.command(worker.index(), Command::InstallReceiver(slot, receiver));
                }
                Output::RemoveReceiver { worker, slot } => {
                    self.command(worker.index(), Command::RemoveReceiver(slot));
                }
                Output::SendKeepalive { peer } => {
                    let worker = peer.index.index() % self.links.len();
                    self.command(worker, Command::SendKeepalive(peer));
                }
                // Workers look at the peers that packets wait for by themselves, and give up by themselves.
                Output::SessionReady { peer: _ } | Output::GiveUp { peer: _ } => {}
            }
        }
        count
    }

    fn command(&mut self, worker: usize, command: Command) {
        self.links[worker].commands.send(command);
    }

    fn wait(&mut self) {
        match self.requests.recv_timeout(IDLE_SLEEP) {
            Ok(request) => request(&mut self.handshaker, self.clock.now()),
            Err(RecvTimeoutError::Timeout) => {}
            // Control is gone: the thread is about to be stopped.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(IDLE_SLEEP),
        }
    }
}
