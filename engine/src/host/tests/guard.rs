use super::namespace::{Named, RawSocket, in_namespace, ip, setting, wait_for};
use crate::host::{GuardError, KernelGuard};

/// A namespace at the other end of a veth pair: we are 10.9.1.1 on `jw-here`, it is 10.9.1.2.
fn neighbour(what: &str) -> Named {
    let peer = Named::new(what);
    ip(&format!("link add jw-here type veth peer name jw-there netns {}", peer.0));
    ip("addr add 10.9.1.1/24 dev jw-here");
    ip("link set jw-here up");
    for arguments in ["addr add 10.9.1.2/24 dev jw-there", "link set jw-there up"] {
        assert!(peer.run("ip", arguments).status.success());
    }
    peer
}

fn answers_ping(peer: &Named) -> bool {
    peer.run("ip", "neigh flush all");
    peer.run("ping", "-n -c 1 -W 1 10.9.1.1").status.success()
}

fn tables() -> String {
    String::from_utf8(super::namespace::run("nft", "list tables").stdout).unwrap()
}

#[test]
fn a_guarded_kernel_answers_nothing_while_packet_sockets_see_every_frame() {
    in_namespace(|| {
        let peer = neighbour("guard");
        assert!(answers_ping(&peer), "the world itself does not work");
        let guard = KernelGuard::install("edge-1", "jw-here").unwrap();
        let socket = RawSocket::open();
        assert!(!answers_ping(&peer));
        wait_for("the ARP request", || socket.receive().filter(|frame| frame[12..14] == [8, 6] && frame[0] == 0xff));
        drop(guard);
        assert!(!tables().contains("jetway"));
        assert!(answers_ping(&peer));
    });
}

#[test]
fn the_interfaces_own_ipv6_is_off_while_it_is_guarded_and_on_again_afterwards() {
    in_namespace(|| {
        let _peer = neighbour("ipv6");
        let path = |name: &str| format!("/proc/sys/net/ipv6/conf/jw-here/{name}");
        std::fs::write(path("disable_ipv6"), "0").unwrap();
        std::fs::write(path("accept_ra"), "2").unwrap();
        let now = || ["accept_ra", "autoconf", "disable_ipv6"].map(|name| setting("jw-here", name).unwrap());
        let before = now();
        let guard = KernelGuard::install("edge-1", "jw-here").unwrap();
        assert_eq!(now(), ["0", "0", "1"]);
        drop(guard);
        assert_eq!(now(), before);
        assert_eq!(before, ["2", "1", "0"]);
    });
}

#[test]
fn ipv6_addresses_of_a_guarded_interface_stay() {
    in_namespace(|| {
        let _peer = neighbour("keep");
        std::fs::write("/proc/sys/net/ipv6/conf/jw-here/disable_ipv6", "0").unwrap();
        ip("addr add 2001:db8::1/64 dev jw-here nodad");
        let guard = KernelGuard::install("edge-1", "jw-here").unwrap();
        assert_eq!(setting("jw-here", "disable_ipv6").unwrap(), "0");
        assert_eq!(setting("jw-here", "router_solicitations").unwrap(), "0");
        drop(guard);
        let addresses = super::namespace::run("ip", "-6 addr show dev jw-here").stdout;
        assert!(String::from_utf8(addresses).unwrap().contains("2001:db8::1"));
    });
}

#[test]
fn what_a_crashed_predecessor_left_is_removed_and_its_settings_restored() {
    in_namespace(|| {
        let peer = neighbour("crash");
        let before = setting("jw-here", "accept_ra").unwrap();
        assert_eq!(before, "1");
        let crash = |node| std::mem::forget(KernelGuard::install(node, "jw-here").unwrap());
        crash("edge-1");
        assert_eq!(KernelGuard::remove_leftovers("edge").unwrap(), Vec::<String>::new(), "another node's");
        assert!(!answers_ping(&peer));
        assert_eq!(KernelGuard::remove_leftovers("edge-1").unwrap(), ["jw-here"]);
        assert!(answers_ping(&peer));
        assert_eq!(setting("jw-here", "accept_ra").unwrap(), before);
        crash("edge-1");
        drop(KernelGuard::install("edge-1", "jw-here").unwrap());
        assert_eq!(setting("jw-here", "accept_ra").unwrap(), before, "what the first start found, not the second");
        assert!(!tables().contains("jetway"));
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    in_namespace(|| {
        for interface in ["jw-none", "jw\"; flush ruleset"] {
            let error = KernelGuard::install("edge-1", interface).unwrap_err();
            assert!(matches!(error, GuardError::NoInterface { .. }), "{error}");
        }
    });
}

#[test]
fn the_guard_of_an_interface_that_is_gone_ends_in_silence() {
    in_namespace(|| {
        let _peer = neighbour("gone");
        let guard = KernelGuard::install("edge-1", "jw-here").unwrap();
        ip("link delete jw-here");
        drop(guard);
        assert_eq!(KernelGuard::remove_leftovers("edge-1").unwrap(), Vec::<String>::new());
        assert!(!tables().contains("jetway"));
    });
}
