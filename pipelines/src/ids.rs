//! Newtypes for the numbers that must not be mistaken for one another.

/// Makes a numbered identity: a `Copy` newtype with the obvious conversions.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number as an index into a table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A port of the node, in the order of the configuration.
    PortId(u16)
);
id!(
    /// A receive or transmit queue of one port.
    QueueId(u16)
);
id!(
    /// A worker, numbered from 0; worker `n` runs on the `n`th configured core.
    WorkerId(u16)
);
id!(
    /// A node of a cluster, `0..=255`, unique in it.
    NodeId(u8)
);
id!(
    /// A tunnel of the node, in the order of the configuration.
    TunnelId(u16)
);
id!(
    /// A peer of any tunnel of this node; given out by control, reused after removal.
    PeerIndex(u32)
);
id!(
    /// A receive slot of one worker's session table.
    SlotIndex(u32)
);
id!(
    /// A server of a virtual service; given out by control, reused after removal.
    BackendIndex(u32)
);
id!(
    /// A virtual service; given out by control, reused after removal.
    ServiceIndex(u32)
);
