//! Threads of dom0 that serve a guest: those of its block and network backends, and of its device model.
//!
//! Which of them runs is told by the stack that dom0's kernel is on, which stands in every sample, and which is nobody
//! else's for as long as the thread lives. Neither a guest nor a process without privileges can pretend to be one.

mod kernel_memory;
mod thread;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    time::{Duration, Instant},
};

use self::kernel_memory::{KernelMemory, STACK_BYTES};
use super::{hypercalls::DomainInfo, xenstore::Xenstore};
use crate::{OwnKernel, clock, own_task::Task};

/// How often it is looked who serves whom.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// For how long after its start a process is looked at again and again: it may be about to execute a device model.
const YOUTH_NS: u64 = 10_000_000_000;

/// Who serves whom now.
pub(super) struct Backends {
    /// What the addresses of dom0's kernel are taken from, once somebody serves.
    own_kernel: OwnKernel,
    kernel: Option<Result<KernelMemory, String>>,
    xenstore: Option<Xenstore>,
    looked: Option<Instant>,
    /// Processes that serve nobody, and until when, in nanoseconds of CLOCK_MONOTONIC, they are looked at again.
    others: HashMap<u32, u64>,
    serving: BTreeMap<u32, Serving>,
    /// Where each stack begins, and the domain that is served on it.
    stacks: BTreeMap<u64, u32>,
}

/// A process that serves a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Serving {
    domain: u32,
    started: u64,
    is_device_model: bool,
    threads: BTreeSet<u32>,
}

impl Backends {
    pub(super) fn new(own_kernel: OwnKernel) -> Self {
        Self {
            own_kernel,
            kernel: None,
            xenstore: None,
            looked: None,
            others: HashMap::new(),
            serving: BTreeMap::new(),
            stacks: BTreeMap::new(),
        }
    }

    /// The domain that is served on the stack that an address lies in.
    pub(super) fn of_stack(&self, pointer: u64) -> Option<u32> {
        let (&begin, &domain) = self.stacks.range(..=pointer).next_back()?;
        (pointer - begin <= STACK_BYTES).then_some(domain)
    }

    /// The domain whose device model a process is.
    pub(super) fn of_process(&self, pid: u32) -> Option<u32> {
        let serving = self.serving.get(&pid).filter(|serving| serving.is_device_model)?;
        Some(serving.domain)
    }

    /// Whether anybody serves a domain.
    pub(super) fn exist(&self) -> bool {
        !self.serving.is_empty()
    }

    /// Whether it is time to look again.
    pub(super) fn are_due(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY)
    }

    /// Looks who serves whom now, among these domains. Says once why the kernel's own threads can't be told, if there are
    /// some and they can't.
    pub(super) fn look(&mut self, domains: &[DomainInfo]) -> Option<String> {
        self.looked = Some(Instant::now());
        let lives = |domain: u32| {
            domain != 0 && domains.iter().any(|info| u32::from(info.domid) == domain && info.is_alive())
        };
        let before = self.serving.clone();
        let still = |pid: &u32, serving: &mut Serving| {
            lives(serving.domain) && Task::of_process(*pid).is_some_and(|now| now.started == serving.started)
        };
        self.serving.retain(still);
        let pids = pids();
        self.others.retain(|pid, _| pids.binary_search(pid).is_ok());
        for pid in pids {
            self.look_at(pid, lives);
        }
        for (pid, serving) in self.serving.iter_mut().filter(|(_, serving)| serving.is_device_model) {
            serving.threads = threads(*pid);
        }
        if self.serving == before {
            return None;
        }
        self.find_stacks()
    }

    fn look_at(&mut self, pid: u32, lives: impl Fn(u32) -> bool) {
        let is_old = |&until: &u64| clock::monotonic_ns() > until;
        if self.serving.contains_key(&pid) || self.others.get(&pid).is_some_and(is_old) {
            return;
        }
        let Some(task) = Task::of_process(pid) else { return };
        let served = if task.is_kernels() {
            thread::served_by_thread(&task.name)
        } else {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            thread::served_by_command(&command).filter(|&domain| self.is_device_model(pid, domain))
        };
        match served.filter(|&domain| lives(domain)) {
            Some(domain) => {
                let is_device_model = !task.is_kernels();
                let (started, threads) = (task.started, BTreeSet::from([pid]));
                self.others.remove(&pid);
                self.serving.insert(pid, Serving { domain, started, is_device_model, threads });
            }
            None => {
                self.others.insert(pid, clock::monotonic_ns_at(task.started).saturating_add(YOUTH_NS));
            }
        }
    }

    /// Whether a process that says so is a domain's device model: root's word is good, and so is the toolstack's.
    fn is_device_model(&mut self, pid: u32, domain: u32) -> bool {
        if thread::is_roots(pid) {
            return true;
        }
        self.xenstore = self.xenstore.take().or_else(Xenstore::connect);
        let Some(xenstore) = &mut self.xenstore else { return false };
        match xenstore.read(&format!("/local/domain/{domain}/image/device-model-pid")) {
            Ok(told) => told.trim().parse() == Ok(pid),
            Err(_) => {
                self.xenstore = None;
                false
            }
        }
    }

    fn find_stacks(&mut self) -> Option<String> {
        self.stacks.clear();
        if self.serving.is_empty() {
            return None;
        }
        let is_first = self.kernel.is_none();
        let own_kernel = &self.own_kernel;
        let open = || {
            let symbols = own_kernel.symbols().map_err(|error| error.to_string())?;
            KernelMemory::open(&symbols)
        };
        let kernel = self.kernel.get_or_insert_with(open);
        let found = match kernel {
            Ok(kernel) => kernel.stacks(|pid| self.serving.get(&pid).map(|serving| &serving.threads)),
            Err(why) => {
                return is_first.then(|| {
                    format!("what threads of dom0's kernel do for a guest is not charged to that: {why}")
                });
            }
        };
        for (pid, stack) in found {
            self.stacks.extend(self.serving.get(&pid).map(|serving| (stack, serving.domain)));
        }
        None
    }
}

fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

fn threads(pid: u32) -> BTreeSet<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeSet::from([pid]) };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_its_threads_down_to_the_last_byte() {
        let mut backends = Backends::new(OwnKernel::default());
        backends.stacks = BTreeMap::from([(0x10_000, 3), (0x20_000, 7)]);
        let of = |pointer| backends.of_stack(pointer);
        assert_eq!([of(0xffff), of(0x10_000), of(0x13_fff), of(0x14_000)], [None, Some(3), Some(3), Some(3)]);
        assert_eq!([of(0x14_008), of(0x1ffff), of(0x20_010), of(u64::MAX)], [None, None, Some(7), None]);
    }

    #[test]
    fn nobody_on_this_machine_serves_a_domain_that_is_not_there() {
        let mut backends = Backends::new(OwnKernel::default());
        assert!(backends.are_due());
        assert_eq!(backends.look(&[]), None);
        assert!(!backends.are_due() && !backends.exist());
        assert!(backends.others.contains_key(&std::process::id()));
    }
}
