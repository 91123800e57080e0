//! What an operator does to a running node: checks, reloads, removals, crashes, restarts, routes.

use jetway_tests::world::{
    Attachment, KeyPair, PeerConfig, Ping, Process, Site, SiteBuilder, WireguardGo, WireguardPeer, World, binary,
    succeeds, try_run, wait_until,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Where the server answers for the second client, so that both clients can be told apart by their target.
const SECOND_TARGET: &str = "192.0.2.3";

fn peer(name: &str, key: &KeyPair, address: &str) -> PeerConfig {
    PeerConfig {
        name: name.into(),
        public_key: key.public.clone(),
        allowed_ips: vec![format!("{address}/32")],
        ..PeerConfig::default()
    }
}

/// A second stock client beside the first, whose traffic goes to [`SECOND_TARGET`].
#[track_caller]
fn second_client(world: &World, site: &Site, key: &KeyPair, address: &str) -> WireguardGo {
    site.server.addresses("eth0", &[&format!("{SECOND_TARGET}/24")]);
    let client = WireguardGo::start(world, &site.client);
    let node = WireguardPeer {
        public_key: site.config.tunnels[0].key.public.clone(),
        allowed_ips: vec!["192.0.2.0/24".into()],
        endpoint: Some(site.node_endpoint()),
        ..WireguardPeer::default()
    };
    client.configure(world, &key.private, 0, &[node]);
    client.bring_up(&site.client, &[&format!("{address}/32")], 1420, &[]);
    site.client.ip(&[&format!("route add {SECOND_TARGET}/32 dev {} src {address}", client.interface())]);
    client
}

#[track_caller]
fn assert_passes(world: &World, site: &Site, target: &str) {
    let report = Ping::to(target).count(20).run(world, &site.client);
    assert_eq!(report.lost(), 0, "{}", report.output);
}

#[track_caller]
fn assert_blocked(world: &World, site: &Site, target: &str) {
    let ping = Ping { patience: Duration::from_secs(1), ..Ping::to(target).count(10) };
    let report = ping.run(world, &site.client);
    assert_eq!(report.answered, 0, "{}", report.output);
}

#[test]
fn check_tells_file_line_and_hint_of_every_broken_configuration() {
    if World::open().is_none() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/broken");
    let mut checked = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let file = entry.expect("a readable folder").path();
        let text = std::fs::read_to_string(&file).expect("a configuration is text");
        if !text.contains("# expect error ") {
            continue;
        }
        let command = std::process::Command::new(binary()).args(["check", "--config"]).arg(&file).output();
        let output = command.expect("the binary can be started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{}: {said}", file.display());
        let name = file.file_name().expect("a file has a name").to_string_lossy();
        assert!(said.contains(&format!("{name}:")) && said.contains("help"), "{}: {said}", file.display());
        checked += 1;
    }
    assert!(checked >= 30, "only {checked} broken configurations were checked");
}

#[test]
fn a_reload_of_a_broken_file_changes_nothing() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    assert_passes(&world, &site, "192.0.2.2");
    let file = site.jetway().file().to_owned();
    let good = std::fs::read_to_string(&file).expect("the node's file");
    std::fs::write(&file, good.replace("listen_port = 51820", "listen_port = \"soon\"")).expect("a writable file");
    let refused = site.jetway().command(&["reload"]).expect_err("a broken file was taken");
    assert!(refused.contains("listen_port"), "{refused}");
    assert_passes(&world, &site, "192.0.2.2");
    std::fs::write(&file, good).expect("a writable file");
    site.jetway().command(&["reload"]).expect("the good file is taken");
    assert_passes(&world, &site, "192.0.2.2");
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn peers_come_and_go_by_reload_without_a_lost_packet_of_the_others() {
    let Some(world) = World::open() else { return };
    let (second, third) = (KeyPair::generate(), KeyPair::generate());
    let plan =
        SiteBuilder { more_peers: vec![peer("second", &second, "10.8.0.3")], ..SiteBuilder::new(Attachment::AfPacket) };
    let mut site = plan.build(&world);
    let _second = second_client(&world, &site, &second, "10.8.0.3");
    assert_passes(&world, &site, SECOND_TARGET);
    assert_passes(&world, &site, "192.0.2.2");

    let ping = Ping::to("192.0.2.2").count(1_000).every(Duration::from_millis(5)).start(&world, &site.client);
    let with_second = site.config.clone();
    let mut with_third = site.config.clone();
    with_third.tunnels[0].peers.truncate(1);
    with_third.tunnels[0].peers.push(peer("third", &third, "10.8.0.4"));
    for config in [&with_third, &with_second, &with_third, &with_second, &with_third] {
        site.jetway().rewrite(config);
        site.jetway().command(&["reload"]).unwrap_or_else(|error| panic!("{error}"));
        let tunnel = site.tunnel().to_owned();
        let names: Vec<String> = site.jetway().wg_peers(&tunnel).into_iter().map(|peer| peer.public_key).collect();
        let expected: Vec<&String> = config.tunnels[0].peers.iter().map(|peer| &peer.public_key).collect();
        assert!(names.len() == 2 && expected.iter().all(|key| names.contains(key)), "{names:?}");
    }
    let report = ping.finish();
    assert_eq!((report.sent, report.lost()), (1_000, 0), "{}", report.output);
    // The session of the removed peer died with it.
    assert_blocked(&world, &site, SECOND_TARGET);
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn wg_set_adds_a_peer_and_removes_its_session_at_once() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    let second = KeyPair::generate();
    let tunnel = site.tunnel().to_owned();
    site.node.run("wg", &["set", &tunnel, "peer", &second.public, "allowed-ips", "10.8.0.3/32"]);
    let _client = second_client(&world, &site, &second, "10.8.0.3");
    assert_passes(&world, &site, SECOND_TARGET);
    site.node.run("wg", &["set", &tunnel, "peer", &second.public, "remove"]);
    assert_blocked(&world, &site, SECOND_TARGET);
    assert_passes(&world, &site, "192.0.2.2");
    assert_eq!(site.jetway().wg_peers(&tunnel).len(), 1);
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn clients_reach_each_other_through_the_node() {
    let Some(world) = World::open() else { return };
    let second = KeyPair::generate();
    let plan =
        SiteBuilder { more_peers: vec![peer("second", &second, "10.8.0.3")], ..SiteBuilder::new(Attachment::AfPacket) };
    let mut site = plan.build(&world);
    // The second client stands beside the server, whose kernel then is a client too.
    let client = WireguardGo::start(&world, &site.server);
    let node = WireguardPeer {
        public_key: site.config.tunnels[0].key.public.clone(),
        allowed_ips: vec!["10.8.0.0/16".into()],
        endpoint: Some("192.0.2.1:51820".into()),
        ..WireguardPeer::default()
    };
    client.configure(&world, &second.private, 0, &[node]);
    site.server.ip(&["route del 10.8.0.0/16"]);
    client.bring_up(&site.server, &["10.8.0.3/16"], 1420, &[]);
    // Until the second client has called, the node does not know where it is.
    let report = Ping::to("10.8.0.2").count(1).run(&world, &site.server);
    drop(report);
    assert_passes(&world, &site, "192.0.2.1");
    assert_passes(&world, &site, "10.8.0.3");
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    let key = world.folder().join(format!("{}.key", site.tunnel()));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("root may");
    for command in [["check"], ["reload"]] {
        let refused = site.jetway().command(&command).expect_err("an exposed key was taken");
        assert!(refused.contains("chmod 600"), "{refused}");
    }
    assert_passes(&world, &site, "192.0.2.2");
}

#[test]
fn a_client_recovers_by_itself_after_the_node_was_killed_and_started_again() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    assert_passes(&world, &site, "192.0.2.2");
    let node = site.node.name().to_owned();
    site.jetway().kill();
    site.restart_node(&world);
    // Within the client's own timers: it gives the session up KEEPALIVE_TIMEOUT + REKEY_TIMEOUT (15 s) after it got no answer.
    let ping = Ping::to("192.0.2.2").count(250).every(Duration::from_millis(100)).run(&world, &site.client);
    assert!(ping.answered > 50, "no recovery within 25 s in {node}:\n{}", ping.output);
    assert_passes(&world, &site, "192.0.2.2");
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn a_second_start_on_the_same_names_is_refused_with_a_reason() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    let file = site.jetway().file().to_string_lossy().into_owned();
    let mut second = Process::start(&world, &site.node, &binary().to_string_lossy(), &["run", "--config", &file]);
    let status = second.wait(Duration::from_secs(60));
    assert!(!status.success(), "two nodes of one name run");
    let said = second.output();
    assert!(said.contains("already") || said.contains("in use"), "{said}");
    assert_passes(&world, &site, "192.0.2.2");
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn a_stopped_node_leaves_nothing_behind() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    assert_passes(&world, &site, "192.0.2.2");
    let (tunnel, name) = (site.tunnel().to_owned(), site.config.name.clone());
    let uapi = format!("/var/run/wireguard/{tunnel}.sock");
    let socket = world.folder().join(format!("{name}.sock"));
    assert!(Path::new(&uapi).exists() && socket.exists());
    assert!(site.jetway().process().stop().success(), "{}", site.jetway().process().output());
    for interface in [tunnel.as_str(), "jw-wan", "jw-lan"] {
        assert!(!site.node.has_interface(interface), "{interface} is left");
    }
    assert!(!Path::new(&uapi).exists() && !socket.exists(), "a socket is left");
    let runtime = Path::new("/var/run/dpdk").join(&name);
    assert!(!runtime.exists(), "{} is left", runtime.display());
}

#[test]
fn a_route_added_in_the_kernel_steers_the_node() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    site.server.ip(&["addr add 203.0.113.5/32 dev lo"]);
    let client_interface = site.peer.interface().to_owned();
    site.client.ip(&[&format!("route add 203.0.113.0/24 dev {client_interface}")]);
    let key = site.config.tunnels[0].key.public.clone();
    site.peer.wg(&["set", &client_interface, "peer", &key, "allowed-ips", "10.8.0.0/16,192.0.2.0/24,203.0.113.0/24"]);
    assert_blocked(&world, &site, "203.0.113.5");
    site.node.ip(&["route add 203.0.113.0/24 via 192.0.2.2"]);
    wait_until("the route is in force", Duration::from_secs(30), || {
        Ping::to("203.0.113.5").count(1).run(&world, &site.client).answered == 1
    });
    assert_passes(&world, &site, "203.0.113.5");
    site.node.ip(&["route del 203.0.113.0/24 via 192.0.2.2"]);
    wait_until("the route is gone", Duration::from_secs(30), || {
        let ping = Ping { patience: Duration::from_secs(1), ..Ping::to("203.0.113.5").count(1) };
        ping.run(&world, &site.client).answered == 0
    });
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn a_draining_node_keeps_its_sessions_and_takes_no_new_ones() {
    let Some(world) = World::open() else { return };
    let second = KeyPair::generate();
    let plan =
        SiteBuilder { more_peers: vec![peer("second", &second, "10.8.0.3")], ..SiteBuilder::new(Attachment::AfPacket) };
    let mut site = plan.build(&world);
    assert_passes(&world, &site, "192.0.2.2");
    site.jetway().command(&["drain"]).unwrap_or_else(|error| panic!("{error}"));
    assert_passes(&world, &site, "192.0.2.2");
    let _second = second_client(&world, &site, &second, "10.8.0.3");
    assert_blocked(&world, &site, SECOND_TARGET);
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn a_client_configuration_names_the_node_and_what_is_routed_to_it() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    let text = site.jetway().command(&["client-config", "client"]).unwrap_or_else(|error| panic!("{error}"));
    let node = site.config.tunnels[0].key.public.clone();
    for part in ["[Interface]", "[Peer]", &format!("PublicKey = {node}"), "10.8.0.2/32", "fd00:8::2/128"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn metrics_are_served_to_prometheus() {
    let Some(world) = World::open() else { return };
    let metrics = "metrics = \"127.0.0.1:9590\"\n".to_owned();
    let mut site = SiteBuilder { more_config: metrics, ..SiteBuilder::new(Attachment::AfPacket) }.build(&world);
    assert_passes(&world, &site, "192.0.2.2");
    let text = site.node.run("curl", &["-sS", "--noproxy", "*", "http://127.0.0.1:9590/metrics"]);
    assert!(text.lines().any(|line| line.starts_with("jetway_") && !line.ends_with(" 0")), "{text}");
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn the_binary_teaches_its_use() {
    if World::open().is_none() {
        return;
    }
    let binary = binary().to_string_lossy().into_owned();
    let help = try_run(&binary, &["--help"]).unwrap_or_else(|error| panic!("{error}"));
    for subcommand in ["run", "check", "stats", "peers", "keygen", "pubkey", "client-config", "reload", "drain"] {
        assert!(help.contains(subcommand), "{subcommand} is not in:\n{help}");
        assert!(succeeds(&binary, &[subcommand, "--help"]), "{subcommand} --help fails");
    }
}
