//! The least ELF file that has code and symbols, for cases that no compiler makes.

/// What the file says of itself.
pub(crate) struct TinyElf<'a> {
    /// 1: relocatable, 2: at fixed addresses, 3: position-independent.
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    /// `PT_LOAD`s: address, size, flags.
    pub(crate) segments: &'a [(u64, u64, u32)],
    pub(crate) symbols: &'a [TinySymbol<'a>],
    /// Whether its only symbols are the dynamic ones.
    pub(crate) dynamic: bool,
}

/// Name, address, size, ELF's `st_info`, section.
pub(crate) type TinySymbol<'a> = (&'a str, u64, u64, u8, u16);

pub(crate) const LOCAL_FUNCTION: u8 = 0x02;
pub(crate) const FUNCTION: u8 = 0x12;
pub(crate) const WEAK_FUNCTION: u8 = 0x22;
pub(crate) const LABEL: u8 = 0x10;
pub(crate) const OBJECT: u8 = 0x11;

/// Readable and executable.
pub(crate) const TEXT: u32 = 5;
/// Readable and writable.
pub(crate) const DATA: u32 = 6;

pub(crate) const X86_64: u16 = 62;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

impl Default for TinyElf<'_> {
    /// An executable with a function of 0x20 bytes at 0x401000.
    fn default() -> Self {
        Self {
            kind: 2,
            machine: X86_64,
            segments: &[(0x40_0000, 0x1000, 4), (0x40_1000, 0x1000, TEXT), (0x40_2000, 0x1000, DATA)],
            symbols: &[("main", 0x40_1000, 0x20, FUNCTION, 1)],
            dynamic: false,
        }
    }
}

impl TinyElf<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (mut symbols, mut strings) = (vec![0; 24], vec![0]);
        for &(name, value, size, info, section) in self.symbols {
            symbols.extend((strings.len() as u32).to_le_bytes());
            symbols.extend([info, 0]);
            symbols.extend(section.to_le_bytes());
            symbols.extend(value.to_le_bytes());
            symbols.extend(size.to_le_bytes());
            strings.extend(name.bytes().chain([0]));
        }
        let symbols_at = HEADER + PROGRAM_HEADER * self.segments.len();
        let strings_at = symbols_at + symbols.len();
        let sections_at = strings_at + strings.len();

        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        for half in [self.kind, self.machine, 1, 0] {
            bytes.extend(half.to_le_bytes());
        }
        for word in [0, HEADER as u64, sections_at as u64] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(0_u32.to_le_bytes());
        for half in [HEADER, PROGRAM_HEADER, self.segments.len(), 64, 4, 0] {
            bytes.extend((half as u16).to_le_bytes());
        }
        for &(address, size, flags) in self.segments {
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            for word in [0, address, address, 0, size, 0x1000] {
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes.extend(&symbols);
        bytes.extend(&strings);
        let symbols_kind = if self.dynamic { 11 } else { 2 };
        // Type, link, offset, size, entry size; the code's section is there only to be referred to.
        for (kind, link, offset, size, entry) in [
            (0_u32, 0_u32, 0, 0, 0_u64),
            (1, 0, 0, 0, 0),
            (symbols_kind, 3, symbols_at, symbols.len(), 24),
            (3, 0, strings_at, strings.len(), 0),
        ] {
            bytes.extend(0_u32.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            for word in [0, 0, offset as u64, size as u64] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(link.to_le_bytes());
            bytes.extend(0_u32.to_le_bytes());
            bytes.extend(8_u64.to_le_bytes());
            bytes.extend(entry.to_le_bytes());
        }
        bytes
    }
}
