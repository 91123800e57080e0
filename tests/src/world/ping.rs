//! ping(8), read line by line: what was lost, how long replies took, and the longest silence.

use super::{Namespace, Process, World};
use std::time::Duration;

/// ping waits for the last reply no longer than one interval, or twice the longest round trip: a busy machine needs this.
const LONGEST_DELAY_OF_A_BUSY_MACHINE: Duration = Duration::from_millis(100);

/// A ping to run.
#[derive(Clone)]
pub struct Ping {
    /// Whom to ping.
    pub target: String,
    /// How many echo requests to send.
    pub count: u32,
    /// Time between requests.
    pub interval: Duration,
    /// Bytes of payload after the ICMP header.
    pub size: u32,
    /// Whether the packets may be fragmented on their way.
    pub fragmentation: Fragmentation,
    /// The interface or address to send from, if the routing table is not to say.
    pub from: Option<String>,
    /// How long to wait for the last reply, if the interval is short.
    pub patience: Duration,
}

/// What ping tells the kernel about fragments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragmentation {
    /// Fragment as needed.
    Allowed,
    /// Set "don't fragment" and let a packet that does not fit be refused.
    Forbidden,
}

/// What a ping saw.
#[derive(Clone, Debug, PartialEq)]
pub struct PingReport {
    /// Requests sent, of those that were wanted.
    pub sent: u32,
    /// Distinct requests that were answered, of those.
    pub answered: u32,
    /// Replies beyond the first to the same request.
    pub duplicates: u32,
    /// Mean round trip in milliseconds, of the replies that tell it.
    pub mean_ms: Option<f64>,
    /// The longest time between two replies.
    pub longest_silence: Duration,
    /// All that ping printed.
    pub output: String,
}

impl PingReport {
    /// Requests without a reply.
    pub fn lost(&self) -> u32 {
        self.sent - self.answered
    }
}

/// A ping that runs in the background.
pub struct RunningPing {
    process: Process,
    count: u32,
    limit: Duration,
}

impl Ping {
    /// Ten requests, 10 ms apart, of 56 bytes.
    pub fn to(target: &str) -> Self {
        Ping {
            target: target.to_owned(),
            count: 10,
            interval: Duration::from_millis(10),
            size: 56,
            fragmentation: Fragmentation::Allowed,
            from: None,
            patience: Duration::from_secs(3),
        }
    }

    /// With this many requests.
    pub fn count(self, count: u32) -> Self {
        Ping { count, ..self }
    }

    /// With this long between requests.
    pub fn every(self, interval: Duration) -> Self {
        Ping { interval, ..self }
    }

    /// From this interface or address.
    pub fn from(self, from: &str) -> Self {
        Ping { from: Some(from.to_owned()), ..self }
    }

    /// With this many bytes of payload, not to be fragmented.
    pub fn unfragmented(self, size: u32) -> Self {
        Ping { size, fragmentation: Fragmentation::Forbidden, ..self }
    }

    /// Starts it.
    #[track_caller]
    pub fn start(&self, world: &World, namespace: &Namespace) -> RunningPing {
        let interval = format!("{:.3}", self.interval.as_secs_f64());
        let (count, size, patience) =
            (self.count.to_string(), self.size.to_string(), self.patience.as_secs().to_string());
        let fragmentation = match self.fragmentation {
            Fragmentation::Allowed => "dont",
            Fragmentation::Forbidden => "do",
        };
        let arguments = [
            "-n",
            "-D",
            "-c",
            &count,
            "-i",
            &interval,
            "-s",
            &size,
            "-W",
            &patience,
            "-M",
            fragmentation,
            &self.target,
        ];
        let mut command = namespace.command("ping");
        command.args(arguments);
        if let Some(from) = &self.from {
            command.args(["-I", from]);
        }
        if self.interval < LONGEST_DELAY_OF_A_BUSY_MACHINE {
            // With a deadline ping goes on asking until as many were answered as were wanted.
            let deadline = (self.interval * self.count * 2 + self.patience).as_secs() + 1;
            command.args(["-w", &deadline.to_string()]);
        }
        let process = Process::spawn_into("ping", world.path("ping.log"), command);
        let limit = self.interval * self.count * 2 + self.patience + Duration::from_secs(60);
        RunningPing { process, count: self.count, limit }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self, world: &World, namespace: &Namespace) -> PingReport {
        self.start(world, namespace).finish()
    }
}

impl RunningPing {
    /// Waits for its end and reads what it saw.
    #[track_caller]
    pub fn finish(mut self) -> PingReport {
        self.process.wait(self.limit);
        parse(&self.process.output(), self.count)
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        self.process.output()
    }
}

/// Parses the output of `ping -D`; requests beyond the `wanted` were only sent while ping waited for the last replies.
fn parse(output: &str, wanted: u32) -> PingReport {
    let (mut answered, mut duplicates, mut timed, mut total_ms, mut times) = (0u32, 0u32, 0u32, 0.0, Vec::new());
    for line in output.lines().filter(|line| line.contains(" bytes from ")) {
        let number = line.split("icmp_seq=").nth(1).and_then(|rest| rest.split(' ').next());
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else { continue };
        if number > wanted {
            continue;
        }
        if line.contains("(DUP!)") {
            duplicates += 1;
            continue;
        }
        answered += 1;
        // A payload of less than 16 bytes has no room for the time it was sent.
        let rtt =
            line.split("time=").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|ms| ms.parse::<f64>().ok());
        total_ms += rtt.unwrap_or(0.0);
        timed += u32::from(rtt.is_some());
        let stamp =
            line.strip_prefix('[').and_then(|rest| rest.split(']').next()).and_then(|at| at.parse::<f64>().ok());
        times.push(stamp.unwrap_or_else(|| panic!("ping printed {line:?}")));
    }
    let sent = output
        .lines()
        .find_map(|line| line.split_once(" packets transmitted")?.0.parse::<u32>().ok())
        .unwrap_or_else(|| panic!("ping did not say how many it sent:\n{output}"));
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    PingReport {
        sent: sent.min(wanted),
        answered,
        duplicates,
        mean_ms: (timed > 0).then(|| total_ms / f64::from(timed)),
        longest_silence: Duration::from_secs_f64(longest),
        output: output.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_duplicates_and_the_longest_silence_are_read() {
        let report = parse(
            "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
             [100.000000] 64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=1.00 ms\n\
             [100.000500] 64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=1.50 ms (DUP!)\n\
             [102.500000] 64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=3.00 ms\n\n\
             --- 10.0.0.1 ping statistics ---\n\
             3 packets transmitted, 2 received, +1 duplicates, 33.3333% packet loss, time 2003ms\n",
            3,
        );
        assert_eq!((report.sent, report.answered, report.duplicates, report.lost()), (3, 2, 1, 1));
        assert_eq!(report.mean_ms, Some(2.0));
        assert_eq!(report.longest_silence, Duration::from_millis(2500));
    }
    #[test]
    fn what_was_sent_while_the_last_replies_were_late_does_not_count() {
        let late = "[100.000000] 64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=1.00 ms\n\
                    [100.050000] 64 bytes from 10.0.0.1: icmp_seq=2 ttl=64 time=40.0 ms\n\n\
                    5 packets transmitted, 2 received, 60% packet loss, time 51ms\n";
        let report = parse(late, 2);
        assert_eq!((report.sent, report.answered, report.lost()), (2, 2, 0));
        let lost = late.replace("icmp_seq=2", "icmp_seq=3");
        let report = parse(&lost, 2);
        assert_eq!((report.sent, report.answered, report.lost()), (2, 1, 1));
    }
}
