//! What is captured of a sample: by its mode, by where its stacks lie, and of a guest that means harm.

use abi::{
    record::{Guest, Mode},
    section::{Missing, Section, sections},
};
use proptest::{collection::vec, prelude::*};
use sampler::{capture::Wanted, probe::DIRECT_MAP};

use crate::{
    cpu::{Cpu, FRAME, ROOT, TEXT, VCPU, VMCB},
    model::{GUEST, GUEST_KERNEL, OTHER, PRESENT, USER},
};

/// Each section in short: whose, what, from where, how many words.
fn told(record: &[u64]) -> Vec<(Mode, &'static str, u64, usize)> {
    let tell = |section| match section {
        Section::Registers { space, words, .. } => (space, "registers", words[15], words.len()),
        Section::Stack { space, address, words } => (space, "stack", address, words.len()),
        Section::Frames { space, words, .. } => (space, "frames", words[0], words.len()),
        Section::Calls { words } => (Mode::Hypervisor, "calls", words[0], words.len()),
        Section::Missing { why } => (Mode::Hypervisor, "missing", why as u64, 0),
    };
    sections(record).map(tell).collect()
}

const STACKS: Wanted = Wanted::Stacks(512);

/// The stack of a task: four pages, the lowest of which are not touched here.
const TASK: u64 = 0xffff_c900_0001_0000;
const TASK_TOP: u64 = TASK + 0x4000;
const PROCESS: u64 = 0x7ffc_0000_2000;

#[test]
fn of_a_process_its_registers_and_stack() {
    let mut cpu = Cpu::new(false);
    cpu.registers(0x40_1000, PROCESS + 0xf00, 0);
    cpu.page(PROCESS, 0x100, PRESENT | USER);
    let record = cpu.captured(Mode::User, Guest::Pv, STACKS);
    let from = PROCESS + 0xf00 - 128;
    let words = (PROCESS + 0x1000 - from) / 8;
    assert_eq!(
        told(&record),
        [(Mode::User, "registers", 0x40_1000, 17), (Mode::User, "stack", from, words as usize)]
    );
    let Some(Section::Stack { words, .. }) = sections(&record).nth(1) else { panic!() };
    assert!(words.iter().zip((from..).step_by(8)).all(|(word, at)| *word == at), "each word is its address");
    let Some(Section::Registers { words, root, .. }) = sections(&record).next() else { panic!() };
    assert_eq!(
        (words[..3].to_vec(), words[16], root),
        (vec![0x100, 0x101, 0x102], PROCESS + 0xf00, ROOT << 12)
    );
}

/// Enters a kernel from a process whose stack pointer this is: what it saves at its stack's end.
fn save(cpu: &Cpu, frame: u64, ip: u64, sp: u64) {
    let saved = 512 - 21;
    for (place, word) in [(15, ip), (17, 0x33), (19, sp), (20, 0x2b)] {
        let place = if place == 15 { saved + 16 } else { saved + place };
        cpu.memory.set(frame, place, word);
    }
}

#[test]
fn of_a_kernel_its_stack_and_the_process_that_it_serves() {
    let mut cpu = Cpu::new(true);
    cpu.registers(0xffff_ffff_8100_0000, TASK_TOP - 0x200, 0);
    cpu.page(TASK_TOP - 0x1000, 0x100, PRESENT | USER | GUEST_KERNEL);
    cpu.page(PROCESS, 0x101, PRESENT | USER);
    save(&cpu, 0x100, 0x40_1000, PROCESS + 0xf80);
    let record = cpu.captured(Mode::Kernel, Guest::Pv, STACKS);
    let process = (Mode::User, "stack", PROCESS + 0xf00, 32);
    assert_eq!(
        told(&record),
        [
            (Mode::Kernel, "registers", 0xffff_ffff_8100_0000, 17),
            (Mode::Kernel, "stack", TASK_TOP - 0x200, 64),
            (Mode::User, "registers", 0x40_1000, 17),
            process,
        ]
    );
    // Few words are wanted: the process is found all the same.
    assert_eq!(told(&cpu.captured(Mode::Kernel, Guest::Pv, Wanted::Stacks(4)))[1].3, 4);
    assert_eq!(
        told(&cpu.captured(Mode::Kernel, Guest::Pv, Wanted::Stacks(4)))[3],
        (process.0, process.1, process.2, 4)
    );
}

#[test]
fn of_a_system_call_on_the_processs_stack_where_it_returns_to() {
    let mut cpu = Cpu::new(true);
    cpu.registers(0xffff_ffff_8100_0000, PROCESS + 0xf80, 0);
    cpu.page(PROCESS, 0x100, PRESENT | USER);
    let rcx = 0x100 + 11;
    assert_eq!(
        told(&cpu.captured(Mode::Kernel, Guest::Pv, STACKS)),
        [
            (Mode::Kernel, "registers", 0xffff_ffff_8100_0000, 17),
            (Mode::User, "registers", rcx, 17),
            (Mode::User, "stack", PROCESS + 0xf00, 32),
        ]
    );
}

#[test]
fn a_process_can_not_have_its_kernel_read_what_it_may_not() {
    let secret = 0xffff_8880_0000_1000;
    for sp in [secret, TASK_TOP - 0x800, PROCESS, 0xffff_82d0_4020_0000, 0x8000_0000_0000, u64::MAX] {
        let mut cpu = Cpu::new(true);
        cpu.registers(0xffff_ffff_8100_0000, TASK_TOP - 0x200, 0);
        cpu.page(TASK_TOP - 0x1000, 0x100, PRESENT | USER | GUEST_KERNEL);
        cpu.page(secret, 0x101, PRESENT | USER | GUEST_KERNEL);
        cpu.page(PROCESS, 0x102, PRESENT | USER | GUEST_KERNEL);
        save(&cpu, 0x100, 0x40_1000, sp);
        let told = told(&cpu.captured(Mode::Kernel, Guest::Pv, STACKS));
        assert_eq!(told.len(), 3, "{sp:#x}: {told:?}");
        assert_eq!(told[2].1, "registers");
    }
}

#[test]
fn a_stack_for_interrupts_leads_to_the_tasks() {
    let mut cpu = Cpu::new(true);
    // Not aligned to its size: what lies behind it is not mapped.
    let (interrupts, task) = (0xffff_c900_0003_3000, TASK_TOP - 0x180);
    cpu.registers(0xffff_ffff_8100_0000, interrupts + 0xf80, 0);
    cpu.page(interrupts, 0x100, PRESENT | USER | GUEST_KERNEL);
    cpu.page(TASK_TOP - 0x1000, 0x101, PRESENT | USER | GUEST_KERNEL);
    cpu.page(PROCESS, 0x102, PRESENT | USER);
    cpu.memory.set(0x100, 511, task);
    save(&cpu, 0x101, 0x40_1000, PROCESS + 0xff8);
    let told = told(&cpu.captured(Mode::Kernel, Guest::Pv, STACKS));
    let stacks: Vec<(u64, usize)> =
        told.iter().filter(|section| section.1 == "stack").map(|section| (section.2, section.3)).collect();
    assert_eq!(stacks, [(interrupts + 0xf80, 16), (task, 48), (PROCESS + 0xf78, 17)]);
    // Stacks that lead to each other in a circle are followed a few times.
    cpu.memory.set(0x100, 511, interrupts + 0xf80);
    assert_eq!(self::told(&cpu.captured(Mode::Kernel, Guest::Pv, STACKS)).len(), 4);
}

#[test]
fn of_xen_its_calls_and_what_it_interrupted() {
    let mut cpu = Cpu::new(false);
    cpu.registers(0x40_1000, PROCESS + 0xf00, 0);
    cpu.page(PROCESS, 0x100, PRESENT | USER);
    let regs = FRAME - 0x300;
    cpu.word(regs + 128, TEXT + 0x700);
    cpu.word(regs + 152, FRAME - 0x100);
    // Two words of code that follow calls, one that does not, and one outside.
    for (place, address) in [(0, TEXT + 0x220), (2, TEXT + 0x330), (3, TEXT + 0x440), (5, TEXT + 0x9000)] {
        cpu.word(FRAME - 0x100 + 8 * place, address);
    }
    cpu.word(TEXT + 0x220 - 8, u64::from_le_bytes([0, 0, 0, 0xe8, 0x20, 0, 0, 0]));
    cpu.word(TEXT + 0x330 - 8, u64::from_le_bytes([0, 0, 0, 0, 0, 0, 0xff, 0xd0]));
    let record = cpu.captured_from(regs, Mode::Hypervisor, Guest::None, STACKS);
    let Some(Section::Calls { words }) = sections(&record).next() else { panic!("no calls") };
    assert_eq!(words, [TEXT + 0x220, TEXT + 0x240, TEXT + 0x330, 0]);
    assert_eq!(told(&record)[1..], told(&cpu.captured(Mode::User, Guest::Pv, STACKS))[..]);
    // Xen is on its way from one vCPU to another: the registers may still be the first one's.
    cpu.loaded_vcpu += 0x1000;
    assert_eq!(told(&cpu.captured_from(regs, Mode::Hypervisor, Guest::None, STACKS)).len(), 1);
}

#[test]
fn a_hardware_guest_is_read_from_its_vmcb_through_nested_tables() {
    let mut cpu = Cpu::new(false);
    cpu.registers(0xbad, 0xbad, 0);
    for (field, word) in [(0, VMCB), (8, VMCB - DIRECT_MAP.start)] {
        cpu.word(VCPU + 0x5c0 + field, word);
    }
    let long_mode = [(0x4d0, 1 << 10), (0x558, 1 << 31), (0x548, 0)];
    let nested = 0x20;
    let state = [
        (0x90, 1),
        (0xb0, nested << 12),
        (0x550, 0),
        (0x578, 0x40_2000),
        (0x5d8, PROCESS + 0xff0),
        (0x5f8, 7),
    ];
    long_mode.into_iter().chain(state).for_each(|(field, word)| cpu.word(VMCB + field, word));
    cpu.memory.add(nested, OTHER);
    for frame in 0..16 {
        cpu.memory.add(0x100 + frame, GUEST);
        cpu.memory.map(nested, frame << 12, 0x100 + frame, PRESENT, OTHER);
    }
    for (level, shift) in [39, 30, 21, 12].into_iter().enumerate() {
        let level = level as u64;
        cpu.memory.set(0x100 + level, (PROCESS >> shift) as usize % 512, (level + 1) << 12 | PRESENT | USER);
    }
    let record = cpu.captured(Mode::User, Guest::Svm, STACKS);
    let user = [(Mode::User, "registers", 0x40_2000, 17), (Mode::User, "stack", PROCESS + 0xf70, 18)];
    assert_eq!(told(&record), user);
    let Some(Section::Registers { words, .. }) = sections(&record).next() else { panic!() };
    assert_eq!((words[10], words[16]), (7, PROCESS + 0xff0), "rax and rsp are in the VMCB");
    // Without nesting, or with five levels, there is nothing to walk.
    cpu.word(VMCB + 0x548, 1 << 12);
    let missing = [(Mode::Hypervisor, "missing", Missing::PageTables as u64, 0)];
    assert_eq!(told(&cpu.captured(Mode::User, Guest::Svm, STACKS)), missing);
    cpu.word(VMCB + 0x548, 0);
    cpu.word(VMCB + 0x90, 0);
    assert_eq!(told(&cpu.captured(Mode::User, Guest::Svm, STACKS)), missing);
}

#[test]
fn frame_pointers_are_followed_upwards_only() {
    let mut cpu = Cpu::new(false);
    cpu.registers(0x40_1000, PROCESS + 0x100, PROCESS + 0x200);
    cpu.page(PROCESS, 0x100, PRESENT | USER);
    for (at, caller, address) in
        [(0x200, 0x300, 0x40_2000), (0x300, 0x400, 0x40_3000), (0x400, 0x200, 0x40_4000)]
    {
        cpu.memory.set(0x100, at / 8, PROCESS + caller);
        cpu.memory.set(0x100, at / 8 + 1, address);
    }
    let record = cpu.captured(Mode::User, Guest::Pv, Wanted::Frames);
    let Some(Section::Frames { words, .. }) = sections(&record).next() else { panic!() };
    assert_eq!(words, [0x40_1000, 0x40_2000, 0x40_3000, 0x40_4000]);
    // A frame a word: as many as there are at the most.
    cpu.registers(0x40_1000, PROCESS, PROCESS);
    (0..512).for_each(|place| cpu.memory.set(0x100, place, PROCESS + 8 * place as u64 + 8));
    assert_eq!(told(&cpu.captured(Mode::User, Guest::Pv, Wanted::Frames))[0].3, 128);
}

proptest! {
    /// Whatever a guest has in its registers and its memory: what is captured fits its record, and is read back.
    #[test]
    fn whatever_a_guest_has_fits_its_record(
        pages in vec((0..8u64, vec((0..512usize, 0..6u64, 0..0x8000u64), 0..40)), 1..6),
        sp in 0..0x8000u64,
        bp in 0..0x8000u64,
        in_kernel in any::<bool>(),
        words in 0..2048usize,
    ) {
        let mut cpu = Cpu::new(in_kernel);
        // Stacks and what they lead to lie close to each other.
        let base = if in_kernel { TASK } else { PROCESS };
        cpu.registers(0x40_1000, base + sp, base + bp);
        for (number, (page, words)) in (0..).zip(pages) {
            let frame = 0x100 + number;
            cpu.page(base + page * 0x1000, frame, PRESENT | USER);
            for (place, kind, offset) in words {
                let word = [base + offset, TASK + offset, PROCESS + offset, 0x33, 0x2b, 0x10][kind as usize];
                cpu.memory.set(frame, place, word);
                if kind > 2 {
                    [511, 508].into_iter().for_each(|place| cpu.memory.set(frame, place, word));
                }
            }
        }
        let mode = if in_kernel { Mode::Kernel } else { Mode::User };
        for wanted in [Wanted::Frames, Wanted::Stacks(words)] {
            let record = cpu.captured(mode, Guest::Pv, wanted);
            prop_assert!(record.len() <= wanted.record_words());
            prop_assert!(!told(&record).is_empty());
        }
    }
}
