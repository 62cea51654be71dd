//! The functions that an ELF file's symbols name.

use super::{
    Elf, ElfError,
    sparse::Sparse,
    tables::{SYMBOL, Table},
    u16_at, u32_at, u64_at, xz,
};
use crate::{budget::Budget, file::FileBytes, names::Named};

/// Longer names are cut: nobody could read them.
const MAX_NAME: usize = 4096;
const MAX_TEXT: usize = 256 << 20;
/// Sections with special meanings, from undefined to `SHN_LORESERVE` and above.
const UNDEFINED: u16 = 0;
const RESERVED: u16 = 0xff00;
const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;
const STB_LOCAL: u8 = 0;
const STB_WEAK: u8 = 2;

/// Where functions have their names from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionSource {
    /// The full symbol table, which `strip` removes.
    SymbolTable,
    /// A compressed one with the functions that are not dynamic symbols (`.gnu_debugdata`).
    MiniDebugInfo,
    /// What the loader needs: only what a library exports, or a program offers to libraries.
    DynamicSymbols,
}

/// A function of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'a> {
    /// Where it was linked to lie.
    pub address: u64,
    /// Its size in bytes; 0 where the table does not say.
    pub size: u64,
    /// Its name as the table spells it, not demangled: untrusted text.
    pub name: &'a str,
    /// Whether other files can't see it.
    pub local: bool,
    /// Whether another of its name would take its place.
    pub weak: bool,
}

/// The functions of an ELF file, in the order of its table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionList {
    rows: Named<Row>,
    missing: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    address: u64,
    size: u64,
    binding: u8,
}

impl FunctionList {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many symbols there are besides, of which the guest does not have the entry or the name in memory. Some of
    /// them may be no functions.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Function<'_>> {
        let function = |(row, name): (Row, _)| Function {
            address: row.address,
            size: row.size,
            name,
            local: row.binding == STB_LOCAL,
            weak: row.binding == STB_WEAK,
        };
        self.rows.iter().map(function)
    }
}

impl Elf {
    /// The functions that one of its tables names, or why they can't be had.
    pub fn functions(
        &self,
        file: &(impl FileBytes + ?Sized),
        budget: &Budget,
        source: FunctionSource,
    ) -> Result<FunctionList, ElfError> {
        match source {
            FunctionSource::SymbolTable => self.listed(file, budget, &self.full_table(file, budget)?),
            FunctionSource::DynamicSymbols => self.listed(file, budget, &self.dynamic_table(file, budget)?),
            FunctionSource::MiniDebugInfo => {
                let section = self.section(file, budget, ".gnu_debugdata")?;
                let inner = xz::decompress(file, budget, section)?;
                let elf = Self::read(&inner[..], budget)?;
                elf.listed(&inner[..], budget, &elf.full_table(&inner[..], budget)?)
            }
        }
    }

    fn listed(
        &self,
        file: &(impl FileBytes + ?Sized),
        budget: &Budget,
        table: &Table,
    ) -> Result<FunctionList, ElfError> {
        let Table { symbols, strings } = table;
        let symbols = Sparse::read(file, budget, "its symbols", symbols.start, symbols.end - symbols.start)?;
        let strings = Sparse::read(
            file,
            budget,
            "the names of its symbols",
            strings.start,
            strings.end - strings.start,
        )?;
        let count = symbols.len() / SYMBOL;
        budget.memory(Named::<Row>::bytes(count, strings.len()))?;
        budget.work(count as u64 / 16)?;
        let mut list = FunctionList { rows: Named::with_capacity(count, strings.len()), missing: 0 };
        let mut text = 0;
        for index in 0..count {
            let Some(symbol) = symbols.get(index * SYMBOL, SYMBOL) else {
                list.missing += 1;
                continue;
            };
            let address = u64_at(symbol, 8);
            if !is_defined_code(symbol) || !self.is_code(address) {
                continue;
            }
            let Some(name) = strings.string(u32_at(symbol, 0) as usize, MAX_NAME) else {
                list.missing += 1;
                continue;
            };
            let name = String::from_utf8_lossy(name);
            // An assembler's private labels are no functions.
            if name.is_empty() || name.starts_with(".L") {
                continue;
            }
            text += name.len();
            if text > strings.len() {
                // Names share their ends; but forged ones can make much of one long string.
                budget.memory(name.len() as u64)?;
            }
            if text > MAX_TEXT {
                return Err(ElfError::Damaged("its symbols have more text than any"));
            }
            list.rows.push(Row { address, size: u64_at(symbol, 16), binding: symbol[4] >> 4 }, &name);
        }
        Ok(list)
    }
}

/// Functions, and what assembly gave no type to; not what is imported.
fn is_defined_code(symbol: &[u8]) -> bool {
    let section = u16_at(symbol, 6);
    section != UNDEFINED
        && section < RESERVED
        && matches!(symbol[4] & 0xf, STT_NOTYPE | STT_FUNC | STT_GNU_IFUNC)
}
