//! Call frame information of ELF images (`.eh_frame`, Linux Standard Base; DWARF 5, section 6.4), row by row.
//!
//! Entries are found by the table in `.eh_frame_hdr` where that has the form that all linkers give it, else one after the
//! other. The parser of single entries is gimli.

use std::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian, Operation,
    RegisterRule, UnwindContext, UnwindExpression, UnwindSection, UnwindTableRow,
};

use crate::{
    frame_table::{Caller, Cfa, Rows, Rule, Saved},
    image::{Part, Parts},
    machine::{PRESERVED, RA, SP},
};

/// Entries of an image; the largest programs have half as many.
const MAX_ENTRIES: usize = 1 << 20;
/// How often the bytes of a section are gone through.
const MAX_TIMES: usize = 8;
/// Operations of an expression: those that are understood have no more.
const MAX_OPERATIONS: usize = 9;

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Section<'a> = EhFrame<Reader<'a>>;
type Entry<'a> = FrameDescriptionEntry<Reader<'a>>;
type Expression = UnwindExpression<usize>;

/// Adds the rows of an image, but for code that is told of otherwise.
pub(crate) fn read(parts: &Parts, rows: &mut Rows, without: Range<u64>) {
    let header = parts.eh_frame_header.as_ref();
    let index = header.and_then(index);
    let behind_header = header.zip(index.as_ref()).and_then(|(header, (at, _))| header.from(*at));
    let Some(frames) = parts.eh_frame.clone().or(behind_header) else { return };
    let mut section = EhFrame::new(&frames.bytes, LittleEndian);
    section.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(frames.address);
    let mut context = UnwindContext::new();
    // An entry may be named more than once, and each goes through what is common to many: by nothing real so often.
    let mut left = frames.bytes.len().saturating_mul(MAX_TIMES);
    let mut add = |entry: &Entry<'_>| {
        left = left.saturating_sub(entry.entry_len() + entry.cie().entry_len());
        let is_told = without.contains(&entry.initial_address());
        left > 0 && (is_told || add_entry(rows, entry, &section, &bases, &mut context))
    };
    match index {
        Some((_, places)) => {
            let offsets = places.filter_map(|place| usize::try_from(place.checked_sub(frames.address)?).ok());
            let entries = offsets.filter_map(|offset| {
                section.fde_from_offset(&bases, offset.into(), EhFrame::cie_from_offset).ok()
            });
            for entry in entries.take(MAX_ENTRIES) {
                if !add(&entry) {
                    return;
                }
            }
        }
        None => {
            let mut entries = section.entries(&bases);
            for _ in 0..MAX_ENTRIES {
                let Ok(Some(entry)) = entries.next() else { return };
                let CieOrFde::Fde(partial) = entry else { continue };
                if partial.parse(EhFrame::cie_from_offset).is_ok_and(|entry| !add(&entry)) {
                    return;
                }
            }
        }
    }
}

/// Adds the rows of an entry, up to what can't be read of it. False if there is no more room.
fn add_entry(
    rows: &mut Rows,
    entry: &Entry<'_>,
    section: &Section<'_>,
    bases: &BaseAddresses,
    context: &mut UnwindContext<usize>,
) -> bool {
    let Ok(mut table) = entry.rows(section, bases, context) else { return true };
    while let Ok(Some(row)) = table.next_row() {
        let rule = Rule::of(row, section, entry.is_signal_trampoline());
        if !rows.push(row.start_address(), row.end_address(), rule) {
            return false;
        }
    }
    true
}

/// The address of `.eh_frame` and those of its entries, if the header has the form that GNU ld, gold and lld give it: version
/// 1; the address relative to its own place, the count plain, the table relative to the header; all of 32 bits.
fn index(header: &Part) -> Option<(u64, impl Iterator<Item = u64>)> {
    let (fixed, rows) = header.bytes.split_first_chunk::<12>()?;
    let [1, 0x1b, 0x03, 0x3b, rest @ ..] = *fixed else { return None };
    let [a, b, c, d, e, f, g, h] = rest;
    let frames = header.address.wrapping_add(4).wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into());
    let count = usize::try_from(u32::from_le_bytes([e, f, g, h])).ok()?;
    let rows = rows.get(..count.checked_mul(8)?)?.as_chunks::<8>().0;
    let base = header.address;
    let places = rows.iter().map(move |&[_, _, _, _, a, b, c, d]| {
        base.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into())
    });
    Some((frames, places))
}

impl Rule {
    /// What a row says.
    fn of(row: &UnwindTableRow<usize>, section: &Section<'_>, signal: bool) -> Self {
        let saved = |register| match row.register(gimli::Register(register)) {
            None | Some(RegisterRule::SameValue) => Saved::Unchanged,
            Some(RegisterRule::Offset(offset)) => near(offset).map_or(Saved::Lost, Saved::At),
            Some(RegisterRule::ValOffset(offset)) => near(offset).map_or(Saved::Lost, Saved::Is),
            Some(RegisterRule::Register(other)) => Saved::In(other.0),
            Some(RegisterRule::Expression(expression)) => match operations(expression, section).as_deref() {
                Some(&[Operation::RegisterOffset { register, offset, .. }]) => {
                    near(offset).map_or(Saved::Lost, |offset| Saved::AtRegister(register.0, offset))
                }
                _ => Saved::Lost,
            },
            _ => Saved::Lost,
        };
        let cfa = match *row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                near(offset).map(|offset| Cfa::Register(register.0, offset))
            }
            CfaRule::Expression(expression) => {
                operations(expression, section).and_then(|operations| Cfa::of(&operations))
            }
        };
        match (cfa, row.register(gimli::Register(RA))) {
            (_, Some(RegisterRule::Undefined)) => Self::Outermost,
            (Some(cfa), Some(_)) => Self::Caller(Caller {
                cfa,
                return_address: saved(RA),
                sp: saved(SP),
                preserved: PRESERVED.map(saved),
                signal,
            }),
            _ => Self::Unknown,
        }
    }
}

impl Cfa {
    /// What an expression comes to, of the forms that compilers, linkers and C libraries write.
    fn of(operations: &[Operation<Reader<'_>>]) -> Option<Self> {
        use Operation::{
            And, Deref, Ge, Plus, PlusConstant, RegisterOffset, Shl, UnsignedConstant as Number,
        };
        match *operations {
            [RegisterOffset { register, offset, .. }, Deref { size: 8, space: false, .. }, ref rest @ ..] => {
                let plus = match *rest {
                    [] => 0,
                    [PlusConstant { value }] => i32::try_from(value).ok()?,
                    _ => return None,
                };
                Some(Self::Behind { register: register.0, offset: near(offset)?, plus })
            }
            [
                RegisterOffset { register: gimli::Register(SP), offset, .. },
                RegisterOffset { register: gimli::Register(RA), offset: 0, .. },
                Number { value: 15 },
                And,
                Number { value: pushed_from },
                Ge,
                Number { value: 3 },
                Shl,
                Plus,
            ] => Some(Self::Linkage { offset: near(offset)?, pushed_from: u8::try_from(pushed_from).ok()? }),
            _ => None,
        }
    }
}

/// The operations of an expression; none if there are more than of any that is understood.
fn operations<'a>(expression: Expression, section: &Section<'a>) -> Option<Vec<Operation<Reader<'a>>>> {
    let encoding = gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 4 };
    let mut left = expression.get(section).ok()?.operations(encoding);
    let mut operations = Vec::new();
    while let Some(operation) = left.next().ok()? {
        if operations.len() == MAX_OPERATIONS {
            return None;
        }
        operations.push(operation);
    }
    Some(operations)
}

/// Frames are no larger.
fn near(offset: i64) -> Option<i32> {
    i32::try_from(offset).ok()
}
