//! What is sampled and how: the options of every command that samples.

use std::{collections::BTreeMap, env, fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use collector::{Filter, Looking, Options};
use hv_shim::{CallGraph, PmuTrust, Request, SampleBy, events::EventSpec};

use symbolizer::{SymbolFiles, SymbolStore};

use crate::{
    guest_process,
    images::{GuestImage, Images},
};

/// How much of a recording a killed collector may take along.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// What is sampled and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Sampling {
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

    /// Keep the bytes of stacks in the recording, and the registers, too: whatever lay on them, passwords and keys included,
    /// is in the file then, for `export --to stacks`
    #[arg(long, requires = "call_graph")]
    keep_stacks: bool,

    /// Tell what each vCPU did with its time: ran, waited for a CPU (steal), had nothing to run. auto does so where it
    /// leaves nothing behind: Xen keeps the buffers that it takes until it is booted anew
    #[arg(long, value_name = "auto|on|off", default_value = "auto", hide_possible_values = true)]
    times: Switch,

    /// Tell for which reasons vCPUs left their guests (VM exits), what that cost, and which functions caused it. Each exit
    /// takes longer meanwhile
    #[arg(long)]
    exits: bool,

    /// Sample this domain only; may be given more than once
    #[arg(short, long = "domain", value_name = "NAME|ID|all")]
    domains: Vec<String>,

    /// Name a domain's kernel from its kallsyms, System.map or vmlinux
    #[arg(long = "guest-kernel", value_name = "NAME=FILE")]
    kernels: Vec<GuestImage>,

    /// Name a domain's program, wherever its addresses are executed; a position-independent one needs the address
    /// that it is loaded at
    #[arg(long = "guest-exe", value_name = "NAME=FILE[@0xBASE]")]
    executables: Vec<GuestImage>,

    /// Where symbols are that a domain does not have in memory: a folder that stands for its root file system, such as
    /// a mounted disk or an unpacked image. Only files of the build that runs are used
    #[arg(long, value_name = "NAME=DIR", value_parser = folder)]
    symfs: Vec<(String, PathBuf)>,

    /// Ask the servers in DEBUGINFOD_URLS for symbols that are nowhere else: they are told which builds of programs the
    /// guests run
    #[arg(long, conflicts_with = "leave_guests")]
    debuginfod: bool,

    /// Do not read guests' memory: their code goes without names, but for those of files given here
    #[arg(long)]
    leave_guests: bool,

    /// Memory for samples not yet read, per CPU, such as 64K or 1M [default: some seconds' worth]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    ring_size: Option<u64>,
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

/// Whether something is done.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Switch {
    /// Where it does no harm
    Auto,
    /// Whatever it takes
    On,
    /// Not
    Off,
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

/// The servers that the user lets be asked for debug information.
pub(crate) fn debuginfod_urls() -> anyhow::Result<String> {
    env::var("DEBUGINFOD_URLS").context(
        "--debuginfod asks the servers in DEBUGINFOD_URLS, which is not set \
         (Debian's is https://debuginfod.debian.net)",
    )
}

fn folder(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((domain, folder)) if !domain.is_empty() && !folder.is_empty() => {
            Ok((domain.to_owned(), folder.into()))
        }
        _ => Err("not of the form NAME=DIR".into()),
    }
}

fn percentage(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.trim_end_matches('%').parse().ok();
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| "not a percentage from 0 to 100".into())
}

pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let units = [(['k', 'K'], 1 << 10), (['m', 'M'], 1 << 20), (['g', 'G'], 1 << 30)];
    let with_unit = units.into_iter().find_map(|(letters, unit)| Some((text.strip_suffix(letters)?, unit)));
    let (digits, unit) = with_unit.unwrap_or((text, 1));
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

impl Sampling {
    /// The symbols that the user named files for.
    pub(crate) fn images(&self) -> anyhow::Result<Images> {
        Images::load(&self.kernels, &self.executables)
    }

    /// Where symbols are looked for that are not in memory.
    fn symbol_files(&self) -> anyhow::Result<SymbolFiles> {
        let mut files = SymbolFiles::new(SymbolStore::of_user());
        for (domain, folder) in &self.symfs {
            files.add_folder(domain, folder).with_context(|| folder.display().to_string())?;
        }
        if self.debuginfod {
            files.add_servers(&debuginfod_urls()?);
        }
        Ok(files)
    }

    /// What the collector is told; of a command's recording, the command.
    pub(crate) fn options(&self, command: &[String], may_narrow: bool) -> anyhow::Result<Options> {
        let all = self.domains.is_empty() || self.domains.iter().any(|name| name == "all");
        let kernel_file = |name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        let mut options = BTreeMap::from([("freq".to_owned(), self.rate_hz.to_string())]);
        if !all {
            options.insert("domain".into(), self.domains.join(","));
        }
        if !self.events.is_empty() {
            options.insert("event".into(), self.events.join(","));
        }
        if let Some(period) = self.period {
            options.insert("count".into(), period.to_string());
        }
        let call_graph = match self.call_graph {
            CallGraph::Off => None,
            CallGraph::FramePointers => Some("fp".to_owned()),
            CallGraph::Stack { bytes } => Some(format!("stack,{bytes}")),
        };
        options.extend(call_graph.map(|value| ("call-graph".to_owned(), value)));
        if self.exits {
            options.insert("exits".into(), "on".into());
        }
        options.insert("max-overhead".into(), self.max_overhead.to_string());
        let events =
            if self.events.is_empty() { Vec::new() } else { EventSpec::parse_list(&self.events.join(","))? };
        Ok(Options {
            request: Request {
                sample_by: match self.source {
                    Source::Auto => SampleBy::Auto,
                    Source::Shim => SampleBy::Shim,
                    Source::Xenoprof => SampleBy::Xenoprof,
                    Source::VcpuPoll => SampleBy::VcpuPoll,
                },
                rate_hz: self.rate_hz,
                period: self.period,
                events,
                max_overhead: (self.max_overhead > 0.0).then_some(self.max_overhead / 100.0),
                pmu_trust: match self.pmu_trust {
                    Trust::Auto => PmuTrust::Auto,
                    Trust::Assume => PmuTrust::Assume,
                    Trust::Never => PmuTrust::Never,
                },
                call_graph: self.call_graph,
                ring_bytes: self.ring_size,
                may_narrow,
                vcpu_times: match self.times {
                    Switch::Auto => None,
                    Switch::On => Some(true),
                    Switch::Off => Some(false),
                },
                exits: self.exits,
            },
            keep_stacks: self.keep_stacks,
            flush_every: FLUSH_EVERY,
            look_into_guests: match self.leave_guests {
                true => None,
                false => Some(Looking {
                    command: guest_process(),
                    files: Arc::new(self.symbol_files()?),
                    watched: false,
                }),
            },
            filter: if all { Filter::All } else { Filter::Named(self.domains.iter().cloned().collect()) },
            tool: concat!("xenoscope ", env!("CARGO_PKG_VERSION")).into(),
            kernel: kernel_file("osrelease").trim().to_owned(),
            hostname: kernel_file("hostname").trim().to_owned(),
            command: (!command.is_empty()).then(|| command.to_vec()),
            options,
        })
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
