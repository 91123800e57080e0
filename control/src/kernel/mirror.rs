//! Follows the kernel's links, addresses, routes and neighbours, and tells what it says as [`KernelEvent`]s.

use std::io;
use std::time::Duration;

use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_DUMP, NLM_F_DUMP_INTR, NetlinkPayload};
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::decode::{Told, decode};
use super::event::{Interfaces, KernelEvent};
use super::netlink::{Message, Received, RouteSocket};

/// Multicast groups (`RTNLGRP_*`): links, neighbours, addresses and routes of IPv4 and IPv6, next-hop objects.
const GROUPS: [u32; 7] = [1, 3, 5, 7, 9, 11, 32];
/// Message types of next-hop objects (`RTM_NEWNEXTHOP`, `RTM_DELNEXTHOP`): routes go silently when theirs does.
const NEXT_HOP_OBJECTS: [u16; 2] = [104, 105];
/// How long the news of a change that needs a dump are collected, so that ten interfaces going down cost one dump.
const COLLECT: Duration = Duration::from_millis(20);
/// How often an interrupted dump is begun again before its result is taken as it is; what it missed is being
/// notified, because it was interrupted by a change.
const DUMP_ATTEMPTS: usize = 5;

/// Why the mirror stopped.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The netlink socket could not be opened or subscribed.
    #[error(
        "cannot follow the kernel's routes and neighbours through rtnetlink: {0}; run as root or with CAP_NET_ADMIN"
    )]
    Open(#[source] io::Error),
    /// The netlink socket failed while in use.
    #[error("the rtnetlink socket failed: {0}; restart the node, and report this with the kernel's version")]
    Broken(#[source] io::Error),
    /// The kernel refused to list its state.
    #[error("the kernel refused to list its {what}: {source}; run as root or with CAP_NET_ADMIN")]
    Dump {
        /// What was asked for.
        what: &'static str,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
}

/// Follows the kernel of the network namespace in which it was opened.
///
/// Notifications that the kernel had to drop (`ENOBUFS`), and changes about which it keeps silent, are made good by
/// listing everything anew between [`KernelEvent::ResyncBegan`] and [`KernelEvent::ResyncEnded`]; a change of our
/// interfaces does the same. Nothing is buffered beyond the channel: a slow reader makes the kernel buffer, and
/// then drop and say so.
pub struct Mirror {
    notifications: RouteSocket,
    requests: RouteSocket,
    interfaces: watch::Receiver<Interfaces>,
}

/// The reader of the events is gone: the mirror has nobody to work for.
struct Unheard;

enum Stop {
    Unheard,
    Failed(MirrorError),
}

impl From<Unheard> for Stop {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

impl From<MirrorError> for Stop {
    fn from(error: MirrorError) -> Self {
        Self::Failed(error)
    }
}

impl Mirror {
    /// Subscribes to the kernel's changes. Must be called on a tokio runtime.
    pub fn open(interfaces: watch::Receiver<Interfaces>) -> Result<Self, MirrorError> {
        let open = || {
            let notifications = RouteSocket::open()?;
            notifications.subscribe(&GROUPS)?;
            Ok(Self { notifications, requests: RouteSocket::open()?, interfaces })
        };
        open().map_err(MirrorError::Open)
    }

    /// Tells everything, then every change, until the receiver of `events` is dropped (then `Ok`) or the socket fails.
    pub async fn run(mut self, events: mpsc::Sender<KernelEvent>) -> Result<(), MirrorError> {
        match self.follow(&events).await {
            Stop::Unheard => Ok(()),
            Stop::Failed(error) => Err(error),
        }
    }

    async fn follow(&mut self, events: &mpsc::Sender<KernelEvent>) -> Stop {
        let mut dump_at = Some(Instant::now());
        loop {
            if dump_at.is_some_and(|due| due <= Instant::now()) {
                dump_at = None;
                if let Err(stop) = self.resync(events).await {
                    return stop;
                }
            }
            let told = match self.next(dump_at, events).await {
                Ok(told) => told,
                Err(stop) => return stop,
            };
            if told == Told::Part {
                dump_at.get_or_insert_with(|| Instant::now() + COLLECT);
            }
        }
    }

    /// Waits for one thing to happen, until `deadline` if there is one.
    async fn next(&mut self, deadline: Option<Instant>, events: &mpsc::Sender<KernelEvent>) -> Result<Told, Stop> {
        let received = tokio::select! {
            received = self.notifications.receive() => received.map_err(MirrorError::Broken)?,
            changed = self.interfaces.changed() => match changed {
                Ok(()) => return Ok(Told::Part),
                Err(_) => return Err(Stop::Unheard),
            },
            () = events.closed() => return Err(Stop::Unheard),
            () = sleep_until(deadline) => return Ok(Told::Everything),
        };
        match received {
            Received::Overrun => {
                tracing::info!("the kernel dropped netlink notifications; listing everything anew");
                Ok(Told::Part)
            }
            Received::Messages(messages) => self.tell(messages, events).await,
        }
    }

    async fn tell(&self, messages: Vec<Message>, events: &mpsc::Sender<KernelEvent>) -> Result<Told, Stop> {
        let mut told = Told::Everything;
        let mut found = Vec::new();
        for message in messages {
            match message {
                Message::Known(message) => {
                    let flags = message.header.flags;
                    if NEXT_HOP_OBJECTS.contains(&message.header.message_type) {
                        told = Told::Part;
                    } else if let NetlinkPayload::InnerMessage(inner) = message.payload {
                        match decode(inner, flags, &self.interfaces.borrow(), &mut found) {
                            Told::Everything => {}
                            Told::Part => told = Told::Part,
                        }
                    }
                }
                Message::Unknown(_) => told = Told::Part,
            }
        }
        send_all(events, found).await?;
        Ok(told)
    }

    async fn resync(&mut self, events: &mpsc::Sender<KernelEvent>) -> Result<(), Stop> {
        self.interfaces.borrow_and_update();
        send_all(events, vec![KernelEvent::ResyncBegan]).await?;
        for (what, request) in requests() {
            let mut attempts = DUMP_ATTEMPTS;
            while self.dump(what, request.clone(), events).await? == Dumped::Interrupted && attempts > 0 {
                attempts -= 1;
            }
        }
        send_all(events, vec![KernelEvent::ResyncEnded]).await?;
        Ok(())
    }

    async fn dump(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
        events: &mpsc::Sender<KernelEvent>,
    ) -> Result<Dumped, Stop> {
        let failed = |source| MirrorError::Dump { what, source };
        self.requests.send(request, NLM_F_DUMP).await.map_err(failed)?;
        let mut dumped = Dumped::Whole;
        loop {
            let Received::Messages(messages) = self.requests.receive().await.map_err(failed)? else {
                return Ok(Dumped::Interrupted);
            };
            let mut found = Vec::new();
            for message in messages {
                let Message::Known(message) = message else { continue };
                // The rest of a dump that an overrun cut short.
                if message.header.sequence_number != self.requests.sequence() {
                    continue;
                }
                if message.header.flags & NLM_F_DUMP_INTR != 0 {
                    dumped = Dumped::Interrupted;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => {
                        send_all(events, found).await?;
                        return Ok(dumped);
                    }
                    NetlinkPayload::Error(error) => return Err(failed(error.to_io()).into()),
                    NetlinkPayload::InnerMessage(inner) => {
                        // Routes are listed in the kernel's order of preference.
                        decode(inner, NLM_F_APPEND, &self.interfaces.borrow(), &mut found);
                    }
                    _ => {}
                }
            }
            send_all(events, found).await?;
        }
    }
}

/// How a dump went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dumped {
    Whole,
    /// The kernel's state changed under it, so that it may have missed something.
    Interrupted,
}

/// What to list: links first, because the rest refers to them.
fn requests() -> [(&'static str, RouteNetlinkMessage); 6] {
    let route = |family| {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        RouteNetlinkMessage::GetRoute(message)
    };
    let neighbour = |family| {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        RouteNetlinkMessage::GetNeighbour(message)
    };
    [
        ("links", RouteNetlinkMessage::GetLink(LinkMessage::default())),
        ("addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default())),
        ("IPv4 routes", route(AddressFamily::Inet)),
        ("IPv6 routes", route(AddressFamily::Inet6)),
        ("IPv4 neighbours", neighbour(AddressFamily::Inet)),
        ("IPv6 neighbours", neighbour(AddressFamily::Inet6)),
    ]
}

async fn send_all(events: &mpsc::Sender<KernelEvent>, found: Vec<KernelEvent>) -> Result<(), Unheard> {
    for event in found {
        events.send(event).await.map_err(|_| Unheard)?;
    }
    Ok(())
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
