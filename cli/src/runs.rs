//! The recordings of two sides, read.

use std::path::PathBuf;

use analysis::{
    Aggregate,
    compare::{Aliases, Run},
};
use anyhow::Context;
use profile::recording::Recording;

/// Reads recordings as runs.
pub(crate) fn read(files: &[PathBuf], event: Option<&str>, aliases: &Aliases) -> anyhow::Result<Vec<Run>> {
    let read = |file: &PathBuf| {
        let label = file.display().to_string();
        let aggregate = Aggregate::of(Recording::open(file)?)?;
        let run = Run::of(&aggregate, event, aliases, &label);
        run.with_context(|| match event {
            Some(event) => format!("{label} has no event {event}"),
            None => format!("{label} has no events"),
        })
    };
    files.iter().map(read).collect()
}

/// A number of a side, as it is printed: a share, or so much of a unit in a second or for a unit of work.
pub(crate) fn value(value: f64, measure: analysis::compare::Measure, unit: &str) -> String {
    use analysis::compare::Measure;
    match (measure, unit) {
        (Measure::Share, _) => format!("{:.2}%", value * 100.0),
        // Nanoseconds a second are CPUs.
        (Measure::Time, "ns") => format!("{:.4} CPUs", value / 1e9),
        (Measure::Time, unit) => format!("{value:.4e} {unit}/s"),
        (Measure::Work, unit) => format!("{value:.4e} {unit}"),
    }
}

/// A change as a percentage of what it changed from.
pub(crate) fn percentage(relative: f64) -> String {
    if relative.is_infinite() { "new".to_owned() } else { format!("{:+.1}%", relative * 100.0) }
}
