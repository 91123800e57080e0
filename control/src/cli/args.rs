//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use services::{
    Action, BackendArguments, ExplainArguments, FlowsArguments, FlowsCommand, FlowsFilterArguments, VipsArguments,
};

use crate::logging::LogFormat;

mod services;

/// Where the configuration is if nobody says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/jetway/node.toml";
/// The environment's word on where the configuration is.
pub const CONFIG_VARIABLE: &str = "JETWAY_CONFIG";

/// A VPN node on DPDK: WireGuard clients on one side, your network on the other.
#[derive(Debug, Parser)]
#[command(
    name = "jetway",
    version,
    after_help = "\
Examples:
  jetway keygen server.key                  make the server's key
  jetway check --config node.toml           find every mistake in a configuration
  jetway run --config node.toml             run the node
  jetway client-config alice --qr ...       give a client its configuration
  jetway stats                              see where every packet went
  jetway vips                               see virtual services and their servers
  jetway explain \"tcp A:P > B:P\"            see what would happen to a packet
  wg show jw0                               the usual tool works, too

The configuration is, in this order: --config, the environment's JETWAY_CONFIG, /etc/jetway/node.toml.
`jetway COMMAND --help` has more, with examples."
)]
pub struct Arguments {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// The configuration [default: $JETWAY_CONFIG, or /etc/jetway/node.toml]
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The running node's local socket [default: what the configuration says]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
}

impl Global {
    /// Where the configuration is.
    pub fn config_path(&self) -> PathBuf {
        let from_environment = || std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
        self.config.clone().or_else(from_environment).unwrap_or_else(|| DEFAULT_CONFIG.into())
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node until SIGTERM or SIGINT
    #[command(after_help = "\
Examples:
  jetway run --config node.toml
  jetway run --log-level debug --log-format json
  RUST_LOG=jetway::kernel=trace,info jetway run

Needs root: it makes interfaces, sets addresses and opens devices. A second start of a node of the same name is
refused. SIGHUP, or `jetway reload`, reads the configuration again.")]
    Run(RunArguments),
    /// Check a configuration and show all problems at once
    #[command(after_help = "\
Examples:
  jetway check --config node.toml
  jetway check --config node.toml --json | jq '.problems[].message'

Exit status: 0 if the configuration can be used (there may be warnings), 1 if not.")]
    Check,
    /// Show what the running node counts: packets by worker and port, drops by reason
    #[command(after_help = "\
Examples:
  jetway stats
  jetway stats --json | jq '.workers[] | {worker, unaccounted}'

Every packet is accounted for: received + created + taken over = sent + punted + handed off + held + dropped.")]
    Stats,
    /// Show the peers of the running node: where they are, when they last shook hands, what they moved
    #[command(after_help = "\
Examples:
  jetway peers
  jetway peers alice-laptop
  jetway peers --tunnel jw0 --json")]
    Peers(PeersArguments),
    /// Show virtual services: their servers, who is up, and what each of them got
    #[command(after_help = "\
Examples:
  jetway vips
  jetway vips erp --json | jq '.[].backends[] | {name, state, flows}'
  jetway vips --dry-run --config new.toml          what a changed file would move; changes nothing

The states of a server:
  up         it gets new flows
  suspect    it gives signs of trouble and is being asked; it gets new flows
  down       it does not answer: its flows go elsewhere at once
  draining   it keeps its flows and gets no new ones (`jetway backend drain`)
  disabled   it gets nothing (`jetway backend disable`)")]
    Vips(VipsArguments),
    /// Show the flows that workers remember: whose, to which service, at which server; or count or forget them
    #[command(after_help = "\
Examples:
  jetway flows                                     some of them
  jetway flows --vip erp --client 10.8.0.0/16      those of some clients to a service
  jetway flows --backend erp/erp-1 --count         how many a server still has, for example while it is drained
  jetway flows flush --client 10.8.0.2             forget a client's: its next packets are dispatched anew
  jetway flows --json | jq '.flows[] | {client, backend, idle_seconds}'

A flow is remembered until its client has been silent for its time: an open TCP connection for an hour, one that
opens or closes for 30 s, datagrams for 200 s. Without a memory of it a packet goes where the service's table leads.")]
    Flows(FlowsArguments),
    /// Say what would happen to a packet: rule, slot, server and reason; changes nothing
    #[command(after_help = "\
Examples:
  jetway explain \"tcp 10.8.0.2:1234 > 10.100.0.10:443\"
  jetway explain \"udp [2001:db8::2]:5353 > [2001:db8::53]:53\" --from wan
  jetway explain \"icmp 10.8.0.2 > 192.0.2.11\"
  jetway explain 4500002800004000400666c40a0800020a64000a04d201bb...     the bytes of a packet, from tcpdump -x

The packet is taken to come by the port or tunnel to which its source is routed, unless --from says otherwise.
A datagram to a WireGuard service is taken as a handshake initiation without a cookie, unless it is given in hex.")]
    Explain(ExplainArguments),
    /// Drain, disable or enable a server of a virtual service
    #[command(after_help = "\
Examples:
  jetway backend drain erp/erp-1                   before maintenance: it keeps its flows and gets no new ones
  jetway backend drain erp/erp-1 --deadline 5m     and is disabled after five minutes
  jetway backend disable erp/erp-1                 at once: its flows go to others
  jetway backend enable erp/erp-1                  it serves again

This outlives a reload and ends with the process; `jetway vips erp` shows how many flows are left.")]
    Backend(BackendArguments),
    /// Make a private key
    #[command(after_help = "\
Examples:
  jetway keygen server.key                  a file of mode 600, and its public key on standard output
  jetway keygen | tee client.key | jetway pubkey
  jetway keygen --preshared alice.psk       a preshared key: both sides have the same file")]
    Keygen(KeygenArguments),
    /// Show the public key of a private key
    #[command(after_help = "\
Examples:
  jetway pubkey server.key
  jetway pubkey < client.key")]
    Pubkey(PubkeyArguments),
    /// Print a client's configuration for wg-quick and the WireGuard apps
    #[command(after_help = "\
Examples:
  jetway client-config alice-laptop --private-key-file alice.key > alice.conf
  jetway client-config alice-phone --private-key-file phone.key --endpoint vpn.example.org --qr
  jetway client-config alice-laptop --allowed-ips 0.0.0.0/0,::/0     all of the client's traffic

The client's address is its allowed IPs in the node's configuration. Without --private-key-file there is a
placeholder, so that the client's private key need never leave the client.")]
    ClientConfig(ClientConfigArguments),
    /// Have the running node read its configuration again, without dropping tunnels
    #[command(after_help = "\
Peers that only `wg set` added stay; everything in the file becomes as the file says. A configuration with errors
changes nothing, and the errors are shown.")]
    Reload,
    /// Have the running node take no new sessions, and keep those that are there
    Drain,
    /// Exit with 0 if the running node carries traffic, with 1 if not
    #[command(after_help = "\
Examples:
  jetway ready
  jetway ready --wait 30                    for scripts: wait until it does, at most 30 seconds")]
    Ready(ReadyArguments),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// How log lines look
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What to log: error, warn, info, debug, trace, or target=level pairs [default: $RUST_LOG, or info]
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
}

/// Arguments of `peers`.
#[derive(Debug, Args)]
pub struct PeersArguments {
    /// Only the peers of this name or public key
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Only the peers of this tunnel
    #[arg(long, value_name = "TUNNEL")]
    pub tunnel: Option<String>,
}

/// Arguments of `keygen`.
#[derive(Debug, Args)]
pub struct KeygenArguments {
    /// The file to make; without it the key goes to standard output
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Make a preshared key instead of a private key
    #[arg(long)]
    pub preshared: bool,
}

/// Arguments of `pubkey`.
#[derive(Debug, Args)]
pub struct PubkeyArguments {
    /// The file with the private key; without it the key is read from standard input
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Arguments of `client-config`.
#[derive(Debug, Args)]
pub struct ClientConfigArguments {
    /// The peer's name in the node's configuration
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The tunnel, when more than one has a peer of this name
    #[arg(long, value_name = "TUNNEL")]
    pub tunnel: Option<String>,
    /// Where the client finds the node: HOST or HOST:PORT [default: the first port's first address]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub endpoint: Option<String>,
    /// What the client sends through the tunnel, separated by commas [default: the tunnel's own networks]
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    pub allowed_ips: Vec<ipnet::IpNet>,
    /// The client's private key
    #[arg(long, value_name = "FILE")]
    pub private_key_file: Option<PathBuf>,
    /// Have the client send a keepalive so often, to stay reachable behind NAT
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub persistent_keepalive: Option<u16>,
    /// Draw a QR code for the apps of phones instead
    #[arg(long)]
    pub qr: bool,
}

/// Arguments of `ready`.
#[derive(Debug, Args)]
pub struct ReadyArguments {
    /// Wait until the node is ready, at most this long
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
}
