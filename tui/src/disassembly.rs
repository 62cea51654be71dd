//! From a function's bytes to its instructions.

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use profile::{Domain, Process, Space};

use crate::{
    screen::Code,
    state::{CodeCopy, FunctionId, State},
};

/// More of a function is not looked at.
const LONGEST: u64 = 32 << 10;

/// Copies in other processes that are tried where one is gone.
const MOST_COPIES: usize = 4;

/// How much behind the last sampled instruction is shown.
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
                let mut instructions = instructions(wanted.start, &bytes);
                instructions.iter_mut().for_each(|(address, _)| *address = address.wrapping_sub(wanted.base));
                return Code { base: wanted.base, instructions, why_not: None };
            }
            Err(why) => why_not = why_not.or(Some(why)),
        }
    }
    Code { base: wanted.first().map_or(0, |wanted| wanted.base), instructions: Vec::new(), why_not }
}

fn instructions(start: u64, bytes: &[u8]) -> Vec<(u64, String)> {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_space_after_operand_separator(true);
    options.set_branch_leading_zeros(false);
    let decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let text = |instruction| {
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        (instruction.ip(), text)
    };
    decoder.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_instructions_whatever_they_are() {
        let code = instructions(0x1000, &[0x55, 0x48, 0x89, 0xe5, 0xeb, 0xfa, 0xff, 0xff]);
        let texts: Vec<(u64, &str)> = code.iter().map(|(address, text)| (*address, text.as_str())).collect();
        assert_eq!(
            texts[..3],
            [(0x1000, "push rbp"), (0x1001, "mov rbp, rsp"), (0x1004, "jmp short 0x1000")]
        );
        assert!(texts[3..].iter().all(|(_, text)| *text == "(bad)"), "{texts:?}");
    }
}
