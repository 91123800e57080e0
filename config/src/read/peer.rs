//! Reads `[[tunnel.peer]]`, of which there may be a million.

use ipnet::IpNet;

use crate::cross_check::Claims;
use crate::intent::{Name, Peer, PublicKey};
use crate::key_file::secret;
use crate::parse::Surroundings;
use crate::read::KEY_IN_FILE;
use crate::section::Section;
use crate::value;

/// What only one peer of a tunnel may have.
#[derive(Default)]
struct Taken {
    names: Claims<Name>,
    keys: Claims<PublicKey>,
    networks: Claims<IpNet>,
}

pub(super) fn read_all(sections: Vec<Section<'_>>, surroundings: &Surroundings<'_>) -> Option<Vec<Peer>> {
    let mut taken = Taken::default();
    let mut peers = Vec::with_capacity(sections.len());
    let mut complete = true;
    for section in sections {
        match read(section, surroundings, &mut taken) {
            Some(peer) => peers.push(peer),
            None => complete = false,
        }
    }
    complete.then_some(peers)
}

fn read(mut section: Section<'_>, surroundings: &Surroundings<'_>, taken: &mut Taken) -> Option<Peer> {
    let source = section.source;
    let name =
        section.required("name", "give the peer a name, for example name = \"alice-laptop\"").and_then(|field| {
            let name = value::name(&field)?;
            taken
                .names
                .claim(source, name.clone(), &field.mark, |_| format!("two peers of this tunnel are named \"{name}\""));
            Some(name)
        });
    let public_key = section.required("public_key", "paste what `wg pubkey` prints for the peer's private key");
    let public_key = public_key.and_then(|field| {
        let key = value::public_key(&field)?;
        taken.keys.claim(source, key, &field.mark, |_| "two peers of this tunnel have the same public key".to_owned());
        Some(key)
    });
    let preshared_key = section.field("preshared_key_file").map(|field| secret(&field, surroundings.keys, "wg genpsk"));
    let allowed_ips = section.required("allowed_ips", "for example allowed_ips = [\"10.8.0.2/32\"]");
    let fields = allowed_ips.and_then(|field| field.list("[\"10.8.0.2/32\"]")).unwrap_or_default();
    let mut allowed_ips = Vec::with_capacity(fields.len());
    for field in fields {
        let Some(network) = value::allowed_network(&field) else { continue };
        taken.networks.claim(source, network, &field.mark, |before| {
            let same = before.section == field.mark.section;
            format!(
                "\"{network}\" is allowed {}",
                if same { "twice to this peer" } else { "to two peers of this tunnel" }
            )
        });
        allowed_ips.push(network);
    }
    let endpoint = section.field("endpoint").and_then(|field| value::endpoint(&field));
    let persistent_keepalive = section.field("persistent_keepalive").and_then(|field| field.number(1..=u16::MAX));
    section.finish(&[("preshared_key", KEY_IN_FILE)]);
    Some(Peer {
        name: name?,
        public_key: public_key?,
        preshared_key: preshared_key.flatten(),
        allowed_ips,
        endpoint,
        persistent_keepalive,
    })
}
