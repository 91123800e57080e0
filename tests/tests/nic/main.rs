//! Real network cards: the node drives PCI devices in an emulated machine, and the kernel's own WireGuard judges it.

mod site;

use jetway_tests::world::{HttpServer, World, run};
use site::{Binding, Card, MachineSite};
use std::time::Duration;

#[track_caller]
fn carries_a_kernel_client(card: Card, binding: Binding) {
    let Some(world) = World::open() else { return };
    let mut site = MachineSite::build(&world, card, binding);
    let http = HttpServer::start(&world, &site.server, 8080, 200_000);
    let expected = run("sha256sum", &[&http.data().to_string_lossy()]);
    let expected = expected.split(' ').next().expect("a hash");

    for (address, host) in [("192.0.2.2", "192.0.2.2"), ("2001:db8:2::2", "[2001:db8:2::2]")] {
        let report =
            site.client.run(&format!("/bin/ping -n -q -c 100 -i 0.05 -W 10 {address}"), Duration::from_secs(120));
        assert!(report.contains("100 packets transmitted, 100 received"), "{report}");
        // Each download is a flow of its own, so that receive-side scaling has something to spread.
        for _ in 0..8 {
            let fetch =
                format!("curl -sS -g --max-time 100 -o /tmp/data 'http://{host}:8080/data' && sha256sum /tmp/data");
            let hash = site.client.run(&fetch, Duration::from_secs(120));
            assert!(hash.starts_with(expected), "the file from {host} differs: {hash}");
        }
    }
    let show = site.client.run("wg show wg0", Duration::from_secs(30));
    assert!(show.contains("latest handshake"), "{show}");
    // A worker has a queue of each card; replies to so many flows land on every one.
    let received = site.stats().by_worker("received");
    let least = match card {
        Card::E1000 => vec![500],
        Card::VirtioTwoQueues => vec![100, 100],
    };
    assert!(
        received.len() == least.len() && received.iter().zip(&least).all(|(got, least)| got >= least),
        "{received:?}"
    );
    assert!(site.stats().unaccounted().iter().all(|&packets| packets == 0), "{:?}", site.stats());
}

#[test]
fn e1000_through_vfio_carries_a_kernel_client() {
    carries_a_kernel_client(Card::E1000, Binding::Vfio);
}

#[test]
fn e1000_through_uio_carries_a_kernel_client() {
    carries_a_kernel_client(Card::E1000, Binding::UioGeneric);
}

#[test]
fn virtio_with_two_queues_through_vfio_carries_a_kernel_client() {
    carries_a_kernel_client(Card::VirtioTwoQueues, Binding::Vfio);
}

#[test]
fn virtio_with_two_queues_through_uio_carries_a_kernel_client() {
    carries_a_kernel_client(Card::VirtioTwoQueues, Binding::UioGeneric);
}
