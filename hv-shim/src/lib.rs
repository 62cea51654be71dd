//! Everything that touches a hypervisor.
//!
//! Comes in: what the hypervisor tells its control domain, and the rings of the shim or of the host's kernel. Goes out,
//! through [`Hypervisor`] and [`Sampling`]: samples as they were taken ([`Taken`]), the books ([`profile::CpuAccount`]), which domains there are,
//! and the hypervisor's own symbols. Not here: names, merging by time, files.
//!
//! No type of one hypervisor leaves this crate.

mod clock;
mod error;
pub mod events;
mod exit_reason;
mod hypervisor;
mod kvm;
pub mod own_core;
mod own_kernel;
mod own_object;
pub mod own_processes;
mod own_task;
mod taken;
mod xen;

pub use error::ShimError;
pub use hypervisor::{
    CallGraph, Check, DomainState, Host, Hypervisor, HypervisorSymbol, Memories, Outcome, PmuTrust, Request,
    SampleBy, Sampling, Stay, Stopped, VcpuClock, Watermark,
};
pub use own_kernel::OwnKernel;
pub use taken::{
    Captured, Change, Exits, MappedFile, Mapping, Missing, Owner, ProcessKey, ProcessState, Record, Taken,
};

/// The hypervisor of this machine, for whoever controls it: Xen from its control domain; everywhere else the Linux
/// host itself, whose hypervisor is KVM if it has any.
pub fn detect() -> Result<Box<dyn Hypervisor>, ShimError> {
    if xen::is_control_domain() { Ok(Box::new(xen::Xen::open()?)) } else { Ok(Box::new(kvm::Kvm::open())) }
}

/// Has a shim that is in the hypervisor take no samples any more, whoever uses it: for when it can't be taken out.
/// Tells what was found; none where there is no shim.
pub fn quiet() -> Result<Option<String>, ShimError> {
    if xen::is_control_domain() { xen::quiet() } else { Ok(None) }
}

/// Takes a shim out of the hypervisor that nobody uses any more, and tells what was found; none where there is no shim.
pub fn unload() -> Result<Option<(Stopped, String)>, ShimError> {
    if xen::is_control_domain() { xen::unload() } else { Ok(None) }
}

/// What this host allows, with what to do about each lack. Never fails: what can't be found out is a finding.
pub fn doctor() -> Vec<Check> {
    if xen::is_control_domain() { xen::doctor() } else { kvm::doctor() }
}
