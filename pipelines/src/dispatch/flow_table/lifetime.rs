//! How long a flow is kept when nothing is heard of it.

use std::time::Duration;

use crate::packet::tcp::Flags;
use crate::time::Instant;

/// Ticks of a second. Lifetimes are seconds and more, so this is fine enough to be fair, and 32 bits last 17 years.
pub const TICKS_PER_SECOND: u64 = 8;

/// A connection that is being opened. Short, since a flood of SYNs fills the table with these; a client sends its SYN
/// again within seconds (RFC 6298 section 2).
pub const TCP_OPENING: Duration = Duration::from_secs(30);

/// An open connection that is silent. Less than the 2 h 4 min of RFC 5382 (REQ-5): if it does go on, its backend is
/// found again by the Maglev table, and the place is worth more to others until then.
pub const TCP_ESTABLISHED: Duration = Duration::from_secs(3600);

/// A connection that a FIN or RST ended: time for the last segments to be sent again. The client's side of a connection
/// that the server still sends on is kept by its acknowledgements.
pub const TCP_CLOSING: Duration = Duration::from_secs(30);

/// Datagrams. Longer than the 180 s that a WireGuard session lives without a new handshake (REJECT_AFTER_TIME), and than
/// the 120 s that RFC 4787 (REQ-5) asks for.
pub const UDP: Duration = Duration::from_secs(200);

/// An ICMP query and its answers: a ping sends one a second. RFC 5508 (REQ-2) asks for 60 s of a translator whose
/// mapping is the only way back; here a later query finds its backend by the Maglev table.
pub const ICMP: Duration = Duration::from_secs(30);

/// What a client is bound to beyond its flows: a pause of this length in a user's work keeps the server.
pub const CLIENT: Duration = Duration::from_secs(3600);

/// A coarse point of time, which wraps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Tick(pub u32);

impl Tick {
    /// Ticks since `earlier`; 0 if that is later. Right for up to 8 years of difference.
    #[inline]
    pub const fn since(self, earlier: Self) -> u32 {
        let ticks = self.0.wrapping_sub(earlier.0);
        if ticks > u32::MAX / 2 { 0 } else { ticks }
    }

    /// Whether this is later than `other`. Right for up to 8 years of difference.
    #[inline]
    pub const fn is_after(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) > 0
    }

    /// `ticks` later.
    #[inline]
    pub const fn plus(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// `ticks` earlier.
    #[inline]
    pub const fn minus(self, ticks: u32) -> Self {
        Self(self.0.wrapping_sub(ticks))
    }
}

impl From<Instant> for Tick {
    #[inline]
    fn from(instant: Instant) -> Self {
        Self((instant.as_nanos() / (1_000_000_000 / TICKS_PER_SECOND)) as u32)
    }
}

/// The class that a flow's lifetime comes from. For TCP it is all that is known of the connection's state, from the
/// client's segments alone: servers that answer directly are not heard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Lifetime {
    /// [`TCP_OPENING`].
    TcpOpening,
    /// [`TCP_ESTABLISHED`].
    TcpEstablished,
    /// [`TCP_CLOSING`].
    TcpClosing,
    /// [`UDP`].
    Udp,
    /// [`ICMP`].
    Icmp,
    /// [`CLIENT`].
    Client,
}

impl Lifetime {
    /// Every class.
    pub const ALL: [Self; 6] =
        [Self::TcpOpening, Self::TcpEstablished, Self::TcpClosing, Self::Udp, Self::Icmp, Self::Client];

    /// How long a flow of this class is kept when nothing is heard of it.
    pub const fn duration(self) -> Duration {
        match self {
            Self::TcpOpening => TCP_OPENING,
            Self::TcpEstablished => TCP_ESTABLISHED,
            Self::TcpClosing => TCP_CLOSING,
            Self::Udp => UDP,
            Self::Icmp => ICMP,
            Self::Client => CLIENT,
        }
    }

    /// The same in ticks.
    #[inline]
    pub const fn ticks(self) -> u32 {
        (self.duration().as_secs() * TICKS_PER_SECOND) as u32
    }

    /// The class of a connection whose first segment that we see has these flags.
    ///
    /// One without SYN may go on where a lost table ended, or be made up: it has to be heard again to count as open.
    pub const fn of_tcp(first: Flags) -> Self {
        if first.contains(Flags::RST) || first.contains(Flags::FIN) { Self::TcpClosing } else { Self::TcpOpening }
    }

    /// The class after the client's next segment. Those of other protocols stay.
    #[inline]
    pub const fn after_segment(self, flags: Flags) -> Self {
        match self {
            Self::TcpOpening | Self::TcpEstablished | Self::TcpClosing => {
                if flags.contains(Flags::RST) || flags.contains(Flags::FIN) {
                    return Self::TcpClosing;
                }
                match self {
                    // The ports are used again.
                    Self::TcpClosing if flags.contains(Flags::SYN) => Self::TcpOpening,
                    Self::TcpOpening if flags.contains(Flags::ACK) && !flags.contains(Flags::SYN) => {
                        Self::TcpEstablished
                    }
                    same => same,
                }
            }
            Self::Udp | Self::Icmp | Self::Client => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: Flags = Flags::SYN;
    const ACK: Flags = Flags::ACK;
    const SYN_ACK: Flags = Flags(0x12);
    const FIN_ACK: Flags = Flags(0x11);
    const RST: Flags = Flags::RST;
    const PSH_ACK: Flags = Flags(0x18);

    fn after(segments: &[Flags]) -> Lifetime {
        let (first, rest) = segments.split_first().unwrap();
        rest.iter().fold(Lifetime::of_tcp(*first), |class, flags| class.after_segment(*flags))
    }

    #[test]
    fn a_connection_opens_lives_and_closes_as_the_client_says() {
        assert_eq!(after(&[SYN]), Lifetime::TcpOpening);
        assert_eq!(after(&[SYN, SYN]), Lifetime::TcpOpening);
        assert_eq!(after(&[SYN, ACK]), Lifetime::TcpEstablished);
        assert_eq!(after(&[SYN, ACK, PSH_ACK]), Lifetime::TcpEstablished);
        assert_eq!(after(&[SYN, ACK, FIN_ACK]), Lifetime::TcpClosing);
        assert_eq!(after(&[SYN, RST]), Lifetime::TcpClosing);
        assert_eq!(after(&[SYN, ACK, FIN_ACK, ACK]), Lifetime::TcpClosing);
        assert_eq!(after(&[SYN, ACK, FIN_ACK, ACK, SYN]), Lifetime::TcpOpening);
    }

    #[test]
    fn one_made_up_segment_does_not_open_a_connection() {
        for flags in [ACK, PSH_ACK, SYN_ACK, Flags(0)] {
            assert_eq!(after(&[flags]), Lifetime::TcpOpening);
        }
        assert_eq!(after(&[ACK, ACK]), Lifetime::TcpEstablished);
        assert_eq!(after(&[SYN, SYN_ACK]), Lifetime::TcpOpening);
        assert_eq!(after(&[FIN_ACK]), Lifetime::TcpClosing);
        assert_eq!(after(&[RST]), Lifetime::TcpClosing);
    }

    #[test]
    fn a_syn_into_an_open_connection_changes_nothing() {
        // RFC 9293 section 3.10.7.4: it may be old or forged.
        assert_eq!(after(&[SYN, ACK, SYN]), Lifetime::TcpEstablished);
    }

    #[test]
    fn flags_mean_nothing_to_other_protocols() {
        for class in [Lifetime::Udp, Lifetime::Icmp, Lifetime::Client] {
            assert_eq!(class.after_segment(Flags(0xff)), class);
        }
    }

    #[test]
    fn udp_outlives_a_wireguard_session() {
        assert!(UDP > crate::wireguard::constants::REJECT_AFTER_TIME);
    }

    #[test]
    fn ticks_wrap_and_never_go_back() {
        assert_eq!(Tick(3).since(Tick(u32::MAX - 1)), 5);
        assert_eq!(Tick(3).since(Tick(5)), 0);
        assert_eq!(Tick::from(Instant::from_nanos(1_125_000_000)), Tick(9));
        assert_eq!(Lifetime::Udp.ticks(), 1600);
    }
}
