//! A stock WireGuard client and servers around one running node, in network namespaces; tests run side by side.

// Tests begin in the order of their names: first those that take longest.
mod aging;

mod basic;
mod operations;
mod roaming;
