//! The report: everything that is said of a recording, in the order and under the names of schema 1.
//!
//! Fields are added, never renamed. Weights are in the event's unit; shares are fractions of 1. What only the books
//! know is null where a recording was cut before its first snapshot.

use std::collections::BTreeMap;

use profile::{DomainKind, LossCause, Mode, Source};
use serde::Serialize;

/// What is said of a recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The version of this layout: 1.
    pub schema: u32,
    /// From the beginning of sampling to its end.
    pub duration_s: f64,
    /// The machine that was recorded.
    pub host: HostReport,
    /// What was sampled.
    pub events: Vec<EventReport>,
    /// Whether the recording was finished; if not, it is read up to where it was cut.
    pub complete: bool,
    /// What the reader must know besides.
    pub notes: Vec<NoteReport>,
}

/// The machine that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostReport {
    /// The hypervisor and its version.
    pub hypervisor: String,
    /// The build id of its image.
    pub build_id: Option<String>,
    /// The release of the kernel of dom0 or of the host.
    pub kernel: String,
    /// Its name.
    pub hostname: String,
    /// Its physical CPUs.
    pub cpus: u32,
}

/// A remark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NoteReport {
    /// When, from the beginning of sampling.
    pub at_s: f64,
    /// A sentence.
    pub text: String,
}

/// One thing that was sampled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventReport {
    /// What users call it.
    pub name: String,
    /// What weights count.
    pub unit: String,
    /// How the samples were taken.
    pub source: Source,
    /// What this way of sampling cannot see.
    pub bias: &'static str,
    /// The rate, per CPU: the one asked for, or, where it could not be kept or none was asked for, the one that came
    /// of it.
    pub rate_hz: f64,
    /// Samples in the recording.
    pub samples: u64,
    /// What they stand for: the busy weight, of which every `share` is a part.
    pub weight: u64,
    /// CPU time in which no domain ran, of all CPUs.
    pub idle_s: Option<f64>,
    /// Samples left out because the user asked for it.
    pub filtered: Option<u64>,
    /// Samples lost; every cause is there.
    pub lost: BTreeMap<LossCause, u64>,
    /// The weight by mode.
    pub modes: Modes,
    /// The rows, heaviest first: one of kind `hypervisor`, and one for each domain that was seen, idle ones included.
    pub domains: Vec<DomainReport>,
    /// Samples that were due and attempted.
    pub taken: Option<u64>,
    /// CPU time in which nothing was due because the sampler was silent, of all CPUs.
    pub quiet_s: Option<f64>,
    /// CPU time in which counters were silent because somebody else had masked or stopped them.
    pub masked_s: Option<f64>,
    /// NMIs that were not the shim's, and were passed on.
    pub foreign_nmis: Option<u64>,
    /// The part of the CPUs' busy time that taking samples cost; null where that was not measured.
    pub overhead: Option<f64>,
    /// The books of every CPU.
    pub cpus: Vec<CpuReport>,
}

/// The books of one CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CpuReport {
    /// The hypervisor's number for it.
    pub cpu: u32,
    /// Samples that were due and attempted.
    pub taken: u64,
    /// Samples that reached the recording.
    pub written: u64,
    /// Samples left out because the user asked for it.
    pub filtered: u64,
    /// Samples lost; every cause is there.
    pub lost: BTreeMap<LossCause, u64>,
}

/// The row of a domain over all its boots, or that of the hypervisor's own work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DomainReport {
    /// The hypervisor's number for its last boot; none for the hypervisor itself.
    pub id: Option<u32>,
    /// The name its operator gave it: untrusted text.
    pub name: String,
    /// The identity that its boots have in common.
    pub uuid: Option<String>,
    /// How it is virtualized.
    pub kind: DomainKind,
    /// Samples charged to it.
    pub samples: u64,
    /// What they stand for.
    pub weight: u64,
    /// Of the event's busy weight.
    pub share: f64,
    /// The weight by mode.
    pub modes: Modes,
    /// How much of the code that ran has a name.
    pub named: Named,
    /// The share of its weight whose call chains reach an outermost function, by the mode of the sample; empty where
    /// callers were not asked for.
    pub complete_chains: BTreeMap<Mode, f64>,
    /// What ran, most self weight first.
    pub functions: Vec<FunctionReport>,
    /// Which processes were current, heaviest first, as far as that is known.
    pub processes: Vec<ProcessReport>,
    /// The CPU time that the hypervisor accounts to it.
    pub cpu_s: Option<f64>,
    /// What each of its vCPUs did with its time, by the hypervisor's account; empty where that was not recorded.
    pub vcpus: Vec<VcpuReport>,
    /// Why its vCPUs left it, what took longest first; empty where exits were not recorded.
    pub exits: Vec<ExitReport>,
    /// From where to where on this host it was moved, in this order.
    pub moves: Vec<MoveReport>,
}

/// What a vCPU did with its time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct VcpuReport {
    /// Its index in its domain.
    pub vcpu: u32,
    /// In which it ran.
    pub running_s: f64,
    /// In which it would have run, but had no CPU: what guests call steal time.
    pub waiting_s: f64,
    /// In which it had nothing to run.
    pub blocked_s: f64,
}

/// VM exits for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExitReport {
    /// Why, by the name that the processor's manual has for it.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// From leaving the guest until it was entered again, of all of them.
    pub total_s: f64,
    /// Of the longest.
    pub longest_us: f64,
    /// What the guest was doing, what took longest first.
    pub functions: Vec<ExitFunctionReport>,
}

/// VM exits for one reason from one function.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExitFunctionReport {
    /// Its name, as in [`FunctionReport`]: untrusted text.
    pub name: String,
    /// The image it lies in: untrusted text.
    pub module: Option<String>,
    /// In which mode it ran.
    pub mode: Mode,
    /// See [`ExitReport`].
    pub count: u64,
    /// See [`ExitReport`].
    pub total_s: f64,
    /// See [`ExitReport`].
    pub longest_us: f64,
}

/// That a guest was migrated to another place on this host, or saved and restored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MoveReport {
    /// The hypervisor's number for what it was before.
    pub from: u32,
    /// And since.
    pub to: u32,
    /// When it was first seen not to run any more, from the beginning of sampling.
    pub left_s: f64,
    /// For how long it was seen to run nowhere.
    pub away_s: f64,
}

/// Shares of the weight whose innermost function has a name; null where no such code ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Named {
    /// Of the kernel's.
    pub kernel: Option<f64>,
    /// Of the processes'.
    pub user: Option<f64>,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionReport {
    /// Its name; without one, `module+0xoffset`; without even that, `[unknown]`. Untrusted text.
    pub name: String,
    /// The image it lies in: untrusted text.
    pub module: Option<String>,
    /// In which mode it ran.
    pub mode: Mode,
    /// The weight of the samples that it was interrupted in.
    #[serde(rename = "self")]
    pub self_weight: u64,
    /// That of its domain's weight.
    pub self_share: f64,
    /// The weight of the samples whose chain it is in.
    pub total: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessReport {
    /// Its address-space root, where that is what it is told by.
    pub root: Option<String>,
    /// Its number in its domain, where that is known.
    pub pid: Option<u32>,
    /// Its name: untrusted text.
    pub name: Option<String>,
    /// Its control group: untrusted text.
    pub container: Option<String>,
    /// Samples for which it was current.
    pub samples: u64,
    /// What they stand for.
    pub weight: u64,
    /// Of the event's busy weight.
    pub share: f64,
    /// The weight by mode.
    pub modes: Modes,
}

/// Weight by mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Modes {
    /// The hypervisor's code.
    pub hypervisor: u64,
    /// Kernels.
    pub kernel: u64,
    /// Processes.
    pub user: u64,
    /// Code of the host or of dom0 on a guest's behalf.
    pub backend: u64,
}

impl Modes {
    /// The weight of one mode.
    pub fn get(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Hypervisor => self.hypervisor,
            Mode::Kernel => self.kernel,
            Mode::User => self.user,
            Mode::Backend => self.backend,
        }
    }

    pub(crate) fn add(&mut self, mode: Mode, weight: u64) {
        let sum = match mode {
            Mode::Hypervisor => &mut self.hypervisor,
            Mode::Kernel => &mut self.kernel,
            Mode::User => &mut self.user,
            Mode::Backend => &mut self.backend,
        };
        *sum = sum.saturating_add(weight);
    }
}

/// The fraction that `part` is of `whole`; of nothing it is none.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub(crate) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
