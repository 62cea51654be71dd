//! Go's table of functions: how large each frame is at each instruction (`runtime.pclntab`, Go 1.18 and later;
//! `src/runtime/symtab.go`, `src/internal/abi/symtab.go`).

use std::ops::Range;

use crate::{
    frame_table::{Caller, Cfa, Rows, Rule, Saved},
    image::Part,
    machine::{BP, PRESERVED, SP},
};

/// Go 1.18, and Go 1.20 and later: a function's record has one more member.
const MAGICS: [(u32, usize); 2] = [(0xffff_fff0, 36), (0xffff_fff1, 40)];
const MAX_FUNCTIONS: u64 = 1 << 22;
/// Changes of the stack pointer in one function.
const MAX_CHANGES: usize = 1 << 16;
/// A frame is no larger than Go's stacks.
const MAX_FRAME: i32 = 1 << 30;
/// The outermost function of a stack.
const TOP_FRAME: u8 = 1;
/// It changes to another stack.
const WRITES_SP: u8 = 2;

/// Adds the rows of a Go program. Gives the addresses of the code that the table is of; none if there is no such table.
pub(crate) fn read(part: &Part, rows: &mut Rows) -> Option<Range<u64>> {
    let bytes = &part.bytes[..];
    let magic = u32_at(bytes, 0)?;
    let &(_, id) = MAGICS.iter().find(|&&(known, _)| known == magic)?;
    // No padding in between, instructions of any length, pointers of 8 bytes.
    if *bytes.get(4..8)? != [0, 0, 1, 8] {
        return None;
    }
    let word = |index: usize| u64_at(bytes, 8 + 8 * index);
    let count = word(0).filter(|&count| count <= MAX_FUNCTIONS)? as usize;
    let (text, values, functions) = (word(2)?, word(6)?, word(7)?);
    let place = |at: u64| usize::try_from(at).ok().filter(|&at| at < bytes.len());
    let (values, functions) = (place(values)?, place(functions)?);
    // The table of functions has an end that is none: the end of the code.
    let table = bytes.get(functions..)?.as_chunks::<8>().0.get(..=count)?;
    let start =
        |row: &[u8; 8]| text.wrapping_add(u32::from_le_bytes([row[0], row[1], row[2], row[3]]).into());
    for pair in table.windows(2) {
        let [_, _, _, _, a, b, c, d] = pair[0];
        let (from, to) = (start(&pair[0]), start(&pair[1]));
        let record = functions.checked_add(u32::from_le_bytes([a, b, c, d]) as usize);
        let function = record.and_then(|at| Function::read(bytes, at, values, id));
        if function.is_some_and(|function| !function.add(rows, from, to)) {
            break;
        }
    }
    Some(text..table.last().map_or(text, start))
}

/// One function.
struct Function<'a> {
    flags: u8,
    /// Changes of the stack pointer; none if they are not told.
    changes: Option<&'a [u8]>,
}

impl<'a> Function<'a> {
    fn read(bytes: &'a [u8], record: usize, values: usize, id: usize) -> Option<Self> {
        let flags = *bytes.get(record.checked_add(id)?.checked_add(1)?)?;
        let changes = u32_at(bytes, record.checked_add(16)?)?;
        let changes = (changes != 0).then(|| bytes.get(values.checked_add(changes as usize)?..)).flatten();
        Some(Self { flags, changes })
    }

    /// Adds its rows. False if there is no more room. Values change by steps, each a change of the value and the length of the
    /// code that it holds for (`runtime.pcvalue`).
    fn add(self, rows: &mut Rows, from: u64, to: u64) -> bool {
        if self.flags & TOP_FRAME != 0 {
            return rows.push(from, to, Rule::Outermost);
        }
        if self.flags & WRITES_SP != 0 {
            return rows.push(from, to, Rule::OtherStack);
        }
        let Some(mut changes) = self.changes else { return true };
        let (mut value, mut at) = (-1i32, from);
        for index in 0..MAX_CHANGES {
            let Some((change, length)) = number(&mut changes).zip(number(&mut changes)) else { break };
            if change == 0 && index != 0 {
                break;
            }
            value = value.wrapping_add((change >> 1) as i32 ^ -((change & 1) as i32));
            let end = at.saturating_add(length.into()).min(to);
            let rule = if (0..MAX_FRAME).contains(&value) { frame(value) } else { Rule::Unknown };
            if !rows.push(at, end, rule) {
                return false;
            }
            at = end;
            if at == to {
                break;
            }
        }
        true
    }
}

/// A frame of so many bytes below its return address. Go's functions preserve the frame pointer alone.
fn frame(size: i32) -> Rule {
    let bp = if size == 0 { Saved::Unchanged } else { Saved::At(-16) };
    Rule::Caller(Caller {
        cfa: Cfa::Register(SP, size + 8),
        return_address: Saved::At(-8),
        sp: Saved::Unchanged,
        preserved: PRESERVED.map(|register| if register == BP { bp } else { Saved::Lost }),
        signal: false,
    })
}

/// A number of 7 bits a byte, the lowest first.
fn number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0u32;
    for shift in (0..32).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
