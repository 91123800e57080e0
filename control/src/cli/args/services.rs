//! What can be typed about virtual services: their servers, their flows, and where a packet would go.

use clap::{Args, Subcommand, ValueEnum};

/// Arguments of `vips`.
#[derive(Debug, Args)]
pub struct VipsArguments {
    /// Only the service of this name
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Show how many slots and flows the configuration that --config names would move, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `flows`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct FlowsArguments {
    /// What to do instead of showing them.
    #[command(subcommand)]
    pub command: Option<FlowsCommand>,
    /// Which are meant.
    #[command(flatten)]
    pub filter: FlowsFilterArguments,
    /// Count them by server instead of listing them
    #[arg(long)]
    pub count: bool,
    /// Show so many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u32,
}

/// What to do with flows.
#[derive(Debug, Subcommand)]
pub enum FlowsCommand {
    /// Forget flows: their next packets are dispatched anew
    Flush(FlowsFilterArguments),
}

/// Which flows are meant: those that fit everything that is said.
#[derive(Debug, Default, Args)]
pub struct FlowsFilterArguments {
    /// Only those to the service of this name
    #[arg(long, value_name = "NAME")]
    pub vip: Option<String>,
    /// Only those of a client, or of all in a network
    #[arg(long, value_name = "PREFIX", value_parser = network)]
    pub client: Option<ipnet::IpNet>,
    /// Only those at the server of this name, or SERVICE/BACKEND
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
}

/// A network, or an address alone.
fn network(text: &str) -> Result<ipnet::IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
    let network = text.parse().or_else(|_| address());
    network.map_err(|_| "write an address or a network, for example 10.8.0.2 or 10.8.0.0/16".to_owned())
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The packet: such as "tcp 10.8.0.2:1234 > 10.100.0.10:443", or its bytes in hex
    #[arg(value_name = "PACKET", required = true, num_args = 1..)]
    pub packet: Vec<String>,
    /// The port or tunnel by which it comes
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
}

/// Arguments of `backend`.
#[derive(Debug, Args)]
pub struct BackendArguments {
    /// What to do with the server
    #[arg(value_enum, value_name = "ACTION")]
    pub action: Action,
    /// The server: SERVICE/BACKEND, as in the configuration
    #[arg(value_name = "SERVICE/BACKEND", value_parser = server_name)]
    pub server: ServerName,
    /// With drain: disable the server after this time, such as 30s, 5m or 2h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub deadline: Option<u64>,
}

/// What to do with a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Action {
    /// It keeps its flows and gets no new ones
    Drain,
    /// It gets nothing, at once
    Disable,
    /// It serves
    Enable,
}

/// A server and its service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerName {
    /// The service's name.
    pub service: String,
    /// The server's name.
    pub backend: String,
}

fn server_name(text: &str) -> Result<ServerName, String> {
    match text.split_once('/') {
        Some((service, backend)) if !service.is_empty() && !backend.is_empty() => {
            Ok(ServerName { service: service.to_owned(), backend: backend.to_owned() })
        }
        Some(_) | None => Err("write SERVICE/BACKEND, for example erp/erp-1; `jetway vips` shows both".to_owned()),
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        Some(_) | None => return Err("write a number and a unit: 30s, 5m or 2h".to_owned()),
    };
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    let seconds = number.and_then(|number| number.checked_mul(unit)).filter(|seconds| *seconds <= 7 * 86_400);
    seconds.ok_or_else(|| "write a whole number of seconds, minutes or hours, a week at most".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_have_a_unit_and_servers_have_a_service() {
        assert_eq!(["30s", "5m", "2h"].map(seconds), [Ok(30), Ok(300), Ok(7_200)]);
        for wrong in ["", "5", "m", "0s", "-1s", "5 m", "1d", "99999999999999999999s", "200h", "5µ"] {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
        let expected = ServerName { service: "erp".to_owned(), backend: "erp-1".to_owned() };
        assert_eq!(server_name("erp/erp-1"), Ok(expected));
        for wrong in ["", "erp", "erp/", "/erp-1"] {
            assert!(server_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
