//! From a function's bytes to its instructions.

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use profile::{Domain, Process, Space};

use crate::{
    screen::{Code, Screen},
    state::{FunctionId, State},
};

/// More of a function is not looked at.
const LONGEST: u64 = 32 << 10;

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
}

/// Reads code while whoever has it lives.
pub trait ReadCode: Send {
    /// As many bytes from the start as there are; or why there are none, in words.
    fn read(&mut self, wanted: &CodeWanted) -> Result<Vec<u8>, String>;
}

impl CodeWanted {
    /// The code of a function, around where it was interrupted.
    pub fn of(state: &State, id: FunctionId) -> Option<Self> {
        let (start, last) = Screen::extent(state, id)?;
        let (domain, process) = state.whose(id);
        let length = (last.saturating_sub(start).saturating_add(BEHIND)).min(LONGEST) as usize;
        let space = state.frame(id).space;
        Some(Self { space, domain: domain.cloned(), process: process.cloned(), start, length })
    }

    /// Its instructions.
    pub(crate) fn disassemble(&self, read: Result<Vec<u8>, String>) -> Code {
        match read {
            Ok(bytes) => Code { instructions: instructions(self.start, &bytes), why_not: None },
            Err(why) => Code { instructions: Vec::new(), why_not: Some(why) },
        }
    }
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
