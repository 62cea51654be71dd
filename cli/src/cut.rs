//! `xenoscope cut`: a part of a recording.

use std::{path::PathBuf, process::ExitCode};

use analysis::Visible;
use anyhow::{bail, ensure};
use profile::{
    Domain, Time,
    recording::{Copier, End, EndReason, Note, Recorded, Recording, Selection, Writer},
};

use crate::{DEFAULT_RECORDING, output::Output};

/// Cut a part out of a recording: a stretch of time, a phase that was marked, some of its domains
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope cut --from 10 --to 20 -o part.xsr         from the tenth second to the twentieth
  xenoscope cut --mark warm-up -o part.xsr            the phase of that name, up to the next mark
  xenoscope cut --domain web -o web.xsr               one domain's samples

How many samples were lost in a part is not known: what the whole recording lost is noted in it.")]
pub(crate) struct Args {
    /// The recording
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    input: PathBuf,

    /// Where the part goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Seconds since the recording began
    #[arg(long, value_name = "S")]
    from: Option<f64>,

    /// See --from
    #[arg(long, value_name = "S")]
    to: Option<f64>,

    /// The phases that marks of this name begin; may be given more than once
    #[arg(long = "mark", value_name = "NAME", conflicts_with_all = ["from", "to"])]
    marks: Vec<String>,

    /// The samples of this domain; may be given more than once
    #[arg(short, long = "domain", value_name = "NAME|ID")]
    domains: Vec<String>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Marks and domains may come late in the file, so it is read twice.
    let known = Recording::open(&args.input)?.for_all_samples(|_, _| ())?;
    let stretches = stretches(&args, &known)?;
    for wanted in &args.domains {
        let there = known.tables.domains().any(|domain| domain.is_called(wanted));
        ensure!(there, "no domain {wanted:?} in this recording");
    }
    let wanted = |domain: &Domain| args.domains.iter().any(|wanted| domain.is_called(wanted));
    let selection = Selection {
        stretches: &stretches,
        domains: (!args.domains.is_empty()).then_some(&wanted),
        ..Selection::default()
    };
    let mut header = known.header.clone();
    if let (Some(first), Some(last)) = (stretches.first(), stretches.last()) {
        ensure!(first.0 < last.1, "there is nothing between {:?} and {:?} s", args.from, args.to);
        header.started_unix_ns += first.0.0 - header.started.0;
        header.started = first.0;
    }
    let end = stretches.last().map_or(known.until, |last| last.1);
    let mut copier = Copier::new(Writer::new(Output::open(&args.output)?, &header)?);
    copier.note(Note { time: header.started, text: whole_loss(&known) });
    copier.copy(Recording::open(&args.input)?, &selection, 0)?;
    copier.finish(End { time: end, reason: EndReason::Duration })?;
    Ok(ExitCode::SUCCESS)
}

/// The stretches of time that are wanted; none for all of it.
fn stretches(args: &Args, known: &Recorded) -> anyhow::Result<Vec<(Time, Time)>> {
    let (started, until) = (known.header.started, known.until);
    if args.marks.is_empty() {
        let after = |seconds: f64| Time(started.0 + (seconds.max(0.0) * 1e9) as u64).min(until);
        return Ok(match (args.from, args.to) {
            (None, None) => Vec::new(),
            (from, to) => vec![(from.map_or(started, after), to.map_or(until, after))],
        });
    }
    let names: Vec<&str> = known.marks.iter().map(|mark| mark.name.as_str()).collect();
    for wanted in &args.marks {
        if !names.contains(&wanted.as_str()) {
            bail!("no mark {wanted:?} in this recording; there are: {}", Visible(&names.join(", ")));
        }
    }
    let ends = known.marks.iter().skip(1).map(|mark| mark.time).chain([until]);
    let phases = known.marks.iter().zip(ends).filter(|(mark, _)| args.marks.contains(&mark.name));
    Ok(phases.map(|(mark, end)| (mark.time, end)).collect())
}

/// What is known of the losses of the whole, in a sentence.
fn whole_loss(known: &Recorded) -> String {
    let Some(snapshot) = &known.snapshot else {
        return "cut out of a recording whose books are not known".to_owned();
    };
    let sum = |count: fn(&profile::CpuAccount) -> u64| {
        snapshot.cpus.iter().map(|(_, account)| count(account)).fold(0, u64::saturating_add)
    };
    format!(
        "cut out of a recording that lost {} of {} samples",
        sum(profile::CpuAccount::lost_total),
        sum(|account| account.taken)
    )
}
