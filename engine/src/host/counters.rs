//! What the host thread counts.

use std::io;

use jetway_pipelines::counters::Counter;
use nix::errno::Errno;

/// Makes the counters with their names and meanings.
macro_rules! host_counters {
    ($($field:ident, $meaning:literal;)*) => {
        /// What the host thread counts; it is the only writer.
        ///
        /// Every punt that it took ends in one of the counters `punts_*`, every packet that it read from a twin in one
        /// of `injected`, `inject_ring_full`, `inject_worker_gone` and `read_oversized`.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct HostCounters {
            $(#[doc = $meaning] pub $field: Counter,)*
        }

        impl HostCounters {
            /// Name, meaning and value of every counter.
            pub fn named(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($field), $meaning, self.$field.get()),)*]
            }
        }
    };
}

host_counters! {
    punts_written, "Packets given to the kernel";
    punts_interface_down, "Packets for the kernel lost because the twin is down or was deleted";
    punts_refused, "Packets for the kernel that it would not have: too short, or no IP packet";
    punts_no_memory, "Packets for the kernel lost because it had no memory or no room for them";
    punts_failed, "Packets for the kernel lost for another reason";
    punts_without_twin, "Packets for a twin that is not there (any more)";
    injected, "Packets of the kernel given to workers";
    inject_ring_full, "Packets of the kernel lost because the ring to their worker was full";
    inject_worker_gone, "Packets of the kernel lost because their worker has ended";
    read_oversized, "Packets of the kernel lost because they did not fit into a buffer: the twin's MTU was raised";
    read_failed, "Failed attempts to read from a twin";
    pool_empty, "Turns in which packets waited in the kernel because no buffer was free";
    turns, "Turns of the host thread";
    sleeps, "Turns after which it slept";
}

impl HostCounters {
    /// Counts one packet that the kernel refused to take.
    pub(super) fn punt_failed(&self, error: &io::Error) {
        let counter = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EIO | Errno::EBADFD | Errno::ENETDOWN | Errno::ENODEV) => &self.punts_interface_down,
            Some(Errno::EINVAL | Errno::EMSGSIZE) => &self.punts_refused,
            Some(Errno::ENOMEM | Errno::ENOBUFS | Errno::EAGAIN) => &self.punts_no_memory,
            _ => &self.punts_failed,
        };
        counter.add(1);
    }

    /// Packets taken from workers.
    pub fn punts(&self) -> u64 {
        [
            &self.punts_written,
            &self.punts_interface_down,
            &self.punts_refused,
            &self.punts_no_memory,
            &self.punts_failed,
            &self.punts_without_twin,
        ]
        .map(Counter::get)
        .iter()
        .sum()
    }
}
