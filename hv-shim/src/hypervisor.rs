//! What every hypervisor is to the rest of the program.

use std::{fs::File, sync::Arc, time::Duration};

use guest::GuestMemory;
use profile::{AddressSpaceRoot, CpuAccount, DomainKind, Event, HypervisorVirtual, PhysCpu, Time, Uuid};

use crate::{
    MappedFile, OwnKernel, ProcessKey, ProcessState, Record, ShimError,
    events::{Counted, EventSpec},
};

/// A hypervisor, from its control domain.
pub trait Hypervisor: Send {
    /// Which one, on which machine.
    fn host(&self) -> Result<Host, ShimError>;

    /// The domains that live now.
    fn domains(&mut self) -> Result<Vec<DomainState>, ShimError>;

    /// How often they should be listed, so that nobody comes and goes unseen.
    fn list_every(&self) -> Duration {
        Duration::from_millis(250)
    }

    /// Nanoseconds that each CPU has idled, by the hypervisor's account.
    fn idle_ns(&self) -> Result<Vec<u64>, ShimError>;

    /// Symbols of the hypervisor's own code; none where it is part of a domain's kernel.
    fn symbols(&mut self) -> Result<Vec<HypervisorSymbol>, ShimError>;

    /// The kernel that this program runs on.
    fn own_kernel(&self) -> OwnKernel;

    /// The events that have a name, with this host's code for each; none for what it lacks.
    fn events(&self) -> Result<Vec<(Counted, Option<String>)>, ShimError>;

    /// The memory of its domains, where that can be looked into.
    fn memories(&self) -> Option<Arc<dyn Memories>> {
        None
    }

    /// Begins to sample every CPU. What an earlier, dead collector left behind is removed first.
    fn sample(&mut self, request: &Request) -> Result<Box<dyn Sampling>, ShimError>;
}

/// The memory of domains, for whoever looks into them, in whichever thread.
pub trait Memories: Send + Sync {
    /// A domain's memory, for as long as one look lasts; none for a domain that can't be looked into.
    fn open(&self, domain: u32, kind: DomainKind) -> Option<Box<dyn GuestMemory>>;

    /// Page tables under which a domain's kernel is mapped now, if they can be had without a sample.
    fn root(&self, _domain: u32, _kind: DomainKind) -> Option<AddressSpaceRoot> {
        None
    }
}

/// Which hypervisor, on which machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name and version.
    pub hypervisor: String,
    /// Which build, in hexadecimal.
    pub build_id: Option<String>,
    /// How many physical CPUs are online.
    pub cpus: u32,
}

/// A domain as the hypervisor shows it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainState {
    /// The hypervisor's number, which may be another domain's later.
    pub number: u32,
    /// Its name: untrusted text.
    pub name: String,
    /// What survives its reboots.
    pub uuid: Option<Uuid>,
    /// How it is virtualized.
    pub kind: DomainKind,
    /// How many vCPUs it may have.
    pub vcpus: u32,
    /// Nanoseconds of CPU time since it was born.
    pub cpu_ns: u64,
    /// Whether it runs here.
    pub stay: Stay,
}

/// Whether a domain runs here. The same guest may be two domains for a while: the one that it leaves, and the one that it
/// arrives in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stay {
    /// It does, or would if it had something to do.
    #[default]
    Here,
    /// It has not run yet: it may be made from what another one had in memory.
    Arriving,
    /// It was suspended, to go on elsewhere; or here, should that fail.
    Left,
}

/// A symbol of the hypervisor's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HypervisorSymbol {
    /// Where.
    pub address: HypervisorVirtual,
    /// As in `nm`: `T` and `t` are code.
    pub kind: char,
    /// `file.c#name` for what is static.
    pub name: String,
    /// The livepatch that it belongs to; none for the hypervisor's own image.
    pub livepatch: Option<&'static str>,
}

/// What is to be sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// By what, on Xen.
    pub sample_by: SampleBy,
    /// Samples per second and CPU.
    pub rate_hz: f64,
    /// Instead of a rate: after how many of its units an event is sampled.
    pub period: Option<u64>,
    /// The events; empty for what serves best: cycles where there are counters, time where not.
    pub events: Vec<EventSpec>,
    /// The part of each CPU's time that samples may cost; the rate comes down to it. None for no bound.
    pub max_overhead: Option<f64>,
    /// Whether counters have to prove themselves.
    pub pmu_trust: PmuTrust,
    /// What is captured with a sample, so that its callers can be found.
    pub call_graph: CallGraph,
    /// Bytes of ring per CPU, rounded up to what there is; without, what holds some seconds' samples.
    pub ring_bytes: Option<u64>,
    /// Whether it will do to sample what the calling thread executes from now on and whatever that starts, where this
    /// user may not sample the machine. Linux hosts only.
    pub may_narrow: bool,
    /// Whether vCPUs' times are told; none: where that leaves nothing behind in the hypervisor.
    pub vcpu_times: Option<bool>,
    /// Whether VM exits are told, with what they cost.
    pub exits: bool,
}

#[cfg(test)]
impl Request {
    /// For these events, nothing else being special.
    pub(crate) fn at_100_hz(events: &str) -> Self {
        Self {
            sample_by: SampleBy::Auto,
            rate_hz: 100.0,
            period: None,
            events: if events.is_empty() { vec![] } else { EventSpec::parse_list(events).unwrap() },
            max_overhead: None,
            pmu_trust: PmuTrust::Auto,
            call_graph: CallGraph::Off,
            ring_bytes: None,
            may_narrow: false,
            vcpu_times: None,
            exits: false,
        }
    }
}

/// By what Xen is sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleBy {
    /// The shim where it can be loaded, else xenoprof where there is one that works, else by reading vCPUs.
    #[default]
    Auto,
    /// The shim in the hypervisor.
    Shim,
    /// Xen's own profiler of old.
    Xenoprof,
    /// Reading the registers of running vCPUs from outside.
    VcpuPoll,
}

/// What is captured with a sample, so that its callers can be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallGraph {
    /// Nothing.
    #[default]
    Off,
    /// The return addresses that frame pointers lead to: little, and wrong where code keeps none.
    FramePointers,
    /// Registers, and the top of each stack.
    Stack {
        /// The most that is copied of each stack.
        bytes: u32,
    },
}

impl CallGraph {
    /// What nearly all stacks fit into: 40 frames of C++ do.
    pub const DEFAULT_BYTES: u32 = 8192;
    /// The most that can be copied of a stack.
    pub const MOST_BYTES: u32 = 16 << 10;
}

/// Whether performance counters are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PmuTrust {
    /// If they count, overflow and interrupt when they are tried out.
    #[default]
    Auto,
    /// Without evidence: for machines that have none, and whose interrupts are injected from outside.
    Assume,
    /// Not at all.
    Never,
}

/// How often rings are drained where nothing is known that calls for more, or for less.
pub(crate) const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// A session of sampling, the shim being in place. Dropping it takes the shim out again.
pub trait Sampling: Send {
    /// The events, as they are really sampled.
    fn events(&self) -> Vec<Event>;

    /// When it began, by the samples' clock.
    fn started(&self) -> Time;

    /// The CPUs, one ring each.
    fn cpus(&self) -> Vec<PhysCpu>;

    /// What the operator should know about this session since this was asked last: how a mode is told, what was
    /// cleaned up, which CPU came or went.
    fn take_notes(&mut self) -> Vec<String>;

    /// Symbols of the code that was put into the hypervisor: its time is seen like everybody's.
    fn symbols(&self) -> Vec<HypervisorSymbol> {
        Vec::new()
    }

    /// How long the machine stood still at most while the shim was put in place; none if nothing had to be.
    fn load_pause(&self) -> Option<Duration> {
        None
    }

    /// Shows that somebody still reads, and follows what changed on the machine. Wanted several times a second.
    fn renew(&mut self) -> Result<(), ShimError>;

    /// How often rings should be drained, so that none gets full, nor anybody is woken up in vain.
    fn drain_every(&self) -> Duration {
        DRAIN_EVERY
    }

    /// Takes every complete record of one ring, oldest first, and returns a time before which no later one of that
    /// ring will be.
    fn drain(&mut self, ring: usize, each: &mut dyn FnMut(Record)) -> Watermark;

    /// One ring's books. `taken` and `lost` are the shim's counts, `written` counts what [`Self::drain`] handed out:
    /// they balance once sampling has stopped and the ring is drained.
    fn account(&self, ring: usize) -> CpuAccount;

    /// What vCPUs did with their time since sampling began, or since they were there; none where that is not known.
    /// Wanted about once a second, and once more when sampling has stopped. Of a vCPU that is no more, what was
    /// known last holds.
    fn vcpu_times(&mut self) -> Vec<VcpuClock> {
        Vec::new()
    }

    /// A process of a domain as it is now, if it can be looked at.
    fn process(&self, _domain: u32, _key: ProcessKey) -> Option<ProcessState> {
        None
    }

    /// The domain that a process of the control domain serves, as its device model does.
    fn served_by(&self, _pid: u32) -> Option<u32> {
        None
    }

    /// Whether there is anything in the control domain that serves a guest.
    fn has_backends(&self) -> bool {
        false
    }

    /// The control group that a process of the host is in now.
    fn container(&self, _pid: u32) -> Option<String> {
        None
    }

    /// Opens the file that a process has mapped, if it is still the same. Vain for what is no file.
    fn open(&self, _pid: u32, _file: &MappedFile) -> Option<File> {
        None
    }

    /// What a process itself writes of the code that it generates, in the format of `/tmp/perf-PID.map`.
    fn generated_symbols(&self, _pid: u32) -> Option<Vec<u8>> {
        None
    }

    /// Ends sampling: after this call no ring grows any more.
    fn quiesce(&mut self) -> Result<(), ShimError>;

    /// Takes the shim out.
    fn stop(self: Box<Self>) -> Result<Stopped, ShimError>;
}

/// What a vCPU did with its time, by the hypervisor's own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuClock {
    /// The hypervisor's number of its domain.
    pub domain: u32,
    /// Its index there.
    pub index: u32,
    /// Nanoseconds in which it ran.
    pub running_ns: u64,
    /// Nanoseconds in which it would have run, but had no CPU.
    pub waiting_ns: u64,
    /// Nanoseconds in which it had nothing to run.
    pub blocked_ns: u64,
}

/// What taking the shim out did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// How long the machine stood still at most.
    pub pause: Option<Duration>,
}

/// From when on a ring's next samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watermark {
    /// None will be earlier.
    At(Time),
    /// The CPU sleeps: none will be earlier than the latest watermark of another ring read before this one.
    Asleep,
}

/// One finding about this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// How a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Good.
    Pass,
    /// Works, with a limit.
    Warn,
    /// Stands in the way.
    Fail,
}
