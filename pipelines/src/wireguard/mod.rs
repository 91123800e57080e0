//! WireGuard, as its paper and the kernel's behaviour describe it, split where threads meet.
//!
//! A [`Peer`] is shared by all threads, with the [`Session`] that any worker needs to encrypt to it; a [`Receiver`] is what
//! the session's home worker alone needs to decrypt. The handshaker makes both.

pub mod constants;
pub mod cookie;
pub mod endpoint;
pub mod handshaker;
pub mod index;
pub mod kdf;
pub mod load;
pub mod message;
pub mod noise;
pub mod peer;
pub mod receiver;
pub mod replay;
pub mod send_counter;
pub mod session;
pub mod timestamp;
pub mod x25519;

pub use endpoint::{Endpoint, EndpointCell};
pub use handshaker::Handshaker;
pub use peer::Peer;
pub use receiver::Receiver;
pub use session::{Role, SendingHalf, Session};
