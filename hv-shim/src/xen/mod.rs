//! Xen, from dom0: hypercalls by hand, and a shim loaded as a livepatch, or what serves where that can't be.

mod backends;
mod callers;
mod captured;
mod choice;
mod claim;
mod counting;
mod doctor;
mod domains;
mod domctl;
mod hypercalls;
mod livepatch;
mod memory;
mod payload;
mod poll;
mod privcmd;
mod processor;
mod queues;
mod rings;
mod session;
mod standing;
mod trace;
mod xenoprof;
mod xenstore;

use std::{fs, sync::Arc, time::Duration};

pub(crate) use self::doctor::doctor;
use self::{domains::Domains, hypercalls::Hypercalls, privcmd::Privcmd, processor::Processor};
use crate::{
    DomainState, Host, Hypervisor, HypervisorSymbol, Memories, Request, Sampling, ShimError, Stopped,
    events::Counted, own_kernel::OwnKernel,
};

/// The hypervisor that this machine says it runs under.
const TYPE: &str = "/sys/hypervisor/type";

/// This domain's UUID: all zeros are dom0's.
const OWN_UUID: &str = "/sys/hypervisor/uuid";

/// Whether this is the domain that controls a Xen. Guests of Xen are Linux hosts like any other.
pub(crate) fn is_control_domain() -> bool {
    let read = |path| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let is_guest =
        || read(OWN_UUID).is_some_and(|uuid| uuid.bytes().any(|byte| !matches!(byte, b'0' | b'-')));
    read(TYPE).as_deref() == Some("xen") && !is_guest()
}

/// A running Xen.
pub(crate) struct Xen {
    hypercalls: Arc<Hypercalls>,
    domains: Domains,
    own_kernel: OwnKernel,
    /// Its symbols, once they were asked for: thousands of hypercalls.
    symbols: Option<Vec<HypervisorSymbol>>,
}

impl Xen {
    pub(crate) fn open() -> Result<Self, ShimError> {
        let hypercalls = Arc::new(Hypercalls::new(Privcmd::open()?)?);
        Ok(Self { hypercalls, domains: Domains::new(), own_kernel: OwnKernel::default(), symbols: None })
    }
}

/// See [`crate::quiet`].
pub(crate) fn quiet() -> Result<Option<String>, ShimError> {
    standing::silence(&Xen::open()?.hypercalls)
}

/// See [`crate::unload`].
pub(crate) fn unload() -> Result<Option<(Stopped, String)>, ShimError> {
    standing::remove_left_over(&Xen::open()?.hypercalls)
}

impl Hypervisor for Xen {
    fn host(&self) -> Result<Host, ShimError> {
        let version = self.hypercalls.version();
        let build_id = self.hypercalls.build_id().ok();
        Ok(Host {
            hypervisor: format!("Xen {}.{}{}", version.major, version.minor, version.extra),
            build_id: build_id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
            cpus: self.hypercalls.cpus().map_err(ShimError::io("counting Xen's CPUs"))?,
        })
    }

    fn domains(&mut self) -> Result<Vec<DomainState>, ShimError> {
        self.domains.list(&self.hypercalls)
    }

    /// A domain that was saved or moved can be seen to have left for as long as the toolstack copies the rest of it.
    fn list_every(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn idle_ns(&self) -> Result<Vec<u64>, ShimError> {
        self.hypercalls.idle_ns().map_err(ShimError::io("reading the CPUs' idle times"))
    }

    fn symbols(&mut self) -> Result<Vec<HypervisorSymbol>, ShimError> {
        if let Some(symbols) = &self.symbols {
            return Ok(symbols.clone());
        }
        let symbols = self.hypercalls.symbols().map_err(ShimError::io("reading Xen's symbols"))?;
        Ok(self.symbols.insert(symbols).clone())
    }

    fn own_kernel(&self) -> OwnKernel {
        self.own_kernel.clone()
    }

    fn events(&self) -> Result<Vec<(Counted, Option<String>)>, ShimError> {
        let leaves = self.hypercalls.cpuid().map_err(ShimError::io("asking Xen what processor this is"))?;
        let processor = Processor::of(&leaves);
        let code = |counted| match counted {
            Counted::CpuClock => Some("timer".to_owned()),
            counted => processor.selector(counted).map(|code| format!("r{code:x}")),
        };
        Ok(Counted::named().map(|counted| (counted, code(counted))).collect())
    }

    fn memories(&self) -> Option<Arc<dyn Memories>> {
        Some(Arc::new(memory::XenMemories(self.hypercalls.clone())))
    }

    fn sample(&mut self, request: &Request) -> Result<Box<dyn Sampling>, ShimError> {
        let symbols = self.symbols()?;
        let own_kernel = self.own_kernel.clone();
        let sample = || choice::begin(&self.hypercalls, &symbols, own_kernel, request);
        Ok(Box::new(trace::Beside::begin(&self.hypercalls, request, sample)?))
    }
}
