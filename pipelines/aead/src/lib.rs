//! ChaCha20-Poly1305 (RFC 8439) by the burst, as WireGuard uses it: empty AAD, 64-bit counter as nonce.
#![allow(missing_docs)]
#[derive(Debug)]
pub struct Key;
