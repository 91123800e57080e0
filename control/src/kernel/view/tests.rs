use jetway_pipelines::ids::PortId;
use proptest::prelude::*;

use super::*;
use crate::kernel::event::{LinkState, RouteTable};

const WAN: Twin = Twin::Port(PortId(0));
const LAN: Twin = Twin::Port(PortId(1));

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn route(via: &str, metric: u32) -> KernelRoute {
    KernelRoute {
        table: RouteTable::Main,
        kind: RouteKind::Unicast,
        via: Some(via.parse().unwrap()),
        twin: Some(WAN),
        metric,
        mtu: None,
        prefsrc: None,
    }
}

fn added(destination: &str, route: KernelRoute, placement: Placement) -> KernelEvent {
    KernelEvent::RouteAdded { net: net(destination), route, placement }
}

fn view(events: impl IntoIterator<Item = KernelEvent>) -> KernelView {
    let mut view = KernelView::new();
    events.into_iter().for_each(|event| view.apply(event, &mut Changes::default()));
    view
}

fn via(view: &KernelView, destination: &str) -> String {
    view.best(net(destination)).and_then(|route| route.via).map_or_else(String::new, |via| via.to_string())
}

#[test]
fn the_lowest_metric_wins_and_the_next_takes_over_when_it_goes() {
    let mut view = view([
        added("10.0.0.0/8", route("192.0.2.1", 100), Placement::Before),
        added("10.0.0.0/8", route("192.0.2.2", 50), Placement::Before),
    ]);
    assert_eq!(via(&view, "10.0.0.0/8"), "192.0.2.2");
    let mut changes = Changes::default();
    view.apply(KernelEvent::RouteRemoved { net: net("10.0.0.0/8"), route: route("192.0.2.2", 50) }, &mut changes);
    assert_eq!(via(&view, "10.0.0.0/8"), "192.0.2.1");
    assert_eq!(changes.routes, BTreeSet::from([net("10.0.0.0/8")]));
}

#[test]
fn gateways_are_told_once_however_many_routes_use_them() {
    let view = view([
        added("10.0.0.0/8", route("192.0.2.1", 0), Placement::Before),
        added("10.9.0.0/16", route("192.0.2.1", 0), Placement::Before),
        added("0.0.0.0/0", KernelRoute { twin: None, ..route("203.0.113.1", 0) }, Placement::Before),
    ]);
    assert_eq!(view.gateways(), BTreeSet::from([(WAN, "192.0.2.1".parse().unwrap())]));
}

#[test]
fn an_ipv4_replace_takes_the_place_of_the_first_route_of_its_metric_alone() {
    let view = view([
        added("10.0.0.0/8", route("192.0.2.1", 0), Placement::Before),
        added("10.0.0.0/8", route("192.0.2.2", 0), Placement::After),
        added("10.0.0.0/8", route("192.0.2.3", 0), Placement::Replace),
    ]);
    assert_eq!(via(&view, "10.0.0.0/8"), "192.0.2.3");
    assert_eq!(view.routes[&net("10.0.0.0/8")].len(), 2);
}

#[test]
fn an_ipv6_replace_takes_the_place_of_all_next_hops_even_of_one_that_stays() {
    let view = view([
        added("2001:db8:1::/48", route("fe80::1", 1024), Placement::Before),
        added("2001:db8:1::/48", route("fe80::2", 1024), Placement::After),
        added("2001:db8:1::/48", route("fe80::1", 1024), Placement::Replace),
        added("2001:db8:1::/48", route("fe80::3", 1024), Placement::After),
    ]);
    assert_eq!(via(&view, "2001:db8:1::/48"), "fe80::1");
    assert_eq!(view.routes[&net("2001:db8:1::/48")].len(), 2);
}

#[test]
fn a_route_replaced_by_one_out_of_a_foreign_interface_is_no_longer_ours() {
    let foreign = KernelRoute { twin: None, ..route("203.0.113.1", 0) };
    let view = view([
        added("0.0.0.0/0", route("192.0.2.1", 0), Placement::Before),
        added("0.0.0.0/0", foreign, Placement::Replace),
    ]);
    assert_eq!(view.best(net("0.0.0.0/0")), None);
}

#[test]
fn an_address_of_the_node_is_local_on_whatever_interface_it_is() {
    let local = KernelRoute {
        table: RouteTable::Local,
        kind: RouteKind::Local,
        via: None,
        twin: None,
        ..route("192.0.2.1", 0)
    };
    let view = view([
        added("10.9.9.9/32", route("192.0.2.1", 0), Placement::Before),
        added("10.9.9.9/32", KernelRoute { metric: 7, ..local }, Placement::After),
    ]);
    assert_eq!(view.best(net("10.9.9.9/32")).unwrap().kind, RouteKind::Local);
}

#[test]
fn a_neighbour_that_only_ages_is_no_change() {
    let mut view = KernelView::new();
    let up = |state, mac| KernelEvent::NeighbourUp { twin: LAN, addr: [192, 0, 2, 9].into(), mac, state };
    view.apply(up(NeighbourState::Fresh, [1; 6]), &mut Changes::default());
    let mut changes = Changes::default();
    view.apply(up(NeighbourState::Stale, [1; 6]), &mut changes);
    assert!(changes.is_empty());
    view.apply(up(NeighbourState::Stale, [2; 6]), &mut changes);
    assert_eq!(changes.neighbours.len(), 1);
    assert_eq!(view.neighbour(LAN, [192, 0, 2, 9].into()).unwrap().mac, [2; 6]);
}

/// A small world, so that events meet: few destinations, next hops, metrics, neighbours, addresses.
fn any_event() -> impl Strategy<Value = KernelEvent> {
    let nets = prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"]).prop_map(net);
    let vias = prop::sample::select(vec![Some("192.0.2.1"), Some("192.0.2.2"), None]);
    let twins = prop::sample::select(vec![Some(WAN), Some(LAN), None]);
    let routes = (vias, twins, 0..3_u32, any::<bool>()).prop_map(|(via, twin, metric, is_local)| KernelRoute {
        table: if is_local { RouteTable::Local } else { RouteTable::Main },
        via: via.map(|text| text.parse().unwrap()),
        twin,
        ..route("192.0.2.1", metric)
    });
    let placements = prop::sample::select(vec![Placement::Before, Placement::After, Placement::Replace]);
    let mine = prop::sample::select(vec![WAN, LAN]);
    let state = prop::sample::select(vec![NeighbourState::Fresh, NeighbourState::Stale]);
    let address = prop::sample::select(vec!["192.0.2.1/24", "2001:db8::1/64"]).prop_map(net);
    prop_oneof![
        (nets.clone(), routes.clone(), placements).prop_map(|(net, route, placement)| KernelEvent::RouteAdded {
            net,
            route,
            placement
        }),
        (nets, routes).prop_map(|(net, route)| KernelEvent::RouteRemoved { net, route }),
        (mine.clone(), 0..3_u8, 0..2_u8, state).prop_map(|(twin, last, mac, state)| KernelEvent::NeighbourUp {
            twin,
            addr: [192, 0, 2, last].into(),
            mac: [mac; 6],
            state
        }),
        (mine.clone(), 0..3_u8)
            .prop_map(|(twin, last)| KernelEvent::NeighbourDown { twin, addr: [192, 0, 2, last].into() }),
        (mine.clone(), address.clone()).prop_map(|(twin, address)| KernelEvent::AddressAdded { twin, address }),
        (mine.clone(), address).prop_map(|(twin, address)| KernelEvent::AddressRemoved { twin, address }),
        (mine.clone(), 1280..1283_u32).prop_map(|(twin, mtu)| KernelEvent::LinkChanged {
            twin,
            link: KernelLink { name: String::new(), mtu, state: LinkState::Up, mac: None }
        }),
        mine.prop_map(|twin| KernelEvent::LinkRemoved { twin }),
    ]
}

/// What a dump of the kernel whose state is `view` tells.
fn dump(view: &KernelView) -> Vec<KernelEvent> {
    let mut events = vec![KernelEvent::ResyncBegan];
    for (net, entries) in &view.routes {
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_by_key(|entry| entry.rank());
        events.extend(entries.into_iter().map(|entry| KernelEvent::RouteAdded {
            net: *net,
            route: entry.route.clone(),
            placement: Placement::After,
        }));
    }
    for (twin, addr, Neighbour { mac, state }) in view.neighbours() {
        events.push(KernelEvent::NeighbourUp { twin, addr, mac, state });
    }
    events.extend(view.addresses().map(|(twin, address)| KernelEvent::AddressAdded { twin, address }));
    for twin in [WAN, LAN] {
        events.extend(view.link(twin).cloned().map(|link| KernelEvent::LinkChanged { twin, link }));
    }
    events.push(KernelEvent::ResyncEnded);
    events
}

fn everything(view: &KernelView) -> impl PartialEq + std::fmt::Debug {
    let routes: BTreeMap<_, Vec<_>> = view
        .routes
        .iter()
        .map(|(net, entries)| {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|entry| entry.rank());
            (*net, entries.into_iter().map(|entry| entry.route.clone()).collect())
        })
        .collect();
    let neighbours: Vec<_> = view.neighbours().collect();
    let addresses: Vec<_> = view.addresses().collect();
    (routes, neighbours, addresses, [WAN, LAN].map(|twin| view.link(twin).cloned()))
}

proptest! {
    /// Whatever was lost before it, a resync makes the view equal to the kernel.
    #[test]
    fn a_resync_makes_good_whatever_was_lost(
        kernel in prop::collection::vec(any_event(), 0..60),
        seen in prop::collection::vec(any_event(), 0..60),
    ) {
        let kernel = view(kernel);
        let mut ours = view(seen);
        for event in dump(&kernel) {
            ours.apply(event, &mut Changes::default());
        }
        prop_assert_eq!(everything(&ours), everything(&kernel));
    }

    /// A reader who looks only at what the changes name sees the same as one who looks at everything.
    #[test]
    fn the_changes_name_everything_that_changed(
        events in prop::collection::vec(prop_oneof![
            20 => any_event(),
            1 => Just(KernelEvent::ResyncBegan),
            1 => Just(KernelEvent::ResyncEnded),
        ], 0..80),
    ) {
        let mut view = KernelView::new();
        let mut routes = BTreeMap::new();
        let mut neighbours = BTreeMap::new();
        for event in events {
            let mut changes = Changes::default();
            view.apply(event, &mut changes);
            for net in changes.routes {
                match view.best(net) {
                    Some(route) => routes.insert(net, route.clone()),
                    None => routes.remove(&net),
                };
            }
            for (twin, addr) in changes.neighbours {
                match view.neighbour(twin, addr) {
                    Some(neighbour) => neighbours.insert((twin, addr), neighbour.mac),
                    None => neighbours.remove(&(twin, addr)),
                };
            }
            let all: BTreeMap<_, _> = view.routes().map(|(net, route)| (net, route.clone())).collect();
            prop_assert_eq!(&routes, &all);
            let all: BTreeMap<_, _> = view.neighbours().map(|(twin, addr, n)| ((twin, addr), n.mac)).collect();
            prop_assert_eq!(&neighbours, &all);
        }
    }
}
