//! What vCPUs do with their time, by the host scheduler's account of their threads.
//!
//! Running is what the thread had of a CPU, whatever it did there: the guest's code, the kernel's work for it, its monitor's.
//! Waiting is what it was ready to run without having a CPU. The rest of its life it was blocked: the guest idled or was
//! paused, or its monitor waited for something.
//!
//! The scheduler books a running thread at its ticks and a waiting one when it gets its CPU, so that a reading may be that
//! much behind. What is missing then is in the next one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
};

use super::vcpus::Vcpu;
use crate::VcpuClock;

/// The scheduler's account of a thread since it was born, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ThreadTimes {
    /// It had a CPU.
    pub(super) running_ns: u64,
    /// It was ready to run and had none.
    pub(super) waiting_ns: u64,
}

/// The vCPUs' threads since sampling began.
#[derive(Default)]
pub(super) struct VcpuTimes {
    /// When that was, by the monotonic clock; none as long as nobody samples.
    began: Option<u64>,
    threads: HashMap<u32, Thread>,
    /// Threads that are no more and whose number another one has.
    past: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    vmm: u32,
    index: Option<u32>,
    /// From when on it counts, and what it had had by then.
    since: u64,
    before: ThreadTimes,
    /// The last reading, and when it was made.
    last: ThreadTimes,
    read: u64,
    is_alive: bool,
}

impl ThreadTimes {
    /// `/proc/PID/task/TID/schedstat` (Documentation/scheduler/sched-stats.rst of Linux): nanoseconds on a CPU, nanoseconds
    /// waiting for one, and how often it had one.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace().map(|word| word.parse().ok());
        Some(Self { running_ns: words.next()??, waiting_ns: words.next()?? })
    }

    /// A thread's as they are now; none if it is no more.
    pub(super) fn read(pid: u32, tid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?)
    }

    fn since(self, before: Self) -> Self {
        Self {
            running_ns: self.running_ns.saturating_sub(before.running_ns),
            waiting_ns: self.waiting_ns.saturating_sub(before.waiting_ns),
        }
    }
}

/// Why the scheduler's account can't be used; none if it can. Whoever asks has run.
pub(super) fn lack() -> Option<&'static str> {
    let own = std::process::id();
    match ThreadTimes::read(own, own) {
        None => Some("this kernel was built without the scheduler's account of threads (CONFIG_SCHEDSTATS)"),
        Some(ThreadTimes { running_ns: 0, .. }) => {
            Some("the scheduler's account of threads is switched off (sysctl kernel.task_delayacct=1)")
        }
        Some(_) => None,
    }
}

impl VcpuTimes {
    /// Begins anew.
    pub(super) fn begin(&mut self, now: u64) {
        *self = Self { began: Some(now), ..Self::default() };
    }

    /// Takes in a reading of a vCPU's thread. `born` finds out when one was born that was not known before.
    pub(super) fn read(
        &mut self,
        tid: u32,
        vcpu: Vcpu,
        times: ThreadTimes,
        now: u64,
        born: impl FnOnce() -> Option<u64>,
    ) {
        let Some(began) = self.began else { return };
        let Vcpu { vmm, index } = vcpu;
        if let Some(thread) = self.threads.get_mut(&tid) {
            // Accounts only grow: if this one did not, the number is another thread's by now.
            if thread.vmm == vmm && thread.is_alive && thread.last.running_ns <= times.running_ns {
                (thread.last, thread.read) = (times, now);
                thread.index = index.or(thread.index);
                return;
            }
            self.past.extend(self.threads.remove(&tid));
        }
        let (since, before) = match born() {
            Some(born) if born > began => (born.min(now), ThreadTimes::default()),
            _ => (now, times),
        };
        let thread = Thread { vmm, index, since, before, last: times, read: now, is_alive: true };
        self.threads.insert(tid, thread);
    }

    /// Notices which threads of a monitor are no more.
    pub(super) fn retain(&mut self, vmm: u32, alive: impl Fn(u32) -> bool) {
        let threads = self.threads.iter_mut().filter(|(_, thread)| thread.vmm == vmm);
        threads.for_each(|(&tid, thread)| thread.is_alive &= alive(tid));
    }

    /// What every vCPU did whose index is known. Of one that is no more the last reading holds; it is told as long as its
    /// monitor lives, and once more.
    pub(super) fn take(&mut self) -> Vec<VcpuClock> {
        let mut clocks: BTreeMap<(u32, u32), VcpuClock> = BTreeMap::new();
        for thread in self.past.iter().chain(self.threads.values()) {
            let Some(index) = thread.index else { continue };
            let (running_ns, waiting_ns, blocked_ns) = thread.split();
            // A vCPU that was taken out and put in again has had two threads.
            let clock = clocks.entry((thread.vmm, index)).or_insert(VcpuClock {
                domain: thread.vmm,
                index,
                running_ns: 0,
                waiting_ns: 0,
                blocked_ns: 0,
            });
            clock.running_ns += running_ns;
            clock.waiting_ns += waiting_ns;
            clock.blocked_ns += blocked_ns;
        }
        let living = self.threads.values().filter(|thread| thread.is_alive);
        let living: BTreeSet<u32> = living.map(|thread| thread.vmm).collect();
        self.past.retain(|thread| living.contains(&thread.vmm));
        self.threads.retain(|_, thread| living.contains(&thread.vmm));
        clocks.into_values().collect()
    }
}

impl Thread {
    /// What it did with the time from when it counts on to its last reading: ran, waited, was blocked. Together they are that
    /// time, even if the account is a tick ahead or behind.
    fn split(&self) -> (u64, u64, u64) {
        let lived = self.read.saturating_sub(self.since);
        let times = self.last.since(self.before);
        let running = times.running_ns.min(lived);
        let waiting = times.waiting_ns.min(lived - running);
        (running, waiting, lived - running - waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: u64 = 1_000;

    fn times(running_ns: u64, waiting_ns: u64) -> ThreadTimes {
        ThreadTimes { running_ns, waiting_ns }
    }

    fn vcpu(vmm: u32, index: u32) -> Vcpu {
        Vcpu { vmm, index: Some(index) }
    }

    fn began() -> VcpuTimes {
        let mut vcpus = VcpuTimes::default();
        vcpus.begin(BEGAN);
        vcpus
    }

    fn taken(vcpus: &mut VcpuTimes) -> Vec<(u32, u32, [u64; 3])> {
        let split = |clock: VcpuClock| [clock.running_ns, clock.waiting_ns, clock.blocked_ns];
        vcpus.take().into_iter().map(|clock| (clock.domain, clock.index, split(clock))).collect()
    }

    #[test]
    fn the_scheduler_tells_two_times_and_a_count() {
        assert_eq!(ThreadTimes::parse("1197913 4766896 6\n"), Some(times(1_197_913, 4_766_896)));
        for text in ["", "7", "7 x 1", "-1 2 3", "99999999999999999999 1 1"] {
            assert_eq!(ThreadTimes::parse(text), None, "{text}");
        }
        let own = std::process::id();
        assert!(lack().is_some() || ThreadTimes::read(own, own).unwrap().running_ns > 0);
        assert_eq!(ThreadTimes::read(own, u32::MAX), None);
    }

    #[test]
    fn what_was_before_does_not_count() {
        let mut vcpus = began();
        vcpus.read(11, vcpu(7, 0), times(5_000, 600), 1_010, || Some(50));
        assert_eq!(taken(&mut vcpus), [(7, 0, [0, 0, 0])]);
        vcpus.read(11, vcpu(7, 0), times(5_300, 650), 1_410, || panic!("it is known"));
        assert_eq!(taken(&mut vcpus), [(7, 0, [300, 50, 50])]);
    }

    #[test]
    fn who_is_born_meanwhile_counts_from_its_birth() {
        let mut vcpus = began();
        vcpus.read(11, vcpu(7, 0), times(100, 20), 1_700, || Some(1_500));
        assert_eq!(taken(&mut vcpus), [(7, 0, [100, 20, 80])]);
        // Whose birth nobody can tell, from when it was met.
        vcpus.read(12, vcpu(7, 1), times(100, 20), 1_700, || None);
        vcpus.read(12, vcpu(7, 1), times(150, 20), 1_800, || None);
        assert_eq!(taken(&mut vcpus)[1], (7, 1, [50, 0, 50]));
    }

    /// The account of a thread that runs or waits comes at its next tick.
    #[test]
    fn the_parts_are_the_whole_whatever_the_account_is_late() {
        let mut vcpus = began();
        vcpus.read(11, vcpu(7, 0), times(0, 0), 1_000, || Some(1));
        vcpus.read(11, vcpu(7, 0), times(90, 30), 1_100, || None);
        assert_eq!(taken(&mut vcpus), [(7, 0, [90, 10, 0])]);
        vcpus.read(11, vcpu(7, 0), times(290, 30), 1_200, || None);
        assert_eq!(taken(&mut vcpus), [(7, 0, [200, 0, 0])]);
        vcpus.read(11, vcpu(7, 0), times(290, 30), 1_400, || None);
        assert_eq!(taken(&mut vcpus), [(7, 0, [290, 30, 80])]);
    }

    #[test]
    fn of_the_dead_the_last_reading_holds() {
        let mut vcpus = began();
        vcpus.read(11, vcpu(7, 0), times(0, 0), 1_000, || Some(1));
        vcpus.read(21, vcpu(9, 0), times(0, 0), 1_000, || Some(1));
        vcpus.read(11, vcpu(7, 0), times(40, 10), 1_100, || None);
        vcpus.retain(7, |_| false);
        assert_eq!(taken(&mut vcpus), [(7, 0, [40, 10, 50]), (9, 0, [0, 0, 0])]);
        assert_eq!(taken(&mut vcpus), [(9, 0, [0, 0, 0])], "it was told");
        // Its number is given to another one's thread.
        vcpus.read(11, vcpu(8, 3), times(5, 0), 1_300, || Some(1_290));
        assert_eq!(taken(&mut vcpus)[0], (8, 3, [5, 0, 5]));
    }

    #[test]
    fn a_vcpu_that_comes_back_on_another_thread_goes_on() {
        let mut vcpus = began();
        vcpus.read(11, vcpu(7, 1), times(0, 0), 1_000, || Some(1));
        vcpus.read(11, vcpu(7, 1), times(60, 0), 1_100, || None);
        vcpus.read(12, vcpu(7, 0), times(0, 0), 1_000, || Some(1));
        vcpus.retain(7, |tid| tid == 12);
        assert_eq!(taken(&mut vcpus)[1], (7, 1, [60, 0, 40]));
        vcpus.read(13, vcpu(7, 1), times(10, 20), 1_300, || Some(1_270));
        assert_eq!(taken(&mut vcpus)[1], (7, 1, [70, 20, 40]));
        // The same with a thread that has the number of the one before.
        vcpus.read(13, vcpu(7, 1), times(1, 0), 1_500, || Some(1_490));
        assert_eq!(taken(&mut vcpus)[1], (7, 1, [71, 20, 49]));
    }

    #[test]
    fn as_long_as_an_index_is_not_known_nothing_is_told() {
        let mut vcpus = began();
        vcpus.read(11, Vcpu { vmm: 7, index: None }, times(0, 0), 1_000, || Some(1));
        assert_eq!(taken(&mut vcpus), []);
        vcpus.read(11, vcpu(7, 0), times(10, 0), 1_100, || None);
        assert_eq!(taken(&mut vcpus), [(7, 0, [10, 0, 90])]);
        let mut nobody_samples = VcpuTimes::default();
        nobody_samples.read(11, vcpu(7, 0), times(0, 0), 1_000, || Some(1));
        assert_eq!(taken(&mut nobody_samples), []);
    }
}
