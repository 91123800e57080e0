//! iperf3: a server for one run, and a client whose JSON report is read.

use super::{Namespace, Process, World};
use serde_json::Value;
use std::time::Duration;

/// What carries the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, as fast as it goes.
    Tcp,
    /// UDP at a rate in bits a second with this many bytes a datagram.
    Udp {
        /// Bits a second.
        rate: u64,
        /// Bytes a datagram.
        size: u32,
    },
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The client sends.
    Up,
    /// The server sends.
    Down,
}

/// What the receiver of a stream saw.
#[derive(Clone, Copy, Debug)]
pub struct StreamReport {
    /// Bytes that arrived.
    pub bytes: u64,
    /// Bits a second at the receiver.
    pub bits_per_second: f64,
    /// Datagrams lost (UDP).
    pub lost: u64,
    /// Datagrams sent (UDP).
    pub datagrams: u64,
    /// Datagrams out of order (UDP).
    pub out_of_order: u64,
    /// Segments sent again (TCP).
    pub retransmits: u64,
}

/// An iperf3 server that serves one client after another.
pub struct Iperf3Server {
    _process: Process,
}

impl Iperf3Server {
    /// Starts it on iperf3's own port inside a namespace and waits until it listens.
    #[track_caller]
    pub fn start(world: &World, namespace: &Namespace) -> Self {
        let mut process = Process::start(world, namespace, "iperf3", &["-s", "--forceflush"]);
        process.wait_for_output("Server listening", Duration::from_secs(30));
        Iperf3Server { _process: process }
    }
}

/// Runs a client in a namespace against a server for `seconds`.
#[track_caller]
pub fn iperf3(namespace: &Namespace, server: &str, transport: Transport, way: Way, seconds: u32) -> StreamReport {
    iperf3_with(namespace, server, transport, way, seconds, &[])
}

/// Like [`iperf3`], with more arguments for the client.
#[track_caller]
pub fn iperf3_with(
    namespace: &Namespace,
    server: &str,
    transport: Transport,
    way: Way,
    seconds: u32,
    more: &[&str],
) -> StreamReport {
    // A client whose control connection dies would wait for ever.
    let limit = (seconds + 60).to_string();
    let seconds = seconds.to_string();
    let (rate, size);
    let mut arguments =
        vec!["-k", "1", &limit, "iperf3", "-c", server, "-t", &seconds, "-J", "--connect-timeout", "20000"];
    if let Transport::Udp { rate: bits, size: bytes } = transport {
        (rate, size) = (bits.to_string(), bytes.to_string());
        arguments.extend(["-u", "-b", &rate, "-l", &size]);
    }
    match way {
        Way::Up => {}
        Way::Down => arguments.push("-R"),
    }
    arguments.extend(more);
    let text = namespace.run("timeout", &arguments);
    parse(&text, transport).unwrap_or_else(|| panic!("iperf3 reported no result:\n{text}"))
}

fn parse(text: &str, transport: Transport) -> Option<StreamReport> {
    let report: Value = serde_json::from_str(text).ok()?;
    let end = report.get("end")?;
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    match transport {
        Transport::Tcp => {
            let received = end.get("sum_received")?;
            Some(StreamReport {
                bytes: received.get("bytes")?.as_u64()?,
                bits_per_second: number(received, "bits_per_second"),
                lost: 0,
                datagrams: 0,
                out_of_order: 0,
                retransmits: end.get("sum_sent")?.get("retransmits").and_then(Value::as_u64).unwrap_or(0),
            })
        }
        Transport::Udp { .. } => {
            let sum = end.get("sum")?;
            let streams = end.get("streams").and_then(Value::as_array)?;
            let out_of_order: f64 = streams.iter().map(|stream| number(&stream["udp"], "out_of_order")).sum();
            Some(StreamReport {
                bytes: sum.get("bytes")?.as_u64()?,
                bits_per_second: number(sum, "bits_per_second"),
                lost: number(sum, "lost_packets") as u64,
                datagrams: number(sum, "packets") as u64,
                out_of_order: out_of_order as u64,
                retransmits: 0,
            })
        }
    }
}
