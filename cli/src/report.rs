//! `xenoscope report`: a recording as text or JSON.

mod breakdown;
mod call_tree;
pub(crate) mod table;
mod text;

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use analysis::{Aggregate, Key, Report, Visible};
use anyhow::Context;
use profile::{EventId, recording::Recording};

use crate::DEFAULT_RECORDING;

/// Say where the machine's time went
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope report                             domains, and the hottest functions of all
  xenoscope report --domain web --limit 50     more of one domain
  xenoscope report --call-tree --domain web    what calls what in it
  xenoscope report --callers copy_page_to_iter who calls a function, and how much of it is whose
  xenoscope report --sort domain,process,function
                                               what each domain's processes were at
  xenoscope report --json | jq '.events[0].domains[] | {name, share}'")]
pub(crate) struct Args {
    /// The recording
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    input: PathBuf,

    /// Print everything as JSON (schema 1)
    #[arg(long)]
    json: bool,

    /// Report on this domain only
    #[arg(short, long, value_name = "NAME|ID")]
    domain: Option<String>,

    /// Print what calls what, from each domain's processes inwards (record with -g)
    #[arg(long, conflicts_with = "json")]
    call_tree: bool,

    /// Print what calls this function, from itself outwards (record with -g)
    #[arg(long, value_name = "FUNCTION", conflicts_with_all = ["json", "call_tree"])]
    callers: Option<String>,

    /// Leave branches out that have less of their domain
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5)]
    min_percent: f64,

    /// Break the time down by these, one within the other: domain, process, comm, container, mode, module, function
    #[arg(long, value_name = "KEY,…", value_delimiter = ',', conflicts_with_all = ["call_tree", "callers"])]
    sort: Vec<Key>,

    /// How many functions the text shows; with --sort, how many rows of each part
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    limit: usize,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let aggregate = Aggregate::of(Recording::open(&args.input)?)?;
    let mut report = aggregate.report();
    if args.call_tree || args.callers.is_some() {
        return finish(print_trees(&aggregate, &report, &args)?);
    }
    if let Some(wanted) = &args.domain {
        for event in &mut report.events {
            let row = event.find_domain(wanted)?;
            event.domains = vec![event.domains.swap_remove(row)];
        }
    }
    if !args.sort.is_empty() {
        return finish(print_breakdown(&aggregate, &report, &args));
    }
    finish(print(&report, args.json, args.domain.is_some(), args.limit))
}

fn print_breakdown(aggregate: &Aggregate, report: &Report, args: &Args) -> io::Result<()> {
    let mut out = BufWriter::new(anstream::stdout().lock());
    // What is left of the events' domains is the one that was asked for.
    let domains = report.events.first().map_or(&[][..], |event| &event.domains);
    let domain = args.domain.as_ref().and_then(|_| Some(domains.first()?.name.as_str()));
    if args.json {
        writeln!(out, "{}", breakdown::json(aggregate, report, &args.sort, domain))?;
    } else {
        breakdown::write(&mut out, (aggregate, report), &args.sort, domain, args.limit)?;
    }
    out.flush()
}

/// The exit code of what was printed.
pub(crate) fn finish(printed: io::Result<()>) -> anyhow::Result<ExitCode> {
    match printed {
        // Whoever reads this has seen enough: `xenoscope report | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result.context("could not write the report")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints call trees of the domains that are wanted; fails if a function is asked for that none of them has.
fn print_trees(aggregate: &Aggregate, report: &Report, args: &Args) -> anyhow::Result<io::Result<()>> {
    let mut out = BufWriter::new(anstream::stdout().lock());
    let mut found = false;
    for (id, event) in (0..).map(EventId).zip(&report.events) {
        let rows = match &args.domain {
            Some(wanted) => vec![event.find_domain(wanted)?],
            None => (0..event.domains.len()).collect(),
        };
        for row in rows {
            let tree = match &args.callers {
                Some(function) => aggregate.callers(id, row, function),
                None => aggregate.call_tree(id, row),
            };
            if tree.root().total == 0 {
                continue;
            }
            found = true;
            let printed = call_tree::write(&mut out, event, &event.domains[row], &tree, args.min_percent);
            if printed.is_err() {
                return Ok(printed);
            }
        }
    }
    if let (Some(function), false) = (&args.callers, found) {
        anyhow::bail!("no sample has {} among its callers", Visible(function));
    }
    Ok(out.flush())
}

/// Prints a report, as text or JSON.
pub(crate) fn print(report: &Report, json: bool, one_domain: bool, limit: usize) -> io::Result<()> {
    let mut out = BufWriter::new(anstream::stdout().lock());
    if json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
    } else {
        text::write(&mut out, report, one_domain, limit)?;
    }
    out.flush()
}

/// How many functions the text shows, unless the user says otherwise.
pub(crate) const LIMIT: usize = 20;
