//! One image: what its bytes say of itself.

use std::ops::Range;

use crate::{
    ParseError, SymbolTable,
    elf::{self, Elf},
};

/// An image, by what it can serve as.
#[derive(Clone, Debug)]
pub enum Image {
    /// A list of symbols: serves as a kernel.
    Symbols(SymbolTable),
    /// An ELF file: serves as a program's executable, and as a kernel (`vmlinux`).
    Executable(Executable),
}

impl Image {
    /// Recognizes the format of `bytes` by their content and reads them.
    ///
    /// `name` is what the image will be called where its code is shown. `base` is where the first byte of a
    /// position-independent file is mapped; images with addresses of their own take none.
    pub fn parse(name: &str, bytes: &[u8], base: Option<u64>) -> Result<Self, ParseError> {
        if elf::is_elf(bytes) {
            Ok(Self::from_elf(name, elf::parse(bytes, base)?))
        } else {
            Self::from_list(bytes, base)
        }
    }

    pub(crate) fn from_elf(name: &str, elf: Elf) -> Self {
        Self::Executable(Executable { name: name.to_owned(), text: elf.text, symbols: elf.table })
    }

    pub(crate) fn from_list(text: &[u8], base: Option<u64>) -> Result<Self, ParseError> {
        let symbols = SymbolTable::from_kallsyms(text)?;
        if base.is_some() { Err(ParseError::NeedsNoLoadBase) } else { Ok(Self::Symbols(symbols)) }
    }

    /// The image as a kernel.
    pub fn into_kernel(self) -> SymbolTable {
        match self {
            Self::Symbols(symbols) => symbols,
            Self::Executable(executable) => executable.symbols,
        }
    }

    /// The image as a program's executable, which a list of symbols cannot be: it does not tell where code lies.
    pub fn into_executable(self) -> Result<Executable, ParseError> {
        match self {
            Self::Symbols(_) => Err(ParseError::NotExecutable),
            Self::Executable(executable) => Ok(executable),
        }
    }
}

/// An ELF file at the addresses where it runs.
#[derive(Clone, Debug)]
pub struct Executable {
    name: String,
    text: Vec<Range<u64>>,
    symbols: SymbolTable,
}

impl Executable {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its code lies: ranges that ascend and do not touch.
    pub fn text(&self) -> &[Range<u64>] {
        &self.text
    }

    /// Whether its code lies at `address`.
    pub fn has_code_at(&self, address: u64) -> bool {
        elf::segment_of(&self.text, address).is_some()
    }

    /// Its functions.
    pub fn symbols(&self) -> &SymbolTable {
        &self.symbols
    }
}
