//! The protocol's constants (WireGuard paper, section 6.1), and the sizes of its messages (section 5.4).

use std::time::Duration;

/// A session's initiator starts a new handshake after sending this many messages.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// A session is not used for more messages than this (2^64 - 2^13 - 1).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// A session's initiator starts a new handshake when it sends with a session of this age.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// A session is not used at this age or later.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// A session's initiator starts a new handshake when it receives with a session of this age: REJECT_AFTER_TIME less
/// KEEPALIVE_TIMEOUT and REKEY_TIMEOUT.
pub const REKEY_AFTER_TIME_RECEIVING: Duration = Duration::from_secs(165);
/// How long a handshake goes on being tried before the peer is given up.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// A handshake that is not answered is tried again after this, plus jitter.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Jitter added to [`REKEY_TIMEOUT`], at most.
pub const REKEY_TIMEOUT_JITTER: Duration = Duration::from_millis(333);
/// After receiving data and sending nothing for this long, a keepalive is due.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a cookie is good for.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

/// Bytes of a handshake initiation.
pub const INITIATION_SIZE: usize = 148;
/// Bytes of a handshake response.
pub const RESPONSE_SIZE: usize = 92;
/// Bytes of a cookie reply.
pub const COOKIE_REPLY_SIZE: usize = 64;
/// Bytes of a data message before its encrypted packet.
pub const DATA_HEADER_SIZE: usize = 16;
/// Bytes of a data message behind its encrypted packet.
pub const TAG_SIZE: usize = 16;
/// Bytes of the smallest data message: a keepalive.
pub const KEEPALIVE_SIZE: usize = DATA_HEADER_SIZE + TAG_SIZE;
/// Plaintext is padded to a multiple of this.
pub const PADDING: usize = 16;
