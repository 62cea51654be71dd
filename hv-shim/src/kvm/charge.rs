//! Whom a sample is charged to, and what it stands for.

use profile::{EventId, Mode, Time};

use super::{
    HOST,
    bpf::{GuestState, VcpuState},
    idle::IdleCode,
    perf::{Scope, Setting},
    records::{CpuMode, PerfRecord, PerfSample},
    vcpus::Known,
};
use crate::{CallGraph, Owner, ProcessKey, Taken};

/// A sample of the clock stands for at most this many periods: what is longer was a machine that stood still.
const LONGEST_GAP: u64 = 20;

/// The same where another thread ran since the sample before, or where it is not known: the CPU may have idled in
/// between, and not every idling CPU is interrupted.
const LONGEST_GAP_OVER_A_SWITCH: u64 = 4;

/// The books of one CPU, for as long as a session lasts.
#[derive(Default)]
pub(super) struct Books {
    /// Samples handed out.
    pub(super) written: u64,
    /// Samples lost, as the records among them tell.
    pub(super) lost: u64,
    /// The same by the kernel's own count, of events that are closed.
    pub(super) lost_by_kernel: u64,
    pub(super) lost_changes: u64,
    pub(super) quiet_ns: u64,
    pub(super) throttled_since: Option<u64>,
    /// The sample before, if something ran then and nothing is missing since.
    pub(super) last: Option<Before>,
    /// What a program told of the guest that the next sample is of.
    pub(super) vcpu: Option<Box<VcpuState>>,
    /// Samples of guests of which the program told something else.
    pub(super) strange: u64,
}

/// What is kept of a sample for the next one.
#[derive(Clone, Copy)]
pub(super) struct Before {
    time: u64,
    switches: Option<u64>,
}

/// Whose code a guest ran at an address: its kernel's, or a process's.
pub(super) fn guest_code(guest: u32, instruction_pointer: u64, state: Option<GuestState>) -> (Mode, Owner) {
    // Half of all addresses are kernels'.
    let in_kernel = state.map_or(instruction_pointer >> 63 == 1, |state| !state.user);
    if in_kernel { (Mode::Kernel, Owner::Kernel(guest)) } else { (Mode::User, Owner::Process(guest)) }
}

/// Makes samples of the records of one CPU.
pub(super) struct Converter<'a> {
    pub(super) books: &'a mut Books,
    pub(super) known: &'a mut Known,
    pub(super) idle: Option<&'a IdleCode>,
    pub(super) setting: Setting,
    pub(super) mean_ns: u64,
}

impl Converter<'_> {
    /// The sample that a record is, if it is one of something that ran.
    pub(super) fn convert(&mut self, record: PerfRecord) -> Option<Taken> {
        let sample = match record {
            PerfRecord::Sample(sample) => sample,
            PerfRecord::Vcpu(state) => {
                self.books.vcpu = Some(state);
                return None;
            }
            PerfRecord::Lost { count } => {
                self.books.lost += count;
                self.books.last = None;
                // Its sample is among them.
                self.books.vcpu = None;
                return None;
            }
            PerfRecord::Throttled { time } => {
                self.books.throttled_since = Some(time);
                return None;
            }
            PerfRecord::Unthrottled { time } => {
                if let Some(since) = self.books.throttled_since.take() {
                    self.books.quiet_ns += time.saturating_sub(since);
                }
                self.books.last = None;
                return None;
            }
            _ => return None,
        };
        let state = self.books.vcpu.take();
        if self.is_idle(&sample) {
            self.books.last = None;
            return None;
        }
        let weight = self.weight(&sample);
        let sequence = self.books.written + self.books.lost;
        self.books.written += 1;
        Some(self.charge(sample, state, sequence, weight))
    }

    /// What a sample stands for: what was counted; on a clock a mean period, or where something ran all the time the
    /// time since the sample before, which is longer where the interrupt was held off.
    fn weight(&mut self, sample: &PerfSample) -> u64 {
        let &PerfSample { time, switches, .. } = sample;
        let before = self.books.last.replace(Before { time, switches });
        if let Some(period) = sample.period {
            return period;
        }
        let Some(before) = before.filter(|_| self.setting.scope == Scope::Machine) else {
            return self.mean_ns;
        };
        let ran_on = switches.is_some() && switches == before.switches;
        let longest = if ran_on { LONGEST_GAP } else { LONGEST_GAP_OVER_A_SWITCH };
        time.saturating_sub(before.time).min(longest * self.mean_ns)
    }

    fn is_idle(&self, sample: &PerfSample) -> bool {
        sample.pid == 0
            && sample.mode == CpuMode::Kernel
            && self.idle.is_none_or(|idle| idle.contains(sample.instruction_pointer))
    }

    fn charge(
        &mut self,
        sample: PerfSample,
        state: Option<Box<VcpuState>>,
        sequence: u64,
        weight: u64,
    ) -> Taken {
        let PerfSample { mode, instruction_pointer, pid, tid, time, callers, .. } = sample;
        if mode == CpuMode::Guest {
            self.known.running_guest(pid, tid);
        }
        if let Some(state) = &state {
            self.known.met(pid, tid, state);
        }
        let vcpu = self.known.of_thread(tid);
        let served = vcpu.map(|vcpu| vcpu.vmm).or_else(|| self.known.served_by(pid, tid));
        let guest = served.unwrap_or(HOST);
        let interrupted = state.as_ref().filter(|_| mode == CpuMode::Guest);
        let place = interrupted.and_then(|state| state.at(instruction_pointer));
        let is_strange = interrupted.is_some_and(|state| state.contradicts(instruction_pointer));
        self.books.strange += u64::from(is_strange);
        // The same code of the host's serves a guest on its vCPU's thread as its hypervisor, elsewhere as its backend.
        let (mode, owner) = match mode {
            CpuMode::Guest => guest_code(guest, instruction_pointer, place),
            CpuMode::Kernel if vcpu.is_some() => (Mode::Hypervisor, Owner::Kernel(HOST)),
            CpuMode::Kernel if served.is_some() => (Mode::Backend, Owner::Kernel(HOST)),
            CpuMode::Kernel => (Mode::Kernel, Owner::Kernel(HOST)),
            CpuMode::User if served.is_some() => (Mode::Backend, Owner::Process(HOST)),
            CpuMode::User => (Mode::User, Owner::Process(HOST)),
        };
        let page_tables = place.map(|place| place.root);
        let process = match owner {
            Owner::Kernel(HOST) | Owner::Process(HOST) => Some(ProcessKey::Pid(pid)),
            // Only user code tells whose page tables these are: idle CPUs and kernel threads keep somebody else's.
            Owner::Process(_) => page_tables.map(ProcessKey::Root),
            _ => None,
        };
        let asked = self.setting.call_graph != CallGraph::Off;
        let of_guest = |state: Option<Box<VcpuState>>| {
            state.filter(|_| asked).map_or_else(Vec::new, |state| state.stretches(guest))
        };
        Taken {
            time: Time(time),
            sequence,
            weight,
            event: EventId(0),
            charged_to: Some(guest),
            vcpu: vcpu.and_then(|vcpu| vcpu.index),
            mode,
            owner,
            process,
            page_tables,
            instruction_pointer,
            stretches: match mode {
                // What the kernel captures while a guest runs is of the thread that runs it.
                Mode::Kernel | Mode::User if guest != HOST => of_guest(state.filter(|_| place.is_some())),
                // Where the guest was left is what has the hypervisor work.
                Mode::Hypervisor if state.is_some() => callers
                    .into_iter()
                    .filter(|captured| captured.owner == Owner::Kernel(HOST))
                    .chain(of_guest(state))
                    .collect(),
                _ => callers,
            },
            missing: None,
            serves: None,
        }
    }
}
