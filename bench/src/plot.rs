//! Draws the medians of CPU time as horizontal bars, one group for each row, in plain SVG.

use std::fmt::Write as _;

use crate::report::{Figures, Report};

/// One colour for each runtime, in the order of the report; they repeat after the last.
const COLOURS: &[&str] = &[
    "#9aa0a6", "#1a7f5a", "#3b6fb6", "#c2703d", "#8a4fa3", "#b3a125",
];

const WIDTH: usize = 760;
const LABELS: usize = 170;
const BAR: usize = 14;
const GAP: usize = 12;
const TOP: usize = 30;

/// The plot; each group has its own scale, as a `state` would vanish beside 100 runs.
pub fn svg(report: &Report) -> String {
    let figures: Vec<Figures> = report
        .figures()
        .into_iter()
        .filter(|f| f.cpu_usec.median > 0.0)
        .collect();
    let groups: Vec<&[Figures]> = figures.chunk_by(|a, b| a.row == b.row).collect();
    let height = TOP + groups.iter().map(|g| g.len() * BAR + GAP).sum::<usize>();
    let mut names: Vec<&str> = Vec::new();
    for f in &figures {
        if !names.contains(&f.runtime.as_str()) {
            names.push(&f.runtime);
        }
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <text x=\"4\" y=\"16\" font-size=\"13\">CPU time, median, milliseconds (shorter is better; \
         each group has its own scale)</text>\n"
    );
    let mut y = TOP;
    for group in groups {
        draw_group(&mut out, group, &names, y);
        y += group.len() * BAR + GAP;
    }
    out.push_str("</svg>\n");
    out
}

fn draw_group(out: &mut String, group: &[Figures], names: &[&str], top: usize) {
    let longest = group
        .iter()
        .map(|f| f.cpu_usec.median)
        .fold(f64::MIN_POSITIVE, f64::max);
    let room = (WIDTH - LABELS - 140) as f64;
    for (i, f) in group.iter().enumerate() {
        let y = top + i * BAR;
        let length = (f.cpu_usec.median / longest * room).max(1.0);
        let colour = names.iter().position(|n| *n == f.runtime).unwrap_or(0) % COLOURS.len();
        let label = if i == 0 { f.row.as_str() } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "<text x=\"4\" y=\"{base}\">{label}</text>\
             <rect x=\"{LABELS}\" y=\"{y}\" width=\"{length:.1}\" height=\"{thick}\" fill=\"{fill}\"/>\
             <text x=\"{after:.1}\" y=\"{base}\">{name} {ms:.2}</text>",
            base = y + BAR - 4,
            thick = BAR - 2,
            fill = COLOURS[colour],
            after = LABELS as f64 + length + 4.0,
            name = f.runtime,
            ms = f.cpu_usec.median / 1000.0,
        );
    }
}
