//! What a worker decides about a handshake message before it hands it to the handshaker.

use std::net::SocketAddr;

use super::cookie::CookieChecker;
use super::handshaker::CookieRequest;
use super::load::{AddressProof, Decision, HandshakeLimiter, Known};
use super::message::MessageType;
use crate::drop_reason::DropReason;
use crate::time::Instant;

/// Decides about `message`, which [`classify`](super::message::classify) found to be of type `kind`.
///
/// `checker` is that of the tunnel to which it came; `limiter` is the worker's own. What comes back is for
/// [`Handshaker::handle_message`](super::Handshaker::handle_message), or the reason to drop the message.
pub fn admit(
    now: Instant,
    from: SocketAddr,
    kind: MessageType,
    message: &[u8],
    known: Known,
    checker: &CookieChecker,
    limiter: &mut HandshakeLimiter,
) -> Result<CookieRequest, DropReason> {
    let proof = match kind {
        MessageType::Data => return Err(DropReason::WireguardMalformed),
        // A cookie reply has no MACs, and costs little: a look-up, and for who guesses the index one decryption.
        MessageType::CookieReply => AddressProof::None,
        MessageType::Initiation | MessageType::Response => {
            if !checker.has_valid_mac1(message) {
                return Err(DropReason::WireguardBadMac1);
            }
            match checker.has_valid_mac2(message, from) {
                true => AddressProof::Cookie,
                false => AddressProof::None,
            }
        }
    };
    match (limiter.judge(now, from, proof, known), kind) {
        (Decision::Pass, _) => Ok(CookieRequest::None),
        (Decision::AskCookie, MessageType::Initiation | MessageType::Response) => Ok(CookieRequest::Reply),
        (Decision::AskCookie | Decision::Drop, _) => Err(DropReason::WireguardRateLimited),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::wireguard::cookie::{CookieJar, CookieSecrets};
    use crate::wireguard::kdf::Secret;
    use crate::wireguard::load::Limits;
    use crate::wireguard::message::{CookieReply, Initiation};

    const OURS: [u8; 32] = [5; 32];

    struct Worker {
        checker: CookieChecker,
        limiter: HandshakeLimiter,
    }

    impl Worker {
        fn new() -> Self {
            let secrets = Arc::new(CookieSecrets::new(Secret::new([1; 32]), Secret::new([2; 32])));
            let limiter = HandshakeLimiter::new(Limits::of_worker(1), [1, 2, 3, 4]);
            Self { checker: CookieChecker::new(&OURS, secrets), limiter }
        }

        fn admit(&mut self, from: SocketAddr, kind: MessageType, message: &[u8]) -> Result<CookieRequest, DropReason> {
            let now = Instant::from_nanos(1_000_000_000);
            admit(now, from, kind, message, Known::No, &self.checker, &mut self.limiter)
        }
    }

    fn initiation(jar: &mut CookieJar, public: &[u8; 32]) -> Vec<u8> {
        jar.complete(public, &Initiation::body(7, &[1; 32], &[2; 48], &[3; 28]), Instant::ZERO).to_vec()
    }

    #[test]
    fn a_message_goes_from_work_to_cookie_to_work_again() {
        let mut worker = Worker::new();
        let from = "192.0.2.1:5".parse().unwrap();
        let mut jar = CookieJar::default();
        let message = initiation(&mut jar, &OURS);
        let passed = (0..10_000)
            .take_while(|_| worker.admit(from, MessageType::Initiation, &message) == Ok(CookieRequest::None))
            .count();
        assert_eq!(passed, 2_000, "the burst that strangers may make");
        let asked = (0..100)
            .filter(|_| worker.admit(from, MessageType::Initiation, &message) == Ok(CookieRequest::Reply))
            .count();
        assert_eq!(asked, 4, "with the one before, five cookies at once for a source");
        let reply = worker.checker.reply(&message, from, &[9; 24]).unwrap();
        jar.accept(&OURS, &CookieReply::parse(&reply).unwrap(), Instant::ZERO).unwrap();
        let message = initiation(&mut jar, &OURS);
        assert_eq!(worker.admit(from, MessageType::Initiation, &message), Ok(CookieRequest::None));
        let limited = Err(DropReason::WireguardRateLimited);
        assert_eq!(worker.admit(from, MessageType::CookieReply, &reply), limited);
    }

    #[test]
    fn who_does_not_know_our_key_gets_nothing_and_uses_up_nothing() {
        let mut worker = Worker::new();
        let from = "192.0.2.1:5".parse().unwrap();
        let wrong = initiation(&mut CookieJar::default(), &[6; 32]);
        for _ in 0..10_000 {
            assert_eq!(worker.admit(from, MessageType::Initiation, &wrong), Err(DropReason::WireguardBadMac1));
        }
        let right = initiation(&mut CookieJar::default(), &OURS);
        assert_eq!(worker.admit(from, MessageType::Initiation, &right), Ok(CookieRequest::None));
    }
}
