//! `xenoscope merge`: several recordings of one host as one.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use profile::{
    Time,
    recording::{Completeness, Copier, End, EndReason, Header, Note, Recording, Selection, Writer},
};

use crate::output::Output;

/// Make one recording of several of the same host
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope merge -o day.xsr xenoscope-0*.xsr         the files of a recording with --rotate
  xenoscope merge -o runs.xsr run-1.xsr run-2.xsr     several runs

They must have been sampled on the same host, by the same events. Times are put in order by the wall clock; the time
between two recordings is part of the duration.")]
pub(crate) struct Args {
    /// Where the recording goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// The recordings
    #[arg(required = true, value_name = "RECORDING")]
    inputs: Vec<PathBuf>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let open = |path: &PathBuf| Ok((path.display().to_string(), Recording::open(path)?));
    let mut inputs = args.inputs.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    inputs.sort_by_key(|(_, recording)| recording.header().started_unix_ns);
    let header = inputs[0].1.header().clone();
    for (name, recording) in &inputs[1..] {
        check_alike(&header, recording.header())
            .with_context(|| format!("{name} does not go with {}", inputs[0].0))?;
    }
    let mut copier = Copier::new(Writer::new(Output::open(&args.output)?, &header)?);
    let mut end = End { time: header.started, reason: EndReason::Duration };
    for (name, recording) in inputs {
        let own = recording.header();
        let since = own.started_unix_ns.wrapping_sub(header.started_unix_ns);
        let shift = header.started.0.wrapping_add(since).wrapping_sub(own.started.0);
        let recorded = copier.copy(recording, &Selection::default(), shift)?;
        copier.add_books(&recorded, shift);
        end.time = end.time.max(Time(recorded.until.0.wrapping_add(shift)));
        match recorded.completeness {
            Completeness::Whole(own) => end.reason = own.reason,
            Completeness::Torn { at_byte } | Completeness::Damaged { at_byte, .. } => {
                let text = format!("{name} is not whole: it was merged up to byte {at_byte}");
                copier.note(Note { time: end.time, text });
            }
        }
    }
    copier.finish(end)?;
    Ok(ExitCode::SUCCESS)
}

fn check_alike(one: &Header, other: &Header) -> anyhow::Result<()> {
    if one.host.hostname != other.host.hostname {
        bail!("they are of different hosts: {} and {}", one.host.hostname, other.host.hostname);
    }
    let events = |header: &Header| {
        let of = |event: &profile::Event| format!("{} ({})", event.name, event.source.as_str());
        header.events.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    if events(one) != events(other) {
        bail!("they are of different events: {} and {}", events(one), events(other));
    }
    Ok(())
}
