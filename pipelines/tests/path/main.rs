//! A worker's packet path from frame to frame, in memory and by a clock that the tests turn, against stock clients.

mod bench;

mod decapsulation;
mod dispatch;
mod early_fragments;
mod ecn;
mod explain;
mod express;
mod express_open;
mod express_seal;
mod flood;
mod forgotten_clients;
mod forwarding;
mod fragments;
mod gateways;
mod hostile;
mod icmp;
mod initiator;
mod kernel;
mod losses;
mod mss;
mod neighbours;
mod path_mtu;
mod policy;
mod roaming;
mod service_packets;
mod sessions;
mod upkeep;
mod workers;
