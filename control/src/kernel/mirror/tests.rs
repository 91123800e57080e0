use ipnet::IpNet;
use jetway_pipelines::ids::{PortId, TunnelId};

use super::*;
use crate::kernel::event::{LinkState, NeighbourState, RouteKind, Twin};
use crate::kernel::namespace::{in_namespace, index, ip};
use crate::kernel::view::{Changes, KernelView};

const PORT: Twin = Twin::Port(PortId(0));
const TUNNEL: Twin = Twin::Tunnel(TunnelId(0));

struct Followed {
    view: KernelView,
    events: mpsc::Receiver<KernelEvent>,
    interfaces: watch::Sender<Interfaces>,
}

impl Followed {
    /// A port's twin `jw-test` with 192.0.2.1/24 and 2001:db8::1/64, a tunnel's twin `jw0`, and a mirror of them.
    fn start() -> Self {
        ip("link add jw-test type veth peer name jw-peer");
        ip("link set jw-peer up");
        ip("link set jw-test up");
        ip("addr add 192.0.2.1/24 dev jw-test");
        ip("addr add 2001:db8::1/64 dev jw-test nodad");
        ip("tuntap add dev jw0 mode tun");
        ip("link set jw0 up");
        let ours = Interfaces::from_iter([(index("jw-test"), PORT), (index("jw0"), TUNNEL)]);
        let (interfaces, watched) = watch::channel(ours);
        let (sender, events) = mpsc::channel(16);
        tokio::spawn(Mirror::open(watched).unwrap().run(sender));
        Self { view: KernelView::new(), events, interfaces }
    }

    /// Follows the events until the view is as `condition` wants it.
    #[track_caller]
    fn until(&mut self, what: &str, condition: impl Fn(&KernelView) -> bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let what = what.to_owned();
        async move {
            let follow = async {
                while !condition(&self.view) {
                    let event = self.events.recv().await.expect("the mirror goes on");
                    self.view.apply(event, &mut Changes::default());
                }
            };
            let result = tokio::time::timeout(Duration::from_secs(10), follow).await;
            assert!(result.is_ok(), "{caller}: not in 10 s: {what}; view: {:#?}", self.view);
        }
    }
}

fn via(view: &KernelView, net: &str) -> Option<String> {
    view.best(net.parse().unwrap()).and_then(|route| route.via).map(|via| via.to_string())
}

fn kind(view: &KernelView, net: &str) -> Option<RouteKind> {
    view.best(net.parse::<IpNet>().unwrap()).map(|route| route.kind)
}

#[test]
fn what_was_there_before_is_told_first() {
    in_namespace(|| async {
        ip("route add blackhole 198.18.0.0/15");
        let mut followed = Followed::start();
        let whole = |view: &KernelView| {
            kind(view, "192.0.2.0/24") == Some(RouteKind::Unicast)
                && kind(view, "192.0.2.1/32") == Some(RouteKind::Local)
                && kind(view, "192.0.2.255/32") == Some(RouteKind::Broadcast)
                && kind(view, "2001:db8::/64") == Some(RouteKind::Unicast)
                && kind(view, "2001:db8::1/128") == Some(RouteKind::Local)
                && kind(view, "198.18.0.0/15") == Some(RouteKind::Blackhole)
                && view.addresses().any(|(twin, net)| twin == PORT && net.to_string() == "192.0.2.1/24")
                && view.link(PORT).is_some_and(|link| link.state == LinkState::Up && link.name == "jw-test")
                && view.link(TUNNEL).is_some_and(|link| link.mac.is_none() && link.mtu == 1500)
        };
        followed.until("the first dump", whole).await;
    });
}

#[test]
fn routes_come_change_and_go_as_ip_route_says() {
    in_namespace(|| async {
        let mut followed = Followed::start();
        ip("route add 10.0.0.0/8 via 192.0.2.9");
        followed.until("added", |view| via(view, "10.0.0.0/8").as_deref() == Some("192.0.2.9")).await;
        ip("route replace 10.0.0.0/8 via 192.0.2.8 mtu 1300");
        followed
            .until("replaced", |view| {
                let route = view.best("10.0.0.0/8".parse().unwrap());
                route.is_some_and(|route| route.mtu == Some(1300) && via(view, "10.0.0.0/8").unwrap() == "192.0.2.8")
            })
            .await;
        ip("route add 10.0.0.0/8 via 192.0.2.7 metric 5");
        ip("route append 10.0.0.0/8 via 192.0.2.6");
        ip("route del 10.0.0.0/8 via 192.0.2.8");
        followed.until("appended", |view| via(view, "10.0.0.0/8").as_deref() == Some("192.0.2.6")).await;
        ip("route del 10.0.0.0/8 via 192.0.2.6");
        followed.until("the next metric", |view| via(view, "10.0.0.0/8").as_deref() == Some("192.0.2.7")).await;
        ip("route del 10.0.0.0/8");
        followed.until("gone", |view| kind(view, "10.0.0.0/8").is_none()).await;
        ip("-6 route add 2001:db8:1::/48 via 2001:db8::9 dev jw-test");
        ip("-6 route append 2001:db8:1::/48 via 2001:db8::8 dev jw-test");
        ip("-6 route del 2001:db8:1::/48 via 2001:db8::9 dev jw-test");
        followed.until("IPv6", |view| via(view, "2001:db8:1::/48").as_deref() == Some("2001:db8::8")).await;
        ip("-6 route replace 2001:db8:1::/48 nexthop via 2001:db8::7 dev jw-test nexthop via 2001:db8::6 dev jw-test");
        followed.until("IPv6 replaced", |view| via(view, "2001:db8:1::/48").as_deref() == Some("2001:db8::7")).await;
        ip("-6 route del 2001:db8:1::/48 via 2001:db8::7 dev jw-test");
        followed.until("IPv6 half", |view| via(view, "2001:db8:1::/48").as_deref() == Some("2001:db8::6")).await;
        ip("route add unreachable 10.1.0.0/16");
        ip("route add prohibit 10.2.0.0/16");
        ip("route add 10.3.0.0/16 dev jw0");
        ip("route add 10.4.0.0/16 nexthop via 192.0.2.9 weight 2 nexthop via 192.0.2.8");
        followed
            .until("kinds", |view| {
                kind(view, "10.1.0.0/16") == Some(RouteKind::Unreachable)
                    && kind(view, "10.2.0.0/16") == Some(RouteKind::Prohibit)
                    && view.best("10.3.0.0/16".parse().unwrap()).is_some_and(|route| route.twin == Some(TUNNEL))
                    && via(view, "10.4.0.0/16").as_deref() == Some("192.0.2.9")
            })
            .await;
    });
}

#[test]
fn routes_that_the_kernel_drops_without_a_word_are_gone_here_too() {
    in_namespace(|| async {
        let mut followed = Followed::start();
        ip("route add 10.0.0.0/8 via 192.0.2.9");
        ip("nexthop add id 7 via 192.0.2.5 dev jw-test");
        ip("route add 10.7.0.0/16 nhid 7");
        followed.until("a route by its next-hop object", |view| kind(view, "10.7.0.0/16").is_some()).await;
        ip("nexthop del id 7");
        followed.until("gone with it", |view| kind(view, "10.7.0.0/16").is_none()).await;
        ip("link set jw-test down");
        followed
            .until("gone with the link", |view| {
                kind(view, "10.0.0.0/8").is_none() && view.link(PORT).is_some_and(|link| link.state == LinkState::Down)
            })
            .await;
        ip("link set jw-test up");
        ip("route add 10.0.0.0/8 via 192.0.2.9 src 192.0.2.1");
        followed.until("there again", |view| kind(view, "10.0.0.0/8").is_some()).await;
        ip("addr del 192.0.2.1/24 dev jw-test");
        followed
            .until("gone with the address", |view| {
                kind(view, "10.0.0.0/8").is_none()
                    && !view.addresses().any(|(_, net)| net.to_string() == "192.0.2.1/24")
            })
            .await;
        ip("link del jw-test");
        followed.until("gone with its link", |view| view.link(PORT).is_none()).await;
    });
}

#[test]
fn neighbours_come_change_and_go_as_ip_neigh_says() {
    in_namespace(|| async {
        let mut followed = Followed::start();
        let addr = "192.0.2.9".parse().unwrap();
        ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev jw-test nud permanent");
        let known = move |mac, state| {
            move |view: &KernelView| view.neighbour(PORT, addr).is_some_and(|n| n.mac == mac && n.state == state)
        };
        followed.until("added", known([2, 0, 0, 0, 0, 9], NeighbourState::Permanent)).await;
        ip("neigh replace 192.0.2.9 lladdr 02:00:00:00:00:0a dev jw-test nud stale");
        followed.until("changed", known([2, 0, 0, 0, 0, 10], NeighbourState::Stale)).await;
        ip("neigh change 192.0.2.9 dev jw-test nud failed");
        followed.until("failed", move |view| view.neighbour(PORT, addr).is_none()).await;
        ip("-6 neigh add 2001:db8::9 lladdr 02:00:00:00:00:0b dev jw-test nud reachable");
        followed
            .until("IPv6", |view| view.neighbour(PORT, "2001:db8::9".parse().unwrap()).is_some_and(|n| n.mac[5] == 11))
            .await;
        ip("-6 neigh del 2001:db8::9 dev jw-test");
        followed.until("deleted", |view| view.neighbour(PORT, "2001:db8::9".parse().unwrap()).is_none()).await;
    });
}

#[test]
fn nothing_is_lost_when_the_kernel_has_to_drop_notifications() {
    in_namespace(|| async {
        let mut followed = Followed::start();
        followed.until("the first dump", |view| kind(view, "192.0.2.0/24").is_some()).await;
        // The channel is full after 16 events, so the kernel must buffer, and overflow: 4 MiB hold some 20,000 routes.
        let batch = std::env::temp_dir().join(format!("jw-ctl-routes-{}", std::process::id()));
        let nets = |number: u32| format!("10.{}.{}.{}/32", number >> 16, number >> 8 & 255, number & 255);
        let routes = |verb: &str, count| {
            let lines = (0..count).map(|n| format!("route {verb} {} via 192.0.2.9\n", nets(n)));
            std::fs::write(&batch, lines.collect::<String>()).unwrap();
            ip(&format!("-batch {}", batch.display()));
        };
        routes("add", 60_000);
        routes("del", 59_000);
        std::fs::remove_file(&batch).unwrap();
        let last = nets(59_999);
        followed
            .until("exactly the routes that stayed", move |view| {
                kind(view, &last).is_some() && view.routes().filter(|(_, route)| route.via.is_some()).count() == 1_000
            })
            .await;
        assert!(followed.view.resyncs() > 1, "the test must have made the kernel drop something");
    });
}

#[test]
fn an_interface_that_becomes_ours_is_told_with_everything_on_it() {
    in_namespace(|| async {
        let mut followed = Followed::start();
        ip("tuntap add dev jw1 mode tun");
        ip("link set jw1 up");
        ip("addr add 10.8.0.1/16 dev jw1");
        let added = Twin::Tunnel(TunnelId(1));
        followed.interfaces.send_modify(|interfaces| {
            *interfaces =
                Interfaces::from_iter([(index("jw-test"), PORT), (index("jw0"), TUNNEL), (index("jw1"), added)]);
        });
        let is_there = move |view: &KernelView| {
            view.link(added).is_some()
                && view.best("10.8.0.0/16".parse().unwrap()).is_some_and(|route| route.twin == Some(added))
        };
        followed.until("the new twin", is_there).await;
        followed.interfaces.send_modify(|interfaces| {
            *interfaces = Interfaces::from_iter([(index("jw-test"), PORT), (index("jw0"), TUNNEL)]);
        });
        followed.until("without it", move |view| !is_there(view) && view.link(added).is_none()).await;
    });
}
