use jetway_pipelines::dispatch::BackendState;
use jetway_pipelines::path::PathMtu;

use super::*;
use crate::test_config;

const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const CHECKED: &str = "health = { kind = \"tcp\" }";

/// A service of these servers: name and last byte of the address.
fn service(name: &str, settings: &str, servers: &[(&str, u8)]) -> String {
    let mut text = format!(
        "[[vip]]\nname = \"{name}\"\naddress = \"10.100.0.10\"\nport = {}\nprotocol = \"tcp\"\n{settings}\n",
        400 + name.len()
    );
    for (server, byte) in servers {
        text += &format!("[[vip.backend]]\nname = \"{server}\"\naddress = \"192.0.2.{byte}\"\n");
    }
    text
}

fn vips(text: &str) -> Vec<Vip> {
    let folder = tempfile::tempdir().unwrap();
    test_config::load(folder.path(), text, KEY).vips
}

fn order(service: &str, backend: &str, action: BackendAction, deadline_seconds: Option<u64>) -> BackendOrder {
    BackendOrder { service: service.to_owned(), backend: backend.to_owned(), action, deadline_seconds }
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// The numbers of servers that are begun, changed and stopped to be probed.
fn numbers(changes: &HealthChanges) -> [Vec<u32>; 3] {
    let of = |checks: &[Check]| checks.iter().map(|check| check.backend.index.0).collect();
    [of(&changes.start), of(&changes.change), changes.stop.iter().map(|index| index.0).collect()]
}

fn backend(services: &Services, name: &str) -> Arc<Backend> {
    let mut servers = services.iter().flat_map(|service| &service.servers);
    Arc::clone(&servers.find(|server| server.config.name.as_str() == name).unwrap().backend)
}

#[test]
fn a_server_that_stays_keeps_its_state_and_counts_whatever_else_changes() {
    let mut services = Services::new(2);
    let changes = services.reload(&vips(&service("erp", CHECKED, &[("a", 1), ("b", 2)])), at(1)).unwrap();
    assert_eq!(numbers(&changes), [vec![0, 1], vec![], vec![]]);
    let before = backend(&services, "b");
    before.set_health(Found::Down);
    before.all_traffic()[1].packets.add(7);
    services.order(&order("erp", "b", BackendAction::Drain, None), at(1)).unwrap();
    // Another weight, another name, another order, another server beside it; and a health check that asks otherwise.
    let settings = "health = { kind = \"icmp\", fall = 2 }\npersistence = \"client\"";
    let text = service("erp", settings, &[("c", 3), ("renamed", 2)]) + "weight = 7\n";
    let changes = services.reload(&vips(&text), at(1)).unwrap();
    assert_eq!(numbers(&changes), [vec![2], vec![1], vec![0]]);
    let after = backend(&services, "renamed");
    assert!(Arc::ptr_eq(&before, &after));
    assert_eq!((after.health(), after.administration()), (Found::Down, Administration::Draining));
    assert_eq!(after.all_traffic()[1].packets.get(), 7);
}

#[test]
fn an_unchanged_service_is_not_asked_differently() {
    let mut services = Services::new(1);
    let text = service("erp", CHECKED, &[("a", 1)]);
    services.reload(&vips(&text), at(1)).unwrap();
    let changes = services.reload(&vips(&(text + &service("mail", CHECKED, &[("a", 9)]))), at(1)).unwrap();
    assert_eq!(numbers(&changes), [vec![1], vec![], vec![]]);
}

#[test]
fn a_service_that_goes_or_loses_its_check_is_asked_no_more() {
    let mut services = Services::new(1);
    let both = service("erp", CHECKED, &[("a", 1)]) + &service("mail", CHECKED, &[("a", 9)]);
    services.reload(&vips(&both), at(1)).unwrap();
    let erp = backend(&services, "a");
    erp.set_health(Found::Down);
    let changes = services.reload(&vips(&service("erp", "", &[("a", 1)])), at(1)).unwrap();
    assert_eq!(numbers(&changes), [vec![], vec![], vec![0, 1]]);
    assert!(changes.unasked.iter().any(|backend| Arc::ptr_eq(backend, &erp)), "nobody asks whether it is down");
    assert_eq!(erp.state(), BackendState::Down, "it stays until that is carried out");
    let changes = services.reload(&[], at(1)).unwrap();
    assert_eq!((numbers(&changes), services.iter().count()), ([vec![], vec![], vec![]], 0));
}

#[test]
fn the_operator_drains_for_a_while_disables_and_enables() {
    let mut services = Services::new(1);
    services.reload(&vips(&service("erp", CHECKED, &[("a", 1)])), at(1)).unwrap();
    let server = backend(&services, "a");
    services.order(&order("erp", "a", BackendAction::Drain, Some(300)), at(10)).unwrap();
    services.end_drains(at(309));
    assert_eq!(server.state(), BackendState::Draining);
    services.end_drains(at(310));
    assert_eq!(server.state(), BackendState::Disabled);
    services.order(&order("erp", "a", BackendAction::Enable, None), at(400)).unwrap();
    assert_eq!(server.state(), BackendState::Up);
    // A drain that was taken back does not end.
    services.order(&order("erp", "a", BackendAction::Drain, Some(1)), at(500)).unwrap();
    services.order(&order("erp", "a", BackendAction::Enable, None), at(500)).unwrap();
    services.end_drains(at(600));
    assert_eq!(server.state(), BackendState::Up);
    services.order(&order("erp", "a", BackendAction::Disable, None), at(700)).unwrap();
    assert_eq!(server.state(), BackendState::Disabled);
}

#[test]
fn a_wrong_name_is_refused_with_those_that_are_right() {
    let mut services = Services::new(1);
    services.reload(&vips(&service("erp", CHECKED, &[("a", 1), ("b", 2)])), at(1)).unwrap();
    let failure = services.order(&order("rep", "a", BackendAction::Drain, None), at(1)).unwrap_err();
    assert!(failure.message.contains("rep") && failure.hint.contains("erp"), "{failure:?}");
    let failure = services.order(&order("erp", "c", BackendAction::Drain, None), at(1)).unwrap_err();
    assert!(failure.message.contains("erp has no server c") && failure.hint.contains("a, b"), "{failure:?}");
}

#[test]
fn what_a_router_said_of_the_way_to_a_server_holds_for_ten_minutes_and_only_for_packets_inside_others() {
    let mut services = Services::new(1);
    let text = service("by-nat", "", &[("a", 1)])
        + &service("inside-too", "forward = \"ipip\"", &[("b", 1), ("c", 2)]).replace(".10\"", ".11\"");
    let _ = services.reload(&vips(&text), at(1)).unwrap();
    let server = "192.0.2.1".parse().unwrap();
    let mtus = |services: &Services| ["a", "b", "c"].map(|name| backend(services, name).path_mtu());
    services.learn_path_mtu(PathMtu { server, mtu: 1400 }, at(10));
    services.learn_path_mtu(PathMtu { server, mtu: 1380 }, at(20));
    // Two errors may be under way at once; the way does not carry more for that.
    services.learn_path_mtu(PathMtu { server, mtu: 1390 }, at(20));
    assert_eq!(mtus(&services), [u16::MAX, 1380, u16::MAX]);
    services.forget_path_mtus(at(619));
    assert_eq!(mtus(&services), [u16::MAX, 1380, u16::MAX]);
    services.forget_path_mtus(at(620));
    assert_eq!(mtus(&services), [u16::MAX; 3]);
    services.learn_path_mtu(PathMtu { server: "192.0.2.77".parse().unwrap(), mtu: 1380 }, at(700));
    assert!(services.path_mtus.0.is_empty(), "it is no server's");
}
