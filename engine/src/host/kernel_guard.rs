//! Keeps the kernel from answering frames on an interface that a DPDK driver shares with it.
//!
//! `net_af_packet` receives a copy of each frame; the kernel's stack would see the frame as well, and answer it
//! (ARP, resets of TCP connections that it does not know, forwarding). A drop at the netdev ingress hook comes after the
//! copy for packet sockets and before the stack. Frames that the kernel sends of itself on the interface would be
//! received by the driver, so its IPv6 is switched off there too. `net_af_xdp` needs neither: what a socket takes never
//! reaches the stack.
//!
//! All that is installed is one table, named after node and interface. Its comment keeps the settings that were there
//! before, so that a later start can restore them even after a crash.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The settings of the interface that the guard changes, below `/proc/sys/net/ipv6/conf`, and to what.
const SETTINGS: [(&str, &str); 3] = [("accept_ra", "0"), ("autoconf", "0"), ("router_solicitations", "0")];

/// The setting that ends all IPv6 on the interface. It also ends its addresses, so it is changed only where there are none.
const DISABLE: (&str, &str) = ("disable_ipv6", "1");

/// What the names of our tables begin with.
const PREFIX: &str = "jetway/";

/// Why an interface could not be guarded.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The program `nft` is not there.
    #[error(
        "cannot keep the kernel from answering on {interface}: the program `nft` is missing; `apt-get install nftables`"
    )]
    NoNft {
        /// The interface, or `*` for the search for leftovers.
        interface: String,
    },
    /// `nft` could not be run.
    #[error("cannot keep the kernel from answering on {interface}: cannot run `nft`: {cause}")]
    Run {
        /// The interface, or `*` for the search for leftovers.
        interface: String,
        /// What the system said.
        cause: io::Error,
    },
    /// `nft` refused.
    #[error(
        "cannot keep the kernel from answering on {interface}: nft: {message}; it needs root (CAP_NET_ADMIN) and a kernel with \
         nf_tables and netdev ingress (CONFIG_NFT_NETDEV); or use net_af_xdp, net_tap or a real NIC"
    )]
    Refused {
        /// The interface, or `*` for the search for leftovers.
        interface: String,
        /// What it said.
        message: String,
    },
    /// There is no such interface, or none can have this name.
    #[error("cannot keep the kernel from answering on {interface}: there is no such interface; see `ip link`")]
    NoInterface {
        /// The interface.
        interface: String,
    },
}

/// While it lives, the kernel's stack receives nothing from the interface and sends no IPv6 of itself on it.
///
/// Dropping it takes the table away and restores the settings.
#[derive(Debug)]
pub struct KernelGuard {
    interface: String,
    table: String,
    before: Settings,
}

impl KernelGuard {
    /// Guards `interface`, in the network namespace of this thread, for the node `node`.
    ///
    /// Restores first what a crashed predecessor left behind on this interface.
    pub fn install(node: &str, interface: &str) -> Result<Self, GuardError> {
        let no_interface = || GuardError::NoInterface { interface: interface.into() };
        if interface.contains(['"', '\\', '/']) || nix::net::if_::if_nametoindex(interface).is_err() {
            return Err(no_interface());
        }
        let table = table_name(node, interface);
        if let Some(leftover) = read_table(&table, interface)? {
            restore(interface, &leftover);
        }
        let before = Settings::of(interface);
        let rules = format!(
            "table netdev {table}\n\
             delete table netdev {table}\n\
             table netdev {table} {{\n\
             comment \"{}\"\n\
             chain ingress {{ type filter hook ingress device \"{interface}\" priority -500; policy drop; }}\n\
             }}\n",
            before.to_comment()
        );
        nft(interface, &["-f", "-"], &rules)?;
        for (setting, value) in before.changes() {
            set(interface, setting, value);
        }
        Ok(Self { interface: interface.into(), table, before })
    }

    /// Removes the tables that a crashed predecessor of this node left behind in the network namespace of this thread, and
    /// restores the settings. Returns the interfaces. To be called before the first [`KernelGuard::install`].
    pub fn remove_leftovers(node: &str) -> Result<Vec<String>, GuardError> {
        let prefix = table_name(node, "");
        let listed = match nft("*", &["list", "tables", "netdev"], "") {
            // A machine that cannot list tables has none of ours; a node on real NICs needs none.
            Err(GuardError::NoNft { .. } | GuardError::Refused { .. }) => return Ok(Vec::new()),
            listed => listed?,
        };
        let mut interfaces = Vec::new();
        for table in listed.lines().filter_map(|line| line.strip_prefix("table netdev ")) {
            let Some(interface) = table.strip_prefix(&prefix).map(decoded) else { continue };
            if let Some(before) = read_table(table, &interface)? {
                nft(&interface, &["delete", "table", "netdev", table], "")?;
                restore(&interface, &before);
                interfaces.push(interface);
            }
        }
        Ok(interfaces)
    }
}

impl Drop for KernelGuard {
    fn drop(&mut self) {
        // The table goes with the interface, so both may be gone already.
        let gone = nix::net::if_::if_nametoindex(self.interface.as_str()).is_err();
        if let Err(error) = nft(&self.interface, &["delete", "table", "netdev", &self.table], "")
            && !gone
        {
            let table = &self.table;
            tracing::error!(%error, "the kernel still drops what arrives; `nft delete table netdev {table}` ends that");
        }
        restore(&self.interface, &self.before);
    }
}

/// The values of the settings that the guard changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Those that the interface has now and that the guard will change.
    fn of(interface: &str) -> Self {
        let disable = (!has_ipv6_address(interface)).then_some(DISABLE);
        let names = SETTINGS.into_iter().chain(disable).map(|(name, _)| name);
        // A kernel without IPv6 has none of them.
        let read = |name: &str| Some((name.into(), fs::read_to_string(path(interface, name)).ok()?.trim().into()));
        Self(names.filter_map(read).collect())
    }

    /// What is to be written to each.
    fn changes(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        SETTINGS.into_iter().chain([DISABLE]).filter(|(name, _)| self.0.contains_key(*name))
    }

    fn to_comment(&self) -> String {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(" ")
    }

    /// Reads a comment; whatever the guard does not change is not taken from it.
    fn from_comment(comment: &str) -> Self {
        let pairs = comment.split_whitespace().filter_map(|pair| pair.split_once('='));
        let known = |name: &str| SETTINGS.into_iter().chain([DISABLE]).any(|(setting, _)| setting == name);
        let sound = |value: &str| value.parse::<i32>().is_ok();
        Self(pairs.filter(|(name, value)| known(name) && sound(value)).map(|(n, v)| (n.into(), v.into())).collect())
    }
}

/// Whether the interface has an IPv6 address that the kernel did not give itself: it would be lost with IPv6.
fn has_ipv6_address(interface: &str) -> bool {
    let Ok(addresses) = nix::ifaddrs::getifaddrs() else { return true };
    addresses.filter(|address| address.interface_name == interface).any(|address| {
        let ip: Option<Ipv6Addr> = address.address.as_ref().and_then(|a| a.as_sockaddr_in6()).map(|a| a.ip());
        ip.is_some_and(|ip| !ip.is_unicast_link_local())
    })
}

fn path(interface: &str, setting: &str) -> PathBuf {
    ["/proc/sys/net/ipv6/conf", interface, setting].iter().collect()
}

fn restore(interface: &str, before: &Settings) {
    for (setting, value) in &before.0 {
        set(interface, setting, value);
    }
}

fn set(interface: &str, setting: &str, value: &str) {
    let path = path(interface, setting);
    match fs::write(&path, value) {
        Ok(()) => {}
        // The interface, or the kernel's IPv6, is gone: there is nothing to be set.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "cannot write {value} to {}", path.display()),
    }
}

/// The settings that the comment of the table keeps, or `None` if there is no such table.
fn read_table(table: &str, interface: &str) -> Result<Option<Settings>, GuardError> {
    match nft(interface, &["list", "table", "netdev", table], "") {
        Ok(text) => {
            let comment = text.lines().find_map(|line| line.trim().strip_prefix("comment \""));
            Ok(Some(Settings::from_comment(comment.unwrap_or_default().trim_end_matches('"'))))
        }
        Err(GuardError::Refused { message, .. }) if message.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs `nft` with these arguments and this input. Returns what it printed.
fn nft(interface: &str, arguments: &[&str], input: &str) -> Result<String, GuardError> {
    let run = || -> io::Result<Output> {
        let mut child = Command::new("nft")
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => GuardError::NoNft { interface: interface.into() },
        _ => GuardError::Run { interface: interface.into(), cause },
    })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let message = String::from_utf8_lossy(&output.stderr);
        let message = message.lines().next().unwrap_or("no message").trim_start_matches("Error: ").into();
        Err(GuardError::Refused { interface: interface.into(), message })
    }
}

/// The name of the table for this interface. Different nodes and interfaces never get the same.
fn table_name(node: &str, interface: &str) -> String {
    format!("{PREFIX}{}/{}", encoded(node), encoded(interface))
}

/// `text` with everything that nft's names may not hold, and our own separators, as `.` and two hexadecimal digits.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => encoded.push(char::from(byte)),
            // Writing to a string cannot fail.
            other => drop(write!(encoded, ".{other:02x}")),
        }
    }
    encoded
}

/// The text of which `encoded` made this.
fn decoded(encoded: &str) -> String {
    let mut parts = encoded.split('.');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        bytes.extend(u8::from_str_radix(digits, 16));
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_nodes_and_interfaces_have_different_tables_whose_names_can_be_read_back() {
        let names = ["edge-1", "edge.1", "edge/1", "edge_1", "veth@wan", "\u{e4}th0", "a.b/c"];
        let tables: std::collections::BTreeSet<_> =
            names.iter().flat_map(|node| names.map(|interface| table_name(node, interface))).collect();
        assert_eq!(tables.len(), names.len() * names.len());
        for name in names {
            assert_eq!(decoded(&encoded(name)), name);
        }
    }

    #[test]
    fn only_our_own_settings_are_taken_from_a_comment() {
        let comment = "accept_ra=1 ../../kernel/panic=1 autoconf=x router_solicitations=-1 forwarding=1";
        assert_eq!(Settings::from_comment(comment).to_comment(), "accept_ra=1 router_solicitations=-1");
    }
}
