//! `xenoscope record`: samples the machine into a file.

mod command;
mod server;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use analysis::Visible;
use anyhow::Context;
use collector::{CollectError, Progress, Summary};
use indicatif::ProgressBar;
use profile::{Domain, recording::EndReason};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use symbolizer::Symbolizer;

use self::{command::Command, server::Server};
use crate::{
    DEFAULT_RECORDING, control,
    images::Images,
    output::{Output, Place, numbered},
    sampling::{Sampling, bytes},
};

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
  xenoscope record --repeat 5 -o run.xsr -- make test     five runs, for `xenoscope diff` and `gate`
  xenoscope record --max-size 100M --rotate 10        without end, in at most ten files of 100 MB
  xenoscope record --guest-kernel web=kallsyms.txt --guest-exe web=./server --duration 10
                                                      with names for one guest's kernel and program

Xen is sampled by a livepatch that is loaded for the recording and taken out at its end, or, where that can't be, from
outside (--source); KVM and plain Linux hosts by the kernel's perf events. Nothing is installed in any guest. With a
command, its exit status is passed on, and what fails on this side exits with 125.")]
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

    /// End when the file has so many bytes, such as 500M
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_size: Option<u64>,

    /// Go on in another file instead, and keep the last N: FILE-00001.xsr, FILE-00002.xsr …
    #[arg(long, value_name = "N", requires = "max_size", value_parser = clap::value_parser!(u32).range(1..))]
    rotate: Option<u32>,

    /// Record the command N times, each into a file of its own: FILE-1.xsr, FILE-2.xsr …; ends early where it fails
    #[arg(long, value_name = "N", requires = "command", conflicts_with = "rotate",
        value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,

    /// Where `xenoscope mark`, `status` and `stop` reach this recording [default: root's
    /// /run/xenoscope/control.sock, others' in $XDG_RUNTIME_DIR, if it is free]
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,

    /// Let the members of this group reach it too
    #[arg(long, value_name = "GROUP")]
    control_group: Option<String>,

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

/// What fails on this side, where a command's status is passed on (as env(1) and others have it).
const OWN_FAILURE: u8 = 125;

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let interrupted = interrupted()?;
    let result = match args.repeat {
        None => record(&args, &args.output, &interrupted),
        Some(runs) => repeat(&args, runs, &interrupted),
    };
    match result {
        Err(error) if !args.command.is_empty() => {
            eprintln!("xenoscope: error: {error:#}");
            Ok(ExitCode::from(OWN_FAILURE))
        }
        result => result.map(ExitCode::from),
    }
}

/// Records the command so many times, or until it fails.
fn repeat(args: &Args, runs: u32, interrupted: &Arc<AtomicBool>) -> anyhow::Result<u8> {
    for run in 1..=runs {
        let status = record(args, &numbered(&args.output, &run.to_string()), interrupted)?;
        if status != 0 || interrupted.load(Ordering::Relaxed) {
            return Ok(status);
        }
    }
    Ok(0)
}

/// Records into a file; what the program exits with.
fn record(args: &Args, file: &Path, interrupted: &Arc<AtomicBool>) -> anyhow::Result<u8> {
    let may_narrow = !args.all_cpus && !args.command.is_empty();
    let mut options = args.sampling.options(&args.command, may_narrow)?;
    options.options.extend(args.rotate.map(|kept| ("rotate".to_owned(), kept.to_string())));
    let mut hypervisor = hv_shim::detect()?;
    // All that can be wrong with what the user gave, before the machine is touched.
    let images = args.sampling.images()?;
    let output = Output::limited(file, args.max_size, args.rotate)?;
    let server = serve(args, &output.place(), interrupted)?;
    let mut session = Session {
        deadline: None,
        duration: args.duration,
        interrupted: Arc::clone(interrupted),
        command: Command::new(&args.command),
        images,
        bar: ProgressBar::new_spinner(),
        server,
    };
    let result = collector::record(&mut *hypervisor, &options, output, &mut session);
    session.bar.finish_and_clear();
    session.command.end();
    let summary = result.map_err(|error| match error {
        CollectError::NotStopped(_) => error.into(),
        error => anyhow::Error::from(error).context("recording failed"),
    })?;
    tell(&summary, &session.images, file);
    // It may have been born at any moment until now: only now it is an error.
    if !summary.unmatched.is_empty() {
        return Ok(if args.command.is_empty() { 1 } else { OWN_FAILURE });
    }
    Ok(match summary.reason {
        EndReason::CommandEnded(status) => status.clamp(0, 255) as u8,
        _ => 0,
    })
}

/// The control socket: a must where the user named it, else where it can be.
fn serve(args: &Args, file: &Place, stop: &Arc<AtomicBool>) -> anyhow::Result<Option<Server>> {
    let start =
        |path: &Path| Server::start(path, args.control_group.as_deref(), file.clone(), Arc::clone(stop));
    match (&args.control, &args.control_group) {
        (Some(path), _) => start(path).map(Some),
        (None, Some(_)) => start(
            &control::default_path().context("there is no folder for the socket: name it with --control")?,
        )
        .map(Some),
        (None, None) => Ok(control::default_path().and_then(|path| start(&path).ok())),
    }
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
    server: Option<Server>,
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

    fn take_marks(&mut self) -> Vec<(Instant, String)> {
        self.server.as_ref().map(Server::take_marks).unwrap_or_default()
    }

    fn so_far(&mut self, samples: u64, lost: u64, elapsed: Duration) {
        if let Some(server) = &self.server {
            server.so_far(samples, lost, elapsed);
        }
        let seconds = elapsed.as_secs();
        self.bar
            .set_message(format!("{seconds} s, {samples} samples, {lost} lost; Ctrl-C ends the recording"));
        self.bar.tick();
    }

    fn symbols(&mut self, domain: &Domain, symbolizer: &mut Symbolizer) -> Result<bool, String> {
        self.images.give(domain, symbolizer).map_err(|error| format!("{error:#}"))
    }
}

fn tell(summary: &Summary, images: &Images, file: &Path) {
    let seconds = summary.elapsed.as_secs_f64();
    let file = file.display();
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
