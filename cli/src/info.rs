//! `xenoscope info`: what a recording is, without what it says.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use analysis::Visible;
use anyhow::Context;
use profile::{
    DomainId, Time,
    recording::{Completeness, EndReason, Recorded, Recording},
};
use serde_json::json;

use crate::DEFAULT_RECORDING;

/// Say how a recording was made, what is in it, and whether it is whole
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope info -i web.xsr
  xenoscope info -i web.xsr --json | jq -r '.marks[].name'

Exits with 0 if all of the file could be read, and with 1 if it is cut or damaged.")]
pub(crate) struct Args {
    /// The recording
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    input: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is counted.
#[derive(Default)]
struct Counts {
    samples: u64,
    by_domain: BTreeMap<Option<DomainId>, u64>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let recording = Recording::open(&args.input)?;
    let bytes = fs::metadata(&args.input).map(|metadata| metadata.len()).unwrap_or(0);
    let mut counts = Counts::default();
    let recorded = recording.for_all_samples(|samples, tables| {
        counts.samples += samples.len() as u64;
        for &place in samples.places() {
            *counts.by_domain.entry(tables.place(place).charged_to).or_default() += 1;
        }
    })?;
    let whole = matches!(recorded.completeness, Completeness::Whole(_));
    let mut out = anstream::stdout().lock();
    let result = match args.json {
        true => writeln!(out, "{:#}", describe(&recorded, &counts, bytes)),
        false => write_text(&mut out, &recorded, &counts, bytes),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("could not write what was found")
        }
        _ => Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    }
}

fn write_text(out: &mut impl Write, recorded: &Recorded, counts: &Counts, bytes: u64) -> io::Result<()> {
    let (header, host) = (&recorded.header, &recorded.header.host);
    let seconds = |time: Time| time.0.saturating_sub(header.started.0) as f64 / 1e9;
    let mut field = |label: &str, text: &str| writeln!(out, "{label:<10}{}", Visible(text));
    field("Made by", &header.tool)?;
    field(
        "Host",
        &format!("{}: {}, kernel {}, {} CPUs", host.hostname, host.hypervisor, host.kernel, host.cpus),
    )?;
    field("Began", &format!("{} (UTC)", utc(header.started_unix_ns)))?;
    field("Duration", &format!("{:.3} s", seconds(recorded.until)))?;
    field("State", &state(recorded))?;
    if let Some(command) = &header.command {
        field("Command", &command.join(" "))?;
    }
    for event in &header.events {
        field("Event", &format!("{} ({}), source {}", event.name, event.unit, event.source.as_str()))?;
    }
    for (option, value) in &header.options {
        field("Option", &format!("{option} = {value}"))?;
    }
    let a_sample = if counts.samples == 0 { 0.0 } else { bytes as f64 / counts.samples as f64 };
    field("Samples", &format!("{}, {bytes} bytes in all, {a_sample:.1} bytes a sample", counts.samples))?;
    if recorded.kept_stacks > 0 {
        let secret = "the content of stacks is in this file, whatever secrets lay there";
        field("Stacks", &format!("{} kept: {secret}", recorded.kept_stacks))?;
    }
    let tables = &recorded.tables;
    field("Places", &format!("{} on {} lanes", tables.places().len(), tables.lanes().len()))?;
    for domain in tables.domains() {
        let samples = counts.by_domain.get(&Some(domain.id)).copied().unwrap_or(0);
        field("Domain", &format!("{} ({}, {}): {samples} samples", domain.name, domain.kind, domain.number))?;
    }
    for moved in recorded.tables.moves() {
        let domain = recorded.tables.domain(moved.to);
        let (left, away_s) = (seconds(moved.left), moved.away_ns() as f64 / 1e9);
        let text = format!(
            "{left:.3} s {} was moved from {} to {}: it ran nowhere for {away_s:.2} s",
            domain.name, moved.from_number, domain.number
        );
        field("Move", &text)?;
    }
    for mark in &recorded.marks {
        field("Mark", &format!("{:.3} s {}", seconds(mark.time), mark.name))?;
    }
    for note in &recorded.notes {
        field("Note", &format!("{:.3} s {}", seconds(note.time), note.text))?;
    }
    Ok(())
}

fn state(recorded: &Recorded) -> String {
    match &recorded.completeness {
        Completeness::Whole(end) => match &end.reason {
            EndReason::Duration => "whole: its time was over".to_owned(),
            EndReason::CommandEnded(status) => format!("whole: its command ended with status {status}"),
            EndReason::Interrupted => "whole: stopped by its user".to_owned(),
            EndReason::HostError(error) => format!("whole, but ended early: {error}"),
            EndReason::Continued => "whole: it goes on in the next file".to_owned(),
            EndReason::Full => "whole: it is as large as it may be".to_owned(),
        },
        Completeness::Torn { at_byte } => format!("not finished: read up to byte {at_byte}"),
        Completeness::Damaged { at_byte, damage } => format!("damaged ({damage}): read up to byte {at_byte}"),
    }
}

fn describe(recorded: &Recorded, counts: &Counts, bytes: u64) -> serde_json::Value {
    let (header, host) = (&recorded.header, &recorded.header.host);
    let seconds = |time: Time| time.0.saturating_sub(header.started.0) as f64 / 1e9;
    let domain = |domain: &profile::Domain| {
        json!({
            "id": domain.number,
            "name": domain.name,
            "uuid": domain.uuid.map(|uuid| uuid.to_string()),
            "kind": domain.kind,
            "samples": counts.by_domain.get(&Some(domain.id)).copied().unwrap_or(0),
        })
    };
    json!({
        "schema": 1,
        "tool": header.tool,
        "host": {
            "hypervisor": host.hypervisor, "build_id": host.build_id, "kernel": host.kernel,
            "hostname": host.hostname, "cpus": host.cpus,
        },
        "started_unix_ns": header.started_unix_ns,
        "duration_s": seconds(recorded.until),
        "whole": matches!(recorded.completeness, Completeness::Whole(_)),
        "state": state(recorded),
        "command": header.command,
        "options": header.options,
        "events": header.events.iter().map(|event| json!({
            "name": event.name, "unit": event.unit, "source": event.source, "rate_hz": event.rate_hz,
        })).collect::<Vec<_>>(),
        "samples": counts.samples,
        "kept_stacks": recorded.kept_stacks,
        "bytes": bytes,
        "domains": recorded.tables.domains().map(domain).collect::<Vec<_>>(),
        "moves": recorded.tables.moves().map(|moved| json!({
            "from": moved.from_number, "to": recorded.tables.domain(moved.to).number,
            "left_s": seconds(moved.left), "away_s": moved.away_ns() as f64 / 1e9,
        })).collect::<Vec<_>>(),
        "marks": recorded.marks.iter().map(|mark| json!({
            "at_s": seconds(mark.time), "name": mark.name,
        })).collect::<Vec<_>>(),
        "notes": recorded.notes.iter().map(|note| json!({
            "at_s": seconds(note.time), "text": note.text,
        })).collect::<Vec<_>>(),
    })
}

/// A moment in the proleptic Gregorian calendar (Howard Hinnant's `civil_from_days`).
fn utc(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399 * 1_000_000_000), "2000-02-28 23:59:59");
        assert_eq!(utc(1_709_164_800 * 1_000_000_000), "2024-02-29 00:00:00");
    }
}
