//! What fuzzing does with its inputs: guests that were made up are corrupted as the input says, and looked into or sampled.
//!
//! `cargo +nightly fuzz run TARGET` in this folder's parent; the targets are `kernel`, `types`, `processes`, `elf`, `stacks`, `chains`
//! and, of files, `recording`, `chunks`, `perf_data` and `rules`.
//! A panic is a bug, and so is a look that costs more than its budget.
#![forbid(unsafe_code)]

mod chains;
#[path = "../../../guest/tests/looks/explore.rs"]
mod explore;
mod files;
#[path = "../../../guest/tests/looks/synthetic/mod.rs"]
#[allow(dead_code, unused_imports)]
mod synthetic;

mod stacks;

use std::{cell::RefCell, time::Duration};

pub use chains::chains;
pub use files::{chunks, perf_data, recording, rules};
use guest::{Budget, Elf, Frames, FunctionSource, Kernel, Levels, Limits, Look};
pub use stacks::stacks;
use synthetic::{Layout, Linux, Release, Shape};

/// Real time is bounded too, so that what takes long for no work is noticed.
const LIMITS: Limits = Limits { work: 2 << 20, memory: 128 << 20, time: Some(Duration::from_secs(10)) };

/// The guests that are corrupted: every layout, both kinds of structures, all kinds of page tables.
const SHAPES: [Shape; 6] = [
    Shape::PLAIN,
    Shape { release: Release::Old, layout: Layout::OffsetsFirst, isolated: false, ..Shape::PLAIN },
    Shape { release: Release::Old, layout: Layout::WideWords, protected: false, ..Shape::PLAIN },
    Shape { layout: Layout::LongNames, levels: Levels::Five, ..Shape::PLAIN },
    Shape { layout: Layout::Sequences, frames: Frames::Machine, isolated: false, ..Shape::PLAIN },
    Shape { layout: Layout::NothingAbsolute, release: Release::Old, levels: Levels::Five, ..Shape::PLAIN },
];

/// A guest, and what is known of it as long as nothing is corrupted.
struct Prepared {
    linux: Linux,
    kernel: Kernel,
    /// The frames that are looked at.
    frames: Vec<u64>,
}

thread_local! {
    static GUESTS: RefCell<Vec<Prepared>> = RefCell::new(SHAPES.map(Prepared::new).into());
}

impl Prepared {
    fn new(shape: Shape) -> Self {
        let linux = Linux::new(shape);
        let look = Look::new(&linux.ram, LIMITS);
        let kernel = Kernel::find(&look, linux.cr3).expect("it is whole");
        explore::explore(&look, &kernel);
        drop(look);
        let frames = linux.ram.touched();
        Self { linux, kernel, frames }
    }

    /// Changes memory as the input says, looks, and undoes the changes: for each, two bytes choose the frame, two the
    /// word in it, one what becomes of it, and eight are for that.
    fn corrupted(&mut self, input: &[u8], look_at: impl FnOnce(&Linux, &Kernel)) {
        let mut before = Vec::new();
        for change in input.as_chunks::<13>().0 {
            let half = |at: usize| u64::from(u16::from_le_bytes([change[at], change[at + 1]]));
            let value = u64::from_le_bytes(*change[5..].first_chunk().expect("there are eight bytes"));
            let frame = |index: u64| self.frames[(index % self.frames.len() as u64) as usize] * 4096;
            let at = frame(half(0)) + half(2) % 512 * 8;
            let old = self.linux.ram.u64(at);
            let new = match change[4] % 6 {
                0 => value,
                1 => self.linux.pointer(frame(value) + (value >> 16) % 4096),
                2 => self.linux.ram.real(frame(value)) | 0x67,
                3 => old ^ 1 << (value % 64),
                4 => old.wrapping_add(value),
                _ => self.linux.ram.u64(frame(value) + (value >> 16) % 512 * 8),
            };
            before.push((at, old));
            self.linux.ram.write(at, &new.to_le_bytes());
        }
        look_at(&self.linux, &self.kernel);
        for (at, old) in before.into_iter().rev() {
            self.linux.ram.write(at, &old.to_le_bytes());
        }
    }
}

/// Chooses a guest by the first byte.
fn with_guest(input: &[u8], test: impl FnOnce(&mut Prepared, &[u8])) {
    let Some((&first, rest)) = input.split_first() else { return };
    GUESTS.with_borrow_mut(|guests| {
        let count = guests.len();
        test(&mut guests[usize::from(first) % count], rest);
    });
}

/// A kernel is looked for in corrupted memory, and its symbols and modules are read.
pub fn kernel(input: &[u8]) {
    with_guest(input, |guest, input| {
        guest.corrupted(input, |linux, _| {
            let look = Look::new(&linux.ram, LIMITS);
            if let Ok(kernel) = Kernel::find(&look, linux.cr3) {
                explore::explore_kernel(&look, &kernel);
            }
        });
    });
}

/// A kernel that was found before is looked at after its memory was corrupted.
pub fn processes(input: &[u8]) {
    with_guest(input, |guest, input| {
        guest.corrupted(input, |linux, kernel| {
            explore::explore(&Look::new(&linux.ram, LIMITS), kernel);
        });
    });
}

/// The input stands in the place of the type information.
pub fn types(input: &[u8]) {
    with_guest(input, |guest, input| {
        let (at, length) = guest.linux.types();
        let before = guest.linux.ram.bytes()[at..at + length].to_vec();
        let used = input.len().min(length);
        guest.linux.ram.bytes()[at..at + used].copy_from_slice(&input[..used]);
        let look = Look::new(&guest.linux.ram, LIMITS);
        if let Ok(kernel) = Kernel::find(&look, guest.linux.cr3) {
            explore::explore_kernel(&look, &kernel);
            let tasks = kernel.tasks(&look).unwrap_or_default();
            for task in tasks.iter() {
                let _ = (kernel.cgroup(&look, task), kernel.mappings(&look, task));
            }
        }
        drop(look);
        guest.linux.ram.bytes()[at..at + length].copy_from_slice(&before);
    });
}

/// The input is a file.
pub fn elf(input: &[u8]) {
    let budget = Budget::new(LIMITS);
    let Ok(elf) = Elf::read(input, &budget) else { return };
    let _ = elf.build_id(input, &budget);
    let _ = elf.linked_address(input.len() as u64 / 2);
    for source in [FunctionSource::DynamicSymbols, FunctionSource::SymbolTable, FunctionSource::MiniDebugInfo]
    {
        if let Ok(functions) = elf.functions(input, &budget, source) {
            assert!(functions.iter().len() == functions.len());
        }
    }
}

/// Inputs to begin with, by target: the file and the types as they are.
pub fn seeds() -> [(&'static str, Vec<u8>); 6] {
    let mut linux = Linux::new(Shape::PLAIN);
    let (at, length) = linux.types();
    let types = [&[0], &linux.ram.bytes()[at..at + length]].concat();
    let rules = "[[function]]\nname = '*'\nmax-increase = '10%'\n[hypervisor]\nmax-increase = 0.1\n";
    [
        ("elf", linux.file.clone()),
        ("types", types),
        ("kernel", vec![0; 1 + 13 * 4]),
        ("stacks", vec![9; 25 + 12 * 4]),
        ("recording", files::header()),
        ("rules", rules.into()),
    ]
}
