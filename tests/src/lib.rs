//! The lab: real hypervisor hosts in QEMU, for tests and for trying things out.
//!
//! **In** comes a [`Scenario`]: a hypervisor and its release, guests with their programs, and steps to be done in
//! its control domain (dom0, or a KVM host). The lab takes stock Debian packages, unpacked and never installed, and boots from them a whole host in an
//! emulated machine that needs no help from the CPU.
//!
//! **Out** goes a folder: what each step printed and how it ended (`steps/`, `steps.json`), what each console said
//! (`console/`), which packages were used (`packages.json`), and the files that the scenario wants brought back.
//!
//! **Not here**: what the profiler's output must look like. That is for the tests in `tests/tests/`, which look into
//! the folder. Nor does the lab build the profiler: it is handed the finished program.
#![forbid(unsafe_code)]

mod cache;
mod command;
mod consoles;
mod control;
mod cpio;
mod cpus;
mod disk;
mod dom0;
mod emulator;
pub mod evidence;
mod executed;
mod files;
mod guests;
mod host;
mod images;
mod initramfs;
mod interrupt;
mod kallsyms;
mod kernels;
mod libraries;
mod machine;
mod nmi;
mod own_keys;
mod packages;
mod progress;
mod qemu;
mod qmp;
mod run;
pub mod scenario;
mod snapshot;
mod stanzas;
mod steps;
mod tree;
mod vmm;

pub use executed::Executed;
pub use files::compiled;
pub use packages::Package;
pub use run::{Options, run, stretches, xenoscope};
pub use scenario::Scenario;
pub use snapshot::{PlainGuest, Registers, Snapshot};
pub use steps::{Outcome, StepOutcome};
