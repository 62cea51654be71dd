//! Kernels: calls, interrupts on a stack of their own, entries from processes; both layouts of ORC.

use profile::{CodeAddress, Registers, StackPiece, Stretch};
use unwind::{Border, Broken, Chain, End, Entered, KernelCode, OrcTable, Stacks};

const TEXT: u64 = 0xffff_ffff_8100_0000;
const TABLE: u64 = 0xffff_ffff_8200_0000;
const STACK: u64 = 0xffff_c900_0000_3000;
const IRQ_STACK: u64 = 0xffff_c900_0008_0000;

const SP: u16 = 5;
const SP_INDIRECT: u16 = 9;

/// What a function does with the stack, for both layouts.
#[derive(Clone, Copy)]
enum Does {
    /// Its frame has so many bytes.
    Call(i16),
    /// The caller's stack is noted at the top of this one.
    CallFromOtherStack,
    /// All registers of what was interrupted stand so far up the stack.
    Registers(i16),
    /// What the processor saves stands so far up the stack.
    Interrupted(i16),
    /// It has no caller.
    End,
    /// Nothing is known.
    Unknown,
}

fn entry(does: Does, new: bool) -> [u8; 6] {
    let (call, registers, interrupted) = if new { (2, 3, 4) } else { (0, 1, 2) };
    let (offset, flags) = match does {
        Does::Call(size) => (size, SP | call << 8),
        Does::CallFromOtherStack => (8, SP_INDIRECT | call << 8),
        Does::Registers(offset) => (offset, SP | registers << 8),
        Does::Interrupted(offset) => (offset, SP | interrupted << 8),
        Does::End => (0, if new { 1 << 8 } else { 1 << 10 }),
        Does::Unknown => (0, 0),
    };
    let [a, b] = offset.to_le_bytes();
    let [c, d] = flags.to_le_bytes();
    [a, b, 0, 0, c, d]
}

/// A kernel whose functions have 0x100 bytes each.
fn kernel(functions: &[Does], new: bool) -> KernelCode {
    // Most of a kernel is ordinary functions: that tells the layout.
    let filler = [Does::Call(8); 32];
    let all: Vec<Does> = functions.iter().chain(&filler).copied().collect();
    let addresses: Vec<u8> = (0..)
        .zip(&all)
        .flat_map(|(index, _)| ((TEXT + index * 0x100).wrapping_sub(TABLE + 4 * index) as i32).to_le_bytes())
        .collect();
    let entries: Vec<u8> = all.iter().flat_map(|&does| entry(does, new)).collect();
    KernelCode::new(OrcTable::parse(TABLE, &addresses, &entries), Vec::new())
}

fn function(index: u64) -> u64 {
    TEXT + index * 0x100 + 0x10
}

fn piece(address: u64, words: &[u64]) -> StackPiece {
    StackPiece { address, bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect() }
}

fn walk(kernel: &KernelCode, ip: u64, sp: u64, stacks: Vec<StackPiece>) -> (Chain, Entered) {
    let registers = Registers { ip, sp, ..Registers::default() };
    let stretch = Stretch::Copied { registers, stacks };
    kernel.walk(&registers, &Stacks::of([&stretch]))
}

/// `struct pt_regs` with a few members set.
fn saved(ip: u64, segment: u64, sp: u64) -> Vec<u64> {
    let mut words = vec![0; 21];
    (words[0], words[4], words[5]) = (15, 6, 3);
    (words[16], words[17], words[19]) = (ip, segment, sp);
    words
}

#[test]
fn an_interrupt_of_a_system_call_leads_to_the_process() {
    use CodeAddress::{InstructionPointer as Interrupted, ReturnAddress as Returns};
    // A handler on the interrupts' stack, the entry that changed to it, what it interrupted, a system call's entry.
    let functions =
        [Does::Call(16), Does::CallFromOtherStack, Does::Registers(0), Does::Call(8), Does::Registers(0)];
    for new in [false, true] {
        let kernel = kernel(&functions, new);
        let irq = piece(IRQ_STACK, &[0, function(1), STACK]);
        let mut words = vec![function(2)];
        words.extend(saved(function(3), 0x10, STACK + 8 + 21 * 8));
        words.push(function(4));
        words.extend(saved(0x40_1000, 0x33, 0x7ffe_0000));
        // Function 1 stands at the top of the interrupts' stack, with the other stack's address; the return address is
        // below where that leads.
        let (chain, entered) = walk(&kernel, function(0), IRQ_STACK, vec![irq, piece(STACK, &words)]);
        let expected = [
            Interrupted(function(0)),
            Returns(function(1)),
            Returns(function(2)),
            Interrupted(function(3)),
            Returns(function(4)),
        ];
        assert_eq!((&chain.frames[..], chain.end), (&expected[..], End::Complete), "new layout: {new}");
        let Entered::FromProcess(registers) = entered else { panic!("{entered:?}") };
        assert_eq!((registers.ip, registers.sp, registers.bp), (0x40_1000, 0x7ffe_0000, 6));
        assert_eq!((registers.bx, registers.r15), (3, 15));
    }
}

#[test]
fn what_xen_and_a_kernel_put_in_front_of_an_interrupt_is_stepped_over() {
    use CodeAddress::InstructionPointer as Interrupted;
    // Xen's entry, the processor's with an error code, what was interrupted, a system call's entry, the way to Xen.
    let functions = [Does::End, Does::Interrupted(8), Does::Call(8), Does::Registers(0), Does::End];
    let border = |from, to, before, like| Border { code: TEXT + from..TEXT + to, before, like };
    let borders = [
        border(0, 1, 16, Some(function(1))),
        border(1, 3, 8, Some(function(1))),
        border(3, 8, 0, Some(function(1))),
        border(0x40e, 0x40f, 32, None),
    ];
    let kernel = kernel(&functions, false).with_borders(borders.into());
    let interrupted = [function(2), 0xe030, 0x202, STACK + 0x1000, 0xe02b];
    let caller =
        piece(STACK + 0x1000, &[&[function(3)][..], &saved(0x40_1000, 0xe033, 0x7ffe_0000)].concat());
    for (at, before) in [(0, 3), (1, 2), (2, 2), (3, 1), (7, 1), (0x40e, 4)] {
        let words = [&vec![0xcc; before][..], &interrupted].concat();
        let (chain, entered) = walk(&kernel, TEXT + at, STACK, vec![piece(STACK, &words), caller.clone()]);
        let expected =
            [Interrupted(TEXT + at), Interrupted(function(2)), CodeAddress::ReturnAddress(function(3))];
        assert_eq!((&chain.frames[..], chain.end), (&expected[..], End::Complete), "at {at}");
        assert!(matches!(entered, Entered::FromProcess(Registers { ip: 0x40_1000, .. })));
    }
    // Elsewhere it is as the table says.
    for at in [8, 0x410] {
        let (chain, entered) = walk(&kernel, TEXT + at, STACK, vec![]);
        assert_eq!((chain.frames.len(), chain.end, entered), (1, End::Complete, Entered::FromNowhere));
    }
}

#[test]
fn chains_end_where_they_should_and_say_why_where_not() {
    let functions = [Does::Call(16), Does::End, Does::Unknown];
    for new in [false, true] {
        let kernel = kernel(&functions, new);
        let end = |caller, words: usize| {
            let stack = [0, caller, 0][..words].to_vec();
            walk(&kernel, function(0), STACK, vec![piece(STACK, &stack)]).0.end
        };
        assert_eq!(end(function(1), 3), End::Complete);
        assert_eq!(end(function(2), 3), End::Broken(Broken::NoUnwindInfo));
        assert_eq!(end(function(1), 1), End::Broken(Broken::NotCopied));
        assert_eq!(end(0x1234, 3), End::Broken(Broken::NotExecutable));
        assert_eq!(end(STACK, 3), End::Broken(Broken::NotExecutable));
    }
}

#[test]
fn circles_end() {
    let kernel = kernel(&[Does::Registers(0), Does::CallFromOtherStack], true);
    let circle = piece(STACK, &saved(function(0), 0x10, STACK));
    let (chain, _) = walk(&kernel, function(0), STACK, vec![circle]);
    assert_eq!(chain.end, End::Broken(Broken::TooLong));
    let circle = piece(STACK - 8, &[function(1), STACK - 8, 0]);
    let (chain, _) = walk(&kernel, function(1), STACK, vec![circle]);
    assert_eq!(chain.end, End::Broken(Broken::TooLong));
    assert!(chain.frames.len() < 16);
}
