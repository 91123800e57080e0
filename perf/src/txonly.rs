//! What passes at full load when a generator that is not ours sends: testpmd's `txonly`, beside a process that takes packets away.

use std::io;

use jetway_pipelines::packet::ethernet;

use crate::engine::Direction;
use crate::order_process::Process;
use crate::result::{Part, Row};
use crate::rfc2544::Site;
use crate::sample::median_and_spread;
use crate::sink;
use crate::subject::{Names, Running, Subject, memif};
use crate::testpmd::Testpmd;
use crate::traffic::{self, MACS, SERVER, Size};
use crate::world::LAN;

/// testpmd fills no mix of sizes.
const SIZES: [Size; 2] = [Size::Fixed(64), Size::Fixed(1420)];
/// Samples of each subject.
const SAMPLES: usize = 5;

/// Measures encryption, which needs no messages of a tunnel, and testpmd's forwarding.
pub fn measure(site: &Site, version: &str) -> Part {
    let mut part = Part::default();
    for size in SIZES {
        for subject in [Subject::Jetway(Direction::Encrypt), Subject::Testpmd] {
            let Some(names) = Names::of(subject, size, Some(version)) else { continue };
            let scenario = format!("throughput {} at full load, from testpmd txonly", names.scenario);
            eprintln!("pktgen: {scenario} {}, {}", size.name(), names.peer);
            match rates(site, subject, size) {
                Ok(mut rates) => {
                    let (rate, spread) = median_and_spread(&mut rates);
                    let row = Row::new(scenario, &names.peer, 1e9 / rate, spread);
                    part.rows.push(row.size(size.name(), size.mean()).flows(1, None));
                }
                Err(error) => part.lacks(&format!("{scenario} {}", size.name()), &error.to_string()),
            }
        }
    }
    part
}

fn rates(site: &Site, subject: Subject, size: Size) -> io::Result<Vec<f64>> {
    let sockets = tempfile::tempdir()?;
    let [[wan, lan], [sink, source]] = ["server", "client"].map(|role| memif(role, sockets.path()));
    // They end in this order: net_memif's server must not be polled when its client goes.
    let running = Running::start(subject, site.core, &[wan, lan])?;
    let arguments = ["sink".to_owned(), format!("--core={}", site.generator_core), format!("--device={sink}")];
    let mut sink = Process::start(&arguments)?;
    let length = size.of(0) + ethernet::HEADER_LENGTH;
    let mac = MACS[LAN.index()];
    let mut source = Testpmd::start(
        site.generator_core,
        &[source],
        &[
            "--forward-mode=txonly",
            "--stats-period=1",
            &format!("--txpkts={length}"),
            &format!("--tx-ip={SERVER},{}", traffic::client(0)),
            "--tx-udp=5000,6000",
            &format!("--eth-peer=0,{mac}"),
        ],
    )?;
    source.wait_until_it_forwards()?;
    let mut rates = Vec::new();
    for _ in 0..SAMPLES {
        let counted: sink::Counted = serde_json::from_str(&sink.ask(&site.seconds.to_string())?)?;
        rates.push(counted.packets as f64 / counted.seconds);
    }
    drop(running);
    drop(source);
    if rates.iter().all(|rate| *rate > 0.0) { Ok(rates) } else { Err(io::Error::other("nothing came through")) }
}
