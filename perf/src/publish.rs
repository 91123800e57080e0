//! The README's figures: made from a file of results, never typed.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::plot;
use crate::result::{Better, Quantity, Results};

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
            let alone = row("aead alone").map_or("-".to_owned(), |row| format!("{:.0}", row.ns_per_packet));
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
    if !results.unmeasured.is_empty() {
        writeln!(text, "\nNot measured here: {}.", results.unmeasured.join("; "))?;
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
