//! Services in front of stock servers: every way of forwarding, servers that die, clients that move, tunnels behind a dispatcher.

mod commands;
mod forwarding;
mod maintenance;
mod persistence;
mod tunnel;
mod unusual;
