//! `xenoscope record`: samples the machine into a file.

mod command;
mod images;

use std::{
    collections::BTreeMap,
    fs, io,
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
use collector::{Filter, Options, Progress, Summary};
use hv_shim::{CallGraph, PmuTrust, Request, SampleBy, events::EventSpec};
use indicatif::ProgressBar;
use profile::{Domain, recording::EndReason};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use symbolizer::Symbolizer;

use self::{
    command::Command,
    images::{GuestImage, Images},
};
use crate::{DEFAULT_RECORDING, output::Output};

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
    /// What to sample: names as `xenoscope list` shows them, or codes (cpu/event=0x76,umask=0x00/, r4c0), separated by
    /// commas; behind a colon where: u (guests' processes), k (their kernels), h (the hypervisor). Without it, cycles
    /// where there are counters, else time
    #[arg(short = 'e', long = "event", value_name = "EVENTS")]
    events: Vec<String>,

    /// Samples per second and CPU, of each event
    #[arg(short = 'F', long = "freq", value_name = "HZ", default_value_t = 1000.0)]
    rate_hz: f64,

    /// Instead of a rate: sample an event each time that it has happened so often
    #[arg(short = 'c', long = "count", value_name = "PERIOD", conflicts_with = "rate_hz")]
    period: Option<u64>,

    /// The percentage of each CPU's time that samples may cost; the rate comes down to it, and the recording says so.
    /// 0 is no bound
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percentage)]
    max_overhead: f64,

    /// Whether performance counters are used once they have proved themselves, without that (in a laboratory), or not
    #[arg(long, value_name = "TRUST", default_value = "auto")]
    pmu_trust: Trust,

    /// By what Xen is sampled: the shim in it, its own profiler of old (xenoprof), or dom0 reading the vCPUs that run. auto
    /// takes the first of them that works here; the recording says why, and which bias it has
    #[arg(long, value_name = "SOURCE", default_value = "auto")]
    source: Source,

    /// What is captured for finding callers: the top of each stack (stack, with as many BYTES of it as are wanted), the
    /// frames that frame pointers lead to (fp), or nothing. Without a value, stack. Stacks are dropped once their callers
    /// are found
    #[arg(
        short = 'g',
        long = "call-graph",
        value_name = "stack[,BYTES]|fp|off",
        num_args = 0..=1,
        default_value = "off",
        default_missing_value = "stack",
        value_parser = call_graph
    )]
    call_graph: CallGraph,

    /// Record this domain only; may be given more than once
    #[arg(short, long = "domain", value_name = "NAME|ID|all")]
    domains: Vec<String>,

    /// Where the recording goes
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    output: PathBuf,

    /// End after this many seconds
    #[arg(long, value_name = "S", value_parser = seconds, conflicts_with = "command")]
    duration: Option<Duration>,

    /// Name a domain's kernel from its kallsyms, System.map or vmlinux
    #[arg(long = "guest-kernel", value_name = "NAME=FILE")]
    kernels: Vec<GuestImage>,

    /// Name a domain's program, wherever its addresses are executed; a position-independent one needs the address
    /// that it is loaded at
    #[arg(long = "guest-exe", value_name = "NAME=FILE[@0xBASE]")]
    executables: Vec<GuestImage>,

    /// Do not read guests' memory: their code goes without names, but for those of files given here
    #[arg(long)]
    leave_guests: bool,

    /// Sample the whole machine or fail: without it, users who may not do that get a command's samples alone
    #[arg(short, long)]
    all_cpus: bool,

    /// Memory for samples not yet read, per CPU, such as 64K or 1M [default: some seconds' worth]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    ring_size: Option<u64>,

    /// Record for as long as this command runs
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// By what Xen is sampled.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Source {
    /// The first of the others that works here
    Auto,
    /// The shim, loaded as a livepatch
    Shim,
    /// Xen's own profiler of old: Xen up to 4.21, from a PV dom0
    Xenoprof,
    /// Reading vCPUs from dom0
    VcpuPoll,
}

/// Whether performance counters are believed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Trust {
    /// Once they have proved themselves
    Auto,
    /// Without evidence: for laboratories
    Assume,
    /// Never: the timer samples
    Never,
}

fn percentage(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.trim_end_matches('%').parse().ok();
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| "not a percentage from 0 to 100".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("not a positive number of seconds".into()),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    let count: Option<u64> = digits.parse().ok().and_then(|count: u64| count.checked_mul(unit));
    count.filter(|&count| count > 0).ok_or_else(|| "not a size such as 64K or 1M".into())
}

fn call_graph(text: &str) -> Result<CallGraph, String> {
    let most = CallGraph::MOST_BYTES;
    match text.split_once(',').map_or((text, None), |(kind, bytes)| (kind, Some(bytes))) {
        ("off", None) => Ok(CallGraph::Off),
        ("fp", None) => Ok(CallGraph::FramePointers),
        ("stack", None) => Ok(CallGraph::Stack { bytes: CallGraph::DEFAULT_BYTES }),
        ("stack", Some(size)) => match bytes(size)? {
            bytes if bytes <= most.into() => Ok(CallGraph::Stack { bytes: bytes as u32 }),
            _ => Err(format!("at most {}K of a stack can be copied", most >> 10)),
        },
        _ => Err("not one of stack, stack,BYTES, fp and off".into()),
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let options = options(&args)?;
    let mut hypervisor = hv_shim::detect()?;
    // All that can be wrong with what the user gave, before the machine is touched.
    let images = Images::load(&args.kernels, &args.executables, &*hypervisor)?;
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

fn options(args: &Args) -> anyhow::Result<Options> {
    let all = args.domains.is_empty() || args.domains.iter().any(|name| name == "all");
    let kernel_file = |name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    let mut options = BTreeMap::from([("freq".to_owned(), args.rate_hz.to_string())]);
    if !all {
        options.insert("domain".into(), args.domains.join(","));
    }
    if !args.events.is_empty() {
        options.insert("event".into(), args.events.join(","));
    }
    if let Some(period) = args.period {
        options.insert("count".into(), period.to_string());
    }
    let call_graph = match args.call_graph {
        CallGraph::Off => None,
        CallGraph::FramePointers => Some("fp".to_owned()),
        CallGraph::Stack { bytes } => Some(format!("stack,{bytes}")),
    };
    options.extend(call_graph.map(|value| ("call-graph".to_owned(), value)));
    options.insert("max-overhead".into(), args.max_overhead.to_string());
    let events =
        if args.events.is_empty() { Vec::new() } else { EventSpec::parse_list(&args.events.join(","))? };
    Ok(Options {
        request: Request {
            sample_by: match args.source {
                Source::Auto => SampleBy::Auto,
                Source::Shim => SampleBy::Shim,
                Source::Xenoprof => SampleBy::Xenoprof,
                Source::VcpuPoll => SampleBy::VcpuPoll,
            },
            rate_hz: args.rate_hz,
            period: args.period,
            events,
            max_overhead: (args.max_overhead > 0.0).then_some(args.max_overhead / 100.0),
            pmu_trust: match args.pmu_trust {
                Trust::Auto => PmuTrust::Auto,
                Trust::Assume => PmuTrust::Assume,
                Trust::Never => PmuTrust::Never,
            },
            call_graph: args.call_graph,
            ring_bytes: args.ring_size,
            may_narrow: !args.all_cpus && !args.command.is_empty(),
        },
        look_into_guests: !args.leave_guests,
        filter: if all { Filter::All } else { Filter::Named(args.domains.iter().cloned().collect()) },
        tool: concat!("xenoscope ", env!("CARGO_PKG_VERSION")).into(),
        kernel: kernel_file("osrelease").trim().to_owned(),
        hostname: kernel_file("hostname").trim().to_owned(),
        command: (!args.command.is_empty()).then(|| args.command.clone()),
        options,
    })
}

/// A flag that the usual signals set.
fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_graph_is_asked_for_as_in_perf() {
        assert_eq!(call_graph("off"), Ok(CallGraph::Off));
        assert_eq!(call_graph("fp"), Ok(CallGraph::FramePointers));
        assert_eq!(call_graph("stack"), Ok(CallGraph::Stack { bytes: CallGraph::DEFAULT_BYTES }));
        assert_eq!(call_graph("stack,8K"), Ok(CallGraph::Stack { bytes: 8192 }));
        for wrong in ["", "dwarf", "fp,1", "off,1", "stack,", "stack,0", "stack,1M"] {
            assert!(call_graph(wrong).is_err(), "{wrong}");
        }
    }
}
