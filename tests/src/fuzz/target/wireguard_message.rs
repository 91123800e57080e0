//! WireGuard messages, read by us and by boringtun.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use boringtun::noise::{Packet, Tunn};
use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieSecrets};
use jetway_pipelines::wireguard::kdf::Secret;
use jetway_pipelines::wireguard::message::{CookieReply, Data, Initiation, MessageType, Response, classify};

use crate::fuzz::Outcome;

/// Both take the same datagrams for the same messages, and what is read can be written again.
pub fn wireguard_message(data: &[u8]) -> Outcome {
    let kind = classify(data);
    let theirs = Tunn::parse_incoming_packet(data);
    check_macs(data, kind.ok());
    match kind {
        Ok(MessageType::Initiation) => {
            assert!(matches!(theirs, Ok(Packet::HandshakeInit(_))));
            let message = Initiation::parse(data).expect("it was classified as one");
            let body = Initiation::body(
                message.sender,
                message.ephemeral,
                message.encrypted_static,
                message.encrypted_timestamp,
            );
            assert_eq!([&body[..], message.mac1, message.mac2].concat(), data);
        }
        Ok(MessageType::Response) => {
            assert!(matches!(theirs, Ok(Packet::HandshakeResponse(_))));
            let message = Response::parse(data).expect("it was classified as one");
            let body = Response::body(message.sender, message.receiver, message.ephemeral, message.encrypted_nothing);
            assert_eq!([&body[..], message.mac1, message.mac2].concat(), data);
        }
        Ok(MessageType::CookieReply) => {
            assert!(matches!(theirs, Ok(Packet::PacketCookieReply(_))));
            assert_eq!(CookieReply::parse(data).expect("it was classified as one").to_bytes(), data);
        }
        Ok(MessageType::Data) => {
            assert!(matches!(theirs, Ok(Packet::PacketData(_))));
            let message = Data::parse(data).expect("it was classified as one");
            let header = Data::header(message.receiver, message.counter);
            assert_eq!([&header[..], message.encrypted_packet].concat(), data);
        }
        Err(malformed) => {
            assert!(theirs.is_err(), "{malformed}: but boringtun reads it");
            assert!(Initiation::parse(data).is_err() && Response::parse(data).is_err());
            assert!(CookieReply::parse(data).is_err() && Data::parse(data).is_err());
        }
    }
    Outcome::of((kind.map(|kind| kind as u8).map_err(|malformed| malformed as u8), data.len().min(200)))
}

/// Nobody guesses a MAC, and only initiations and responses are answered by a cookie.
fn check_macs(data: &[u8], kind: Option<MessageType>) {
    let secrets = Arc::new(CookieSecrets::new(Secret::new([3; 32]), Secret::new([4; 32])));
    let checker = CookieChecker::new(&[5; 32], secrets);
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 51820));
    assert!(!checker.has_valid_mac1(data) && !checker.has_valid_mac2(data, from));
    let answered = checker.reply(data, from, &[6; 24]).is_some();
    assert_eq!(answered, matches!(kind, Some(MessageType::Initiation | MessageType::Response)));
}
