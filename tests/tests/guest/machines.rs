//! The guests that are looked into: each is booted once, by whoever needs it first. With `XENOSCOPE_SNAPSHOTS=reuse`, what
//! an earlier run has left is looked into again.

use std::{env, fs::File, path::Path, sync::OnceLock};

use crate::chains::Captured;
use crate::running::{self, Running};
use guest::{Kernel, Limits, Look, MemoryImage};
use lab::{PlainGuest, Snapshot, scenario::Release};

use crate::truth::Truth;

/// A guest that was stopped, and what it said of itself.
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    pub(crate) snapshot: Snapshot,
    pub(crate) truth: Truth,
    pub(crate) memory: MemoryImage<File>,
    /// What was seen while it ran; nothing of a guest of an earlier run.
    pub(crate) running: Option<Running>,
    /// Stacks that were copied while it stood still for a moment; none of a guest of an earlier run.
    pub(crate) captured: Vec<Captured>,
}

/// A guest's memory, which QEMU may still be using.
pub(crate) fn open(memory: &Path) -> MemoryImage<File> {
    let file = File::open(memory).unwrap();
    let length = file.metadata().unwrap().len();
    MemoryImage::of_pc(file, length)
}

/// Linux 5.10 with page-table isolation, 6.1 with page tables of five levels, and 6.12 with memory above 4 GiB.
pub(crate) fn all() -> [&'static Machine; 3] {
    static MACHINES: [OnceLock<Machine>; 3] = [const { OnceLock::new() }; 3];
    let guest = |release, cpu, memory_mib, kernel_args| PlainGuest { release, cpu, memory_mib, kernel_args };
    let guests = [
        ("5.10", guest(Release::Bullseye, "qemu64", 512, "pti=on")),
        ("6.1", guest(Release::Bookworm, "max", 512, "")),
        ("6.12", guest(Release::Trixie, "max,la57=off", 4608, "pti=on")),
    ];
    let mut places = MACHINES.iter().zip(guests);
    [(); 3].map(|()| {
        let (place, (name, guest)) = places.next().expect("there are three");
        place.get_or_init(|| Machine::boot(name, &guest))
    })
}

impl Machine {
    fn boot(name: &'static str, guest: &PlainGuest) -> Self {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("guest-{name}"));
        let reuse = env::var_os("XENOSCOPE_SNAPSHOTS").is_some_and(|value| value == "reuse");
        let mut running = None;
        let mut captured = Vec::new();
        let snapshot = match reuse {
            true => Snapshot::open(&out),
            false => Snapshot::take(
                guest,
                &out,
                |memory, registers| running = Some(running::look_again_and_again(memory, registers)),
                |memory, registers| captured.extend(registers.iter().map(|cpu| Captured::of(memory, cpu))),
            ),
        };
        let snapshot = snapshot.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let truth = Truth::read(&snapshot.truth);
        let memory = open(&snapshot.memory);
        Self { name, snapshot, truth, memory, running, captured }
    }

    /// A look at its memory.
    pub(crate) fn look(&self) -> Look<'_> {
        Look::new(&self.memory, Limits::default())
    }

    /// Its kernel, found by the last sample that was taken.
    pub(crate) fn kernel(&self, look: &Look<'_>) -> Kernel {
        let sample = self.snapshot.registers.last().expect("samples were taken");
        Kernel::find(look, sample.cr3).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Prints what was measured.
    pub(crate) fn figure(&self, what: &str, value: impl std::fmt::Display) {
        println!("figure: {}: {what}: {value}", self.name);
    }
}
