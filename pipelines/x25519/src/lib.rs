//! X25519 (RFC 7748): public keys and shared secrets, one at a time and by the burst.
//!
//! One at a time is aws-lc's work. A burst goes eight at a time through the vector kernel, on a CPU that can run it: eight take it
//! less time than three take aws-lc.
//!
//! ```
//! let (alice, bob) = ([1; 32], [2; 32]);
//! let [alice_public, bob_public] = [&alice, &bob].map(jetway_x25519::public_key);
//! let mut jobs = [
//!     jetway_x25519::Agreement::of(&alice, &bob_public),
//!     jetway_x25519::Agreement::of(&bob, &alice_public),
//! ];
//! jetway_x25519::agree_burst(&mut jobs);
//! assert!(jobs[0].shared.is_some());
//! assert_eq!(jobs[0].shared, jobs[1].shared);
//! ```

mod aws_lc;
#[cfg(target_arch = "x86_64")]
mod ifma;

use zeroize::Zeroizing;

/// 32 secret bytes, wiped when dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// A private key and a public one, whose shared secret is wanted.
#[derive(Debug)]
pub struct Agreement<'a> {
    /// The private key's 32 bytes, clamped or not.
    pub private: &'a [u8; 32],
    /// The public key of the other side.
    pub public: &'a [u8; 32],
    /// The result; `None` if the public key is of small order, from which no secret comes (RFC 7748, section 6.1).
    pub shared: Option<Secret>,
}

impl<'a> Agreement<'a> {
    /// What is still to be worked out.
    pub fn of(private: &'a [u8; 32], public: &'a [u8; 32]) -> Self {
        Self { private, public, shared: None }
    }
}

/// The public key of a private key's 32 bytes, clamped or not.
pub fn public_key(private: &[u8; 32]) -> [u8; 32] {
    aws_lc::public_key(private)
}

/// The secret that the two share; `None` if the public key is of small order.
pub fn agree(private: &[u8; 32], public: &[u8; 32]) -> Option<Secret> {
    aws_lc::agree(private, public)
}

/// Works out every agreement of the burst, which may have any length.
pub fn agree_burst(agreements: &mut [Agreement<'_>]) {
    let mut rest = agreements;
    #[cfg(target_arch = "x86_64")]
    if ifma::is_supported() {
        while rest.len() >= ifma::WORTH_IT {
            let (group, others) = rest.split_at_mut(rest.len().min(ifma::LANES));
            // SAFETY: this CPU has the features.
            unsafe { ifma::agree(group) };
            rest = others;
        }
    }
    for agreement in rest {
        agreement.shared = agree(agreement.private, agreement.public);
    }
}

#[cfg(test)]
mod tests;
