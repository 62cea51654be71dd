//! Programs for the BPF machine of this host's kernel: they see what perf events don't tell of a guest.
//!
//! Programs in C (`hv-shim/bpf`), compiled when this crate is built. One runs with every sample and puts the registers of the
//! guest ahead of it into the same buffer ([`VcpuState`]); one copies pieces of the kernel's memory out ([`KernelMemory`]),
//! from which a guest's memory slots are read; two count why guests are left, if that is asked for ([`ExitCounter`]). None
//! knows the kernel's structures by itself: their places come from the type information of the very kernel that runs
//! ([`layout`]) and are constants to the programs, so that nothing has to be relocated but a handful of names.
//!
//! Where any of it is missing, samples of guests have their address alone, and [`Lack`] says why.

mod calls;
mod exits;
mod kernel_memory;
mod layout;
mod program;
mod tracepoint;
mod vcpu_state;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use self::{
    calls::MapKind,
    program::{Object, ProgramKind, Symbol},
};
pub(super) use self::{
    exits::{ExitCounter, ExitRow},
    kernel_memory::KernelMemory,
    layout::{Layout, Processor, SlotLayout},
    vcpu_state::{GuestState, VcpuState},
};

static CAPTURE: Object = Object(include_bytes!(concat!(env!("OUT_DIR"), "/capture.bpf.o")));

use crate::CallGraph;

/// Why guests' registers and memory can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lack {
    #[error("this program was built without clang")]
    NotBuilt,
    #[error("neither kvm-amd nor kvm-intel is loaded")]
    NoModule,
    #[error("this kernel does not tell the layout of its structures ({what})")]
    NoLayout { what: String },
    #[error("this user may not load BPF programs")]
    Forbidden,
    #[error("the kernel's tracing is not to be seen")]
    NoTracing,
    #[error("this kernel has {what} for kvm:kvm_exit")]
    NoTracepoint { what: &'static str },
    #[error("the kernel refuses {what}: {error}")]
    Refused { what: String, error: io::Error },
}

impl Lack {
    /// What to do about it.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::NotBuilt => "build with clang on the path",
            Self::NoModule => "modprobe kvm-amd or kvm-intel",
            Self::NoLayout { .. } => {
                "use a kernel of Linux 5.17 or later that has BTF (CONFIG_DEBUG_INFO_BTF)"
            }
            Self::NoTracing => "mount -t tracefs tracefs /sys/kernel/tracing",
            Self::NoTracepoint { .. } => {
                "modprobe kvm-amd or kvm-intel, of a kernel with CONFIG_EVENT_TRACING"
            }
            Self::Forbidden => "run as root, or with CAP_BPF and CAP_PERFMON",
            Self::Refused { .. } => "see whether lockdown (/sys/kernel/security/lockdown) forbids it",
        }
    }

    fn refused(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden,
            _ => Self::Refused { what: what.into(), error },
        }
    }
}

/// What this kernel can be asked by BPF.
pub(super) struct Bpf {
    pub(super) layout: Layout,
    pub(super) kernel: KernelMemory,
}

impl Bpf {
    pub(super) fn open() -> Result<Arc<Self>, Lack> {
        let layout = Layout::of_this_kernel()?;
        Ok(Arc::new(Self { layout, kernel: KernelMemory::open()? }))
    }

    /// Loads what runs with samples, on CPUs of numbers below `cpus`. It copies so much of each of a guest's stacks.
    pub(super) fn capture(&self, cpus: u32, call_graph: CallGraph) -> Result<Capture, Lack> {
        let stack_bytes = match call_graph {
            CallGraph::Stack { bytes } => bytes,
            CallGraph::Off | CallGraph::FramePointers => 0,
        };
        let buffers =
            calls::create_map(MapKind::PerfEvents, 4, cpus).map_err(Lack::refused("a map of buffers"))?;
        let scratch = calls::create_map(MapKind::Array, VcpuState::SCRATCH_BYTES, cpus)
            .map_err(Lack::refused("a map to make records in"))?;
        let layout =
            calls::constants(&self.layout.words(stack_bytes)).map_err(Lack::refused("a map of constants"))?;
        let symbols = [
            ("buffers", Symbol::Map(buffers.as_fd())),
            ("scratch", Symbol::Map(scratch.as_fd())),
            ("layout", Symbol::Value(layout.as_fd())),
        ];
        let program = CAPTURE.load(ProgramKind::PerfEvent, &symbols)?;
        Ok(Capture { program, buffers, counting: calls::count_runs().ok() })
    }

    /// Begins to count exits, on a machine with so many CPUs, of which `cpu` is online.
    pub(super) fn count_exits(&self, cpus: u32, cpu: u32) -> Result<ExitCounter, Lack> {
        ExitCounter::begin(self, cpus, cpu)
    }
}

/// The program that runs with samples. It lives as long as an event has it.
pub(super) struct Capture {
    program: OwnedFd,
    buffers: OwnedFd,
    /// While it is open, the kernel counts runs; users who may not ask for that go without.
    counting: Option<OwnedFd>,
}

impl Capture {
    /// How often it ran, and for how many nanoseconds in all; none where that is not counted.
    pub(super) fn runs(&self) -> Option<(u64, u64)> {
        self.counting.as_ref().and_then(|_| calls::runs(self.program()).ok())
    }

    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Makes an event the one that records of a CPU are written to.
    pub(super) fn write_to(&self, cpu: u32, event: BorrowedFd<'_>) -> io::Result<()> {
        calls::set_event(self.buffers.as_fd(), cpu, event)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The kernel's verifier takes both programs, and what the second reads is what is there.
    #[test]
    fn this_kernel_takes_the_programs() {
        let kernel = match KernelMemory::open() {
            Err(lack @ (Lack::Forbidden | Lack::NotBuilt)) => {
                return println!("not tried: {lack}");
            }
            kernel => kernel.unwrap(),
        };
        let bpf = Bpf { layout: Layout::at_the_beginning(), kernel };
        for call_graph in [CallGraph::Off, CallGraph::Stack { bytes: CallGraph::MOST_BYTES }] {
            bpf.capture(2, call_graph).unwrap();
        }
        assert_eq!(bpf.kernel.u64(0x1000), None);
        let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
        let address = symbols.lines().find_map(|line| line.strip_suffix(" T _text")).unwrap();
        let address = u64::from_str_radix(address, 16).unwrap();
        assert_eq!(bpf.kernel.u64(address).is_some(), address != 0);
    }
}
