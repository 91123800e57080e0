//! The host path against the kernel's own stack, in network namespaces.

mod guard;
mod namespace;
mod traffic;
mod twins;
