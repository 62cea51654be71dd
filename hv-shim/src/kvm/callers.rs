//! What the kernel's events capture of a sample's callers: the kernel's own frames as it found them itself, and of the
//! process its registers and the top of its stack (perf_event_open(2)).

use perf_event_open_sys::bindings as sys;
use profile::{CodeAddress, Registers, StackPiece, Stretch};

use super::{HOST, records::Fields};
use crate::{CallGraph, Captured, Owner};

/// `PERF_REG_X86_AX` to `IP`, and `R8` to `R15` (arch/x86/include/uapi/asm/perf_regs.h).
const REGISTERS: u64 = 0x1ff | 0xff << 16;

/// Nearly all kernels allow no more (`sysctl kernel.perf_event_max_stack`).
const MOST_FRAMES: u64 = 1024;

/// What stands in a chain before frames of another space is no address (`PERF_CONTEXT_MAX`).
const CONTEXTS: u64 = 4096_u64.wrapping_neg();
const KERNEL: u64 = 128_u64.wrapping_neg();
const USER: u64 = 512_u64.wrapping_neg();

/// Asks for what a call graph needs.
pub(super) fn ask(attributes: &mut sys::perf_event_attr, call_graph: CallGraph, kernel: bool) {
    let asked = match call_graph {
        CallGraph::Off => return,
        CallGraph::FramePointers => sys::PERF_SAMPLE_CALLCHAIN,
        CallGraph::Stack { bytes } => {
            attributes.set_exclude_callchain_user(1);
            attributes.sample_regs_user = REGISTERS;
            attributes.sample_stack_user = bytes.next_multiple_of(8);
            sys::PERF_SAMPLE_CALLCHAIN | sys::PERF_SAMPLE_REGS_USER | sys::PERF_SAMPLE_STACK_USER
        }
    };
    attributes.sample_type |= u64::from(asked);
    attributes.set_exclude_callchain_kernel(u64::from(!kernel));
}

/// How many bytes a sample takes more for it, at the most.
pub(super) fn bytes(call_graph: CallGraph) -> u32 {
    match call_graph {
        CallGraph::Off => 0,
        CallGraph::FramePointers => 512,
        CallGraph::Stack { bytes } => 512 + bytes,
    }
}

/// What a sample holds of it, innermost first; all of it the host's.
pub(super) fn read(fields: &mut Fields<'_>, call_graph: CallGraph) -> Option<Vec<Captured>> {
    if call_graph == CallGraph::Off {
        return Some(Vec::new());
    }
    let (kernel, mut user) = chain(fields)?;
    if let CallGraph::Stack { .. } = call_graph {
        let registers = registers(fields)?;
        let stack = stack(fields)?;
        user = registers.map(|registers| Stretch::Copied {
            stacks: vec![StackPiece { address: registers.sp, bytes: stack.to_vec() }],
            registers,
        });
    }
    let captured = |owner, stretch| Captured { owner, page_tables: None, stretch };
    let kernel = kernel.map(|stretch| captured(Owner::Kernel(HOST), stretch));
    Some(kernel.into_iter().chain(user.map(|stretch| captured(Owner::Process(HOST), stretch))).collect())
}

/// The frames that the kernel found, of itself and of the process.
fn chain(fields: &mut Fields<'_>) -> Option<(Option<Stretch>, Option<Stretch>)> {
    let count = fields.u64()?;
    let (mut kernel, mut user, mut space) = (Vec::new(), Vec::new(), 0);
    for _ in 0..count.min(MOST_FRAMES) {
        let address = fields.u64()?;
        if address >= CONTEXTS {
            space = address;
            continue;
        }
        let frames = match space {
            KERNEL => &mut kernel,
            USER => &mut user,
            _ => continue,
        };
        // Each space begins where it was left: at an interrupted instruction, or behind the one that called the kernel.
        frames.push(match frames.is_empty() {
            true => CodeAddress::InstructionPointer(address),
            false => CodeAddress::ReturnAddress(address),
        });
    }
    fields.skip(count.saturating_sub(MOST_FRAMES).checked_mul(8)?)?;
    let stretch = |frames: Vec<_>| (!frames.is_empty()).then_some(Stretch::Walked(frames));
    Some((stretch(kernel), stretch(user)))
}

/// The registers of the process; none for a thread of the kernel.
fn registers(fields: &mut Fields<'_>) -> Option<Option<Registers>> {
    const NONE: u64 = sys::PERF_SAMPLE_REGS_ABI_NONE as u64;
    const BITS_64: u64 = sys::PERF_SAMPLE_REGS_ABI_64 as u64;
    let kind = fields.u64()?;
    if kind == NONE {
        return Some(None);
    }
    let mut next = || fields.u64();
    let [ax, bx, cx, dx] = [next()?, next()?, next()?, next()?];
    let [si, di, bp, sp, ip] = [next()?, next()?, next()?, next()?, next()?];
    let [r8, r9, r10, r11] = [next()?, next()?, next()?, next()?];
    let [r12, r13, r14, r15] = [next()?, next()?, next()?, next()?];
    let registers = Registers { ip, sp, bp, bx, r12, r13, r14, r15, ax, cx, dx, si, di, r8, r9, r10, r11 };
    // Programs of 32 bits have other rules.
    Some((kind == BITS_64).then_some(registers))
}

/// The top of the stack of the process. The record has room for all that was asked for, and says how much there was.
fn stack<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    let size = fields.u64()?;
    if size == 0 {
        return Some(&[]);
    }
    let room = fields.skip(size)?;
    let copied = usize::try_from(fields.u64()?).ok()?;
    room.get(..copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(words: &[u64], call_graph: CallGraph) -> Option<Vec<Captured>> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        read(&mut Fields(&bytes), call_graph)
    }

    #[test]
    fn kernel_frames_and_the_stack_of_the_process() {
        let registers = (1..18).collect::<Vec<u64>>();
        let words =
            [&[3, KERNEL, 0xffff_ffff_8100_0000, 0xffff_ffff_8100_0010, 2], &registers[..], &[16, 7, 8, 8]];
        let stretches = captured(&words.concat(), CallGraph::Stack { bytes: 16 }).unwrap();
        let [kernel, user] = &stretches[..] else { panic!("{stretches:?}") };
        let frames = vec![
            CodeAddress::InstructionPointer(0xffff_ffff_8100_0000),
            CodeAddress::ReturnAddress(0xffff_ffff_8100_0010),
        ];
        assert_eq!((kernel.owner, &kernel.stretch), (Owner::Kernel(HOST), &Stretch::Walked(frames)));
        assert_eq!(user.owner, Owner::Process(HOST));
        let Stretch::Copied { registers, stacks } = &user.stretch else { panic!("{user:?}") };
        assert_eq!(
            (registers.ax, registers.sp, registers.ip, registers.r8, registers.r15),
            (1, 8, 9, 10, 17)
        );
        assert_eq!(stacks[..], [StackPiece { address: 8, bytes: 7_u64.to_ne_bytes().to_vec() }]);
    }

    #[test]
    fn threads_of_the_kernel_have_no_process() {
        let words = [2, KERNEL, 0xffff_ffff_8100_0000, 0, 0];
        let stretches = captured(&words, CallGraph::Stack { bytes: 16 }).unwrap();
        assert_eq!(stretches.len(), 1);
    }

    #[test]
    fn frame_pointers_are_followed_by_the_kernel() {
        let words = [3, USER, 0x40_1000, 0x40_2000];
        let stretches = captured(&words, CallGraph::FramePointers).unwrap();
        let frames = vec![CodeAddress::InstructionPointer(0x40_1000), CodeAddress::ReturnAddress(0x40_2000)];
        assert_eq!(stretches[0].stretch, Stretch::Walked(frames));
        assert_eq!(captured(&[u64::MAX, USER], CallGraph::FramePointers), None);
    }
}
