//! The process that takes packets from a device and counts them, beside a generator that does not.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use jetway_engine::dpdk::device::Device;
use jetway_engine::dpdk::mbuf::{Mbuf, free_burst};
use jetway_engine::dpdk::port::Reception;
use jetway_engine::port::{Burst, Port, PortQueue};
use serde::{Deserialize, Serialize};

use crate::devices::Devices;

/// Packets that came in some time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// How many.
    pub packets: u64,
    /// In how long.
    pub seconds: f64,
}

/// How long the device may take to have a link.
const PATIENCE: Duration = Duration::from_secs(20);
/// It shares a core with the generator: it sleeps while the device's queue fills, for a fraction of what that lasts.
const REST: Duration = Duration::from_micros(200);

/// Serves orders, each a line with a number of seconds, from standard input until that ends; says `ready` before the first.
pub fn run(core: usize, device: Device) -> io::Result<()> {
    let mut devices = Devices::start(core, std::slice::from_ref(&device))?;
    let mut opened = devices.open(device, None, Reception::Everything)?;
    let begun = Instant::now();
    while !opened.port.link_up() {
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other("the device has no link"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("ready");
    io::stdout().flush()?;
    for line in io::stdin().lock().lines() {
        let seconds: f64 = line?.trim().parse().map_err(io::Error::other)?;
        // What waited comes at once, and says nothing of a rate.
        count(&mut *opened.queue, 0.05);
        println!("{}", serde_json::to_string(&count(&mut *opened.queue, seconds))?);
        io::stdout().flush()?;
    }
    Ok(())
}

fn count(queue: &mut dyn PortQueue<Mbuf>, seconds: f64) -> Counted {
    let (begun, mut packets) = (Instant::now(), 0);
    loop {
        let mut burst = Burst::new();
        let count = queue.receive(&mut burst);
        packets += count as u64;
        free_burst(&mut burst);
        let seconds_now = begun.elapsed().as_secs_f64();
        if seconds_now >= seconds {
            return Counted { packets, seconds: seconds_now };
        }
        if count == 0 {
            std::thread::sleep(REST);
        }
    }
}
