//! Would the same guests be understood as Xen PV domains, whose page tables hold the machine's frames?
//!
//! Their memory is dealt out anew: each run of frames lies elsewhere, and every page table says so. Nothing else of the
//! guest knows: all that it counts in frames itself leads to the wrong place, as in a PV domain.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
};

use guest::{Content, FileBytes, Frames, GuestMemory, GuestPhysical, Kernel, Levels, Limits, Look, Missing};

use crate::machines::{self, Machine};

/// What is moved as a whole: the largest page that is dealt out. Larger ones don't occur in guests of 512 MiB.
const RUN: u64 = 2 << 20;
const PAGE: u64 = 4096;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;

/// A guest's memory, dealt out anew.
struct Dealt<'a> {
    memory: &'a dyn GuestMemory,
    /// Page tables, by where they really are.
    tables: RefCell<HashMap<u64, Vec<u8>>>,
}

/// The way there and back are the same: runs change places in pairs.
fn dealt(address: u64) -> u64 {
    address ^ (5 * RUN)
}

impl Dealt<'_> {
    /// Rewrites the page tables from a root on.
    fn rewrite(&self, table: u64, shift: u32) {
        if self.tables.borrow().contains_key(&dealt(table)) {
            return;
        }
        let mut bytes = vec![0; PAGE as usize];
        if self.memory.read(GuestPhysical(table), &mut bytes).is_err() {
            return;
        }
        let mut below = Vec::new();
        for entry in bytes.as_chunks_mut::<8>().0 {
            let value = u64::from_le_bytes(*entry);
            if value & PRESENT == 0 {
                continue;
            }
            let address = value & FRAME;
            *entry = (value & !FRAME | dealt(address) & FRAME).to_le_bytes();
            if shift > 12 && value & LARGE == 0 {
                below.push(address);
            }
        }
        self.tables.borrow_mut().insert(dealt(table), bytes);
        below.into_iter().for_each(|table| self.rewrite(table, shift - 9));
    }
}

impl GuestMemory for Dealt<'_> {
    fn read(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), Missing> {
        let (mut at, mut rest) = (address.0, bytes);
        while !rest.is_empty() {
            let within = (at % PAGE) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(PAGE as usize - within));
            match self.tables.borrow().get(&(at - at % PAGE)) {
                Some(table) => now.copy_from_slice(&table[within..within + now.len()]),
                None => self.memory.read(GuestPhysical(dealt(at)), now).map_err(|_| Missing(address))?,
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn frames(&self) -> Frames {
        Frames::Machine
    }
}

/// What is found of a guest: symbols, and each task with its mappings and the pages of files that it has.
fn found(kernel: &Kernel, look: &Look<'_>) -> (usize, Vec<String>) {
    let mut lines = Vec::new();
    let mut seen = HashSet::new();
    for task in kernel.tasks(look).unwrap().iter() {
        lines.push(format!("{} {} {:?} {}", task.pid, task.tgid, task.comm, task.root.is_some()));
        for mapping in kernel.mappings(look, task).unwrap() {
            lines.push(format!("{mapping:?}"));
            let Content::File(piece) = mapping.content else { continue };
            if !seen.insert(piece.file) {
                continue;
            }
            let file = kernel.file(look, piece.file).unwrap();
            let mut sum = 0_u64;
            for page in 0..file.size() / PAGE {
                let mut bytes = [0; PAGE as usize];
                if file.read(page * PAGE, &mut bytes).is_ok() {
                    sum = bytes.iter().fold(sum, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
                }
            }
            lines.push(format!("{sum:x}"));
        }
    }
    (kernel.symbols().len(), lines)
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn memory_in_machine_frames_tells_the_same() {
    for machine in machines::all() {
        if machine.has_huge_pages() {
            continue;
        }
        let look = machine.look();
        let kernel = machine.kernel(&look);
        let expected = found(&kernel, &look);

        let dealt_out = Dealt { memory: &machine.memory, tables: RefCell::default() };
        let top = if kernel.page_tables().levels == Levels::Five { 48 } else { 39 };
        let roots = kernel.tasks(&look).unwrap().iter().filter_map(|task| task.root).collect::<Vec<_>>();
        for root in roots.iter().map(|root| root.0).chain([kernel.page_tables().root.0]) {
            dealt_out.rewrite(root, top);
        }
        let look = Look::new(&dealt_out, Limits::default());
        let kernel = Kernel::find(&look, dealt(roots[0].0)).unwrap();
        let moved = found(&kernel, &look);
        assert!(moved == expected, "{}", machine.name);
        assert_eq!(kernel.tasks(&look).unwrap().process(dealt(roots[0].0)).map(|task| task.pid), Some(1));
        machine.figure("lines that are equal in machine frames", moved.1.len());
    }
}

impl Machine {
    /// Whether its kernel may have mapped its memory in pages of 1 GiB.
    fn has_huge_pages(&self) -> bool {
        self.snapshot.memory.metadata().unwrap().len() > 1 << 30
    }
}
