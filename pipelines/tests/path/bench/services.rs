//! Virtual services of the bench's node, and their servers on the LAN.

use std::net::IpAddr;
use std::sync::Arc;

use jetway_config::{AllDown, Forward, OnDown, Persistence};
use jetway_pipelines::dispatch::Backend;
use jetway_pipelines::dispatch::maglev::{Identity, Maglev, Member};
use jetway_pipelines::dispatch::service::{Gateways, Service, ServiceParts, Services, Socket};
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::packet::Protocol;

use super::{Family, LAN, World, address};

/// The port of the bench's services.
pub const SERVICE_PORT: u16 = 80;
/// The port at which servers behind NAT listen.
pub const SERVER_PORT: u16 = 8080;

/// The address of the bench's services.
pub fn service_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("10.100.0.10"),
        Family::V6 => address("fd00:100::10"),
    }
}

/// The number-th server.
pub fn server_address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, 100 + number]),
        Family::V6 => address(&format!("2001:db8:2::{:x}", 100 + number)),
    }
}

/// A service to be.
pub struct ServicePlan {
    pub family: Family,
    pub protocol: Protocol,
    pub persistence: Persistence,
    pub forward: Forward,
    pub on_down: OnDown,
    pub all_down: AllDown,
    pub gateways: Option<Gateways>,
}

impl ServicePlan {
    /// A service by NAT, whose flows stay where they are.
    pub fn nat(family: Family, protocol: Protocol) -> Self {
        Self {
            family,
            protocol,
            persistence: Persistence::Flow,
            forward: Forward::Nat,
            on_down: OnDown::Move,
            all_down: AllDown::Serve,
            gateways: None,
        }
    }

    /// The service on these servers.
    pub fn service(self, servers: &[Arc<Backend>]) -> Service {
        let members: Vec<_> = servers
            .iter()
            .map(|server| Member {
                identity: Identity::of(format!("{} {}", server.address, server.port).as_bytes()),
                weight: 1,
            })
            .collect();
        ServiceParts {
            socket: Socket { address: service_address(self.family), port: SERVICE_PORT, protocol: self.protocol },
            persistence: self.persistence,
            forward: self.forward,
            on_down: self.on_down,
            all_down: self.all_down,
            servers: servers.into(),
            table: Maglev::build(251, &members).expect("a table"),
            gateways: self.gateways,
        }
        .into()
    }
}

/// Servers with these numbers.
pub fn servers(family: Family, numbers: impl IntoIterator<Item = u8>) -> Vec<Arc<Backend>> {
    numbers
        .into_iter()
        .map(|number| {
            let at = server_address(family, number);
            Arc::new(Backend::new(BackendIndex(u32::from(number)), at, SERVER_PORT, 4))
        })
        .collect()
}

impl World {
    /// The node offers these services from now on.
    pub fn offer(&mut self, services: impl IntoIterator<Item = Service>) {
        let services: Vec<_> = services.into_iter().map(Arc::new).collect();
        for service in &services {
            Arc::make_mut(&mut self.tables.local).insert(service.socket.address);
            for server in &service.servers {
                self.learn_neighbour(LAN, server.address);
            }
        }
        self.tables.services = Arc::new(Services::new(services, [1, 2]));
        self.tables.epoch += 1;
    }
}
