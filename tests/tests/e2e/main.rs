//! A stock WireGuard client and servers around one running node, in network namespaces; tests run side by side.

mod basic;
mod operations;
mod rekey;
mod roaming;
