//! Reads `[[vip]]`.

use std::net::IpAddr;

use crate::cross_check::{Claims, Ledger};
use crate::intent::{AllDown, Forward, Name, OnDown, Persistence, Protocol, Vip, VipBackend};
use crate::parse::Surroundings;
use crate::read::{health, load};
use crate::section::{Field, Section};
use crate::source::{Finding, Mark};
use crate::value;

const FORWARDS: [(&str, Forward); 5] =
    [("nat", Forward::Nat), ("l2", Forward::L2), ("ipip", Forward::Ipip), ("gre", Forward::Gre), ("gue", Forward::Gue)];

/// Slots of a table at most: the largest prime below 2²⁴.
const LARGEST_TABLE: u32 = 16_777_213;
/// Slots for each server that spread clients evenly enough not to be warned of.
const SLOTS_FOR_EVEN: usize = 10;

/// What the servers of a service must fit.
struct Service {
    address: Option<(IpAddr, Mark)>,
    port: Option<u16>,
    protocol: Protocol,
    forward: Forward,
}

/// What the servers of a service have that no other of them may have.
#[derive(Default)]
struct Taken {
    names: Claims<Name>,
    servers: Claims<(IpAddr, u16)>,
    nodes: Claims<u8>,
}

pub(super) fn read(mut section: Section<'_>, surroundings: &Surroundings<'_>, ledger: &mut Ledger) -> Option<Vip> {
    let source = section.source;
    let name = section.required("name", "give the service a name, for example name = \"erp\"").and_then(|field| {
        let name = value::name(&field)?;
        ledger.vip_names.claim(source, name.clone(), &field.mark, |_| format!("two services are named \"{name}\""));
        Some(name)
    });
    let address =
        section.required("address", "give the address that clients use, for example address = \"10.100.0.10\"");
    let address = address.and_then(|field| Some((value::ip_address(&field)?, field.mark)));
    let port = section.required("port", "give the port that clients use, for example port = 443");
    let port = port.and_then(|field| field.number(1..=u16::MAX));
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("wireguard", Protocol::WireGuard)];
    let protocol = section.required("protocol", "write protocol = \"tcp\", \"udp\" or \"wireguard\"");
    let protocol = protocol.and_then(|field| field.choice(&protocols));
    let persistences = [("flow", Persistence::Flow), ("client", Persistence::Client)];
    let persistence = section.field("persistence").and_then(|field| field.choice(&persistences));
    let forward = section.field("forward").map_or(Some(Forward::Nat), |field| field.choice(&FORWARDS));
    let on_down = on_down(&mut section, protocol);
    let all_downs = [("serve", AllDown::Serve), ("refuse", AllDown::Refuse)];
    let all_down = section.field("all_down").and_then(|field| field.choice(&all_downs)).unwrap_or(AllDown::Serve);
    let table_size = section.field("table_size").map_or(Some(Vip::DEFAULT_TABLE_SIZE), |field| table_size(&field));
    let public_key = gateway_key(&mut section, protocol);
    let health = section
        .field("health")
        .and_then(|field| health::read(field.as_section("health = { kind = \"tcp\" }")?, public_key, surroundings));
    let load = section
        .field("load")
        .and_then(|field| load::read(field.as_section("load = { from = \"header\" }")?, health.as_ref(), table_size));
    if let (Some((address, mark)), Some(port), Some(protocol)) = (&address, port, protocol) {
        ledger.add_service(source, *address, port, protocol, mark);
    }
    let sections = section.tables("backend");
    if section.absent("backend") {
        section.error("the service has no servers", "add a [[vip.backend]] with name and address");
    }
    let backends = match (protocol, forward) {
        (Some(protocol), Some(forward)) => {
            backends(sections, &Service { address: address.clone(), port, protocol, forward }, ledger)
        }
        // What a server must have depends on what is wrong already.
        (None, _) | (_, None) => None,
    };
    if let (Some(size), Some(backends)) = (table_size, &backends) {
        check_size(&section, size, backends.len());
    }
    if section.absent("health") {
        let finding = Finding::warning(
            "the service has no health check: dead servers will keep getting clients",
            "add health = { kind = \"tcp\" }",
        );
        source.report(&section.mark(), finding);
    }
    section
        .finish(&[("backends", "write each server as a table: [[vip.backend]]"), ("server", "write [[vip.backend]]")]);
    Some(Vip {
        name: name?,
        address: address?.0,
        port: port?,
        protocol: protocol?,
        persistence: persistence.unwrap_or(Persistence::Flow),
        forward: forward?,
        health,
        load,
        on_down,
        all_down,
        table_size: table_size?,
        public_key,
        backends: backends?,
    })
}

fn on_down(section: &mut Section<'_>, protocol: Option<Protocol>) -> OnDown {
    let Some(field) = section.field("on_down") else { return OnDown::Move };
    let choice = field.choice(&[("move", OnDown::Move), ("reset", OnDown::Reset)]);
    if let (Some(OnDown::Reset), Some(Protocol::Udp | Protocol::WireGuard)) = (choice, protocol) {
        field.error("only TCP connections can be reset", "write on_down = \"move\", or remove the line");
    }
    choice.unwrap_or(OnDown::Move)
}

fn gateway_key(section: &mut Section<'_>, protocol: Option<Protocol>) -> Option<crate::intent::PublicKey> {
    let field = section.field("public_key");
    match (field, protocol) {
        (Some(field), Some(Protocol::WireGuard) | None) => value::public_key(&field),
        (Some(field), Some(Protocol::Tcp | Protocol::Udp)) => {
            field.error("only a service of protocol \"wireguard\" has a `public_key`", "remove the line");
            None
        }
        (None, Some(Protocol::WireGuard)) => {
            let hint =
                "dispatch checks with it what may pass: paste the public key of the gateways' shared private key";
            section.error(format!("`public_key` is missing in `{}`", section.path), hint);
            None
        }
        (None, Some(Protocol::Tcp | Protocol::Udp) | None) => None,
    }
}

fn table_size(field: &Field<'_>) -> Option<u32> {
    let size = field.number(101..=LARGEST_TABLE)?;
    if is_prime(size) {
        return Some(size);
    }
    let next = (size..).find(|&n| is_prime(n)).unwrap_or(Vip::DEFAULT_TABLE_SIZE);
    field.error(
        format!("`table_size` must be a prime number, but {size} is none"),
        format!("the next prime is {next}; the default is {}", Vip::DEFAULT_TABLE_SIZE),
    );
    None
}

/// A table must have room for every server, and is even only with many slots for each.
fn check_size(section: &Section<'_>, size: u32, servers: usize) {
    let prime_from = |least: usize| {
        let least = u32::try_from(least).unwrap_or(u32::MAX);
        (least..=LARGEST_TABLE).find(|&n| is_prime(n)).unwrap_or(LARGEST_TABLE)
    };
    let hint = format!("write table_size = {}", prime_from(servers.saturating_mul(100)));
    if servers > size as usize {
        section.error(format!("the table of {size} slots is too small for {servers} servers"), hint);
    } else if servers.saturating_mul(SLOTS_FOR_EVEN) > size as usize {
        let finding = Finding::warning(
            format!(
                "{servers} servers have {size} slots, {} each: clients will be spread unevenly",
                size as usize / servers
            ),
            hint,
        );
        section.source.report(&section.mark(), finding);
    }
}

fn is_prime(n: u32) -> bool {
    n > 1 && (2..).take_while(|d| u64::from(*d) * u64::from(*d) <= u64::from(n)).all(|d| !n.is_multiple_of(d))
}

fn backends(sections: Vec<Section<'_>>, service: &Service, ledger: &mut Ledger) -> Option<Vec<VipBackend>> {
    let mut taken = Taken::default();
    let mut backends = Vec::with_capacity(sections.len());
    let mut complete = true;
    for section in sections {
        match backend(section, service, &mut taken, ledger) {
            Some(backend) => backends.push(backend),
            None => complete = false,
        }
    }
    complete.then_some(backends)
}

fn backend(mut section: Section<'_>, service: &Service, taken: &mut Taken, ledger: &mut Ledger) -> Option<VipBackend> {
    let source = section.source;
    let name = section.required("name", "give the server a name, for example name = \"erp-1\"").and_then(|field| {
        let name = value::name(&field)?;
        taken
            .names
            .claim(source, name.clone(), &field.mark, |_| format!("two servers of this service are named \"{name}\""));
        Some(name)
    });
    let address_field = section.required("address", "give the server's address, for example address = \"192.0.2.11\"");
    let address = address_field.as_ref().and_then(|field| backend_address(field, service));
    let port_field = section.field("port");
    let port = port_field.as_ref().map_or(service.port, |field| field.number(1..=u16::MAX));
    if let (Some(field), Some(own), Some(wanted)) = (&port_field, port, service.port)
        && own != wanted
        && service.forward != Forward::Nat
    {
        field.error(
            "only forwarding by NAT can change the port",
            format!("remove the line, let the server listen on {wanted}, or write forward = \"nat\""),
        );
    }
    if let (Some(address), Some(port), Some(field)) = (address, port, &address_field) {
        let conflict = |_: &Mark| format!("the server {address} port {port} is named twice");
        if taken.servers.claim(source, (address, port), &field.mark, conflict) && service.forward == Forward::Nat {
            ledger.add_translated_server(source, address, port, service.protocol, &field.mark);
        }
    }
    let weight = section.field("weight").map_or(Some(1), |field| field.number(1..=1000));
    let node = backend_node(&mut section, service.protocol, &mut taken.nodes);
    section.finish(&[("health", "the health check belongs to the service: health = { ... } under [[vip]]")]);
    Some(VipBackend { name: name?, address: address?, port: port?, weight: weight?, node: node? })
}

fn backend_address(field: &Field<'_>, service: &Service) -> Option<IpAddr> {
    let address = value::ip_address(field)?;
    let (vip, mark) = service.address.as_ref()?;
    let finding = match service.forward {
        _ if address == *vip => Finding::error(
            "the server has the address of the service itself",
            "give the server's own address, to which packets are sent on",
        ),
        Forward::Nat | Forward::L2 if address.is_ipv4() != vip.is_ipv4() => Finding::error(
            "the server and the service are of different IP versions, which this way of forwarding cannot join",
            "use forward = \"ipip\", \"gre\" or \"gue\", or addresses of one version",
        ),
        Forward::Nat | Forward::L2 | Forward::Ipip | Forward::Gre | Forward::Gue => return Some(address),
    };
    field.source.report(&field.mark, finding.related(mark, "the service"));
    None
}

/// The gateway's node number: `Some(None)` where none belongs.
fn backend_node(section: &mut Section<'_>, protocol: Protocol, nodes: &mut Claims<u8>) -> Option<Option<u8>> {
    let field = section.field("node");
    match (field, protocol) {
        (Some(field), Protocol::WireGuard) => {
            let node = field.number(0..=255)?;
            nodes.claim(section.source, node, &field.mark, |_| format!("two gateways have the node number {node}"));
            Some(Some(node))
        }
        (None, Protocol::WireGuard) => {
            section
                .error(format!("`node` is missing in `{}`", section.path), "give the id of the gateway's own [node]");
            None
        }
        (Some(field), Protocol::Tcp | Protocol::Udp) => {
            field.error("only gateways of a service with protocol \"wireguard\" have a `node`", "remove the line");
            None
        }
        (None, Protocol::Tcp | Protocol::Udp) => Some(None),
    }
}
