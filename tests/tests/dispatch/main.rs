//! Services in front of stock servers: every way of forwarding, servers that die, clients that move, tunnels behind a dispatcher.

mod commands;
mod echoes;
mod forwarding;
mod gateway_flood;
mod load;
mod maintenance;
mod path_mtu;
mod persistence;
mod sizes;
mod tunnel;
mod unusual;
