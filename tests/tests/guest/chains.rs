//! Are the callers in a kernel those that its code has? Stacks are copied while a guest stands still for a moment, and
//! walked by the tables that its memory holds.

use std::{collections::BTreeMap, path::Path};

use guest::{Kernel, Levels, Limits, Look, PageTables};
use profile::{CodeAddress, GuestVirtual, Registers, StackPiece, Stretch};
use unwind::{End, Entered, KernelCode, OrcTable, Stacks};

use crate::machines::{self, Machine};

const PAGE: u64 = 4096;
/// The stacks of threads and of interrupts, each at a multiple of its size (`THREAD_SIZE`, `IRQ_STACK_SIZE`).
const KERNEL_STACK: u64 = 16 << 10;
const KERNEL: u64 = 1 << 63;

/// A CPU at a moment when it stood still.
pub(crate) struct Captured {
    registers: Registers,
    stacks: Vec<StackPiece>,
}

impl Captured {
    /// Copies the stack of the kernel, and that which it was changed from for interrupts.
    pub(crate) fn of(memory: &Path, cpu: &lab::Registers) -> Self {
        let [r12, r13, r14, r15] = cpu.r12_to_r15;
        let (ip, sp, bp, bx) = (cpu.rip, cpu.sp, cpu.bp, cpu.bx);
        let registers = Registers { ip, sp, bp, bx, r12, r13, r14, r15, ..Registers::default() };
        let memory = machines::open(memory);
        let look = Look::new(&memory, Limits::default());
        let mut stacks = Vec::new();
        if cpu.cpl == 0 {
            let piece = stack(&look, cpu.cr3, sp);
            // Where interrupts have a stack of their own, the other one's address is the last word of it.
            let top = piece.bytes.last_chunk().map(|word| u64::from_le_bytes(*word));
            stacks.push(piece);
            stacks.extend(
                top.filter(|&top| top >= KERNEL && top.is_multiple_of(8))
                    .map(|top| stack(&look, cpu.cr3, top)),
            );
        }
        Self { registers, stacks }
    }
}

/// What there is of a stack from its pointer upwards.
fn stack(look: &Look<'_>, cr3: u64, from: u64) -> StackPiece {
    let mut piece = StackPiece { address: from, bytes: Vec::new() };
    let end = (from | (KERNEL_STACK - 1)).wrapping_add(1);
    let mut at = from;
    while at < end && at >= KERNEL {
        let mut page = vec![0; (PAGE - at % PAGE) as usize];
        // How many levels there are is not in CR3, nor whether it is the root of a process under isolation.
        let mut tables = [Levels::Four, Levels::Five]
            .into_iter()
            .flat_map(|levels| [cr3 & !(1 << 12), cr3].map(|cr3| PageTables::of_cr3(cr3, levels)));
        if !tables.any(|tables| look.read(tables, GuestVirtual(at), &mut page).is_ok()) {
            break;
        }
        at += page.len() as u64;
        piece.bytes.extend(page);
    }
    piece
}

fn code(look: &Look<'_>, kernel: &Kernel) -> KernelCode {
    let tables = [kernel.orc(look).unwrap()].into_iter().chain(kernel.orc_of_modules(look).unwrap());
    let tables = tables.map(|table| OrcTable::parse(table.at.0, &table.addresses, &table.entries));
    KernelCode::new(tables.map(|table| table.expect("a table")), kernel.thunks())
}

/// The symbol that has an address.
fn symbol(machine: &Machine, address: u64) -> &str {
    let symbols = &machine.truth.symbols;
    let mut code: Vec<_> = symbols.iter().filter(|line| matches!(line.kind, 't' | 'T' | 'w' | 'W')).collect();
    code.sort_by_key(|line| line.address);
    let above = code.partition_point(|line| line.address <= address);
    above.checked_sub(1).map_or("", |index| &code[index].name)
}

/// Where a call that returns to an address leads: to one function, or to whichever a register or a word says. None where
/// there is no call.
enum Calls {
    Function(u64),
    Something,
}

fn call_before(look: &Look<'_>, kernel: &Kernel, address: u64) -> Option<Calls> {
    let mut bytes = [0; 8];
    look.read(kernel.page_tables(), GuestVirtual(address - 8), &mut bytes).ok()?;
    // Intel SDM, volume 2A, CALL: E8 with a distance, or FF /2 with a register or memory.
    if bytes[3] == 0xe8 {
        let distance = i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        return Some(Calls::Function(address.wrapping_add_signed(distance.into())));
    }
    let indirect = (1..=6).any(|at| bytes[at] == 0xff && bytes[at + 1] >> 3 & 7 == 2);
    indirect.then_some(Calls::Something)
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn chains_in_kernels_reach_their_entry_by_calls_that_there_are() {
    for machine in machines::all() {
        let look = machine.look();
        let kernel = machine.kernel(&look);
        let code = code(&look, &kernel);
        let (mut complete, mut processes, mut all, mut frames) = (0, 0, 0, 0);
        let (mut direct, mut led_on) = (0, 0);
        let mut broken: BTreeMap<String, usize> = BTreeMap::new();
        for Captured { registers, stacks } in machine.captured.iter().filter(|one| !one.stacks.is_empty()) {
            let stretch = Stretch::Copied { registers: *registers, stacks: stacks.clone() };
            let (chain, entered) = code.walk(registers, &Stacks::of([&stretch]));
            let names: Vec<&str> =
                chain.frames.iter().map(|frame| symbol(machine, frame.for_lookup())).collect();
            all += 1;
            frames += chain.frames.len();
            processes += usize::from(matches!(entered, Entered::FromProcess(_)));
            match chain.end {
                End::Complete => complete += 1,
                End::Broken(why) => {
                    println!("{}: {why}: {names:?} {:x?}", machine.name, chain.frames);
                    *broken.entry(why.to_string()).or_default() += 1;
                }
            }
            for pair in chain.frames.windows(2) {
                let (callee, CodeAddress::ReturnAddress(caller)) = (pair[0].for_lookup(), pair[1]) else {
                    continue;
                };
                match call_before(&look, &kernel, caller) {
                    Some(Calls::Function(target)) if symbol(machine, target) == symbol(machine, callee) => {
                        direct += 1;
                    }
                    // It went on to another function by a jump, or through a thunk or a trampoline.
                    Some(_) => led_on += 1,
                    None => panic!("{}: {caller:#x} is behind no call: {names:?}", machine.name),
                }
            }
        }
        if all == 0 {
            println!("skipped: {}: an earlier run's guest has no stacks", machine.name);
            continue;
        }
        machine.figure(
            "chains in the kernel that are complete",
            format_args!("{complete} of {all}, {broken:?}"),
        );
        machine.figure("of them entered from a process", processes);
        machine.figure("frames a chain", format_args!("{:.1}", frames as f64 / all as f64));
        machine.figure("callers by a direct call, by others", format_args!("{direct}, {led_on}"));
        assert!(all >= 20, "{}: {all} samples of the kernel", machine.name);
        assert!(complete * 100 >= all * 95, "{}: {complete} of {all}: {broken:?}", machine.name);
        assert!(processes > all / 4, "{}: {processes} of {all}", machine.name);
    }
}
