//! A Linux host, with or without guests in KVM: samples by `perf_event_open`, everything else from `/proc` and `/sys`.
//!
//! The host's kernel is the hypervisor: what it does on a vCPU thread is that guest's `hypervisor` mode, what the
//! virtual machine monitor does there in user space its `backend` mode.

mod accounting;
mod changes;
mod cpus;
mod doctor;
mod domains;
mod idle;
mod perf;
mod processes;
mod records;
mod ring;
mod session;
mod vcpus;
mod vmm;

use std::{fs, path::Path, sync::Arc};

pub(crate) use self::doctor::doctor;
use self::{domains::Domains, idle::IdleCode, vcpus::Vcpus};
use crate::{
    DomainState, Host, Hypervisor, HypervisorSymbol, Request, Sampling, ShimError, events::Counted,
    own_kernel::OwnKernel,
};

/// The host's number among the domains: no virtual machine monitor has this process id.
const HOST: u32 = 0;

/// This host.
pub(crate) struct Kvm {
    domains: Domains,
    vcpus: Vcpus,
    own_kernel: OwnKernel,
}

impl Kvm {
    pub(crate) fn open() -> Self {
        let vcpus = Vcpus::default();
        Self { domains: Domains::new(vcpus.clone()), vcpus, own_kernel: OwnKernel::default() }
    }
}

/// Whether this kernel can run guests now.
fn can_run_guests() -> bool {
    Path::new("/dev/kvm").exists()
}

impl Hypervisor for Kvm {
    fn host(&self) -> Result<Host, ShimError> {
        let hypervisor = if can_run_guests() { "KVM" } else { "Linux without KVM" };
        Ok(Host {
            hypervisor: hypervisor.into(),
            build_id: fs::read("/sys/kernel/notes").ok().as_deref().and_then(build_id),
            cpus: cpus::online()?.len() as u32,
        })
    }

    fn domains(&mut self) -> Result<Vec<DomainState>, ShimError> {
        self.domains.list()
    }

    fn idle_ns(&self) -> Result<Vec<u64>, ShimError> {
        Ok(accounting::read()?.idle_ns)
    }

    fn symbols(&mut self) -> Result<Vec<HypervisorSymbol>, ShimError> {
        // The hypervisor is the host's kernel, a domain like any other.
        Ok(Vec::new())
    }

    fn own_kernel_symbols(&self) -> Result<Arc<String>, ShimError> {
        self.own_kernel.symbols()
    }

    fn events(&self) -> Result<Vec<(Counted, Option<String>)>, ShimError> {
        let code = |counted| match counted {
            Counted::Cycles | Counted::CpuClock => Some("perf".to_owned()),
            _ => None,
        };
        Ok(Counted::named().map(|counted| (counted, code(counted))).collect())
    }

    fn sample(&mut self, request: &Request) -> Result<Box<dyn Sampling>, ShimError> {
        // A list that can't be read hides its addresses.
        let symbols = self.own_kernel.symbols().unwrap_or_default();
        Ok(Box::new(session::begin(self.vcpus.clone(), IdleCode::find(&symbols), request)?))
    }
}

/// The GNU build id among ELF notes: name size, descriptor size and type, then both, each padded to four bytes.
fn build_id(mut notes: &[u8]) -> Option<String> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let padded = |size: u32| (size as usize).next_multiple_of(4);
    while let Some((header, rest)) = notes.split_first_chunk::<12>() {
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (name_size, size, kind) = (word(0), word(4), word(8));
        let (name, rest) = rest.split_at_checked(padded(name_size))?;
        let (descriptor, rest) = rest.split_at_checked(padded(size))?;
        if kind == NT_GNU_BUILD_ID && name.starts_with(b"GNU\0") {
            return Some(descriptor[..size as usize].iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_id_is_found_behind_other_notes_and_in_no_torn_one() {
        let note = |name: &[u8], kind: u32, descriptor: &[u8]| {
            let mut bytes = Vec::new();
            for word in [name.len() as u32, descriptor.len() as u32, kind] {
                bytes.extend(word.to_le_bytes());
            }
            for part in [name, descriptor] {
                bytes.extend(part);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            bytes
        };
        let notes = [note(b"Xen\0", 3, b"xen-3.0\0"), note(b"GNU\0", 3, &[0xc0, 0xff, 0xee])].concat();
        assert_eq!(build_id(&notes).as_deref(), Some("c0ffee"));
        assert_eq!(build_id(&notes[..notes.len() - 4]), None);
        assert_eq!(build_id(&[0xff; 40]), None);
    }
}
