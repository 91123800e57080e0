//! What `wg` asks of a tunnel.

use std::path::Path;

use jetway::intent::{Intent, PeerChange};
use jetway::uapi::parse_set;
use jetway_config::{KeyFileFault, Surroundings, parse};
use zeroize::Zeroizing;

use crate::fuzz::Outcome;

const NODE: &str = include_str!("../../../../config/examples/gateway.toml");

/// A request is refused without repeating a value, or asked twice it changes nothing the second time but what it takes
/// away and gives anew.
pub fn uapi(data: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(data);
    let request = match parse_set(&text) {
        Ok(request) => request,
        Err(error) => {
            assert!(error.errno > 0 && !error.reason.is_empty() && error.reason.len() < 120, "{error:?}");
            return Outcome::of(error.reason.split_once(':').map(|(_, reason)| reason.to_owned()));
        }
    };
    let mut intent = node();
    let name = intent.tunnels().next().map(|(name, _)| name.to_owned()).expect("the example has a tunnel");
    let Ok(first) = intent.set(&name, request.clone()) else { return Outcome::of("refused") };
    let again = intent.set(&name, request.clone()).expect("what was taken once is taken again");
    if !request.replace_peers && request.peers.iter().all(|peer| !peer.remove) {
        let is_addition = |change: &PeerChange| matches!(change, PeerChange::Add { .. });
        assert!(!again.peers.iter().any(is_addition), "{again:?}");
    }
    let owners = intent.tunnel(&name).map_or(0, |tunnel| tunnel.peers().count());
    Outcome::of((first.tunnels.len().min(4), first.peers.len().min(8), again.is_empty(), owners.min(8)))
}

fn node() -> Intent {
    let keys = |_: &Path| -> Result<_, KeyFileFault> {
        Ok(Zeroizing::new(b"wBQvkkgxV6WD3jtvB3OoNPXh0xGgOoyQUjKkSAJSlGg=\n".to_vec()))
    };
    let checked = parse(NODE, "node.toml", &Surroundings { cpus: 8, keys: &keys }).expect("the example is right");
    let mut intent = Intent::new();
    intent.reload(&checked.config);
    intent
}
