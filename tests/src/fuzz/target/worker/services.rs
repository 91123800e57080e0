//! Services of the worker: every way of forwarding, on servers whose state an input changes.

use std::net::IpAddr;
use std::sync::Arc;

use jetway_config::{AllDown, Forward, OnDown, Persistence};
use jetway_pipelines::dispatch::maglev::{Identity, Maglev, Member};
use jetway_pipelines::dispatch::service::{Service, ServiceParts, Services, Socket};
use jetway_pipelines::dispatch::{Administration, Backend, Health};
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::packet::Protocol;

/// The addresses of all services.
pub(super) const ADDRESSES: [&str; 2] = ["10.100.0.10", "fd00:100::10"];
/// Their ports: one for each way of forwarding.
pub(super) const PORTS: [u16; 5] = [80, 81, 82, 83, 84];

const FORWARDS: [Forward; 5] = [Forward::Nat, Forward::L2, Forward::Ipip, Forward::Gre, Forward::Gue];
/// On the link, and behind the link's only neighbour.
const SERVERS: [[&str; 2]; 2] = [["192.0.2.11", "192.0.2.12"], ["2001:db8:2::11", "2001:db8:2::12"]];

pub(super) fn services() -> Services {
    let mut list = Vec::new();
    for (address, servers) in ADDRESSES.iter().zip(SERVERS) {
        for (forward, port) in FORWARDS.into_iter().zip(PORTS) {
            for protocol in [Protocol::UDP, Protocol::TCP] {
                let first = list.len() as u32 * 2;
                list.push(Arc::new(service(address, servers, (forward, port, protocol), first)));
            }
        }
    }
    Services::new(list, [1, 2])
}

fn service(address: &str, servers: [&str; 2], what: (Forward, u16, Protocol), first: u32) -> Service {
    let (forward, port, protocol) = what;
    let parse = |text: &str| text.parse::<IpAddr>().expect("an address that stands in this file");
    let members = servers.map(|server| Member { identity: Identity::of(server.as_bytes()), weight: 1 });
    let servers = servers.iter().zip(first..);
    ServiceParts {
        socket: Socket { address: parse(address), port, protocol },
        persistence: if port % 2 == 0 { Persistence::Flow } else { Persistence::Client },
        forward,
        on_down: if protocol == Protocol::TCP { OnDown::Reset } else { OnDown::Move },
        all_down: if port % 2 == 0 { AllDown::Refuse } else { AllDown::Serve },
        servers: servers.map(|(at, index)| Arc::new(Backend::new(BackendIndex(index), parse(at), port, 1))).collect(),
        table: Maglev::build(101, &members).expect("a table of two"),
        gateways: None,
    }
    .into()
}

/// Changes the state of one server of each service.
pub(super) fn change(services: &Services, choice: u8) {
    let health = [Health::Up, Health::Suspect, Health::Down, Health::Down][usize::from(choice & 3)];
    let administration = match choice >> 2 & 3 {
        0 | 1 => Administration::Enabled,
        2 => Administration::Draining,
        _ => Administration::Disabled,
    };
    for server in services.iter().filter_map(|service| service.servers.get(usize::from(choice >> 4 & 1))) {
        server.set_health(health);
        server.set_administration(administration);
        server.lower_signal();
    }
}
