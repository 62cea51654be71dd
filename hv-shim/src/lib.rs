//! Everything that touches a hypervisor.
//!
//! Comes in: what the hypervisor tells its control domain, and the shim's rings. Goes out, through [`Hypervisor`] and
//! [`Sampling`]: samples as they were taken ([`Taken`]), the books ([`profile::CpuAccount`]), which domains there are,
//! and the hypervisor's own symbols. Not here: names, merging by time, files.
//!
//! No type of one hypervisor leaves this crate.

mod error;
mod hypervisor;
mod xen;

pub use error::ShimError;
pub use hypervisor::{
    Check, DomainState, Host, Hypervisor, HypervisorSymbol, Outcome, Request, Sampling, Stopped, Taken,
    Watermark,
};

/// The hypervisor that this machine runs under, for whoever controls it.
pub fn detect() -> Result<Box<dyn Hypervisor>, ShimError> {
    Ok(Box::new(xen::Xen::open()?))
}

/// What this host allows, with what to do about each lack. Never fails: what can't be found out is a finding.
pub fn doctor() -> Vec<Check> {
    xen::doctor()
}
