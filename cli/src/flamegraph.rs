//! `xenoscope flamegraph`: a recording as pictures.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use ::flamegraph::{Pictures, file_names, html};
use analysis::Aggregate;
use anyhow::Context;
use profile::{EventId, recording::Recording};

use crate::{DEFAULT_RECORDING, export::find_event};

/// Draw a recording as flame graphs: SVG, or one HTML file to search and filter
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope flamegraph -o machine.svg                  the whole machine, domains at the roots
  xenoscope flamegraph -o machine.html                 the same to search, zoom and filter, offline
  xenoscope flamegraph --baseline before.xsr -i after.xsr -o diff.html
                                                       what changed: red grew, blue shrank
  xenoscope flamegraph --domain web -o web.svg         one domain
  xenoscope flamegraph --per-domain --output-dir svg   a file for each domain that ran")]
pub(crate) struct Args {
    /// The recording
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    input: PathBuf,

    /// The picture; `-` is standard output. Of what ends in .html, all domains are drawn
    #[arg(short, long, value_name = "FILE.svg|FILE.html", default_value = "xenoscope.svg")]
    output: PathBuf,

    /// Draw this event, where there are several; the first one otherwise
    #[arg(short, long, value_name = "NAME")]
    event: Option<String>,

    /// Draw this domain only
    #[arg(short, long, value_name = "NAME|ID")]
    domain: Option<String>,

    /// Draw what changed since this recording
    #[arg(long, value_name = "FILE", conflicts_with_all = ["domain", "per_domain"])]
    baseline: Option<PathBuf>,

    /// Draw each domain into a file of its own
    #[arg(long, conflicts_with_all = ["domain", "output"])]
    per_domain: bool,

    /// The folder for those files
    #[arg(long, value_name = "DIR", default_value = ".", requires = "per_domain")]
    output_dir: PathBuf,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (aggregate, id) = read(&args.input, args.event.as_deref())?;
    let report = aggregate.report();
    let event = report.events.get(usize::from(id.0)).context("the recording has no events")?;
    let baseline = args.baseline.as_ref().map(|file| read(file, args.event.as_deref())).transpose()?;
    let before = baseline.as_ref().map(|(aggregate, id)| (aggregate, aggregate.report(), *id));
    let before = match &before {
        Some((aggregate, report, id)) => {
            let event = report.events.get(usize::from(id.0)).context("the baseline has no events")?;
            Some((report, event, aggregate.stacks(*id)))
        }
        None => None,
    };
    if args.output.extension().is_some_and(|extension| extension == "html") {
        let page = match before {
            Some((_, base, mut stacks)) => {
                html(&report, event, aggregate.stacks(id), Some((base, &mut stacks)))?
            }
            None => html(&report, event, aggregate.stacks(id), None)?,
        };
        write(&args.output, page.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let pictures = Pictures::new(&report, event, aggregate.stacks(id));
    if let Some((report, base, stacks)) = before {
        let before = Pictures::new(report, base, stacks);
        write(&args.output, &pictures.difference(&before)?)?;
        return Ok(ExitCode::SUCCESS);
    }
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

fn read(file: &Path, event: Option<&str>) -> anyhow::Result<(Aggregate, EventId)> {
    let recording = Recording::open(file)?;
    let event = find_event(&recording, event)?;
    Ok((Aggregate::of(recording)?, event))
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
