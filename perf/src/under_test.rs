//! The process with a worker between two devices, to which another process sends.

use jetway_pipelines::dispatch::service::Services;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jetway_engine::dpdk::device::Device;
use jetway_engine::dpdk::port::Reception;

use crate::aead;
use crate::devices::Devices;
use crate::traffic::MACS;
use crate::world::{NOW, World};

/// Polls on `core` until standard input ends; says `ready` on standard output once it does.
///
/// The worker stops before its devices close: net_memif does not bear an end that goes away while it is polled.
pub fn run(core: usize, [wan, lan]: [Device; 2]) -> io::Result<()> {
    let mut devices = Devices::start(core, &[wan.clone(), lan.clone()])?;
    let wan = devices.open(wan, Some(MACS[0]), Reception::OwnAndMulticast)?;
    let lan = devices.open(lan, Some(MACS[1]), Reception::OwnAndMulticast)?;
    let ports = [wan.port, lan.port];
    let mut world = World::on_ports(1, aead::chosen(), (Services::default(), 0), [wan.queue, lan.queue], ());
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    std::thread::spawn(move || {
        // However it ends: nobody is there any more.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        stopping.store(true, Ordering::Relaxed);
    });
    println!("ready");
    io::stdout().flush()?;
    while !stop.load(Ordering::Relaxed) {
        world.worker.turn(NOW);
    }
    drop(world);
    drop(ports);
    Ok(())
}
