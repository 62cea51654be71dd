//! `xenoscope export`: a recording for other tools.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use analysis::Aggregate;
use anyhow::Context;
use formats::{Processes, Stretch};
use profile::{EventId, recording::Recording};

use crate::DEFAULT_RECORDING;

/// Write a recording for another tool
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope export --to pprof -o web.pb.gz            then: go tool pprof -http : web.pb.gz
  xenoscope export --to firefox -o profile.json.gz    then: load it at profiler.firefox.com
  xenoscope export --to parquet -o samples.parquet    then: duckdb -c \"from 'samples.parquet' …\"
  xenoscope export --to folded -o - | flamegraph.pl > web.svg")]
pub(crate) struct Args {
    /// The recording
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    input: PathBuf,

    /// The format
    #[arg(long, value_name = "FORMAT")]
    to: Format,

    /// Where it goes; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Export this event, where there are several; the first one otherwise (csv, parquet and script have all)
    #[arg(short, long, value_name = "NAME")]
    event: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// Stacks with weights, one a line
    Folded,
    /// For go tool pprof, Grafana Pyroscope, Parca (.pb.gz)
    Pprof,
    /// For Firefox Profiler (.json.gz)
    Firefox,
    /// For speedscope (.json)
    Speedscope,
    /// As perf script writes it
    Script,
    /// A line for each sample
    Csv,
    /// A row for each sample, packed
    Parquet,
    /// Registers and stacks as they were copied, where `record --keep-stacks` has kept them: a line of JSON for each sample
    Stacks,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let recording = Recording::open(&args.input)?;
    let event = find_event(&recording, args.event.as_deref())?;
    let mut out = open(&args.output)?;
    let result = match args.to {
        Format::Folded => formats::write_folded(&Aggregate::of(recording)?, event, &mut out),
        Format::Pprof => {
            let aggregate = Aggregate::of(recording)?;
            formats::write_pprof(&Stretch::of(&aggregate, event), Processes::Label, &mut out)
        }
        Format::Speedscope => formats::write_speedscope(&Aggregate::of(recording)?, event, &mut out),
        Format::Firefox => formats::write_firefox(recording, event, &mut out),
        Format::Script => formats::write_script(recording, &mut out),
        Format::Csv => formats::write_csv(recording, &mut out),
        Format::Parquet => formats::write_parquet(recording, &mut out),
        Format::Stacks => formats::write_stacks(recording, &mut out),
    };
    match result.and_then(|()| Ok(out.flush()?)) {
        // Whoever reads this has seen enough.
        Err(formats::ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result.with_context(|| format!("{}", args.output.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The number of an event of a recording, by name; without one, of the first.
pub(crate) fn find_event<R: io::Read>(
    recording: &Recording<R>,
    wanted: Option<&str>,
) -> anyhow::Result<EventId> {
    let events = &recording.header().events;
    let Some(wanted) = wanted else { return Ok(EventId(0)) };
    let place = events.iter().position(|event| event.name == wanted).with_context(|| {
        let known = events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>().join(", ");
        format!("the recording has no event {wanted}; it has {known}")
    })?;
    Ok(EventId(place as u16))
}

fn open(path: &Path) -> anyhow::Result<Box<dyn Write + Send>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufWriter::new(io::stdout())));
    }
    let file = File::create(path).with_context(|| format!("{} can't be written", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}
