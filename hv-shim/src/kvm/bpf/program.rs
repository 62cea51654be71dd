//! A compiled program: its code with the names that it wants filled in.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Lack, calls};
use crate::own_object::{Elf, word};

/// An object that clang made of a program; empty where there was no clang.
pub(super) struct Object(pub(super) &'static [u8]);

/// `enum bpf_prog_type`.
#[derive(Clone, Copy)]
pub(super) enum ProgramKind {
    Tracepoint = 5,
    PerfEvent = 7,
    RawTracepoint = 17,
}

/// What a name in a program stands for.
#[derive(Clone, Copy)]
pub(super) enum Symbol<'a> {
    /// A map.
    Map(BorrowedFd<'a>),
    /// The one value of a map.
    Value(BorrowedFd<'a>),
}

/// What an instruction that loads an address loads: `BPF_PSEUDO_MAP_FD` and `BPF_PSEUDO_MAP_VALUE`, as its source
/// register.
const MAP: u8 = 1;
const MAP_VALUE: u8 = 2;

/// What the verifier may say: its last words tell what is wrong.
const LOG_BYTES: usize = 64 << 20;

impl Object {
    /// Loads the program, with what its names stand for.
    pub(super) fn load(&self, kind: ProgramKind, symbols: &[(&str, Symbol<'_>)]) -> Result<OwnedFd, Lack> {
        if self.0.is_empty() {
            return Err(Lack::NotBuilt);
        }
        let code = self.bind(symbols);
        calls::load(kind as u32, &code, &mut []).map_err(|error| {
            let mut log = vec![0; LOG_BYTES];
            let _ = calls::load(kind as u32, &code, &mut log);
            let text = String::from_utf8_lossy(&log);
            let text = text.trim_end_matches('\0').trim_end();
            if text.is_empty() {
                return Lack::refused("a BPF program")(error);
            }
            // The verifier's errors look like those of who may not load programs.
            let said = text.lines().rev().take(3).collect::<Vec<_>>().join("; ");
            Lack::Refused { what: format!("a BPF program ({said})"), error }
        })
    }

    /// The code with what its names stand for.
    fn bind(&self, symbols: &[(&str, Symbol<'_>)]) -> Vec<u8> {
        const RELOCATIONS: u32 = 9;
        const INSTRUCTION: usize = 8;
        let elf = Elf::parse(self.0);
        let section = |name| elf.sections.iter().find(|section| section.name == name);
        let text = section("program").expect("the programs are in this section");
        let mut code = self.0[text.offset..text.offset + text.bytes].to_vec();
        let names: Vec<&str> = elf.symbols().map(|symbol| symbol.name).collect();
        // An `Elf64_Rel` has 16 bytes: the place, the kind and the symbol.
        let wanted = section(".relprogram").filter(|section| section.kind == RELOCATIONS);
        let entries = wanted.map_or(0..0, |section| section.offset..section.offset + section.bytes);
        for entry in entries.step_by(16) {
            let (place, symbol) = (word(self.0, entry) as usize, word(self.0, entry + 8) >> 32);
            let name = names[symbol as usize];
            let (_, symbol) = symbols.iter().find(|(known, _)| *known == name).expect("a name that is given");
            // A load of 64 bits takes two instructions: the second has the upper half of what is loaded.
            let (register, map, offset) = match symbol {
                Symbol::Map(map) => (MAP, map, 0),
                Symbol::Value(map) => (MAP_VALUE, map, word(&code, place) >> 32),
            };
            code[place + 1] = code[place + 1] & 0x0f | register << 4;
            code[place + 4..place + 8].copy_from_slice(&map.as_raw_fd().to_le_bytes());
            let upper = place + INSTRUCTION + 4;
            code[upper..upper + 4].copy_from_slice(&(offset as u32).to_le_bytes());
        }
        code
    }
}
