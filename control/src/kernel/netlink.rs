//! A netlink route socket that is read only as fast as its reader works, so that memory stays bounded.
//!
//! When the reader is too slow the kernel drops messages and says so once ([`Received::Overrun`]).

use std::io;

use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

/// The kernel's messages are at most 32 KiB (since Linux 4.9).
const DATAGRAM: usize = 64 * 1024;
/// Room for bursts of notifications; the kernel allows root more than `rmem_max`.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A socket of the protocol `NETLINK_ROUTE` in the namespace of the thread that opened it.
pub struct RouteSocket {
    socket: TokioSocket,
    buffer: Vec<u8>,
    sequence: u32,
}

/// What one read gave.
#[derive(Debug)]
pub enum Received {
    /// Some messages.
    Messages(Vec<Message>),
    /// The kernel had to drop messages: what we know is out of date.
    Overrun,
}

/// A message: understood, or only its header.
#[derive(Debug)]
pub enum Message {
    /// Understood.
    Known(NetlinkMessage<RouteNetlinkMessage>),
    /// Of a type, or with attributes, that this program does not know.
    Unknown(NetlinkHeader),
}

impl RouteSocket {
    /// A socket for requests.
    pub fn open() -> io::Result<Self> {
        Self::with_receive_buffer(RECEIVE_BUFFER)
    }

    /// A socket whose receive buffer has this many bytes, if the kernel allows it.
    pub fn with_receive_buffer(bytes: usize) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        let inner = socket.socket_ref();
        inner.set_ext_ack(true)?;
        if setsockopt(inner, sockopt::RcvBufForce, &bytes).is_err() {
            setsockopt(inner, sockopt::RcvBuf, &bytes)?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM), sequence: 0 })
    }

    /// Joins multicast groups, by the numbers of `RTNLGRP_*`.
    pub fn subscribe(&self, groups: &[u32]) -> io::Result<()> {
        groups.iter().try_for_each(|group| self.socket.socket_ref().add_membership(*group))
    }

    /// Sends a request with the given flags beside `NLM_F_REQUEST`.
    pub async fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0)).await.map(drop)
    }

    /// Sends a request, waits for the kernel's verdict on it, and gives what it answered before.
    ///
    /// For dumps pass `NLM_F_DUMP`, for everything else `NLM_F_ACK` with what the request needs.
    pub async fn execute(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(request, flags).await?;
        let mut answers = Vec::new();
        loop {
            let Received::Messages(messages) = self.receive().await? else {
                return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
            };
            for message in messages {
                let Message::Known(message) = message else { continue };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(verdict) if verdict.code.is_some() => return Err(verdict.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                }
            }
        }
    }

    /// Waits for the next datagram.
    pub async fn receive(&mut self) -> io::Result<Received> {
        self.buffer.clear();
        match self.socket.recv_from(&mut self.buffer).await {
            Ok(_) => Ok(Received::Messages(parse(&self.buffer))),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Received::Overrun),
            Err(error) => Err(error),
        }
    }

    /// The number of the last request, which its answers bear.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }
}

/// Splits a datagram into its messages. One that we cannot read does not hide those behind it.
fn parse(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(header) = parse_header(bytes) {
        let length = header.length as usize;
        let Some(own) = bytes.get(..length) else { break };
        messages.push(match NetlinkMessage::deserialize(own) {
            Ok(message) => Message::Known(message),
            Err(_) => Message::Unknown(header),
        });
        // Messages start at multiples of four bytes (NLMSG_ALIGN).
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

fn parse_header(bytes: &[u8]) -> Option<NetlinkHeader> {
    const HEADER: usize = 16;
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let half = |at: usize| bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let mut header = NetlinkHeader::default();
    header.length = word(0)?;
    header.message_type = half(4)?;
    header.flags = half(6)?;
    header.sequence_number = word(8)?;
    header.port_number = word(12)?;
    (header.length as usize >= HEADER).then_some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_cannot_be_read_does_not_hide_the_next() {
        let mut unreadable = vec![0; 20];
        unreadable[..4].copy_from_slice(&18_u32.to_ne_bytes());
        unreadable[4..6].copy_from_slice(&104_u16.to_ne_bytes());
        let mut done = NetlinkMessage::<RouteNetlinkMessage>::new(NetlinkHeader::default(), NetlinkPayload::Noop);
        done.finalize();
        let mut bytes = vec![0; done.buffer_len()];
        done.serialize(&mut bytes);
        unreadable.extend(bytes);
        let messages = parse(&unreadable);
        assert!(matches!(messages[0], Message::Unknown(ref header) if header.message_type == 104), "{messages:?}");
        assert!(matches!(messages[1], Message::Known(_)), "{messages:?}");
        assert_eq!(messages.len(), 2);
    }

    #[test]
    fn truncated_datagrams_end_quietly() {
        assert!(parse(&[1, 2, 3]).is_empty());
        assert!(parse(&[0; 16]).is_empty());
        assert!(parse(&[255; 32]).is_empty());
    }
}
