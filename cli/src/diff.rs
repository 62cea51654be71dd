//! `xenoscope diff`: what changed between two sets of recordings.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use analysis::{
    Visible,
    compare::{self, Aliases, Change, Comparing, Comparison, Measure, Run, check_alike},
};
use anyhow::Context;
use serde_json::json;

use crate::{
    report::table::{Align, Cell, Table},
    runs,
};

/// Say what changed between two recordings, or two sets of them, and what chance alone could have done
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope diff before.xsr after.xsr
  xenoscope diff --baseline before-*.xsr --candidate after-*.xsr
  xenoscope diff --by work --work 900,905,910,899,1000,1003 \\
      --baseline a-1.xsr a-2.xsr a-3.xsr --candidate b-1.xsr b-2.xsr b-3.xsr
                                                      CPU time for each of so many requests

The unit is the run: with one or two a side everything is told and nothing is certain; three a side are the fewest for
which a change can be (column P), and more show smaller ones. P is the chance that any subject changes as much by chance
alone, so that looking at hundreds costs nothing. Runs of the two sides should alternate: machines drift.")]
pub(crate) struct Args {
    /// A recording before, and one after
    #[arg(value_name = "BEFORE AFTER", num_args = 2, conflicts_with_all = ["baseline", "candidate"],
        required_unless_present = "baseline")]
    pair: Vec<PathBuf>,

    /// The recordings before
    #[arg(long, value_name = "RECORDING", num_args = 1.., requires = "candidate")]
    baseline: Vec<PathBuf>,

    /// The recordings after
    #[arg(long, value_name = "RECORDING", num_args = 1.., requires = "baseline")]
    candidate: Vec<PathBuf>,

    /// What weights are divided by
    #[arg(long, value_name = "MEASURE", default_value = "share")]
    by: By,

    /// What was done in each run, those before first (with --by work)
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', required_if_eq("by", "work"))]
    work: Vec<f64>,

    /// Compare this event, where there are several; the first one otherwise
    #[arg(short, long, value_name = "NAME")]
    event: Option<String>,

    /// Show this domain only
    #[arg(short, long, value_name = "NAME")]
    domain: Option<String>,

    /// Domains whose names match PATTERN (`*`, `?`) are compared as NAME; may be given more than once
    #[arg(long = "alias", value_name = "PATTERN=NAME", value_parser = alias)]
    aliases: Vec<(String, String)>,

    /// Leave out what has a smaller share of the busy weight, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.2)]
    min_share: f64,

    /// The chance of a false alarm that is taken, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = chance)]
    alpha: f64,

    /// Compare though the hosts are unlike
    #[arg(long)]
    unlike_hosts: bool,

    /// How many changes the text shows
    #[arg(long, value_name = "N", default_value_t = 30)]
    limit: usize,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What weights are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// The busy weight: shares
    Share,
    /// Seconds
    Time,
    /// A count of what was done in each run
    Work,
}

pub(crate) fn alias(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(pattern, name)| !pattern.is_empty() && !name.is_empty());
    let (pattern, name) = parts.ok_or("not of the form PATTERN=NAME")?;
    Ok((pattern.to_owned(), name.to_owned()))
}

fn chance(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.trim_end_matches('%').parse().ok();
    percent.filter(|p| *p > 0.0 && *p <= 50.0).ok_or_else(|| "not a percentage above 0, up to 50".into())
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let aliases: Aliases = args.aliases.clone();
    let (before, after) = match &args.pair[..] {
        [before, after] => (std::slice::from_ref(before), std::slice::from_ref(after)),
        _ => (&args.baseline[..], &args.candidate[..]),
    };
    let baseline = runs::read(before, args.event.as_deref(), &aliases)?;
    let candidate = runs::read(after, args.event.as_deref(), &aliases)?;
    let both: Vec<&Run> = baseline.iter().chain(&candidate).collect();
    let notes = check_alike(&both, args.unlike_hosts)?;
    let how = Comparing {
        measure: match args.by {
            By::Share => Measure::Share,
            By::Time => Measure::Time,
            By::Work => Measure::Work,
        },
        work: args.work.clone(),
        alpha: args.alpha / 100.0,
        min_share: args.min_share / 100.0,
    };
    let mut comparison = compare::compare(&baseline, &candidate, &how)?;
    if let Some(wanted) = &args.domain {
        comparison.changes.retain(|change| change.subject.domain() == wanted);
    }
    let mut out = io::BufWriter::new(anstream::stdout().lock());
    let result = match args.json {
        true => writeln!(out, "{:#}", describe(&comparison, &baseline, &candidate, &how, &notes)),
        false => write_text(&mut out, &comparison, &baseline, &candidate, &how, &notes, args.limit),
    };
    match result.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("could not write the comparison")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn write_text(
    out: &mut impl Write,
    comparison: &Comparison,
    baseline: &[Run],
    candidate: &[Run],
    how: &Comparing,
    notes: &[String],
    limit: usize,
) -> io::Result<()> {
    let count = |runs: &[Run]| runs.iter().map(|run| run.samples).sum::<u64>();
    writeln!(out, "Baseline   {} runs, {} samples", baseline.len(), count(baseline))?;
    writeln!(out, "Candidate  {} runs, {} samples", candidate.len(), count(candidate))?;
    for note in notes {
        writeln!(out, "Note       {}", Visible(note))?;
    }
    if comparison.smallest_p > how.alpha {
        writeln!(
            out,
            "Note       so few runs can't show that a change is more than chance: three a side are needed"
        )?;
    }
    let certain = comparison.changes.iter().filter(|change| change.p <= how.alpha).count();
    writeln!(
        out,
        "\n{certain} of {} subjects changed by more than chance (P at most {:.0} %); the largest changes",
        comparison.changes.len(),
        how.alpha * 100.0
    )?;
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("BEFORE", right),
        ("AFTER", right),
        ("CHANGE", right),
        ("BETWEEN", right),
        ("AND", right),
        ("P", right),
        ("SUBJECT", left),
    ]);
    let unit = baseline.first().map_or("", |run| &run.event.1);
    for change in comparison.changes.iter().take(limit) {
        let value = |number| Cell::new(runs::value(number, how.measure, unit));
        let style = match (change.p <= how.alpha, change.candidate > change.baseline) {
            (false, _) => anstyle::Style::new(),
            (true, true) => anstyle::AnsiColor::Red.on_default().bold(),
            (true, false) => anstyle::AnsiColor::Green.on_default().bold(),
        };
        let bound = |bound: f64| match bound.is_finite() && change.baseline > 0.0 {
            true => runs::percentage(bound / change.baseline),
            false => "-".to_owned(),
        };
        table.row([
            value(change.baseline),
            value(change.candidate),
            Cell::new(runs::percentage(change.relative())).styled(style),
            Cell::new(bound(change.interval.0)),
            Cell::new(bound(change.interval.1)),
            Cell::new(format!("{:.4}", change.p)),
            Cell::new(change.subject.to_string()),
        ]);
    }
    table.write(out)?;
    match comparison.changes.len().saturating_sub(limit) {
        0 => Ok(()),
        more => writeln!(out, "  … and {more} more (--limit)"),
    }
}

fn describe(
    comparison: &Comparison,
    baseline: &[Run],
    candidate: &[Run],
    how: &Comparing,
    notes: &[String],
) -> serde_json::Value {
    json!({
        "schema": 1,
        "measure": how.measure,
        "alpha": how.alpha,
        "smallest_p": comparison.smallest_p,
        "baseline": baseline.iter().map(side).collect::<Vec<_>>(),
        "candidate": candidate.iter().map(side).collect::<Vec<_>>(),
        "notes": notes,
        "changes": comparison.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

fn side(run: &Run) -> serde_json::Value {
    json!({ "recording": run.label, "samples": run.samples, "duration_s": run.seconds, "lost": run.lost })
}

/// A change as JSON; what is not finite is null.
pub(crate) fn change(change: &Change) -> serde_json::Value {
    use analysis::compare::Subject;
    let (kind, mode, module, name) = match &change.subject {
        Subject::Hypervisor => ("hypervisor", None, None, None),
        Subject::Domain { .. } => ("domain", None, None, None),
        Subject::Mode { mode, .. } => ("mode", Some(mode), None, None),
        Subject::Process { process, .. } => ("process", None, None, Some(process)),
        Subject::Function { mode, module, name, total: false, .. } => {
            ("function", Some(mode), module.as_ref(), Some(name))
        }
        Subject::Function { mode, module, name, total: true, .. } => {
            ("function-total", Some(mode), module.as_ref(), Some(name))
        }
    };
    json!({
        "kind": kind,
        "domain": change.subject.domain(),
        "mode": mode,
        "module": module,
        "name": name,
        "baseline": change.baseline,
        "candidate": change.candidate,
        "relative": change.relative(),
        "interval": [change.interval.0, change.interval.1],
        "p": change.p,
        "detectable": change.detectable,
    })
}
