//! `xenoscope flamegraph`: a recording as pictures.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use ::flamegraph::{Pictures, file_names};
use analysis::Aggregate;
use anyhow::Context;
use profile::{EventId, recording::Recording};

use crate::DEFAULT_RECORDING;

/// Draw a recording as flame graphs (SVG)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope flamegraph -o machine.svg                  the whole machine, domains at the roots
  xenoscope flamegraph --domain web -o web.svg         one domain
  xenoscope flamegraph --per-domain --output-dir svg   a file for each domain that ran")]
pub(crate) struct Args {
    /// The recording
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    input: PathBuf,

    /// The picture; `-` is standard output
    #[arg(short, long, value_name = "FILE.svg", default_value = "xenoscope.svg")]
    output: PathBuf,

    /// Draw this event, where there are several; the first one otherwise
    #[arg(short, long, value_name = "NAME")]
    event: Option<String>,

    /// Draw this domain only
    #[arg(short, long, value_name = "NAME|ID")]
    domain: Option<String>,

    /// Draw each domain into a file of its own
    #[arg(long, conflicts_with_all = ["domain", "output"])]
    per_domain: bool,

    /// The folder for those files
    #[arg(long, value_name = "DIR", default_value = ".", requires = "per_domain")]
    output_dir: PathBuf,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let aggregate = Aggregate::of(Recording::open(&args.input)?)?;
    let report = aggregate.report();
    let wanted = |name: &str| {
        let known = || report.events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>().join(", ");
        let place = report.events.iter().position(|event| event.name == name);
        place.with_context(|| format!("the recording has no event {name}; it has {}", known()))
    };
    let place = args.event.as_deref().map_or(Ok(0), wanted)?;
    let event = report.events.get(place).context("the recording has no events")?;
    let pictures = Pictures::new(&report, event, aggregate.stacks(EventId(place as u16)));
    if args.per_domain {
        fs::create_dir_all(&args.output_dir)
            .with_context(|| format!("could not create {}", args.output_dir.display()))?;
        let files = file_names(&event.domains);
        let ran = (0..).zip(&event.domains).zip(files).filter(|((_, domain), _)| domain.weight > 0);
        for ((index, _), file) in ran {
            write(&args.output_dir.join(file), &pictures.domain(index)?)?;
        }
    } else {
        let svg = match &args.domain {
            Some(wanted) => pictures.domain(event.find_domain(wanted)?)?,
            None => pictures.machine()?,
        };
        write(&args.output, &svg)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, svg: &[u8]) -> anyhow::Result<()> {
    if path.as_os_str() == "-" {
        return match io::stdout().write_all(svg) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("could not write the picture")
            }
            _ => Ok(()),
        };
    }
    fs::write(path, svg).with_context(|| format!("could not write {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
