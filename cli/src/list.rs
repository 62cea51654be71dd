//! `xenoscope list`: the events that can be sampled here.

use std::{io::Write, process::ExitCode};

use anstyle::AnsiColor;
use serde_json::json;

/// List the events that can be sampled here
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  xenoscope list            each event with this processor's code for it; what it lacks is marked

Events are given to `xenoscope record -e`. Counters are tried out when a recording begins: where they do not prove
themselves, time is sampled instead of cycles, and the recording says so.

Not sampled but counted, beside whatever is: `record --times`, what each vCPU did with its time, and `record --exits`, why vCPUs
left their guests, what that cost, and which functions caused it.")]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let events = hv_shim::detect()?.events()?;
    let mut out = anstream::stdout().lock();
    if args.json {
        let rows: Vec<_> = events
            .iter()
            .map(|(event, code)| json!({ "name": event.name(), "unit": event.unit(), "code": code }))
            .collect();
        writeln!(out, "{:#}", json!({ "schema": 1, "events": rows }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let faint = AnsiColor::BrightBlack.on_default();
    for (event, code) in &events {
        let name = event.name().unwrap_or_default();
        match code {
            Some(code) => writeln!(out, "{name:<26} {code:<14} {}", event.unit())?,
            None => writeln!(out, "{faint}{name:<26} not on this host{faint:#}")?,
        }
    }
    writeln!(out, "{:<26} {:<14} a code of the processor's own", "cpu/event=0xNN,umask=0xNN/", "rNNNN")?;
    Ok(ExitCode::SUCCESS)
}
