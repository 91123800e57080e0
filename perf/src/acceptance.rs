//! The goals that figures of a run are held against.

use jetway_aead::Backend;

use crate::result::{Quantity, Results, Row};

/// Holds the figures of `results` against their goals, as far as it has them, and says which goals this machine cannot judge.
pub fn judge(results: &mut Results) {
    let mut goals = goals(results);
    if results.aead != Backend::Avx512.name() {
        // Goals of encryption are for a CPU with the kernel for it: the figures stand without them.
        for quantity in goals.iter_mut().filter(|quantity| is_of_encryption(quantity)) {
            quantity.goal = None;
        }
        let lacking = match Backend::Avx512.missing_features().collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => format!("AEAD backend avx512: the run has {} by choice", results.aead),
            missing => missing,
        };
        results.lacks("AEAD backend avx512, and the goals of encryption", &lacking);
    }
    results.quantities.extend(goals);
}

fn is_of_encryption(quantity: &Quantity) -> bool {
    ["AEAD, ", "turn, "].into_iter().any(|beginning| quantity.name.starts_with(beginning))
}

fn goals(results: &Results) -> Vec<Quantity> {
    let mut goals = Vec::new();
    aead(results, &mut goals);
    turns(results, &mut goals);
    peers(results, &mut goals);
    if let Some(row) = results.rows.iter().find(|row| row.scenario == "handshake answered") {
        goals.push(Quantity::new("handshakes answered by a core", row.mpps * 1e6, "/s").at_least(13_000.0));
    }
    dispatch(results, &mut goals);
    goals
}

/// How many times as long as Jetway the others need.
fn factor(of: Option<&Row>) -> Option<f64> {
    of.and_then(|row| row.ratio)
}

fn aead(results: &Results, goals: &mut Vec<Quantity>) {
    let wanted = [
        ("1420", "aws-lc-rs", 2.0),
        ("1420", "chacha20poly1305", 4.0),
        ("64", "aws-lc-rs", 6.0),
        ("imix", "aws-lc-rs", 2.5),
    ];
    for scenario in ["open", "seal"] {
        for (size, peer, least) in wanted {
            if let Some(factor) = factor(results.row(scenario, size, Some(1), peer)) {
                let name = format!("AEAD, {scenario} {size}: times as fast as {peer}");
                goals.push(Quantity::new(name, factor, "").at_least(least));
            }
        }
        if let Some(factor) = factor(results.row(scenario, "1420", Some(16), "jetway")) {
            let name = format!("AEAD, {scenario} 1420: time with 16 keys by that with one");
            goals.push(Quantity::new(name, factor, "").at_most(1.15));
        }
    }
}

fn turns(results: &Results, goals: &mut Vec<Quantity>) {
    for scenario in ["decrypt", "encrypt"] {
        for (size, least) in [("64", 2.0), ("1420", 1.7)] {
            if let Some(factor) = factor(results.row(scenario, size, Some(1), "boringtun")) {
                let name = format!("turn, {scenario} {size}: times as fast as boringtun");
                goals.push(Quantity::new(name, factor, "").at_least(least));
            }
            if let Some(row) = results.row(&format!("{scenario} beyond the AEAD"), size, Some(1), "jetway") {
                let name = format!("turn, {scenario} {size}: beyond the AEAD");
                goals.push(Quantity::new(name, row.ns_per_packet, "ns").at_most(90.0));
            }
        }
    }
}

fn peers(results: &Results, goals: &mut Vec<Quantity>) {
    for scenario in ["decrypt", "encrypt"] {
        for (size, least) in [("1420", Some(0.7)), ("64", None)] {
            let with = |peers| results.row(scenario, size, Some(peers), "jetway");
            if let (Some(one), Some(many)) = (with(1), with(100_000)) {
                let name = format!("turn, {scenario} {size}: rate with 100000 peers by that with one");
                let share = Quantity::new(name, many.mpps / one.mpps, "");
                goals.push(match least {
                    Some(least) => share.at_least(least),
                    None => share,
                });
            }
        }
    }
}

fn dispatch(results: &Results, goals: &mut Vec<Quantity>) {
    let mut held = |scenario: &str, flows: Option<usize>, most: f64| {
        let with = |row: &&Row| row.scenario == scenario && (flows.is_none() || row.flows == flows);
        if let Some(row) = results.rows.iter().find(with) {
            let flows = match flows {
                Some(1) => ", one flow".to_owned(),
                Some(flows) => format!(", {flows} flows"),
                None => String::new(),
            };
            goals.push(Quantity::new(format!("{scenario}{flows}"), row.ns_per_packet, "ns").at_most(most));
        }
    };
    for on in ["", " on net_ring"] {
        for forward in ["nat", "l2", "ipip", "gre", "gue"] {
            held(&format!("dispatch, {forward}{on}"), Some(1), 40.0);
            held(&format!("dispatch, {forward}{on}"), Some(1_000_000), 100.0);
            held(&format!("dispatch, all flows new, {forward}{on}"), None, 150.0);
        }
    }
    held("dispatch beyond decrypt and forward", None, 60.0);
    held("handshake message refused by its mac1", None, 600.0);
    held("Maglev table of 65537 slots built", None, 3e6);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::USUAL_BURST;

    #[test]
    fn goals_are_made_of_the_rows_that_are_there_and_no_others() {
        let row = |scenario, peer: &str, flows, ns, ratio| {
            let row = Row::new(scenario, peer, ns, 0.0).size("1420", 1420.0).flows(flows, Some(USUAL_BURST));
            Row { ratio: Some(ratio), ..row }
        };
        let rows = vec![
            row("decrypt", "jetway", 1, 500.0, 1.0),
            row("decrypt", "boringtun", 1, 800.0, 1.6),
            row("decrypt", "jetway", 100_000, 600.0, 1.0),
        ];
        let goals = goals(&Results { rows, ..Results::default() });
        let met: Vec<_> = goals.iter().map(|goal| (goal.value, goal.is_met())).collect();
        assert_eq!(met.len(), 2);
        assert_eq!(met[0], (1.6, Some(false)));
        assert!((met[1].0 - 5.0 / 6.0).abs() < 1e-9 && met[1].1 == Some(true));
    }

    #[test]
    fn without_the_kernel_of_the_goals_figures_are_told_without_them_and_that_is_said() {
        let row = |peer: &str, ratio| {
            let row = Row::new("decrypt", peer, 500.0, 0.0).size("64", 64.0).flows(1, Some(USUAL_BURST));
            Row { ratio: Some(ratio), ..row }
        };
        let rows = vec![row("jetway", 1.0), row("boringtun", 1.1), Row::new("handshake answered", "jetway", 5e4, 0.0)];
        let mut results = Results { aead: "aws-lc".into(), rows, ..Results::default() };
        judge(&mut results);
        let goals: Vec<_> = results.quantities.iter().map(|quantity| (quantity.value, quantity.goal)).collect();
        assert_eq!(goals, [(1.1, None), (20_000.0, Some(13_000.0))]);
        assert_eq!(results.unmeasured.len(), 1);
    }
}
