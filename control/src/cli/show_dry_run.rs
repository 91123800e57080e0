//! `jetway vips --dry-run`.

use std::process::ExitCode;

use super::args::Global;
use super::output::{self, Align};
use super::{CliError, connect};
use crate::api::{BackendChange, Change, DryRun, Request, Response, VipChange};

/// Says what the configuration that the arguments name would move.
pub fn dry_run(global: &Global, name: Option<&str>) -> Result<ExitCode, CliError> {
    let path = global.config_path();
    let path = std::path::absolute(&path).map_err(|source| CliError::File {
        what: "find",
        path: path.clone(),
        source,
        hint: "",
    })?;
    let Response::WouldChange { mut vips } = connect::ask(global, &Request::DryRun(DryRun { path }))? else {
        return Err(connect::unexpected());
    };
    vips.retain(|vip| name.is_none_or(|name| name == vip.name));
    if global.json {
        output::json(&vips);
    } else {
        output::text_line(text(&vips).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// The changes for people: services that would stay as they are, in one line.
fn text(vips: &[VipChange]) -> String {
    if vips.is_empty() {
        return "no virtual services, neither now nor then".to_owned();
    }
    vips.iter().map(|vip| format!("{}\n{}", heading(vip), servers(vip))).collect()
}

fn heading(vip: &VipChange) -> String {
    let VipChange { name, change, slots, slots_moved, flows, flows_moved, .. } = vip;
    let of = |part: u64, whole: u64| {
        let share = if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 };
        format!("{} of {} ({share:.1} %)", output::grouped(part), output::grouped(whole))
    };
    match change {
        Change::Unchanged if *slots_moved == 0 => format!("{name}  unchanged"),
        Change::Added => format!("{name}  added"),
        Change::Removed | Change::Changed | Change::Unchanged => format!(
            "{name}  {}: would move {} slots and {} flows",
            change.name(),
            of(u64::from(*slots_moved), u64::from(*slots)),
            of(*flows_moved, *flows)
        ),
    }
}

fn servers(vip: &VipChange) -> String {
    if vip.change == Change::Unchanged && vip.slots_moved == 0 {
        return String::new();
    }
    let columns = [
        ("  server", Align::Left),
        ("", Align::Left),
        ("slots now", Align::Right),
        ("then", Align::Right),
        ("moved away", Align::Right),
        ("flows now", Align::Right),
        ("moved", Align::Right),
    ];
    let row = |backend: &BackendChange| {
        let counts = [backend.slots_before, backend.slots_after, backend.slots_moved].map(u64::from);
        let counts = counts.into_iter().chain([backend.flows, backend.flows_moved]).map(output::grouped);
        [format!("  {}", backend.name), backend.change.name().to_owned()].into_iter().chain(counts).collect()
    };
    output::table(&columns, &vip.backends.iter().map(row).collect::<Vec<_>>()) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_is_told_by_service_and_server_and_what_would_not_in_a_line() {
        let backend =
            |name: &str, change, [slots_before, slots_after, slots_moved]: [u32; 3], flows_moved| BackendChange {
                name: name.to_owned(),
                change,
                slots_before,
                slots_after,
                slots_moved,
                flows: 40,
                flows_moved,
            };
        let vip = |name: &str, change, slots_moved, backends| VipChange {
            name: name.to_owned(),
            change,
            slots: 1_000,
            slots_moved,
            flows: 80,
            flows_moved: 40,
            backends,
        };
        let stays = backend("erp-1", Change::Unchanged, [500, 990, 10], 0);
        let goes = backend("erp-2", Change::Removed, [500, 0, 500], 40);
        let shown =
            text(&[vip("erp", Change::Changed, 510, vec![stays, goes]), vip("web", Change::Unchanged, 0, vec![])]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "erp  changed: would move 510 of 1,000 (51.0 %) slots and 40 of 80 (50.0 %) flows");
        let cells: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(cells, ["erp-2", "removed", "500", "0", "500", "40", "40"]);
        assert_eq!(*lines.last().unwrap(), "web  unchanged");
    }
}
