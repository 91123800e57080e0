//! The README's figures: made from a file of results, never typed.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::engine::AEAD_ALONE;
use crate::plot;
use crate::result::{Better, Quantity, Results, Row};

/// Between these lines of the README stands what [`section`] makes.
const BEGIN: &str = "<!-- figures: made by `jetway-perf publish`, not by hand -->";
const END: &str = "<!-- end of figures -->";
const SIZES: [&str; 5] = ["64", "256", "512", "1420", "imix"];

/// Keeps `results` as the newest known of their CPU in `folder`, with pictures, and writes their tables into `readme`.
pub fn publish(results: &Results, folder: &Path, readme: &Path) -> io::Result<()> {
    let stem = stem(&results.cpu);
    std::fs::create_dir_all(folder)?;
    results.write_json(&mut std::fs::File::create(folder.join(format!("{stem}.json")))?)?;
    plot::draw(results, folder, &stem)?;
    let text = std::fs::read_to_string(readme)?;
    let replaced = with_section(&text, &section(results)).ok_or_else(|| {
        let message = format!("{} has no lines \"{BEGIN}\" and \"{END}\"", readme.display());
        io::Error::other(message)
    })?;
    std::fs::write(readme, replaced)
}

/// A CPU's name as the name of a file.
pub fn stem(cpu: &str) -> String {
    let mut words = String::new();
    for word in cpu.replace("(R)", "").replace("(TM)", "").split(|c: char| !c.is_ascii_alphanumeric()) {
        if !word.is_empty() {
            let dash = if words.is_empty() { "" } else { "-" };
            let _ = write!(words, "{dash}{}", word.to_ascii_lowercase());
        }
    }
    if words.is_empty() { "unknown".to_owned() } else { words }
}

/// The text between the two marks is replaced; `None` without them.
fn with_section(text: &str, section: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{section}{END}{after}"))
}

/// Tables and pictures of `results`, in Markdown.
pub fn section(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_section(&mut text, results);
    text
}

fn write_section(text: &mut String, results: &Results) -> std::fmt::Result {
    let stem = stem(&results.cpu);
    let Results { cpu, aead, commit, command, .. } = results;
    writeln!(
        text,
        "{cpu}, AEAD {aead}, commit `{commit}`, `{command}`; all figures: [{stem}.json](perf/results/{stem}.json).\n"
    )?;
    writeln!(
        text,
        "| one core, one peer | size | Jetway ns a packet | Mpps | AEAD alone ns | boringtun | gotatun | spread |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|")?;
    for (scenario, words) in [("decrypt", "decrypt and forward"), ("encrypt", "encrypt")] {
        for size in SIZES {
            let row = |peer| results.row(scenario, size, Some(1), peer);
            let Some(ours) = row("jetway") else { continue };
            let alone = row(AEAD_ALONE).map_or("-".to_owned(), |row| format!("{:.0}", row.ns_per_packet));
            let other = |peer| {
                row(peer).map_or("-".to_owned(), |row| {
                    format!("{:.0} ({:.2} times as long)", row.ns_per_packet, row.ratio.unwrap_or_default())
                })
            };
            let (ns, mpps, spread) = (ours.ns_per_packet, ours.mpps, ours.spread * 100.0);
            writeln!(
                text,
                "| {words} | {size} | {ns:.0} | {mpps:.2} | {alone} | {} | {} | {spread:.1} % |",
                other("boringtun"),
                other("gotatun"),
            )?;
        }
    }
    writeln!(text, "\n![nanoseconds a packet](perf/results/{stem}-turn.svg)\n")?;
    let goals: Vec<_> = results.quantities.iter().filter(|quantity| quantity.goal.is_some()).collect();
    if !goals.is_empty() {
        writeln!(text, "| goal | measured | wanted | |\n|---|---|---|---|")?;
        for quantity in goals {
            write_goal(text, quantity)?;
        }
    }
    write_devices(text, results)?;
    write_end_to_end(text, results)?;
    if !results.unmeasured.is_empty() {
        writeln!(text, "\nNot measured here: {}.", results.unmeasured.join("; "))?;
    }
    Ok(())
}

/// RFC 2544: rates, and the latency that is added at half of the highest one without loss.
fn write_devices(text: &mut String, results: &Results) -> std::fmt::Result {
    let rates =
        results.rows.iter().filter(|row| row.scenario.starts_with("throughput ") && row.scenario.ends_with(" NDR"));
    let mut rates = rates.peekable();
    if rates.peek().is_none() {
        return Ok(());
    }
    writeln!(
        text,
        "\n| through net_memif, RFC 2544 | size | NDR Mpps | PDR Mpps | at full load | latency at half NDR: p50 us | p99 | p99.9 | back-to-back |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
    for row in rates {
        let scenario = row.scenario.trim_start_matches("throughput ").trim_end_matches(" NDR");
        let (size, peer, ndr) = (&row.size, &row.peer, row.mpps);
        let rate = |name: &str| {
            let row = results.row(&format!("throughput {scenario} {name}"), size, row.flows, peer);
            row.map_or("-".to_owned(), |row| format!("{:.2}", row.mpps))
        };
        let what = format!("{scenario} {size}, {peer}");
        let quantity = |name: String| {
            let quantity = results.quantities.iter().find(|quantity| quantity.name == name);
            quantity.map_or("-".to_owned(), |quantity| format!("{:.0}", quantity.value))
        };
        let [median, most, nearly_all] =
            ["p50", "p99", "p99.9"].map(|share| quantity(format!("latency at half NDR, {what}: {share}")));
        let (pdr, full, burst) = (rate("PDR"), rate("at full load"), quantity(format!("back-to-back, {what}")));
        writeln!(
            text,
            "| {scenario}, {peer} | {size} | {ndr:.2} | {pdr} | {full} | {median} | {most} | {nearly_all} | {burst} |"
        )?;
    }
    Ok(())
}

/// Beside wireguard-go, where everything else is the same.
fn write_end_to_end(text: &mut String, results: &Results) -> std::fmt::Result {
    let mut rows =
        results.rows.iter().filter(|row| row.scenario.starts_with("end to end: ") && row.peer == "jetway").peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    writeln!(text, "\n| end to end, in namespaces | jetway | wireguard-go | as good |\n|---|---|---|---|")?;
    for ours in rows {
        let Some(theirs) = results.row(&ours.scenario, &ours.size, ours.flows, "wireguard-go") else { continue };
        let figure = |row: &Row| match (row.gbps, row.size.is_empty()) {
            (Some(gbps), true) => format!("{gbps:.2} Gbit/s"),
            (_, false) => format!("{:.1} thousand packets/s", row.mpps * 1e3),
            (None, true) => format!("{:.3} ms", row.ns_per_packet / 1e6),
        };
        let what = ours.scenario.trim_start_matches("end to end: ");
        let ratio = theirs.ratio.unwrap_or_default();
        writeln!(text, "| {what} | {} | {} | {ratio:.2} times |", figure(ours), figure(theirs))?;
    }
    Ok(())
}

fn write_goal(text: &mut String, quantity: &Quantity) -> std::fmt::Result {
    let Quantity { name, value, unit, .. } = quantity;
    let side = match quantity.better {
        Better::Less => "at most",
        Better::More => "at least",
    };
    let met = if quantity.is_met() == Some(true) { "met" } else { "**missed**" };
    writeln!(text, "| {name} | {value:.2} {unit} | {side} {} | {met} |", quantity.goal.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpus_name_makes_a_files_name() {
        assert_eq!(stem("Intel(R) Xeon(R) Processor @ 2.0GHz"), "intel-xeon-processor-2-0ghz");
        assert_eq!(stem("(R)"), "unknown");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        assert_eq!(with_section(&text, "new\n"), Some(format!("above\n{BEGIN}\nnew\n{END}\nbelow\n")));
        assert_eq!(with_section("above\n", "new\n"), None);
    }

    #[test]
    fn devices_and_the_way_end_to_end_have_tables_where_they_were_measured() {
        let row = |scenario: &str, peer: &str, ns| Row::new(scenario, peer, ns, 0.0).size("64", 64.0).flows(1, None);
        let ping = |peer: &str, ns, ratio| Row {
            ratio: Some(ratio),
            flows: Some(1),
            ..Row::new("end to end: ping p50", peer, ns, 0.0)
        };
        let results = Results {
            rows: vec![
                row("throughput io NDR", "testpmd 1", 500.0),
                row("throughput io PDR", "testpmd 1", 400.0),
                ping("jetway", 2e5, 1.0),
                ping("wireguard-go", 3e5, 1.5),
            ],
            quantities: vec![Quantity::new("latency at half NDR, io 64, testpmd 1: p99", 12.3, "us")],
            ..Results::default()
        };
        let section = section(&results);
        assert!(section.contains("| io, testpmd 1 | 64 | 2.00 | 2.50 | - | - | 12 | - | - |"), "{section}");
        assert!(section.contains("| ping p50 | 0.200 ms | 0.300 ms | 1.50 times |"), "{section}");
        assert!(!super::section(&Results::default()).contains("RFC 2544"));
    }

    /// A number stated twice is checked to agree.
    #[test]
    fn the_readme_states_what_the_kept_results_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
        let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
        let (_, rest) = readme.split_once(BEGIN).expect("the mark");
        let (shown, _) = rest.split_once(END).expect("the other mark");
        let results = std::fs::read_dir(root.join("perf/results")).expect("results are kept").filter_map(|entry| {
            let path = entry.expect("a readable folder").path();
            let kept = path.extension().is_some_and(|kind| kind == "json") && !path.ends_with("latest.json");
            kept.then(|| Results::read_json(&path).expect("results that this build reads"))
        });
        let sections: Vec<_> = results.map(|results| section(&results)).collect();
        assert!(sections.iter().any(|section| section.trim() == shown.trim()), "run `jetway-perf publish FILE`");
    }
}
