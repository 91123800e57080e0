//! What the handshaker counts: every message that it got, by what became of it.

use super::{CookieRequest, HandshakeError};
use crate::counters::Counter;
use crate::wireguard::cookie::CookieError;
use crate::wireguard::noise::NoiseError;

/// Makes the counters with their names and meanings.
macro_rules! handshake_counters {
    ($($field:ident, $meaning:literal;)*) => {
        /// What the handshaker counts; it is the only writer.
        ///
        /// Every message that it got is counted in exactly one of the counters.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct HandshakeCounters {
            $(#[doc = $meaning] pub $field: Counter,)*
        }

        impl HandshakeCounters {
            /// Name, meaning and value of every counter.
            pub fn named(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($field), $meaning, self.$field.get()),)*]
            }
        }
    };
}

handshake_counters! {
    accepted, "Handshake messages and cookie replies that were authentic and led on";
    cookies_sent, "Handshake messages answered by a cookie only, because of load";
    refused_unknown_tunnel, "Handshake messages for a tunnel that was removed";
    refused_malformed, "Handshake messages that are none by type, reserved bytes or length";
    refused_not_handshake, "Data messages that came to the handshaker, or messages that no cookie can answer";
    refused_forged, "Handshake messages with a right mac1 that do not decrypt";
    refused_small_order, "Handshake messages with a public key of small order";
    refused_no_memory, "Handshake messages that the crypto library had no memory for";
    refused_unknown_peer, "Initiations whose static key belongs to no peer of the tunnel";
    refused_unexpected, "Responses and cookie replies that answer no handshake of ours";
    refused_replayed, "Initiations with a timestamp that is not greater than the greatest seen from the peer";
    refused_too_often, "Initiations less than 20 ms after the peer's previous one";
    refused_no_slot, "Handshakes for which the worker had no receive slot free";
    refused_draining, "Initiations of peers without a session while the node is being drained";
    refused_cookie_unexpected, "Cookie replies to a handshake of ours for which no message awaits a cookie";
    refused_cookie_forged, "Cookie replies to a handshake of ours that do not decrypt";
}

impl HandshakeCounters {
    /// Counts one message by what became of it.
    pub(super) fn note(&self, request: CookieRequest, outcome: Result<(), HandshakeError>) {
        let counter = match outcome {
            Ok(()) => match request {
                CookieRequest::None => &self.accepted,
                CookieRequest::Reply => &self.cookies_sent,
            },
            Err(error) => self.refused(error),
        };
        counter.add(1);
    }

    fn refused(&self, error: HandshakeError) -> &Counter {
        match error {
            HandshakeError::UnknownTunnel => &self.refused_unknown_tunnel,
            HandshakeError::Malformed(_) => &self.refused_malformed,
            HandshakeError::NotHandshake => &self.refused_not_handshake,
            HandshakeError::Noise(NoiseError::Forged) => &self.refused_forged,
            HandshakeError::Noise(NoiseError::SmallOrder) => &self.refused_small_order,
            HandshakeError::Noise(NoiseError::OutOfMemory) => &self.refused_no_memory,
            HandshakeError::UnknownPeer => &self.refused_unknown_peer,
            HandshakeError::Unexpected => &self.refused_unexpected,
            HandshakeError::Replayed => &self.refused_replayed,
            HandshakeError::TooOften => &self.refused_too_often,
            HandshakeError::NoSlot => &self.refused_no_slot,
            HandshakeError::Draining => &self.refused_draining,
            HandshakeError::Cookie(CookieError::Unexpected) => &self.refused_cookie_unexpected,
            HandshakeError::Cookie(CookieError::Forged) => &self.refused_cookie_forged,
        }
    }
}
