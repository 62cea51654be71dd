//! Functions of ELF files: executables, shared objects, `vmlinux`, `xen-syms`.

use std::{ops::Range, str};

use object::{
    LittleEndian, Object, ReadRef,
    elf::{self, FileHeader64, ProgramHeader64, SectionHeader64, Sym64},
    read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader, Sym},
};

use crate::{
    ParseError, SymbolTable,
    files::hexadecimal,
    preference::Preference,
    table::{Entry, MAX_NAME, MAX_SYMBOLS},
};

/// Real executables have about a dozen.
const MAX_PROGRAM_HEADERS: u32 = 4096;
/// Objects of one function a section may have many; linked files have dozens.
const MAX_SECTIONS: u32 = 1 << 20;
/// As much as the table itself would take of them.
const MAX_STRINGS: u64 = 256 << 20;
/// The unit in which files are mapped.
const PAGE: u64 = 4096;

/// What an ELF file says of its code, at the addresses where it runs.
pub(crate) struct Elf {
    pub(crate) table: SymbolTable,
    /// Its executable segments, ascending and disjoint.
    pub(crate) text: Vec<Range<u64>>,
}

pub(crate) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(&elf::ELFMAG)
}

/// An ELF file at the addresses it was linked to, to be mapped anywhere.
#[derive(Clone, Debug)]
pub struct Linked {
    /// Its executable segments: where they are in the file, and at which address that is linked.
    segments: Vec<(Range<u64>, u64)>,
    /// Its functions; none where it is stripped of all of them.
    pub(crate) symbols: Option<SymbolTable>,
    /// In hexadecimal digits.
    pub(crate) build_id: Option<Box<str>>,
}

impl Linked {
    /// Reads the ELF file that `data` is.
    pub fn parse<'data>(data: impl ReadRef<'data>) -> Result<Self, ParseError> {
        let file = File::open(data)?;
        let text = text(file.segments, 0);
        let executable = |segment: &&Segment| {
            segment.p_type(LittleEndian) == elf::PT_LOAD && segment.p_flags(LittleEndian).0 & elf::PF_X.0 != 0
        };
        let segments = file.segments.iter().filter(executable).map(|segment| {
            mapped_segment((
                segment.p_offset(LittleEndian),
                segment.p_filesz(LittleEndian),
                segment.p_vaddr(LittleEndian),
            ))
        });
        let segments = segments.collect();
        let build_id = build_id(data).flatten().map(|id| hexadecimal(&id).into());
        match file.symbols(0, &text, extent_as_linked(file.segments)) {
            Ok(symbols) => Ok(Self { segments, symbols: Some(symbols), build_id }),
            Err(ParseError::NoSymbols) => Ok(Self { segments, symbols: None, build_id }),
            Err(error) => Err(error),
        }
    }

    /// Takes what somebody else has read of an ELF file: its executable segments, each with its place in the file, its
    /// size there and the address that it is linked to; its functions; and its build id, if it has one.
    pub fn from_parts<'a>(
        segments: impl IntoIterator<Item = (u64, u64, u64)>,
        functions: impl IntoIterator<Item = LinkedFunction<'a>>,
        build_id: Option<&[u8]>,
    ) -> Result<Self, ParseError> {
        let segments: Vec<(u64, u64, u64)> = segments.into_iter().collect();
        let mut text: Vec<Range<u64>> =
            segments.iter().map(|&(_, size, address)| address..address.saturating_add(size)).collect();
        text.sort_by_key(|range| range.start);
        let mut entries: Vec<Entry<'a>> = functions
            .into_iter()
            .filter(|function| {
                segment_of(&text, function.address).is_some() && is_function_name(function.name)
            })
            .map(|LinkedFunction { address, size, name, local, weak }| {
                let preference = Preference::of_elf(name, size == 0, weak, local);
                Entry { start: address, end: address.saturating_add(size), preference, name, module: 0 }
            })
            .collect();
        close_unsized(&mut entries, &text);
        let extent = text.first().map_or(0, |range| range.start)..text.last().map_or(0, |range| range.end);
        let symbols = match SymbolTable::build(entries, Vec::new(), extent) {
            Ok(symbols) => Some(symbols),
            Err(ParseError::NoSymbols) => None,
            Err(error) => return Err(error),
        };
        let segments = segments.into_iter().map(mapped_segment).collect();
        Ok(Self { segments, symbols, build_id: build_id.map(|id| hexadecimal(id).into()) })
    }

    /// Where a byte of the file is linked to, if it is code.
    pub(crate) fn address_of(&self, offset: u64) -> Option<u64> {
        let (range, address) = self.segments.iter().find(|(range, _)| range.contains(&offset))?;
        Some(address.wrapping_add(offset - range.start))
    }
}

/// A function of an ELF file that somebody else has read.
#[derive(Clone, Copy, Debug)]
pub struct LinkedFunction<'a> {
    /// Where it was linked to lie.
    pub address: u64,
    /// Its size in bytes; 0 where the table does not say.
    pub size: u64,
    /// Its name as the table spells it: untrusted text.
    pub name: &'a str,
    /// Whether other files can't see it.
    pub local: bool,
    /// Whether another of its name would take its place.
    pub weak: bool,
}

/// A segment by its place in the file, its size there and its address, as it is mapped: kernels map whole pages, so that
/// what stands before it in its first page is mapped too.
fn mapped_segment((offset, size, address): (u64, u64, u64)) -> (Range<u64>, u64) {
    let before = offset & (PAGE - 1);
    let end = offset.saturating_add(size).saturating_add(PAGE);
    (offset - before..end, address.wrapping_sub(before))
}

/// Reads no more of `data` than the headers, one symbol table and its strings: debug information may be gigabytes.
///
/// `base` is where the first byte of the file is mapped; position-independent files need it, others refuse it.
pub(crate) fn parse<'data>(data: impl ReadRef<'data>, base: Option<u64>) -> Result<Elf, ParseError> {
    let file = File::open(data)?;
    let segments = file.segments;
    let bias = match (file.header.e_type(LittleEndian), base) {
        (elf::ET_EXEC, None) => 0,
        (elf::ET_EXEC, Some(_)) => return Err(ParseError::NeedsNoLoadBase),
        (elf::ET_DYN, None) => return Err(ParseError::NeedsLoadBase),
        (elf::ET_DYN, Some(base)) => base.wrapping_sub(extent_as_linked(segments).start & !(PAGE - 1)),
        (other, _) => return Err(ParseError::NotLinked(other.0)),
    };
    let text = text(segments, bias);
    let extent = moved(extent_as_linked(segments), bias);
    Ok(Elf { table: file.symbols(bias, &text, extent)?, text })
}

/// The build id of an ELF file: none inside where it has none, none at all where it is no such file.
pub(crate) fn build_id<'data>(data: impl ReadRef<'data>) -> Option<Option<Vec<u8>>> {
    let elf = ElfFile64::<LittleEndian, _>::parse(data).ok()?;
    Some(elf.build_id().ok().flatten().map(<[u8]>::to_vec))
}

/// The headers of an ELF file.
struct File<'data, R> {
    data: R,
    header: &'data FileHeader64<LittleEndian>,
    segments: &'data [Segment],
}

impl<'data, R: ReadRef<'data>> File<'data, R> {
    fn open(data: R) -> Result<Self, ParseError> {
        check_machine(data)?;
        let header = FileHeader64::<LittleEndian>::parse(data)?;
        let endian = header.endian()?;
        if header.phnum(endian, data)? > MAX_PROGRAM_HEADERS {
            return Err(ParseError::TooLarge("more than 4096 program headers"));
        }
        Ok(Self { data, header, segments: header.program_headers(endian, data)? })
    }

    /// Its functions, moved by `bias`.
    fn symbols(&self, bias: u64, text: &[Range<u64>], extent: Range<u64>) -> Result<SymbolTable, ParseError> {
        if self.header.shnum(LittleEndian, self.data)? > MAX_SECTIONS {
            return Err(ParseError::TooLarge("more than a million sections"));
        }
        let sections = self.header.section_headers(LittleEndian, self.data)?;
        // The dynamic symbols are a subset of the others, all that `strip` leaves.
        for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
            let Some(section) = sections.iter().find(|section| section.sh_type(LittleEndian) == kind) else {
                continue;
            };
            let entries = functions(self.data, sections, section, bias, text)?;
            if !entries.is_empty() {
                return SymbolTable::build(entries, Vec::new(), extent);
            }
        }
        Err(ParseError::NoSymbols)
    }
}

/// Looks at the one field that lies at the same place in files of all classes and byte orders.
fn check_machine<'data>(data: impl ReadRef<'data>) -> Result<(), ParseError> {
    let ident = data.read_bytes_at(0, 20).map_err(|()| ParseError::ForeignFormat)?;
    if !is_elf(ident) {
        return Err(ParseError::ForeignFormat);
    }
    let machine = match ident[5] {
        2 => u16::from_be_bytes([ident[18], ident[19]]),
        _ => u16::from_le_bytes([ident[18], ident[19]]),
    };
    if machine == elf::EM_X86_64.0 { Ok(()) } else { Err(ParseError::OtherArchitecture(machine)) }
}

type Segment = ProgramHeader64<LittleEndian>;

/// From the first to the last address that is mapped from the file.
fn extent_as_linked(segments: &[Segment]) -> Range<u64> {
    let mapped = || {
        let loaded = segments.iter().filter(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD);
        loaded.map(linked_range).filter(|range| !range.is_empty())
    };
    // Linux kernels link their per-CPU data at 0, but never map it there: it is no part of the way between.
    let is_kernel = mapped().any(|range| range.start >= 1 << 63);
    let places = || mapped().filter(|range| !(is_kernel && range.start == 0));
    let start = places().map(|range| range.start).min().unwrap_or(0);
    let end = places().map(|range| range.end).max().unwrap_or(0);
    start..end
}

fn text(segments: &[Segment], bias: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<_> = segments
        .iter()
        .filter(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD)
        .filter(|segment| segment.p_flags(LittleEndian).0 & elf::PF_X.0 != 0)
        .map(|segment| moved(linked_range(segment), bias))
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, range| {
        let touches = next.start <= range.end;
        if touches {
            range.end = range.end.max(next.end);
        }
        touches
    });
    ranges
}

fn linked_range(segment: &Segment) -> Range<u64> {
    let start = segment.p_vaddr(LittleEndian);
    start..start.saturating_add(segment.p_memsz(LittleEndian))
}

fn moved(range: Range<u64>, bias: u64) -> Range<u64> {
    range.start.wrapping_add(bias)..range.end.wrapping_add(bias)
}

/// The symbols of one table that name code in `text`.
fn functions<'data>(
    data: impl ReadRef<'data>,
    sections: &[SectionHeader64<LittleEndian>],
    table: &SectionHeader64<LittleEndian>,
    bias: u64,
    text: &[Range<u64>],
) -> Result<Vec<Entry<'data>>, ParseError> {
    if table.sh_size(LittleEndian) > (MAX_SYMBOLS * size_of::<Sym64<LittleEndian>>()) as u64 {
        return Err(ParseError::TooLarge("more than 4 million symbols"));
    }
    let symbols: &[Sym64<LittleEndian>] = table.data_as_array(LittleEndian, data)?;
    let Some(strings) = sections.get(table.sh_link(LittleEndian) as usize) else { return Ok(Vec::new()) };
    if strings.sh_size(LittleEndian) > MAX_STRINGS {
        return Err(ParseError::TooLarge("more than 256 MiB of symbol names"));
    }
    let strings = strings.data(LittleEndian, data)?;

    let mut entries = Vec::new();
    for symbol in symbols.iter().filter(|symbol| may_be_code(symbol)) {
        let start = symbol.st_value(LittleEndian).wrapping_add(bias);
        let Some(name) = name_at(strings, symbol.st_name(LittleEndian)) else { continue };
        if segment_of(text, start).is_none() || !is_function_name(name) {
            continue;
        }
        let size = symbol.st_size(LittleEndian);
        let local = symbol.st_bind() == elf::STB_LOCAL;
        let preference = Preference::of_elf(name, size == 0, symbol.is_weak(), local);
        entries.push(Entry { start, end: start.saturating_add(size), preference, name, module: 0 });
    }
    close_unsized(&mut entries, text);
    Ok(entries)
}

/// Functions, and what assembly gave no type to: so are the entry points of kernels.
fn may_be_code(symbol: &Sym64<LittleEndian>) -> bool {
    let section = symbol.st_shndx(LittleEndian);
    let defined = section != elf::SHN_UNDEF && section != elf::SHN_ABS && section != elf::SHN_COMMON;
    defined && matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC | elf::STT_NOTYPE)
}

/// Not an assembler's private label, nor nothing.
fn is_function_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(".L")
}

fn name_at(strings: &[u8], offset: u32) -> Option<&str> {
    let rest = strings.get(offset as usize..)?;
    // A forged string of megabytes would be read again for each symbol that shares it.
    let rest = &rest[..rest.len().min(MAX_NAME)];
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    str::from_utf8(&rest[..end]).ok()
}

/// Which of ascending and disjoint segments has `address`.
pub(crate) fn segment_of(text: &[Range<u64>], address: u64) -> Option<&Range<u64>> {
    let above = text.partition_point(|segment| segment.start <= address);
    text[..above].last().filter(|segment| segment.contains(&address))
}

/// Lets each symbol without a size (`end == start`) reach up to the next symbol or the end of its segment, and
/// drops those within a sized function: they are labels of places in it.
fn close_unsized(entries: &mut Vec<Entry<'_>>, text: &[Range<u64>]) {
    entries.sort_by_key(|entry| (entry.start, entry.preference));
    let mut covered_to = 0;
    entries.retain(|entry| {
        let is_label = entry.end == entry.start && entry.start < covered_to;
        covered_to = covered_to.max(entry.end);
        !is_label
    });
    let (mut here, mut next) = (u64::MAX, u64::MAX);
    for entry in entries.iter_mut().rev() {
        if entry.start < here {
            (here, next) = (entry.start, here);
        }
        if entry.end == entry.start {
            entry.end = segment_of(text, entry.start).map_or(next, |segment| segment.end.min(next));
        }
    }
}
