//! Reads `health` of a service.

use std::time::Duration;

use crate::intent::{Health, HealthKind, PublicKey};
use crate::key_file::secret;
use crate::parse::Surroundings;
use crate::read::KEY_IN_FILE;
use crate::section::{Field, Section};
use crate::value;

pub(super) fn read(
    mut section: Section<'_>,
    gateway_key: Option<PublicKey>,
    surroundings: &Surroundings<'_>,
) -> Option<Health> {
    const LONGEST: Duration = Duration::from_secs(3600);
    let kind = kind(&mut section, gateway_key, surroundings);
    let interval = section
        .field("interval")
        .map_or(Some(Health::DEFAULT_INTERVAL), |field| value::duration(&field, Duration::from_millis(100), LONGEST));
    let timeout_field = section.field("timeout");
    let timeout =
        timeout_field.as_ref().map_or(Some(Health::DEFAULT_TIMEOUT.min(interval.unwrap_or(LONGEST))), |field| {
            value::duration(field, Duration::from_millis(10), LONGEST)
        });
    if let (Some(interval), Some(timeout), Some(field)) = (interval, timeout, timeout_field)
        && timeout > interval
    {
        field.error(
            format!("a probe may take {timeout:?}, longer than the {interval:?} to the next"),
            "make `timeout` at most `interval`",
        );
    }
    let fall = section.field("fall").map_or(Some(Health::DEFAULT_FALL), |field| field.number(1..=100));
    let rise = section.field("rise").map_or(Some(Health::DEFAULT_RISE), |field| field.number(1..=100));
    let port = section.field("port").and_then(|field| field.number(1..=u16::MAX));
    section.finish(&[("private_key", KEY_IN_FILE)]);
    Some(Health { kind: kind?, interval: interval?, timeout: timeout?, fall: fall?, rise: rise?, port })
}

/// What is asked for, before the settings that belong to it alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Icmp,
    Tcp,
    Udp,
    Http,
    Https,
    WireGuard,
}

fn kind(
    section: &mut Section<'_>,
    gateway_key: Option<PublicKey>,
    surroundings: &Surroundings<'_>,
) -> Option<HealthKind> {
    let words = [
        ("icmp", Word::Icmp),
        ("tcp", Word::Tcp),
        ("udp", Word::Udp),
        ("http", Word::Http),
        ("https", Word::Https),
        ("wireguard", Word::WireGuard),
    ];
    let field =
        section.required("kind", "write kind = \"tcp\", \"http\", \"https\", \"udp\", \"icmp\" or \"wireguard\"");
    let word = field.as_ref().and_then(|field| field.choice(&words));
    let path_field = section.field("path");
    let path = path_field.as_ref().map_or(Some("/".to_owned()), request_path);
    let key_field = section.field("private_key_file");
    let word = word?;
    if let (Some(path), Word::Icmp | Word::Tcp | Word::Udp | Word::WireGuard) = (&path_field, word) {
        path.error("only probes of kind \"http\" and \"https\" have a `path`", "remove the path or change the kind");
    }
    if let (Some(key), Word::Icmp | Word::Tcp | Word::Udp | Word::Http | Word::Https) = (&key_field, word) {
        key.error("only probes of kind \"wireguard\" have a `private_key_file`", "remove the line or change the kind");
    }
    match word {
        Word::Icmp => Some(HealthKind::Icmp),
        Word::Tcp => Some(HealthKind::Tcp),
        Word::Udp => Some(HealthKind::Udp),
        Word::Http => path.map(|path| HealthKind::Http { path }),
        Word::Https => path.map(|path| HealthKind::Https { path }),
        Word::WireGuard => {
            if let (None, Some(field)) = (gateway_key, &field) {
                let hint = "use another kind, or protocol = \"wireguard\" with the gateways' public_key";
                field.error("a handshake probe needs the gateways' `public_key`", hint);
            }
            let Some(key_field) = key_field else {
                let hint = "make a key for the prober with `(umask 077; wg genkey > probe.key)`, name it here, and give \
                            each gateway its public key as a peer with allowed_ips = []";
                section.error("a handshake probe needs a key of its own: `private_key_file` is missing", hint);
                return None;
            };
            secret(&key_field, surroundings.keys, "wg genkey").map(|private_key| HealthKind::WireGuard { private_key })
        }
    }
}

fn request_path(field: &Field<'_>) -> Option<String> {
    let text = field.text("\"/health\"")?;
    if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Some(text.to_owned());
    }
    field.error(
        "`path` is not the path of a URL",
        "begin it with / and leave out host and spaces, for example \"/health\"",
    );
    None
}
