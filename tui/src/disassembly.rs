//! From a function's bytes to its instructions.

use iced_x86::{
    Code as Opcode, Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, Mnemonic, OpKind,
};
use profile::{Domain, Process, Space};

use crate::{
    screen::Code,
    state::{CodeCopy, FunctionId, State},
};

/// More of a function is not looked at.
const LONGEST: u64 = 32 << 10;

/// Copies in other processes that are tried where one is gone.
const MOST_COPIES: usize = 4;

/// How much behind the last sampled instruction is shown, if the function is that long.
const BEHIND: u64 = 96;

/// The bytes of a piece of code that are wanted.
#[derive(Clone, Debug)]
pub struct CodeWanted {
    /// Whose.
    pub space: Space,
    /// The domain whose code it is; none for a hypervisor that is no domain.
    pub domain: Option<Domain>,
    /// A process in whose address space it is.
    pub process: Option<Process>,
    /// Where it begins.
    pub start: u64,
    /// How many bytes.
    pub length: usize,
    base: u64,
    /// The last instruction that was sampled: the function goes as far as that at least.
    last: u64,
}

/// Reads code while whoever has it lives.
pub trait ReadCode: Send {
    /// As many bytes from the start as there are; or why there are none, in words.
    fn read(&mut self, wanted: &CodeWanted) -> Result<Vec<u8>, String>;
}

impl CodeWanted {
    /// The code of a function, around where it was interrupted: wherever it is likely to be found.
    pub fn of(state: &State, id: FunctionId) -> Vec<Self> {
        let offsets = state.offsets(id);
        let (Some((&first, _)), Some((&last, _))) = (offsets.first_key_value(), offsets.last_key_value())
        else {
            return Vec::new();
        };
        // Without a name, its beginning is not known.
        let first = if state.frame(id).function.is_some() { 0 } else { first };
        let length = last.saturating_sub(first).saturating_add(BEHIND).min(LONGEST) as usize;
        let copies = state.copies(id).into_iter().take(MOST_COPIES);
        let wanted = |CodeCopy { space, base, domain, process }| Self {
            space,
            domain: domain.cloned(),
            process: process.cloned(),
            start: base.wrapping_add(first),
            length,
            base,
            last: base.wrapping_add(last),
        };
        copies.map(wanted).collect()
    }
}

/// The instructions of the first that can be read, or why the first can't.
pub(crate) fn disassemble(wanted: &[CodeWanted], reader: &mut dyn ReadCode) -> Code {
    let mut why_not = None;
    for wanted in wanted {
        match reader.read(wanted) {
            Ok(bytes) => {
                let mut instructions = instructions(wanted.start, wanted.last, &bytes);
                instructions.iter_mut().for_each(|(address, _)| *address = address.wrapping_sub(wanted.base));
                return Code { base: wanted.base, instructions, why_not: None };
            }
            Err(why) => why_not = why_not.or(Some(why)),
        }
    }
    Code { base: wanted.first().map_or(0, |wanted| wanted.base), instructions: Vec::new(), why_not }
}

/// The instructions of a function that is sampled up to `last`; what lies behind its end is not its own.
fn instructions(start: u64, last: u64, bytes: &[u8]) -> Vec<(u64, String)> {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_space_after_operand_separator(true);
    options.set_branch_leading_zeros(false);
    let decoded: Vec<Instruction> = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE).iter().collect();
    let text = |instruction: &Instruction| {
        let mut text = String::new();
        formatter.format(instruction, &mut text);
        (instruction.ip(), text)
    };
    decoded[..length(&decoded, last)].iter().map(text).collect()
}

/// How many of the instructions are the function's: it ends where its code does not go on, nothing before jumps further
/// ahead, and nothing further ahead was sampled.
fn length(instructions: &[Instruction], last: u64) -> usize {
    let end = instructions.last().map_or(0, Instruction::next_ip);
    let mut reach = last;
    for (at, instruction) in instructions.iter().enumerate() {
        let behind = instructions.get(at + 1);
        let is_past = instruction.ip() > reach;
        // What calls a function that never returns is followed by what no code goes to.
        if is_past && at > 0 && (is_filling(instruction) || instruction.code() == Opcode::Endbr64) {
            return at;
        }
        let mnemonic = instruction.mnemonic();
        let is_own_jump = instruction.op0_kind() == OpKind::NearBranch64
            && mnemonic != Mnemonic::Call
            && (mnemonic != Mnemonic::Jmp || !is_tail_call(instruction, behind));
        if is_own_jump && instruction.near_branch_target() < end {
            reach = reach.max(instruction.near_branch_target());
        }
        let goes_on = !matches!(
            mnemonic,
            Mnemonic::Jmp
                | Mnemonic::Ret
                | Mnemonic::Retf
                | Mnemonic::Iretq
                | Mnemonic::Sysretq
                | Mnemonic::Ud2
        );
        if !goes_on && behind.is_none_or(|behind| behind.ip() > reach) {
            return at + 1;
        }
    }
    instructions.len()
}

/// Whether a jump ahead is to another function: functions are aligned, and what is between them is filled.
fn is_tail_call(jump: &Instruction, behind: Option<&Instruction>) -> bool {
    let is_aligned = |address: u64| address.is_multiple_of(16);
    is_aligned(jump.near_branch_target())
        && behind.is_some_and(|behind| is_filling(behind) || is_aligned(behind.ip()))
}

fn is_filling(instruction: &Instruction) -> bool {
    matches!(
        instruction.code(),
        Opcode::Int3
            | Opcode::Nopd
            | Opcode::Nopw
            | Opcode::Nopq
            | Opcode::Nop_rm16
            | Opcode::Nop_rm32
            | Opcode::Nop_rm64
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_instructions_whatever_they_are() {
        let code = instructions(0x1000, 0x1007, &[0x55, 0x48, 0x89, 0xe5, 0xeb, 0xfa, 0xff, 0xff]);
        let texts: Vec<(u64, &str)> = code.iter().map(|(address, text)| (*address, text.as_str())).collect();
        assert_eq!(
            texts[..3],
            [(0x1000, "push rbp"), (0x1001, "mov rbp, rsp"), (0x1004, "jmp short 0x1000")]
        );
        assert!(texts[3..].iter().all(|(_, text)| *text == "(bad)"), "{texts:?}");
    }

    /// Where a function of these bytes at 0x1000 ends that was sampled at 0x1000 only.
    fn end(bytes: &[u8]) -> u64 {
        let (address, _) = instructions(0x1000, 0x1000, bytes).pop().unwrap();
        address
    }

    #[test]
    fn a_function_ends_where_nothing_goes_on() {
        let nop = [0x90; 16];
        // ret; another function
        assert_eq!(end(&[0xc3, 0x55, 0xc3]), 0x1000);
        // je over a ret to another ret
        assert_eq!(end(&[0x74, 0x01, 0xc3, 0x31, 0xc0, 0xc3, 0x55]), 0x1005);
        // jmp back, as a loop that never ends
        assert_eq!(end(&[0x31, 0xc0, 0xeb, 0xfc, 0x55, 0xc3]), 0x1002);
        // jmp to the condition of a loop, and back
        assert_eq!(end(&[0xeb, 0x02, 0x31, 0xc0, 0x75, 0xfc, 0xc3, 0x55, 0xc3]), 0x1006);
        // a tail call of what begins at 0x1010
        assert_eq!(end(&[&[0xeb, 0x0e][..], &nop[..14], &[0x55, 0xc3]].concat()), 0x1000);
        // a call that does not return, and filling
        assert_eq!(end(&[0xe8, 0, 0, 0, 0, 0xcc, 0xcc, 0x55, 0xc3]), 0x1000);
        // The end is not seen.
        assert_eq!(end(&nop), 0x1000, "filling is nobody's");
        assert_eq!(end(&[0x31, 0xc0, 0x31, 0xc0]), 0x1002);
    }

    #[test]
    fn what_was_sampled_is_the_functions() {
        // Computed jumps go where nothing tells: ret; xor; ret
        let code = instructions(0x1000, 0x1001, &[0xc3, 0x31, 0xc0, 0xc3, 0x55]);
        assert_eq!(code.last().unwrap().0, 0x1003);
    }
}
