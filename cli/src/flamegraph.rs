//! `xenoscope flamegraph`: a recording as pictures.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use ::flamegraph::{Pictures, file_names, html};
use analysis::{Aggregate, EventReport, Report, Stack};
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
  xenoscope flamegraph --exits -o exits.html           what VM exits cost, by function and reason
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

    /// Draw what VM exits cost, in a recording made with --exits: the time until the guest was entered again, by the function
    /// that was left and the reason. Those in which the guest had nothing to do are left out
    #[arg(long, conflicts_with_all = ["event", "baseline"])]
    exits: bool,

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
    if args.exits {
        let event = report.exits().context(
            "the recording has no VM exits: they are recorded with `xenoscope record --exits`, and those in which guests \
             had nothing to do are not drawn",
        )?;
        return draw(&args, &report, &event, aggregate.exit_stacks());
    }
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
    let Some((base_report, base, mut base_stacks)) = before else {
        return draw(&args, &report, event, aggregate.stacks(id));
    };
    if is_page(&args.output) {
        let page = html(&report, event, aggregate.stacks(id), Some((base, &mut base_stacks)))?;
        write(&args.output, page.as_bytes())?;
    } else {
        let before = Pictures::new(base_report, base, base_stacks);
        let after = Pictures::new(&report, event, aggregate.stacks(id));
        write(&args.output, &after.difference(&before)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn is_page(output: &Path) -> bool {
    output.extension().is_some_and(|extension| extension == "html")
}

/// Draws an event's stacks, without a baseline.
fn draw(
    args: &Args,
    report: &Report,
    event: &EventReport,
    stacks: impl Iterator<Item = Stack>,
) -> anyhow::Result<ExitCode> {
    if is_page(&args.output) {
        write(&args.output, html(report, event, stacks, None)?.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let pictures = Pictures::new(report, event, stacks);
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
