//! The kernel as Jetway's host stack: what it knows about our twins, and how it is told about them.
//!
//! [`Mirror`] follows the kernel and tells [`KernelEvent`]s; [`KernelView`] is the state that they add up to.
//! [`Configurator`] gives the twins their addresses and link settings; [`NeighbourKeeper`] has the kernel
//! resolve next hops.

pub mod configure;
pub mod decode;
pub mod event;
pub mod mirror;
pub mod neighbour;
pub mod netlink;
pub mod view;

pub use configure::{Configurator, ConfigureError, TwinSettings};
pub use event::{
    Interfaces, KernelEvent, KernelLink, KernelRoute, LinkState, NeighbourState, Placement, RouteKind, RouteTable, Twin,
};
pub use mirror::{Mirror, MirrorError};
pub use neighbour::{NeighbourKeeper, NeighbourRequest, NeighbourSchedule};
pub use view::{Changes, KernelView};

#[cfg(test)]
pub(crate) mod namespace;
