//! Why packets did not get on their way to a server, counted where they are dropped.

use crate::counters::Counter;
use crate::drop_reason::DropReason;

/// Why packets did not get on their way to a server: what an operator would look at first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Loss {
    /// No route leads to it, or one that its service cannot use.
    NoRoute = 0,
    /// The next hop's link-layer address is not known.
    NoNeighbour = 1,
    /// They were too long for the way; their senders were told.
    TooBig = 2,
    /// The port's transmit queue was full.
    PortFull = 3,
    /// Anything else: the drops of all workers by reason tell more.
    Other = 4,
}

impl Loss {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::NoRoute, Self::NoNeighbour, Self::TooBig, Self::PortFull, Self::Other];

    /// The word for people and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoNeighbour => "no_neighbour",
            Self::TooBig => "too_big",
            Self::PortFull => "port_full",
            Self::Other => "other",
        }
    }

    /// What a drop is to the server that the packet was for; `None` if it is no loss.
    pub const fn of(reason: DropReason) -> Option<Self> {
        match reason {
            DropReason::Consumed => None,
            DropReason::NoRoute | DropReason::RouteBlackhole | DropReason::ServerNotOnLink => Some(Self::NoRoute),
            DropReason::NoNeighbour | DropReason::HeldQueueFull => Some(Self::NoNeighbour),
            DropReason::TooBig => Some(Self::TooBig),
            DropReason::TransmitQueueFull => Some(Self::PortFull),
            // Whatever else will be added to the table of reasons.
            _ => Some(Self::Other),
        }
    }
}

/// What one worker dropped on its way to a server. Apart from what it sent, which is written with every packet.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Losses([Counter; Loss::ALL.len()]);

impl Losses {
    /// Counts a drop. Only the worker that owns it may call this.
    pub fn count(&self, reason: DropReason) {
        if let Some(counter) = Loss::of(reason).and_then(|loss| self.0.get(loss as usize)) {
            counter.add(1);
        }
    }

    /// How many packets were lost so.
    pub fn get(&self, loss: Loss) -> u64 {
        self.0.get(loss as usize).map_or(0, Counter::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_is_counted_at_its_own_place_and_what_ended_well_is_none() {
        let losses = Losses::default();
        for reason in [DropReason::TooBig, DropReason::NoRoute, DropReason::HeldQueueFull, DropReason::TooBig] {
            losses.count(reason);
        }
        losses.count(DropReason::Consumed);
        losses.count(DropReason::TtlExceeded);
        let counts = Loss::ALL.map(|loss| (loss.name(), losses.get(loss)));
        let expected = [("no_route", 1), ("no_neighbour", 1), ("too_big", 2), ("port_full", 0), ("other", 1)];
        assert_eq!(counts, expected);
    }
}
