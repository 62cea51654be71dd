//! A Linux host, with or without guests in KVM: samples by `perf_event_open`, everything else from `/proc` and `/sys`.
//!
//! The host's kernel is the hypervisor: what it does on a vCPU's thread is that guest's `hypervisor` mode. Its `backend` mode is
//! all else that the virtual machine monitor does, its other threads' system calls included, and what kernel threads do that
//! serve this guest alone.

mod accounting;
mod bpf;
mod callers;
mod changes;
mod charge;
mod cpu;
mod cpus;
mod doctor;
mod domains;
mod exits;
mod idle;
mod kernel_threads;
mod memory;
mod perf;
mod records;
mod ring;
mod session;
mod vcpu_times;
mod vcpus;
mod vmm;

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

pub(crate) use self::doctor::doctor;
use self::{
    bpf::{Bpf, Lack},
    domains::Domains,
    idle::IdleCode,
    memory::KvmMemories,
    vcpus::Vcpus,
};
use crate::{
    DomainState, Host, Hypervisor, HypervisorSymbol, Memories, OwnKernel, Request, Sampling, ShimError,
    events::Counted,
};

/// The host's number among the domains: no virtual machine monitor has this process id.
const HOST: u32 = 0;

/// This host.
pub(crate) struct Kvm {
    domains: Domains,
    vcpus: Vcpus,
    own_kernel: OwnKernel,
    /// What guests are looked at by, once that was asked for.
    bpf: OnceLock<Result<Arc<Bpf>, Lack>>,
}

impl Kvm {
    pub(crate) fn open() -> Self {
        let vcpus = Vcpus::default();
        Self {
            domains: Domains::new(vcpus.clone()),
            vcpus,
            own_kernel: OwnKernel::default(),
            bpf: OnceLock::new(),
        }
    }

    /// What guests are looked at by; none where there can be none.
    fn bpf(&self) -> Option<Result<&Arc<Bpf>, &Lack>> {
        can_run_guests().then(|| self.bpf.get_or_init(Bpf::open).as_ref())
    }
}

/// Whether this kernel can run guests now.
fn can_run_guests() -> bool {
    Path::new("/dev/kvm").exists()
}

impl Hypervisor for Kvm {
    fn host(&self) -> Result<Host, ShimError> {
        let hypervisor = if can_run_guests() { "KVM" } else { "Linux without KVM" };
        Ok(Host { hypervisor: hypervisor.into(), build_id: build_id(), cpus: cpus::online()?.len() as u32 })
    }

    fn domains(&mut self) -> Result<Vec<DomainState>, ShimError> {
        self.domains.list()
    }

    fn list_every(&self) -> Duration {
        // When a guest left is seen by looking.
        Duration::from_millis(if self.domains.someone_arrives() { 50 } else { 250 })
    }

    fn idle_ns(&self) -> Result<Vec<u64>, ShimError> {
        Ok(accounting::read()?.idle_ns)
    }

    fn symbols(&mut self) -> Result<Vec<HypervisorSymbol>, ShimError> {
        // The hypervisor is the host's kernel, a domain like any other.
        Ok(Vec::new())
    }

    fn own_kernel(&self) -> OwnKernel {
        self.own_kernel.clone()
    }

    fn events(&self) -> Result<Vec<(Counted, Option<String>)>, ShimError> {
        let code = |counted| match counted {
            Counted::Cycles | Counted::CpuClock => Some("perf".to_owned()),
            _ => None,
        };
        Ok(Counted::named().map(|counted| (counted, code(counted))).collect())
    }

    fn memories(&self) -> Option<Arc<dyn Memories>> {
        let bpf = self.bpf()?.ok()?.clone();
        Some(Arc::new(KvmMemories { bpf, vcpus: self.vcpus.clone() }))
    }

    fn sample(&mut self, request: &Request) -> Result<Box<dyn Sampling>, ShimError> {
        // A list that can't be read hides its addresses.
        let symbols = self.own_kernel.symbols().unwrap_or_default();
        let bpf = self.bpf().map(|bpf| bpf.map(Arc::as_ref));
        Ok(Box::new(session::begin(self.vcpus.clone(), IdleCode::find(&symbols), bpf, request)?))
    }
}

/// The running kernel's.
fn build_id() -> Option<String> {
    let notes = fs::read("/sys/kernel/notes").ok()?;
    Some(guest::build_id_in_notes(&notes)?.iter().map(|byte| format!("{byte:02x}")).collect())
}
