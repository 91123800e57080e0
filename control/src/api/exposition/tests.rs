use jetway_pipelines::counters::WorkerCounters;
use jetway_pipelines::drop_reason::DropReason;

use super::super::report::{LoadReport, PortLoadReport, PortLossReport, PortReport, TunnelReport, WorkerReport};
use super::super::vip_report::{LatencyReport, ProbeReport, VipReport};
use super::*;

#[test]
fn every_sample_stands_below_its_family_and_no_family_comes_twice() {
    let counters = WorkerCounters::default();
    counters.received.add(7);
    counters.drop_packets(DropReason::NoRoute, 3);
    let backend = BackendReport {
        name: "erp-1".to_owned(),
        address: "192.0.2.11".parse().unwrap(),
        port: 443,
        weight: 3,
        share: 0.125,
        load: Some(0.375),
        state: "suspect".to_owned(),
        drain_ends_seconds: None,
        probes: Some(ProbeReport {
            count: 8,
            failures: 2,
            latency: Some(0.5),
            trouble: None,
            last_seconds: Some(2.5),
            unchanged_seconds: 1.0,
        }),
        flows: 11,
        moved: 12,
        packets: 13,
        bytes: 14,
        returned_packets: 15,
        returned_bytes: 16,
        path_mtu: Some(1400),
        lost: [("too_big".to_owned(), 17)].into(),
    };
    let vip = VipReport {
        name: "erp".to_owned(),
        address: "10.100.0.10".parse().unwrap(),
        port: 443,
        protocol: "tcp".to_owned(),
        forward: "nat".to_owned(),
        persistence: "flow".to_owned(),
        health: Some("tcp".to_owned()),
        probe_latency: Some(LatencyReport { count: 6, median: 0.25, p99: 0.5, max: 0.75 }),
        backends: vec![backend],
    };
    let loss = |worker, transmit_queue_full, handoff_queue_full| PortLossReport {
        worker,
        transmit_queue_full,
        handoff_queue_full,
    };
    let port = PortReport {
        name: "wan".to_owned(),
        driver: "net_ring".to_owned(),
        mac: String::new(),
        queues: 1,
        link: "up".to_owned(),
        host_interface: "jw-wan".to_owned(),
        counters: vec![Count::new("missed_packets", "Packets that arrived and found no room", 18)],
        losses: vec![loss(0, 19, 0), loss(1, 20, 21)],
    };
    let stats = StatsReport {
        vips: vec![vip],
        load: Some(LoadReport {
            workers_busy: vec![0.25, 0.5],
            system_busy: 0.75,
            ports: vec![PortLoadReport { name: "wan".to_owned(), receive_loss: 0.0625, transmit_loss: 0.25 }],
            ..LoadReport::default()
        }),
        ports: vec![port],
        node: "a\"b\\c\nd".to_owned(),
        workers: vec![WorkerReport::read(0, 1, &counters), WorkerReport::read(1, 2, &counters)],
        tunnels: vec![TunnelReport {
            name: "jw0".to_owned(),
            listen_port: 51820,
            public_key: String::new(),
            peers: 5,
            peers_connected: 2,
            received_bytes: 1,
            sent_bytes: 9,
        }],
        counters: vec![
            Count::new("handshakes_completed", "Handshakes completed", 4),
            Count::gauge("routes", "Routes", 5),
        ],
        ..StatsReport::default()
    };
    let text = exposition(&stats);
    let mut seen = std::collections::HashSet::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap();
            assert!(seen.insert(family), "{family} twice");
        } else if !line.starts_with('#') {
            assert_eq!(line.split(['{', ' ']).next().unwrap(), family, "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
    for line in [
        "jetway_info{node=\"a\\\"b\\\\c\\nd\",version=\"\",aead=\"\"} 1",
        "jetway_worker_received_total{worker=\"1\"} 7",
        "jetway_worker_dropped_total{worker=\"0\",reason=\"no_route\"} 3",
        "# TYPE jetway_worker_held gauge",
        "# TYPE jetway_worker_flows gauge",
        "jetway_tunnel_peers{tunnel=\"jw0\"} 5",
        "jetway_tunnel_sent_bytes_total{tunnel=\"jw0\"} 9",
        "jetway_handshakes_completed_total 4",
        "# TYPE jetway_routes gauge",
        "jetway_routes 5",
        "jetway_port_missed_packets_total{port=\"wan\"} 18",
        "jetway_port_transmit_queue_full_total{port=\"wan\",worker=\"0\"} 19",
        "jetway_port_transmit_queue_full_total{port=\"wan\",worker=\"1\"} 20",
        "jetway_port_handoff_queue_full_total{port=\"wan\",worker=\"1\"} 21",
        "jetway_port_receive_loss_ratio{port=\"wan\"} 0.0625",
        "jetway_port_transmit_loss_ratio{port=\"wan\"} 0.25",
        "jetway_worker_busy_ratio{worker=\"1\"} 0.5",
        "jetway_system_busy_ratio 0.75",
        "jetway_backend_up{vip=\"erp\",backend=\"erp-1\"} 1",
        "jetway_backend_flows_total{vip=\"erp\",backend=\"erp-1\"} 11",
        "jetway_backend_returned_bytes_total{vip=\"erp\",backend=\"erp-1\"} 16",
        "jetway_backend_lost_packets_total{vip=\"erp\",backend=\"erp-1\",reason=\"too_big\"} 17",
        "jetway_backend_probe_failures_total{vip=\"erp\",backend=\"erp-1\"} 2",
        "jetway_backend_slots_ratio{vip=\"erp\",backend=\"erp-1\"} 0.125",
        "jetway_backend_load_ratio{vip=\"erp\",backend=\"erp-1\"} 0.375",
        "jetway_backend_last_check_seconds{vip=\"erp\",backend=\"erp-1\"} 2.5",
        "jetway_backend_state{vip=\"erp\",backend=\"erp-1\",state=\"suspect\"} 1",
        "jetway_vip_probe_latency_seconds{vip=\"erp\",quantile=\"0.99\"} 0.5",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in:\n{text}");
    }
}
