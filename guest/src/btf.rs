//! The type information of a running kernel (BTF): where the members of its structures are.
//!
//! Comes in: the bytes between `__start_BTF` and `__stop_BTF`. Goes out: offsets and sizes of members by their names.
//! The format is Documentation/bpf/btf.rst of Linux. Everything that is asked is asked of the kernel that runs, so that
//! no profile of any version is needed.

use std::{cell::Cell, collections::HashMap, ops::Range};

use crate::{
    budget::{Budget, Exhausted},
    error::LayoutError,
    words::u32_at,
};

const MAGIC: [u8; 2] = [0x9f, 0xeb];
const HEADER: usize = 24;
const TYPE: usize = 12;
const MEMBER: usize = 12;
const ENUMERATOR: usize = 8;
const MAX_NAME: usize = 256;
/// Real structures have no more than a few hundred members, those of nested anonymous ones included. One that contains
/// itself would have no end.
const MAX_VISITS: u32 = 20_000;
const MAX_DEPTH: u32 = 12;

const KIND_INT: u8 = 1;
const KIND_ARRAY: u8 = 3;
const KIND_STRUCT: u8 = 4;
const KIND_UNION: u8 = 5;
const KIND_ENUM: u8 = 6;

/// A kernel's types.
pub struct Btf<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    /// Where each type's description begins; the type 0, `void`, has none.
    types: Vec<u32>,
    /// Structures and unions by the hash of their names: the first of each name.
    structures: HashMap<&'a [u8], u32>,
    visits: Cell<u32>,
}

/// A type's description.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u8,
    kind_flag: bool,
    /// How many members, enumerators and the like.
    length: usize,
    /// The size, or the type that it refers to.
    size_or_type: u32,
    /// Where what follows the description is.
    rest: usize,
}

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    bit_offset: u32,
    kind: u32,
}

impl<'a> Btf<'a> {
    /// Of a kernel that is trusted, such as the one that this program runs on (`/sys/kernel/btf/vmlinux`).
    pub fn of_kernel(bytes: &'a [u8]) -> Result<Self, LayoutError> {
        let damaged = LayoutError::DamagedBtf;
        let (all_types, strings) = parts(bytes)?;
        let strings = &bytes[strings];
        let mut btf =
            Self { bytes, strings, types: vec![0], structures: HashMap::new(), visits: Cell::new(0) };
        let mut at = all_types.start;
        while at + TYPE <= all_types.end {
            let kind = btf.described_at(at).ok_or(damaged("a type is cut off"))?;
            let id = btf.types.len() as u32;
            btf.types.push(at as u32);
            if matches!(kind.kind, KIND_STRUCT | KIND_UNION) && kind.name != 0 {
                btf.structures.entry(btf.name(kind.name)).or_insert(id);
            }
            at = kind.rest + trailing(&kind).ok_or(damaged("there is a kind of type that is not known"))?;
        }
        Ok(btf)
    }

    /// Of a kernel that is not trusted, within a budget.
    pub(crate) fn parse(bytes: &'a [u8], budget: &Budget) -> Result<Result<Self, LayoutError>, Exhausted> {
        budget.scan(4 * bytes.len() as u64)?;
        budget.memory(bytes.len() as u64 / 2)?;
        Ok(Self::of_kernel(bytes))
    }

    /// Where a member is, in bytes; `path` is dotted where it lies in an inner structure.
    pub fn offset(&self, structure: &'static str, path: &'static str) -> Result<u64, LayoutError> {
        let missing = LayoutError::NoMember { structure, member: path };
        Ok(u64::from(self.member(structure, path).ok_or(missing)?.bit_offset / 8))
    }

    /// How many elements the array has that is a member.
    pub(crate) fn elements(&self, structure: &'static str, path: &'static str) -> Result<u64, LayoutError> {
        let missing = LayoutError::NoMember { structure, member: path };
        let count = || {
            let kind = self.described(self.stripped(self.member(structure, path)?.kind))?;
            (kind.kind == KIND_ARRAY).then(|| u32_at(self.bytes, kind.rest + 8))?
        };
        count().map(u64::from).ok_or(missing)
    }

    /// The size of a structure, in bytes.
    pub fn size(&self, structure: &'static str) -> Result<u64, LayoutError> {
        let kind = self.structures.get(structure.as_bytes()).and_then(|&id| self.described(id));
        let kind = kind.ok_or(LayoutError::NoStructure(structure))?;
        Ok(u64::from(kind.size_or_type))
    }

    /// The value of a constant of any enumeration.
    pub(crate) fn enumerator(&self, name: &'static str) -> Result<u32, LayoutError> {
        let value = || {
            for id in 1..self.types.len() as u32 {
                let kind = self.described(id)?;
                let count = if kind.kind == KIND_ENUM { kind.length } else { 0 };
                for index in 0..count {
                    let at = kind.rest + ENUMERATOR * index;
                    if self.name(u32_at(self.bytes, at)?) == name.as_bytes() {
                        return u32_at(self.bytes, at + 4);
                    }
                }
            }
            None
        };
        value().ok_or(LayoutError::NoConstant(name))
    }

    fn member(&self, structure: &str, path: &str) -> Option<Member> {
        self.visits.set(MAX_VISITS);
        let mut kind = *self.structures.get(structure.as_bytes())?;
        let mut bit_offset = 0_u32;
        for name in path.split('.') {
            let member = self.member_of(kind, name, 0)?;
            bit_offset = bit_offset.checked_add(member.bit_offset)?;
            kind = member.kind;
        }
        Some(Member { bit_offset, kind })
    }

    /// A member of a structure, or of one without a name within it.
    fn member_of(&self, kind: u32, name: &str, depth: u32) -> Option<Member> {
        let structure = self.described(self.stripped(kind))?;
        if !matches!(structure.kind, KIND_STRUCT | KIND_UNION) || depth > MAX_DEPTH {
            return None;
        }
        for index in 0..structure.length {
            self.visits.set(self.visits.get().checked_sub(1)?);
            let at = structure.rest + MEMBER * index;
            let [found, kind, offset] = [0, 4, 8].map(|field| u32_at(self.bytes, at + field));
            let (found, kind, offset) = (found?, kind?, offset?);
            // With the flag, the upper byte is the size of a bit field.
            let bit_offset = if structure.kind_flag { offset & 0x00ff_ffff } else { offset };
            if found == 0 {
                if let Some(inner) = self.member_of(kind, name, depth + 1) {
                    return Some(Member { bit_offset: bit_offset.checked_add(inner.bit_offset)?, ..inner });
                }
            } else if self.name(found) == name.as_bytes() {
                return Some(Member { bit_offset, kind });
            }
        }
        None
    }

    /// The type without names and qualifiers around it.
    fn stripped(&self, mut id: u32) -> u32 {
        for _ in 0..MAX_DEPTH {
            match self.described(id) {
                // typedef, volatile, const, restrict, type tag
                Some(kind) if matches!(kind.kind, 8..=11 | 18) => id = kind.size_or_type,
                _ => break,
            }
        }
        id
    }

    fn described(&self, id: u32) -> Option<Type> {
        let &at = self.types.get(id as usize)?;
        if id == 0 { None } else { self.described_at(at as usize) }
    }

    fn described_at(&self, at: usize) -> Option<Type> {
        let [name, info, size_or_type] = [0, 4, 8].map(|field| u32_at(self.bytes, at + field));
        let info = info?;
        Some(Type {
            name: name?,
            kind: (info >> 24 & 0x1f) as u8,
            kind_flag: info >> 31 != 0,
            length: (info & 0xffff) as usize,
            size_or_type: size_or_type?,
            rest: at + TYPE,
        })
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        let rest = &rest[..rest.len().min(MAX_NAME)];
        &rest[..memchr::memchr(0, rest).unwrap_or(0)]
    }
}

/// The types of a kernel and of one of its modules, joined: a module's types and strings are numbered on from the kernel's.
pub fn join_types(kernel: &[u8], module: &[u8]) -> Result<Vec<u8>, LayoutError> {
    let ((kernel_types, kernel_strings), (types, strings)) = (parts(kernel)?, parts(module)?);
    let mut bytes = kernel[..HEADER].to_vec();
    let mut set = |at: usize, value: usize| bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    set(4, HEADER);
    set(8, 0);
    set(12, kernel_types.len() + types.len());
    set(16, kernel_types.len() + types.len());
    set(20, kernel_strings.len() + strings.len());
    for part in [&kernel[kernel_types], &module[types], &kernel[kernel_strings], &module[strings]] {
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

/// Where the types are, and the strings.
fn parts(bytes: &[u8]) -> Result<(Range<usize>, Range<usize>), LayoutError> {
    let damaged = LayoutError::DamagedBtf;
    if bytes.get(..2) != Some(&MAGIC) {
        return Err(damaged("its magic number is missing"));
    }
    let field = |at| u32_at(bytes, at).map(|value| value as usize).ok_or(damaged("its header is cut off"));
    let header = field(4)?;
    if header < HEADER {
        return Err(damaged("its header is too short"));
    }
    let part = |at: usize| {
        let start = header.checked_add(field(at)?).ok_or(damaged("a part begins nowhere"))?;
        let end = start.checked_add(field(at + 4)?).filter(|&end| end <= bytes.len());
        Ok(start..end.ok_or(damaged("a part reaches past the end"))?)
    };
    Ok((part(8)?, part(16)?))
}

/// How many bytes follow the description of a type.
fn trailing(kind: &Type) -> Option<usize> {
    Some(match kind.kind {
        KIND_INT | 14 | 17 => 4, // integer, variable, declaration tag
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * kind.length, // and sections of data, enumerations of 64 bits
        KIND_ENUM | 13 => 8 * kind.length,                      // and the parameters of functions
        2 | 7..=12 | 16 | 18 => 0, // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        _ => return None,
    })
}
