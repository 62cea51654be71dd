//! `xenoscope record`: samples the machine into a file.

mod command;

use std::{
    io,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use analysis::Visible;
use anyhow::Context;
use collector::{Progress, Summary};
use indicatif::ProgressBar;
use profile::{Domain, recording::EndReason};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use symbolizer::Symbolizer;

use self::command::Command;
use crate::{DEFAULT_RECORDING, images::Images, output::Output, sampling::Sampling};

/// Sample the whole machine into a recording: hypervisor, dom0 or host, and all guests
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope record --duration 30                      the whole machine, for 30 seconds
  xenoscope record -F 99 --domain web -o web.xsr      one domain, until Ctrl-C
  xenoscope record -e cache-misses:k,instructions -c 100000 --duration 10
                                                      by performance counters, every 100,000 events
  xenoscope record -g --duration 10                   with callers; -g stack,16K where stacks are deep
  xenoscope record -- xl create /etc/xen/web.cfg      for as long as a command runs
  xenoscope record --guest-kernel web=kallsyms.txt --guest-exe web=./server --duration 10
                                                      with names for one guest's kernel and program

Xen is sampled by a livepatch that is loaded for the recording and taken out at its end, or, where that can't be, from
outside (--source); KVM and plain Linux hosts by the kernel's perf events. Nothing is installed in any guest. With a
command, its exit status is passed on.")]
pub(crate) struct Args {
    #[command(flatten)]
    sampling: Sampling,

    /// Where the recording goes
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    output: PathBuf,

    /// End after this many seconds
    #[arg(long, value_name = "S", value_parser = seconds, conflicts_with = "command")]
    duration: Option<Duration>,

    /// Sample the whole machine or fail: without it, users who may not do that get a command's samples alone
    #[arg(short, long)]
    all_cpus: bool,

    /// Record for as long as this command runs
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("not a positive number of seconds".into()),
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let may_narrow = !args.all_cpus && !args.command.is_empty();
    let options = args.sampling.options(&args.command, may_narrow)?;
    let mut hypervisor = hv_shim::detect()?;
    // All that can be wrong with what the user gave, before the machine is touched.
    let images = args.sampling.images(&*hypervisor)?;
    let output = Output::open(&args.output)?;
    let mut session = Session {
        deadline: None,
        duration: args.duration,
        interrupted: interrupted()?,
        command: Command::new(&args.command),
        images,
        bar: ProgressBar::new_spinner(),
    };
    let result = collector::record(&mut *hypervisor, &options, output, &mut session);
    session.bar.finish_and_clear();
    session.command.end();
    let summary = result.context("recording failed")?;
    tell(&summary, &session.images, &args);
    // It may have been born at any moment until now: only now it is an error.
    if !summary.unmatched.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    Ok(match summary.reason {
        EndReason::CommandEnded(status) => ExitCode::from(status.clamp(0, 255) as u8),
        _ => ExitCode::SUCCESS,
    })
}

/// A flag that the usual signals set.
pub(crate) fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("signals can't be caught")?;
    }
    Ok(flag)
}

/// What ends the recording, and what is told meanwhile.
struct Session {
    duration: Option<Duration>,
    deadline: Option<Instant>,
    interrupted: Arc<AtomicBool>,
    command: Command,
    images: Images,
    bar: ProgressBar,
}

impl Progress for Session {
    fn started(&mut self) -> io::Result<()> {
        self.deadline = self.duration.map(|duration| Instant::now() + duration);
        self.bar.set_message("recording; Ctrl-C ends it");
        self.command.start()
    }

    fn should_end(&mut self) -> Option<EndReason> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Some(EndReason::Interrupted);
        }
        if let Some(status) = self.command.ended() {
            return Some(EndReason::CommandEnded(status));
        }
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline).then_some(EndReason::Duration)
    }

    fn so_far(&mut self, samples: u64, lost: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs();
        self.bar
            .set_message(format!("{seconds} s, {samples} samples, {lost} lost; Ctrl-C ends the recording"));
        self.bar.tick();
    }

    fn symbols(&mut self, domain: &Domain, symbolizer: &mut Symbolizer) -> Result<(), String> {
        self.images.give(domain, symbolizer).map_err(|error| format!("{error:#}"))
    }
}

fn tell(summary: &Summary, images: &Images, args: &Args) {
    let seconds = summary.elapsed.as_secs_f64();
    let file = args.output.display();
    eprintln!("xenoscope: {} samples in {seconds:.1} s, {} lost: {file}", summary.samples, summary.lost);
    tell_pause("in place", summary.load_pause);
    tell_pause("out", summary.unload_pause);
    let unused =
        images.unused().map(|name| format!("no domain was called {name}: its symbols were not used"));
    for note in summary.notes.iter().cloned().chain(unused) {
        eprintln!("xenoscope: note: {}", Visible(&note));
    }
}

/// Tells for how long the machine stood still at most when the shim was put somewhere, if it did.
pub(crate) fn tell_pause(what: &str, pause: Option<Duration>) {
    if let Some(pause) = pause {
        let milliseconds = pause.as_secs_f64() * 1e3;
        eprintln!("xenoscope: putting the shim {what} paused the machine for at most {milliseconds:.3} ms");
    }
}
