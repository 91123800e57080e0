//! Which of several queues or workers a packet goes to, so that each flow stays on one of them.

use jetway_pipelines::packet::{FlowHasher, Frame, Parsed};

/// Whether both directions of a flow go to the same place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Symmetry {
    /// Both directions of a flow go to one place.
    Symmetric,
    /// Each direction goes to a place of its own, as with the usual Toeplitz keys.
    Directional,
}

/// Spreads flows over `targets` places by a keyed hash. What is not IP goes to place 0.
#[derive(Clone, Debug)]
pub struct FlowSpread {
    hasher: FlowHasher,
    symmetry: Symmetry,
    targets: usize,
}

impl FlowSpread {
    /// A spread over `targets` places under `key`; the same key spreads in the same way.
    pub fn new(key: [u64; 4], symmetry: Symmetry, targets: usize) -> Self {
        Self { hasher: FlowHasher::new(key), symmetry, targets }
    }

    /// The place of an Ethernet frame.
    pub fn of_frame(&self, frame: &[u8]) -> usize {
        let Ok(header) = Frame::parse(frame) else { return 0 };
        match Parsed::from_payload(header.ethertype, header.payload(frame)) {
            Some(Ok(packet)) => self.place(packet),
            Some(Err(_)) | None => 0,
        }
    }

    /// The place of a bare IP packet.
    pub fn of_ip(&self, packet: &[u8]) -> usize {
        Parsed::from_ip(packet).map_or(0, |packet| self.place(packet))
    }

    fn place(&self, mut packet: Parsed) -> usize {
        if self.targets <= 1 {
            return 0;
        }
        let source = (packet.source, packet.ports.map(|ports| ports.source));
        let destination = (packet.destination, packet.ports.map(|ports| ports.destination));
        if self.symmetry == Symmetry::Symmetric && source > destination {
            std::mem::swap(&mut packet.source, &mut packet.destination);
            if let Some(ports) = &mut packet.ports {
                std::mem::swap(&mut ports.source, &mut ports.destination);
            }
        }
        // The high half times the count, shifted back: an even spread without a division (Lemire 2019).
        ((u128::from(self.hasher.hash(&packet)) * self.targets as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_frames::udp_frame;

    const KEY: [u64; 4] = [1, 2, 3, 4];

    #[test]
    fn flows_spread_evenly_and_each_stays_in_its_place() {
        let spread = FlowSpread::new(KEY, Symmetry::Directional, 4);
        let mut places = [0; 4];
        for port in 0..4000 {
            let place = spread.of_frame(&udp_frame(1, 2, port, b"one"));
            assert_eq!(place, spread.of_frame(&udp_frame(1, 2, port, b"another")));
            assert_eq!(place, spread.of_ip(&udp_frame(1, 2, port, b"bare")[14..]));
            places[place] += 1;
        }
        assert!(places.iter().all(|count| (850..1150).contains(count)), "{places:?}");
    }

    #[test]
    fn only_a_symmetric_spread_keeps_both_directions_together() {
        let there = udp_frame(1, 2, 4242, b"");
        let mut back = udp_frame(2, 1, 4242, b"");
        let (source, rest) = back[34..].split_at_mut(2);
        source.swap_with_slice(&mut rest[..2]);
        let same = |symmetry| {
            (0..64).all(|key| {
                let spread = FlowSpread::new([key, 0, 0, 0], symmetry, 16);
                spread.of_frame(&there) == spread.of_frame(&back)
            })
        };
        assert!(same(Symmetry::Symmetric));
        assert!(!same(Symmetry::Directional));
    }

    #[test]
    fn what_is_not_ip_goes_to_the_first_place() {
        let spread = FlowSpread::new(KEY, Symmetry::Directional, 8);
        let mut arp = udp_frame(1, 2, 3, b"");
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        for frame in [&arp[..], &arp[..9], &[]] {
            assert_eq!(spread.of_frame(frame), 0);
        }
    }
}
