//! What on Xen's own stack looks like return addresses.
//!
//! Xen has no tables to unwind by, and keeps no frame pointers. A word of its stack that points behind a call
//! instruction of its code may be where that call returns to, or what an earlier one has left behind. Which of them form
//! a chain is told in dom0, which knows the functions: for that, each comes with what its call leads to.

use abi::{
    record::Mode,
    ring::{Data, Room},
    section::{Kind, header},
};

use crate::{
    Machine,
    probe::{CodeRange, Layout},
};

/// Words of the stack that are looked at.
const MOST_LOOKED_AT: u64 = 1024;

/// The most that are found.
const MOST: usize = 96;

/// The most words that a section takes.
pub(crate) const MOST_WORDS: usize = 1 + 2 * MOST;

/// The longest call instruction, and how much of one is read.
const LONGEST_CALL: u64 = 8;

const PAGE: u64 = 4096;

/// Xen's stacks and, in the same block, those for NMIs and the like.
const BLOCK: u64 = 0x8000;

/// Looks through the stack from an address up to the guest's frame.
pub(crate) fn capture<M: Machine, D: Data + ?Sized>(
    machine: &M,
    layout: &Layout,
    stack_top: u64,
    from: u64,
    room: &mut Room<'_, D>,
) {
    let guest_frame = stack_top - layout.frame_below_top;
    if from < stack_top - BLOCK || from >= guest_frame {
        return;
    }
    // The main stack is two pages; what lies below them has a page each.
    let is_main = from / PAGE + 1 >= guest_frame / PAGE;
    let end = if is_main { guest_frame } else { (from | (PAGE - 1)) + 1 };
    let begin = room.length();
    room.push(0);
    let mut at = from.next_multiple_of(8);
    let last = end.min(at + 8 * MOST_LOOKED_AT);
    let mut found = 0;
    while at < last && found < MOST && room.left() >= 2 {
        let word = machine.read(at);
        if layout.code.iter().any(|code| may_return_to(code, word))
            && let Some(target) = call_before(machine, word)
            && (target == 0 || layout.code.iter().any(|code| code.contains(target)))
        {
            room.push(word);
            room.push(target);
            found += 1;
        }
        at += 8;
    }
    match found {
        0 => room.shorten(begin),
        _ => room.set(begin, header(room.length() - begin, Kind::Calls, Mode::Hypervisor)),
    }
}

fn may_return_to(code: &CodeRange, address: u64) -> bool {
    address >= code.start + LONGEST_CALL && address <= code.end
}

/// What the call instruction leads to that ends at an address: 0 for an indirect one, none if there is no call. (Intel
/// Software Developer's Manual, volume 2, CALL: E8 with a relative address, FF /2 with a register or memory.)
pub fn call_before<M: Machine>(machine: &M, address: u64) -> Option<u64> {
    let code = machine.read(address.wrapping_sub(8)).to_le_bytes();
    if code[3] == 0xe8 {
        let relative = i32::from_le_bytes([code[4], code[5], code[6], code[7]]);
        return Some(address.wrapping_add_signed(i64::from(relative)));
    }
    // The byte behind FF says which operand; its length follows from it.
    let is_indirect = (1..7).any(|at| {
        let (operand, length) = (code[at + 1], 6 - at);
        code[at] == 0xff && operand >> 3 & 7 == 2 && length == bytes_behind(operand, code.get(at + 2))
    });
    is_indirect.then_some(0)
}

/// How many bytes of an operand follow the one that describes it.
fn bytes_behind(operand: u8, next: Option<&u8>) -> usize {
    let scaled = usize::from(operand & 7 == 4 && operand >> 6 != 3);
    let base_is_absolute = scaled == 1 && next.is_some_and(|next| next & 7 == 5);
    match operand >> 6 {
        0 if operand & 7 == 5 || base_is_absolute => 4 + scaled,
        0 => scaled,
        1 => 1 + scaled,
        2 => 4 + scaled,
        _ => 0,
    }
}
