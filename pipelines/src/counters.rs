//! A worker's counters: one writer, many readers, never reset.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::drop_reason::DropReason;

/// A counter that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning thread may call this: it is a plain load and store.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Sets a gauge. Only the owning thread may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes the plain counters of a worker with their names and meanings.
macro_rules! worker_counters {
    ($($field:ident, $meaning:literal;)*) => {
        /// What one worker counts. Aligned so that no two workers share a cache line.
        #[derive(Debug)]
        #[repr(align(128))]
        pub struct WorkerCounters {
            $(#[doc = $meaning] pub $field: Counter,)*
            /// Packets dropped, by reason.
            pub drops: [Counter; DropReason::COUNT],
        }

        impl Default for WorkerCounters {
            fn default() -> Self {
                Self { $($field: Counter::default(),)* drops: std::array::from_fn(|_| Counter::default()) }
            }
        }

        impl WorkerCounters {
            /// Name, meaning and value of every plain counter.
            pub fn named(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($field), $meaning, self.$field.get()),)*]
            }
        }
    };
}

worker_counters! {
    received, "Packets received from ports";
    created, "Packets made here: keepalives, handshakes, ICMP errors, packets of the host path";
    sent, "Packets handed to a port's transmit queue";
    punted, "Packets given to the host path";
    handed_off, "Packets given to another worker";
    taken_over, "Packets taken from another worker";
    held, "Packets that wait here now for a session or a neighbour (a gauge)";
    turns, "Turns of the worker";
    busy_turns, "Turns in which there was something to do";
    opened, "Tunnel packets decrypted";
    sealed, "Tunnel packets encrypted";
    flows, "Flows and clients in the flow table now (a gauge)";
    flows_untracked, "Flows that found the flow table full and go by Maglev, packet by packet";
    cookies_for_gateways, "Handshake messages to services of gateways that were answered with a cookie, under load";
    windows_missing, "Times that a session could not widen its replay window, since the worker had no memory for one ready";
    fragments_early, "Fragments of services' datagrams that came before the first one, and waited for it";
    pool_empty, "Packets that could not be made because no buffer was free";
    events_lost, "Events dropped because the ring to control was full";
}

impl WorkerCounters {
    /// Counts `count` drops for `reason`.
    pub fn drop_packets(&self, reason: DropReason, count: u64) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.add(count);
        }
    }

    /// Drops over all reasons.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(Counter::get).sum()
    }

    /// Received + created + taken over - (sent + dropped + punted + handed off + held): zero when every
    /// packet is accounted for. Only meaningful while the worker stands still.
    pub fn unaccounted(&self) -> i128 {
        let came = [&self.received, &self.created, &self.taken_over];
        let went = [&self.sent, &self.punted, &self.handed_off, &self.held];
        let sum = |counters: &[&Counter]| counters.iter().map(|c| i128::from(c.get())).sum::<i128>();
        sum(&came) - sum(&went) - i128::from(self.dropped())
    }
}
