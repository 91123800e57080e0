//! Results as pictures (SVG).

use std::io;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::engine::AEAD_ALONE;
use crate::result::{Results, Row, USUAL_BURST};

/// Width and height of a picture.
const FRAME: (u32, u32) = (960, 420);
/// Colours that people with colour blindness tell apart (Okabe and Ito, "Color universal design", 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
];
/// Sizes in the order in which pictures show them.
const SIZES: [&str; 5] = ["64", "256", "512", "1420", "imix"];

/// Draws what `results` has figures for into `folder`; the files' names begin with `stem`. Returns the files.
pub fn draw(results: &Results, folder: &Path, stem: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let caption = |what: &str| format!("{what} - {}, commit {}", results.cpu, results.commit);
    let bars = turns(results);
    if !bars.groups.is_empty() {
        let path = folder.join(format!("{stem}-turn.svg"));
        draw_bars(&path, &caption("Nanoseconds a packet, one core"), &bars).map_err(io::Error::other)?;
        files.push(path);
    }
    let lines = by_peers(results);
    if lines.iter().any(|line| line.points.len() > 1) {
        let path = folder.join(format!("{stem}-peers.svg"));
        let axes = ["peers, in random order", "million packets a second"];
        draw_lines(&path, &caption("Whole turns by number of peers"), axes, &lines).map_err(io::Error::other)?;
        files.push(path);
    }
    let bars = rates(results);
    if !bars.groups.is_empty() {
        let path = folder.join(format!("{stem}-rate.svg"));
        draw_bars(&path, &caption("Thousand packets a second through devices"), &bars).map_err(io::Error::other)?;
        files.push(path);
    }
    Ok(files)
}

/// Groups of bars: a value, or none, for each name in `series`.
struct Bars {
    series: Vec<String>,
    groups: Vec<(String, Vec<Option<f64>>)>,
}

/// A line with its name.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Whole turns and others' same work, by direction and size, with one peer.
fn turns(results: &Results) -> Bars {
    let series = ["jetway", AEAD_ALONE, "boringtun", "gotatun"].map(str::to_owned).to_vec();
    let group = |direction: &str, size: &str| {
        let value = |peer: &String| results.row(direction, size, Some(1), peer).map(|row| row.ns_per_packet);
        (format!("{direction} {size}"), series.iter().map(value).collect::<Vec<_>>())
    };
    let all = ["decrypt", "encrypt"].into_iter().flat_map(|way| SIZES.map(|size| group(way, size)));
    let groups = all.filter(|(_, values)| values[0].is_some()).collect();
    Bars { series, groups }
}

fn by_peers(results: &Results) -> Vec<Line> {
    let line = |direction: &str, size: &str| {
        let wanted = |row: &&Row| {
            let ours = row.peer == "jetway" && row.burst == Some(USUAL_BURST);
            ours && row.scenario == direction && row.size == size
        };
        let point = |row: &Row| row.flows.map(|flows| (flows as f64, row.mpps));
        let mut points: Vec<_> = results.rows.iter().filter(wanted).filter_map(point).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        // One peer is measured with the sizes and with the numbers of peers: the figure beside the others counts.
        points.reverse();
        points.dedup_by_key(|point| point.0);
        points.reverse();
        Line { name: format!("{direction} {size} B"), points }
    };
    ["decrypt", "encrypt"].into_iter().flat_map(|way| ["64", "1420"].map(|size| line(way, size))).collect()
}

/// What passes devices without loss, by device under test and size.
fn rates(results: &Results) -> Bars {
    let series = ["NDR", "PDR"].map(str::to_owned).to_vec();
    let mut groups: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    for row in results.rows.iter().filter(|row| row.scenario.starts_with("throughput ")) {
        let value = |kind: &String| {
            let scenario = row.scenario.replace(" NDR", &format!(" {kind}")).replace(" PDR", &format!(" {kind}"));
            results.row(&scenario, &row.size, row.flows, &row.peer).map(|row| row.mpps * 1e3)
        };
        let direction = row.scenario.trim_start_matches("throughput ").split(' ').next().unwrap_or_default();
        let name = format!("{} {direction} {}", row.peer, row.size);
        if !groups.iter().any(|(known, _)| *known == name) {
            groups.push((name, series.iter().map(value).collect()));
        }
    }
    Bars { series, groups }
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn canvas(path: &Path) -> Result<DrawingArea<SVGBackend<'_>, Shift>, Box<dyn std::error::Error + Send + Sync>> {
    let root = SVGBackend::new(path, FRAME).into_drawing_area();
    root.fill(&WHITE).map_err(|error| error.to_string())?;
    Ok(root)
}

fn draw_bars(path: &Path, caption: &str, bars: &Bars) -> Outcome {
    let root = canvas(path)?;
    let most = bars.groups.iter().flat_map(|(_, values)| values.iter().flatten()).copied().fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(54)
        .build_cartesian_2d(0.0..bars.groups.len() as f64, 0.0..most * 1.1)?;
    chart.configure_mesh().disable_x_mesh().disable_x_axis().light_line_style(WHITE).draw()?;
    let width = 0.8 / bars.series.len() as f64;
    for (number, name) in bars.series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let values = bars.groups.iter().enumerate();
        let bar = |(place, (_, values)): (usize, &(String, Vec<Option<f64>>))| {
            let left = place as f64 + 0.1 + width * number as f64;
            Rectangle::new([(left, 0.0), (left + width * 0.92, values[number].unwrap_or(0.0))], colour.filled())
        };
        chart
            .draw_series(values.map(bar))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
    }
    let style = ("sans-serif", 12).into_text_style(&root).pos(Pos::new(HPos::Center, VPos::Top));
    for (place, (name, _)) in bars.groups.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(place as f64 + 0.5, 0.0));
        // Two lines: a direction and a size are too long for their place side by side.
        for (line, word) in name.rsplitn(2, ' ').collect::<Vec<_>>().into_iter().rev().enumerate() {
            root.draw(&Text::new(word.to_owned(), (x, y + 4 + 14 * line as i32), style.clone()))?;
        }
    }
    legend(&mut chart)?;
    root.present()?;
    Ok(())
}

fn draw_lines(path: &Path, caption: &str, [x_axis, y_axis]: [&str; 2], lines: &[Line]) -> Outcome {
    let root = canvas(path)?;
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points().map(|point| point.1).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(54)
        .build_cartesian_2d((1.0..right * 1.2).log_scale(), 0.0..top * 1.1)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc(x_axis).y_desc(y_axis).draw()?;
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)).point_size(3))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
    }
    legend(&mut chart)?;
    root.present()?;
    Ok(())
}

fn legend<'a, X, Y>(chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>) -> Outcome
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.8)).draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_picture_whose_figures_are_there_is_drawn_and_names_what_it_shows() {
        let row = |scenario: &str, peer: &str, size: &str, flows, ns| {
            Row::new(scenario, peer, ns, 0.0).size(size, 64.0).flows(flows, Some(USUAL_BURST))
        };
        let rows = vec![
            row("decrypt", "jetway", "64", 1, 100.0),
            row("decrypt", "boringtun", "64", 1, 200.0),
            row("decrypt", "jetway", "64", 1_000, 150.0),
            row("throughput encrypt NDR", "jetway", "64", 1, 900.0),
            row("throughput encrypt PDR", "jetway", "64", 1, 800.0),
        ];
        let folder = tempfile::tempdir().unwrap();
        let results = Results { cpu: "a CPU".into(), rows, ..Results::default() };
        let files = draw(&results, folder.path(), "x").unwrap();
        let text = |number: usize| std::fs::read_to_string(&files[number]).unwrap();
        assert_eq!(files.len(), 3);
        assert!(text(0).contains("boringtun") && text(0).contains("a CPU"));
        assert!(text(1).contains("decrypt 64 B"));
        assert!(text(2).contains("NDR"));
        assert!(draw(&Results::default(), folder.path(), "none").unwrap().is_empty());
    }
}
