use std::collections::BTreeSet;

use jetway_config::Vip;
use jetway_pipelines::dispatch::service::Service as Table;
use jetway_pipelines::dispatch::{Administration, Backend, Health};
use jetway_pipelines::wireguard::kdf::Secret;

use super::super::services::Services;
use super::super::weights::Step;
use super::*;
use crate::test_config;

const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// A service whose servers have these last bytes of the address and weights.
fn service(name: &str, settings: &str, servers: &[(u8, u16)]) -> String {
    let mut text = format!(
        "[[vip]]\nname = \"{name}\"\naddress = \"10.100.0.10\"\nport = {}\nprotocol = \"udp\"\n{settings}\n",
        400 + name.len()
    );
    for (byte, weight) in servers {
        text += &format!(
            "[[vip.backend]]\nname = \"s{byte}\"\naddress = \"192.0.2.{byte}\"\nweight = {weight}\nport = {}\n",
            1000 + name.len()
        );
    }
    text
}

fn vips(text: &str) -> Vec<Vip> {
    let folder = tempfile::tempdir().unwrap();
    test_config::load(folder.path(), text, KEY).vips
}

/// Services with their tables.
struct World {
    services: Services,
    dispatch: DispatchTables,
    tables: Arc<Tables>,
    now: Instant,
    /// Slots that tables moved, and when.
    moved: Vec<(Instant, u32)>,
    /// How often a service kept its table, since another would have moved too much.
    held_back: usize,
}

impl World {
    fn new(text: &str) -> Self {
        let mut services = Services::new(1);
        services.reload(&vips(text), Instant::ZERO).unwrap();
        let secrets = Arc::new(CookieSecrets::new(Secret::default(), Secret::default()));
        let mut dispatch = DispatchTables::new(PUBLIC_HASH_KEY, secrets);
        let tables = dispatch.make_now(&services);
        Self { services, dispatch, tables, now: Instant::from_nanos(1), moved: Vec::new(), held_back: 0 }
    }

    fn reload(&mut self, text: &str) {
        self.services.reload(&vips(text), self.now).unwrap();
        self.dispatch.services_changed();
    }

    /// Lets everything come to rest; `None` if nothing is published.
    async fn settle(&mut self) -> Option<Arc<Tables>> {
        self.now += LOOK_EVERY;
        let mut published = None;
        let mut settled = None;
        loop {
            if let Some(Fresh { tables, moved, held_back }) = self.dispatch.follow(&mut self.services, self.now) {
                self.moved.extend(moved.values().map(|slots| (self.now, *slots)));
                self.held_back += held_back.len();
                published = Some(tables);
            }
            let settled = settled.get_or_insert_with(|| self.dispatch.settled());
            if settled.try_recv().is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Some(tables) = &published {
            self.tables = Arc::clone(tables);
        }
        published
    }

    /// Five seconds later: server 1 says that it is busy, server 2 that it is not.
    async fn follow_load(&mut self) {
        self.now += Duration::from_secs(5);
        for (server, load) in [(1, 0.9), (2, 0.1)] {
            let mut servers = self.services.iter().flat_map(|service| &service.servers);
            servers.find(|known| last_byte(&known.backend) == server).unwrap().load.put(load);
        }
        if self.services.follow_load(self.now) == Step::Changed {
            self.dispatch.services_changed();
        }
        self.settle().await;
    }

    fn table(&self, port: u16) -> Arc<Table> {
        Arc::clone(self.tables.iter().find(|service| service.socket.port == port).unwrap())
    }

    /// The server of each slot, by the last byte of its address.
    fn slots(&self, port: u16) -> Vec<u8> {
        let table = self.table(port);
        table.table.slots().iter().map(|position| last_byte(table.server(*position).unwrap())).collect()
    }

    fn backend(&self, byte: u8) -> Arc<Backend> {
        let mut servers = self.services.iter().flat_map(|service| &service.servers);
        Arc::clone(&servers.find(|server| last_byte(&server.backend) == byte).unwrap().backend)
    }
}

fn last_byte(backend: &Backend) -> u8 {
    match backend.address {
        std::net::IpAddr::V4(address) => address.octets()[3],
        std::net::IpAddr::V6(address) => address.octets()[15],
    }
}

fn in_slots(slots: &[u8]) -> BTreeSet<u8> {
    slots.iter().copied().collect()
}

#[tokio::test]
async fn names_and_order_do_not_matter_and_an_unchanged_service_stays_the_same_object() {
    let mut world = World::new(&(service("a", "", &[(1, 1), (2, 3), (3, 1)]) + &service("bb", "", &[(1, 1)])));
    let (slots, other) = (world.slots(401), world.table(402));
    let turned = service("a", "", &[(3, 1), (1, 1), (2, 3)]).replace("\"s", "\"other");
    world.reload(&(turned + &service("bb", "", &[(1, 1)])));
    assert!(world.settle().await.is_some());
    assert_eq!(world.slots(401), slots);
    assert!(Arc::ptr_eq(&world.table(402), &other));
    assert!(world.settle().await.is_none(), "nothing changed since");
}

#[tokio::test]
async fn a_changed_weight_moves_slots_to_or_from_its_server_alone() {
    let servers: Vec<(u8, u16)> = (1..=20).map(|byte| (byte, 10)).collect();
    let mut world = World::new(&service("a", "", &servers));
    let before = world.slots(401);
    let mut heavier = servers.clone();
    heavier[4].1 = 15;
    world.reload(&service("a", "", &heavier));
    assert!(world.settle().await.is_some());
    let after = world.slots(401);
    let moved: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
    let among_others = moved.iter().filter(|(old, new)| **old != 5 && **new != 5).count();
    assert!(!moved.is_empty() && among_others * 50 <= before.len(), "{among_others} of {}", moved.len());
}

#[tokio::test]
async fn servers_that_take_no_flows_leave_the_table_when_they_are_most_of_the_service_and_come_back() {
    let mut world = World::new(&service("a", "", &[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]));
    let before = world.slots(401);
    world.backend(1).set_health(Health::Down);
    world.backend(2).set_administration(Administration::Draining);
    assert!(world.settle().await.is_none(), "two of five: workers pass over them");
    world.backend(3).set_administration(Administration::Disabled);
    assert!(world.settle().await.is_some());
    assert_eq!(in_slots(&world.slots(401)), BTreeSet::from([4, 5]));
    let table = world.table(401);
    let draining = world.backend(2).index;
    assert!(table.position(draining, 0).and_then(|position| table.server(position)).is_some(), "its flows stay");
    world.backend(4).set_health(Health::Down);
    assert!(world.settle().await.is_some());
    assert_eq!(in_slots(&world.slots(401)), BTreeSet::from([5]));
    world.backend(5).set_health(Health::Down);
    assert!(world.settle().await.is_some());
    assert_eq!(in_slots(&world.slots(401)), BTreeSet::from([1, 2, 4, 5]), "none is up: all but the disabled");
    for byte in 1..=5 {
        world.backend(byte).set_health(Health::Up);
    }
    assert!(world.settle().await.is_some());
    assert_eq!(world.slots(401), before);
}

#[tokio::test]
async fn a_service_of_gateways_knows_its_nodes_and_goes_with_its_last_line() {
    let text = "[[vip]]\nname = \"front\"\naddress = \"203.0.113.10\"\nport = 51820\nprotocol = \"wireguard\"\n\
                public_key = \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"\nforward = \"ipip\"\n\
                [[vip.backend]]\nname = \"g1\"\naddress = \"198.51.100.11\"\nnode = 7\n\
                [[vip.backend]]\nname = \"g2\"\naddress = \"198.51.100.12\"\nnode = 9\n";
    let mut world = World::new(text);
    let table = world.table(51820);
    let gateways = table.gateways.as_ref().unwrap();
    let server = |node| gateways.nodes.get(&jetway_pipelines::ids::NodeId(node)).and_then(|place| table.server(*place));
    assert_eq!(server(9).map(|server| last_byte(server)), Some(12));
    assert!(server(8).is_none());
    world.reload("");
    assert!(world.settle().await.unwrap().is_empty());
}

#[test]
fn nodes_of_a_cluster_agree_on_a_hash_key_that_outsiders_do_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = test_config::load(folder.path(), "", KEY);
    assert_eq!(hash_key(&config), PUBLIC_HASH_KEY);
    let mut with = |byte: u8| {
        config.node.index_key = Some(jetway_config::Secret::take(&mut [byte; 32]));
        hash_key(&config)
    };
    assert_eq!(with(7), with(7));
    assert_ne!(with(7), with(8));
    assert_ne!(with(7), PUBLIC_HASH_KEY);
}

#[tokio::test]
async fn a_preview_counts_what_a_change_would_move_and_changes_nothing() {
    let mut world = World::new(&(service("a", "", &[(1, 1), (2, 1), (3, 1)]) + &service("bb", "", &[(1, 1)])));
    let before = world.slots(401);
    let slots_of = |slots: &[u8], byte| slots.iter().filter(|server| **server == byte).count() as u32;
    let [stays, goes] = [1, 2].map(|byte| world.backend(byte).index);
    let mut changed = world.services.clone();
    // Another pool for one service, and an end for the other.
    changed.reload(&vips(&service("a", "", &[(1, 1), (3, 1), (4, 1)])), world.now).unwrap();
    let moves = world.dispatch.preview(&changed).run();
    let name = |text: &str| world.services.service(text).unwrap().vip.name.clone();
    let a = &moves[&name("a")];
    assert_eq!((a.slots, a.leaves), (before.len() as u32, false));
    let gone = a.servers[&goes];
    assert_eq!(
        (gone.slots_before, gone.slots_after, gone.slots_moved),
        (slots_of(&before, 2), 0, slots_of(&before, 2))
    );
    assert!(gone.leaves && !a.servers[&stays].leaves);
    assert_eq!(a.servers.len(), 4, "the new one is among them");
    let moved: u32 = a.servers.values().map(|server| server.slots_moved).sum();
    assert_eq!(a.slots_moved, moved);
    let ended = &moves[&name("bb")];
    assert!(ended.leaves && ended.slots_moved == ended.slots);
    // Carried out, it moves just what was said.
    assert!(world.settle().await.is_none(), "nothing was changed");
    world.reload(&service("a", "", &[(1, 1), (3, 1), (4, 1)]));
    world.settle().await.unwrap();
    let after = world.slots(401);
    assert_eq!(before.iter().zip(&after).filter(|(old, new)| old != new).count() as u32, a.slots_moved);
}

#[tokio::test]
async fn weights_that_follow_load_reach_the_table_and_are_charged_for_what_they_moved() {
    let load = "health = { kind = \"tcp\" }\nload = { from = \"agent\", port = 8099, slots_per_minute = 65537 }\n";
    let mut world = World::new(&service("a", load, &[(1, 1), (2, 1)]));
    let share = |world: &World| {
        let index = world.backend(1).index;
        let name = world.services.iter().next().unwrap().vip.name.clone();
        world.dispatch.share(&name, index)
    };
    let before = share(&world);
    assert!((before - 0.5).abs() < 0.01, "{before}");
    for _ in 0..60 {
        world.follow_load().await;
    }
    let after = share(&world);
    assert!((0.1..0.3).contains(&after), "the busy one keeps {after}");
}

#[tokio::test]
async fn no_minute_moves_more_slots_than_allowed_though_a_table_moves_more_than_its_shares_do() {
    let allowed = 18;
    let load = format!(
        "health = {{ kind = \"tcp\" }}\nload = {{ from = \"agent\", port = 8099, slots_per_minute = {allowed} }}\n"
    );
    let mut world = World::new(&service("a", &load, &[(1, 35), (2, 23)]));
    for _ in 0..240 {
        world.follow_load().await;
    }
    for (start, _) in &world.moved {
        let minute = *start..*start + Duration::from_secs(60);
        let slots: u32 = world.moved.iter().filter(|(at, _)| minute.contains(at)).map(|(_, slots)| slots).sum();
        assert!(slots <= allowed, "{slots} in the minute from {start:?}: {:?}", world.moved);
    }
    assert!(world.moved.len() > 2 && world.held_back > 0, "{} and {}", world.moved.len(), world.held_back);
}
