//! Guests: the processes that hold virtual CPUs, whatever program they run. And the host itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use profile::{DomainKind, Uuid};

use super::{
    HOST, accounting, can_run_guests, kernel_threads,
    vcpu_times::ThreadTimes,
    vcpus::{Vcpu, Vcpus},
    vmm::{self, Identity},
};
use crate::{DomainState, ShimError, Stay, clock, own_task::Task};

/// For how long a new process is looked at again and again: a monitor makes its guest's CPUs within this time, and
/// one that is slower is noticed by its first sample.
const YOUTH: Duration = Duration::from_secs(2);

/// What a descriptor of a virtual CPU links to, before its index.
const VCPU_FILE: &str = "anon_inode:kvm-vcpu:";

/// The ioctl that a vCPU's thread is in, `KVM_RUN`, as `/proc/PID/task/TID/syscall` prints it.
const KVM_RUN: &str = "0xae80";

/// The guests of this host.
pub(super) struct Domains {
    vcpus: Vcpus,
    /// Processes without a guest, and until when they are looked at again.
    others: BTreeMap<u32, Option<Instant>>,
    guests: BTreeMap<u32, Guest>,
    /// Kernel threads that serve a process, which may have a guest, and that process.
    kernel_threads: BTreeMap<u32, u32>,
    /// CPU time of guests that are no more.
    past_ns: u64,
}

struct Guest {
    identity: Identity,
    /// The monitor's program.
    program: String,
    /// When the process began, in the kernel's ticks: process ids are handed out again.
    began: u64,
    vcpus: u32,
    /// The CPU time of each thread that works or worked for it.
    threads_ns: BTreeMap<u32, u64>,
    /// Of this, what was spent before the guest arrived: that was the host's.
    before_ns: u64,
    /// Whether it still has to arrive from another monitor.
    arriving: bool,
}

impl Domains {
    pub(super) fn new(vcpus: Vcpus) -> Self {
        let (others, guests, kernel_threads) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { vcpus, others, guests, kernel_threads, past_ns: 0 }
    }

    /// The host and its guests. The first call looks at every process, later ones at those that are new.
    pub(super) fn list(&mut self) -> Result<Vec<DomainState>, ShimError> {
        self.look_for_guests()?;
        self.look_after_guests();
        let busy_ns = accounting::read()?.busy_ns;
        let guests = self.guests.iter().map(|(&pid, guest)| guest.state(pid, self.stay(pid, guest)));
        let mut domains: Vec<DomainState> = guests.collect();
        let guests_ns = domains.iter().map(|domain| domain.cpu_ns).sum::<u64>() + self.past_ns;
        domains.insert(0, host(busy_ns.saturating_sub(guests_ns)));
        Ok(domains)
    }

    /// Whether a guest is about to come from another monitor.
    pub(super) fn someone_arrives(&self) -> bool {
        self.guests.values().any(|guest| guest.arriving)
    }

    fn look_for_guests(&mut self) -> Result<(), ShimError> {
        if !can_run_guests() {
            return Ok(());
        }
        let first = self.others.is_empty();
        let now = Instant::now();
        for suspect in self.vcpus.lock().take_suspects() {
            self.others.remove(&suspect);
        }
        let entries = fs::read_dir("/proc").map_err(ShimError::io("listing /proc"))?.flatten();
        let mut alive: Vec<u32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        alive.sort_unstable();
        self.others.retain(|pid, _| alive.binary_search(pid).is_ok());
        self.kernel_threads.retain(|pid, _| alive.binary_search(pid).is_ok());
        for pid in alive {
            if self.guests.contains_key(&pid) {
                continue;
            }
            match self.others.get_mut(&pid) {
                Some(None) => continue,
                Some(until) if until.is_some_and(|until| now > until) => *until = None,
                Some(_) => {}
                None => {
                    self.others.insert(pid, (!first).then(|| now + YOUTH));
                    self.kernel_threads.extend(kernel_threads::served_by(pid).map(|served| (pid, served)));
                }
            }
            if let Some(guest) = Guest::find(pid) {
                self.others.remove(&pid);
                self.guests.insert(pid, guest);
            }
        }
        Ok(())
    }

    /// Notices which guests are no more, which vCPUs are new, and how long they have run.
    fn look_after_guests(&mut self) {
        let gone = self.guests.extract_if(.., |&pid, guest| began(pid) != Some(guest.began));
        for (pid, guest) in gone {
            self.vcpus.lock().retain(pid, |_| false);
            self.past_ns += guest.cpu_ns();
        }
        let mut serving = self.kernel_threads.clone();
        serving.retain(|_, served| self.guests.contains_key(served));
        let mut known = self.vcpus.lock();
        for (&pid, guest) in &mut self.guests {
            guest.vcpus = guest.vcpus.max(vcpu_files(pid));
            let threads = threads(pid);
            known.retain(pid, |tid| threads.contains(&tid));
            let has_run = || known.has_run(pid) || threads.iter().any(|&tid| has_run_guest(pid, tid));
            guest.arriving = guest.arriving && !has_run();
            let running = known.threads_of(pid);
            for tid in threads {
                let Some(times) = ThreadTimes::read(pid, tid) else { continue };
                guest.threads_ns.insert(tid, times.running_ns);
                let known_index = running.iter().find(|(known, _)| *known == tid).map(|(_, index)| *index);
                let index = known_index.flatten().or_else(|| vcpu_index(pid, tid));
                let is_vcpu = index.is_some() || known_index.is_some() || has_run_guest(pid, tid);
                if is_vcpu && !guest.arriving {
                    let vcpu = Vcpu { vmm: pid, index };
                    known.learn(tid, vcpu);
                    let born = || Some(clock::monotonic_ns_at(thread_began(pid, tid)?));
                    known.times.read(tid, vcpu, times, clock::monotonic_ns(), born);
                }
            }
            for &tid in serving.iter().filter(|(_, served)| **served == pid).map(|(tid, _)| tid) {
                guest.threads_ns.extend(ThreadTimes::read(tid, tid).map(|times| (tid, times.running_ns)));
            }
            if guest.arriving {
                guest.before_ns = guest.threads_ns.values().sum();
            }
        }
        let here = self.guests.iter().filter(|(_, guest)| !guest.arriving);
        let here: BTreeSet<u32> = here.map(|(&pid, _)| pid).collect();
        serving.retain(|_, served| here.contains(served));
        known.serve(here, serving);
    }

    /// Whether a guest runs in this monitor, or has left it for one that was told to take it.
    fn stay(&self, pid: u32, guest: &Guest) -> Stay {
        if guest.arriving {
            return Stay::Arriving;
        }
        let is_other = |&(other, elsewhere): &(&u32, &Guest)| {
            *other != pid && elsewhere.identity.incoming && elsewhere.identity.uuid == guest.identity.uuid
        };
        let may_leave = guest.identity.uuid.is_some() && self.guests.iter().any(|one| is_other(&one));
        if may_leave && self.is_paused(pid) { Stay::Left } else { Stay::Here }
    }

    /// Whether none of a monitor's virtual CPUs is in its guest, nor waits for an interrupt there.
    fn is_paused(&self, pid: u32) -> bool {
        let threads = self.vcpus.lock().threads_of(pid);
        let waits = |tid: u32| {
            let call = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall"));
            call.is_ok_and(|call| is_outside(&call))
        };
        !threads.is_empty() && threads.into_iter().all(|(tid, _)| waits(tid))
    }
}

impl Guest {
    /// The guest of a process, if it has one.
    fn find(pid: u32) -> Option<Self> {
        let vcpus = vcpu_files(pid);
        if vcpus == 0 {
            return None;
        }
        let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let identity = vmm::identity(pid);
        Some(Self {
            program: program.trim_end().to_owned(),
            began: began(pid)?,
            vcpus,
            threads_ns: BTreeMap::new(),
            before_ns: 0,
            arriving: identity.incoming,
            identity,
        })
    }

    fn cpu_ns(&self) -> u64 {
        self.threads_ns.values().sum::<u64>() - self.before_ns
    }

    fn state(&self, pid: u32, stay: Stay) -> DomainState {
        DomainState {
            number: pid,
            name: self.identity.name.clone().unwrap_or_else(|| format!("{}-{pid}", self.program)),
            uuid: self.identity.uuid,
            kind: DomainKind::Kvm,
            vcpus: self.vcpus,
            cpu_ns: self.cpu_ns(),
            stay,
        }
    }
}

/// The host: all that is done for no guest.
fn host(cpu_ns: u64) -> DomainState {
    let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    DomainState {
        number: HOST,
        name: "host".into(),
        uuid: machine_id.trim().parse::<Uuid>().ok(),
        kind: DomainKind::Host,
        vcpus: 0,
        cpu_ns,
        stay: Stay::Here,
    }
}

/// How many virtual CPUs a process holds.
fn vcpu_files(pid: u32) -> u32 {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    files.flatten().filter(|file| vcpu_of_file(&file.path()).is_some()).count() as u32
}

fn vcpu_of_file(path: &Path) -> Option<u32> {
    fs::read_link(path).ok()?.to_str()?.strip_prefix(VCPU_FILE)?.parse().ok()
}

fn threads(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Which vCPU a thread is: by its name, or by the system call that it waits in.
fn vcpu_index(pid: u32, tid: u32) -> Option<u32> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}")).ok();
    if let Some(index) = read("comm").and_then(|name| index_in_name(name.trim_end())) {
        return Some(index);
    }
    if is_kernels_own(pid, tid) {
        return None;
    }
    // NUMBER ARGUMENT…: an ioctl's first argument is the descriptor. Of a thread that runs, only that is told.
    let call = read("syscall")?;
    let words: Vec<&str> = call.split_ascii_whitespace().collect();
    if words.get(2) != Some(&KVM_RUN) {
        return None;
    }
    let descriptor = u32::from_str_radix(words[1].strip_prefix("0x")?, 16).ok()?;
    vcpu_of_file(Path::new(&format!("/proc/{pid}/fd/{descriptor}")))
}

/// Whether a thread is one that the kernel has made for itself of its process's: since Linux 6.14 KVM has one in each monitor
/// (`kvm-nx-lpage-re`), which looks as if it were in the call that it was made in.
fn is_kernels_own(pid: u32, tid: u32) -> bool {
    Task::of_thread(pid, tid).is_some_and(|thread| thread.is_user_worker())
}

/// Whether a thread waits in a system call (`NUMBER ARGUMENT…`) that does not run a guest.
fn is_outside(call: &str) -> bool {
    let mut words = call.split_ascii_whitespace();
    let waits = words.next().is_some_and(|word| word.parse::<u32>().is_ok());
    waits && words.nth(1) != Some(KVM_RUN)
}

/// Whether the kernel has accounted guest time to a thread.
fn has_run_guest(pid: u32, tid: u32) -> bool {
    Task::of_thread(pid, tid).is_some_and(|thread| thread.guest_ticks > 0)
}

/// `CPU 3/KVM` (QEMU), `vcpu3` (cloud-hypervisor), `fc_vcpu 3` (Firecracker), `crosvm_vcpu3`, `kvm-vcpu-3` (kvmtool).
fn index_in_name(name: &str) -> Option<u32> {
    if let Some(rest) = name.strip_prefix("CPU ") {
        return rest.strip_suffix("/KVM")?.parse().ok();
    }
    let (_, digits) = name.split_once("vcpu")?;
    digits.trim_start_matches([' ', '-', '_']).parse().ok()
}

/// When a process began; none if it is dead.
fn began(pid: u32) -> Option<u64> {
    Task::of_process(pid).filter(|process| !process.is_dead()).map(|process| process.started)
}

/// When a thread began.
fn thread_began(pid: u32, tid: u32) -> Option<u64> {
    Task::of_thread(pid, tid).map(|thread| thread.started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpus_are_told_by_every_monitors_names() {
        for (name, index) in [
            ("CPU 3/KVM", Some(3)),
            ("CPU 0/TCG", None),
            ("vcpu12", Some(12)),
            ("fc_vcpu 1", Some(1)),
            ("crosvm_vcpu2", Some(2)),
            ("kvm-vcpu-0", Some(0)),
            ("vcpu_worker", None),
            ("qemu-system-x86", None),
        ] {
            assert_eq!(index_in_name(name), index, "{name}");
        }
    }

    #[test]
    fn a_vcpu_is_outside_if_it_waits_for_something_else() {
        let run = "16 0x13 0xae80 0x0 0x0 0x0 0x0 0x7f5c7fbfd4c8 0x7f5c84b3ec5b";
        let futex = "202 0x55c0a9c31dc8 0x189 0x0 0x0 0x0 0xffffffff 0x7f5c7fbfd500 0x7f5c84ac0e96";
        assert_eq!([run, futex, "running", ""].map(is_outside), [false, true, false, false]);
    }

    #[test]
    fn the_host_is_always_there_and_comes_first() {
        let domains = Domains::new(Vcpus::default()).list().unwrap();
        assert_eq!((domains[0].number, domains[0].kind), (HOST, DomainKind::Host));
        assert!(domains[0].cpu_ns > 0);
        assert!(began(std::process::id()).unwrap() > 0);
        assert_eq!(began(u32::MAX), None);
    }
}
