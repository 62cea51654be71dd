//! Which threads of the host are virtual CPUs, and which work for a guest besides.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{bpf::VcpuState, vcpu_times::VcpuTimes};

/// The threads that are known, shared between who looks for them and who meets them in samples.
#[derive(Clone, Default)]
pub(super) struct Vcpus(Arc<Mutex<Known>>);

#[derive(Default)]
pub(super) struct Known {
    /// By thread.
    threads: HashMap<u32, Vcpu>,
    /// Where the kernel's `struct kvm_vcpu` of one of a monitor's vCPUs is, by the monitor's process.
    structures: HashMap<u32, u64>,
    /// The monitors whose guests are listed: what their other threads do is done for those.
    monitors: BTreeSet<u32>,
    /// Kernel threads that serve a monitor's guest, and that monitor.
    kernel_threads: BTreeMap<u32, u32>,
    /// Processes that have a virtual CPU on a thread that was not known.
    suspects: BTreeSet<u32>,
    /// Processes that were seen running guest code.
    ran: BTreeSet<u32>,
    /// What they do with their time.
    pub(super) times: VcpuTimes,
}

/// A virtual CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vcpu {
    /// The virtual machine monitor's process.
    pub(super) vmm: u32,
    /// Its index in the guest, where that is known.
    pub(super) index: Option<u32>,
}

impl Vcpus {
    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing that panics is done under the lock.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Known {
    pub(super) fn of_thread(&self, tid: u32) -> Option<Vcpu> {
        self.threads.get(&tid).copied()
    }

    /// The vCPU of a thread that was seen running a guest's code.
    pub(super) fn running_guest(&mut self, pid: u32, tid: u32) -> &mut Vcpu {
        self.ran.insert(pid);
        self.threads.entry(tid).or_insert_with(|| {
            self.suspects.insert(pid);
            Vcpu { vmm: pid, index: None }
        })
    }

    /// A thread of which the kernel's own structure was met. It is charged to its guest once it runs that: until then, a
    /// monitor may only make it ready for a guest that comes from elsewhere.
    pub(super) fn met(&mut self, pid: u32, tid: u32, state: &VcpuState) {
        self.structures.insert(pid, state.vcpu);
        match self.threads.get_mut(&tid) {
            Some(vcpu) => vcpu.index = Some(state.vcpu_id),
            None => drop(self.suspects.insert(pid)),
        }
    }

    /// Whether a process was seen running guest code.
    pub(super) fn has_run(&self, pid: u32) -> bool {
        self.ran.contains(&pid)
    }

    /// The monitor whose guest a thread works for, without being one of its vCPUs.
    pub(super) fn served_by(&self, pid: u32, tid: u32) -> Option<u32> {
        self.monitors.get(&pid).or_else(|| self.kernel_threads.get(&tid)).copied()
    }

    /// Takes who works for guests that are listed.
    pub(super) fn serve(&mut self, monitors: BTreeSet<u32>, kernel_threads: BTreeMap<u32, u32>) {
        (self.monitors, self.kernel_threads) = (monitors, kernel_threads);
    }

    /// Where the kernel has a vCPU of a monitor, if one was met.
    pub(super) fn structure_of(&self, vmm: u32) -> Option<u64> {
        self.structures.get(&vmm).copied()
    }

    /// Takes the processes that had virtual CPUs on unknown threads since the last call.
    pub(super) fn take_suspects(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.suspects)
    }

    /// The threads of a process that are known to be vCPUs.
    pub(super) fn threads_of(&self, vmm: u32) -> Vec<(u32, Option<u32>)> {
        let threads = self.threads.iter().filter(|(_, vcpu)| vcpu.vmm == vmm);
        threads.map(|(&tid, vcpu)| (tid, vcpu.index)).collect()
    }

    pub(super) fn learn(&mut self, tid: u32, vcpu: Vcpu) {
        self.threads.insert(tid, vcpu);
    }

    /// Forgets the threads of a process that are not among the living: all of them if it is no more.
    pub(super) fn retain(&mut self, vmm: u32, alive: impl Fn(u32) -> bool) {
        self.times.retain(vmm, &alive);
        self.threads.retain(|&tid, vcpu| vcpu.vmm != vmm || alive(tid));
        if !self.threads.values().any(|vcpu| vcpu.vmm == vmm) {
            self.structures.remove(&vmm);
            self.ran.remove(&vmm);
        }
    }
}
