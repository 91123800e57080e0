//! Reads `[decapsulate]`.

use ipnet::IpNet;

use crate::intent::{Decapsulate, Encapsulation, Tunnel};
use crate::section::{Field, Section};
use crate::value;

const KINDS: [(&str, Encapsulation); 3] = [
    (Encapsulation::Ipip.name(), Encapsulation::Ipip),
    (Encapsulation::Gre.name(), Encapsulation::Gre),
    (Encapsulation::Gue.name(), Encapsulation::Gue),
];

pub(super) fn read(mut section: Section<'_>, tunnels: &[Option<Tunnel>]) -> Option<Decapsulate> {
    let from = section.required("from", "name the dispatchers by the addresses they send from: from = [\"192.0.2.1\"]");
    let from = from.and_then(|field| list(&field, "[\"192.0.2.1\"]", network));
    let kinds_field =
        section.required("kinds", "say how the dispatchers forward: kinds = [\"ipip\"], \"gre\" or \"gue\"");
    let kinds = kinds_field.as_ref().and_then(|field| list(field, "[\"ipip\"]", |kind| kind.choice(&KINDS)));
    if let (Some(field), Some(kinds)) = (&kinds_field, &kinds)
        && kinds.contains(&Encapsulation::Gue)
        && tunnels.iter().flatten().any(|tunnel| tunnel.listen_port == Encapsulation::GUE_PORT)
    {
        field.error(
            format!("a tunnel listens at port {}, which is GUE's", Encapsulation::GUE_PORT),
            "give the tunnel another `listen_port`, or have the dispatchers forward by \"ipip\"",
        );
    }
    section.finish(&[("kind", "write kinds = [\"ipip\"]"), ("to", "write from = [...]: who sends is what counts")]);
    Some(Decapsulate { from: from?, kinds: kinds? })
}

/// The members of a list that has some.
fn list<T>(field: &Field<'_>, example: &str, read: impl Fn(&Field<'_>) -> Option<T>) -> Option<Vec<T>> {
    let members = field.list(example)?;
    if members.is_empty() {
        field.error(
            format!("`{}` is empty, so nothing would be taken out of anything", field.mark.key),
            format!("write for example {example}, or remove `[decapsulate]`"),
        );
        return None;
    }
    let members: Vec<_> = members.iter().map(read).collect();
    members.into_iter().collect()
}

/// Where dispatchers are: nowhere is everywhere.
fn network(field: &Field<'_>) -> Option<IpNet> {
    let network = value::allowed_network(field)?;
    if network.prefix_len() > 0 {
        return Some(network);
    }
    field.error(
        format!("\"{network}\" would let everybody send packets from any address"),
        "write the addresses of your dispatchers, for example \"192.0.2.1\"",
    );
    None
}
