//! `xenoscope report`: a recording as text or JSON.

pub(crate) mod table;
mod text;

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use analysis::{Aggregate, Report};
use anyhow::Context;
use profile::recording::Recording;

use crate::DEFAULT_RECORDING;

/// Say where the machine's time went
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope report                             domains, and the hottest functions of all
  xenoscope report --domain web --limit 50     more of one domain
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

    /// How many functions the text shows
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut report = Aggregate::of(Recording::open(&args.input)?)?.report();
    if let Some(wanted) = &args.domain {
        for event in &mut report.events {
            let row = event.find_domain(wanted)?;
            event.domains = vec![event.domains.swap_remove(row)];
        }
    }
    match print(&report, &args) {
        // Whoever reads this has seen enough: `xenoscope report | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result.context("could not write the report")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &Report, args: &Args) -> io::Result<()> {
    let mut out = BufWriter::new(anstream::stdout().lock());
    if args.json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
    } else {
        text::write(&mut out, report, args.domain.is_some(), args.limit)?;
    }
    out.flush()
}
