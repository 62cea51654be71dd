//! Go's table of functions: how large each frame is at each instruction (`runtime.pclntab`, Go 1.18 and later;
//! `src/runtime/symtab.go`, `src/internal/abi/symtab.go`).

use crate::{
    Broken, Stacks,
    call_frames::Step,
    image::Part,
    machine::{BP, Machine, RA, SP},
};

/// Go 1.18, and Go 1.20 and later: a function's record has one more member.
const MAGICS: [(u32, usize); 2] = [(0xffff_fff0, 36), (0xffff_fff1, 40)];
const MAX_FUNCTIONS: u64 = 1 << 22;
/// Changes of the stack pointer in one function.
const MAX_CHANGES: usize = 1 << 16;
/// The outermost function of a stack.
const TOP_FRAME: u8 = 1;
/// It changes to another stack.
const WRITES_SP: u8 = 2;

/// The functions of a Go program.
#[derive(Debug)]
pub(crate) struct GoFunctions {
    bytes: Vec<u8>,
    /// Where code begins; functions count from here.
    text: u64,
    count: usize,
    /// Where in `bytes` functions are, and changes of values.
    functions: usize,
    values: usize,
    /// Where in a function's record its flags are, less one.
    id: usize,
}

impl GoFunctions {
    pub(crate) fn parse(part: Part) -> Option<Self> {
        let bytes = part.bytes;
        let magic = u32_at(&bytes, 0)?;
        let &(_, id) = MAGICS.iter().find(|&&(known, _)| known == magic)?;
        // No padding in between, instructions of any length, pointers of 8 bytes.
        if *bytes.get(4..8)? != [0, 0, 1, 8] {
            return None;
        }
        let word = |index: usize| u64_at(&bytes, 8 + 8 * index);
        let count = word(0).filter(|&count| count <= MAX_FUNCTIONS)? as usize;
        let (text, values, functions) = (word(2)?, word(6)?, word(7)?);
        let place = |at: u64| usize::try_from(at).ok().filter(|&at| at < bytes.len());
        let (values, functions) = (place(values)?, place(functions)?);
        // The table of functions has an end that is none.
        bytes.get(functions..)?.get(..(count + 1) * 8)?;
        Some(Self { text, count, functions, values, id, bytes })
    }

    /// Goes from the frame at a linked address to its caller; none where Go has no function there.
    pub(crate) fn step(
        &self,
        address: u64,
        registers: &mut Machine,
        stacks: &Stacks<'_>,
    ) -> Option<Result<Step, Broken>> {
        let offset = u32::try_from(address.checked_sub(self.text)?).ok()?;
        let function = self.function(offset)?;
        let flags = *self.bytes.get(function.checked_add(self.id)?.checked_add(1)?)?;
        if flags & TOP_FRAME != 0 {
            return Some(Ok(Step::Outermost));
        }
        if flags & WRITES_SP != 0 {
            return Some(Err(Broken::OtherStack));
        }
        let start = u32_at(&self.bytes, function)?;
        let table = u32_at(&self.bytes, function.checked_add(16)?)?;
        let size = self.frame_size(table, offset.checked_sub(start)?)?;
        let end = registers.sp().wrapping_add(size);
        let Some(return_address) = stacks.word(end) else { return Some(Err(Broken::NotCopied)) };
        let bp = match size {
            0 => registers.get(BP),
            _ => stacks.word(end.wrapping_sub(8)),
        };
        let mut caller = Machine::default();
        caller.set(RA, Some(return_address));
        caller.set(SP, Some(end.wrapping_add(8)));
        caller.set(BP, bp);
        *registers = caller;
        Some(Ok(Step::Caller { interrupted: false }))
    }

    /// The place of the record of the function that has an offset.
    fn function(&self, offset: u32) -> Option<usize> {
        let table = self.bytes.get(self.functions..)?.as_chunks::<8>().0.get(..=self.count)?;
        let start = |row: &[u8; 8]| u32::from_le_bytes([row[0], row[1], row[2], row[3]]);
        let above = table.partition_point(|row| start(row) <= offset);
        // Behind the last function is none.
        let row = table[..self.count].get(above.checked_sub(1)?)?;
        let place = u32::from_le_bytes([row[4], row[5], row[6], row[7]]);
        self.functions.checked_add(place as usize)
    }

    /// How far the stack pointer is below the return address, so far into a function. Values change by steps, each a
    /// change of the value and the length of the code that it holds for (`runtime.pcvalue`).
    fn frame_size(&self, table: u32, within: u32) -> Option<u64> {
        if table == 0 {
            return None;
        }
        let mut at = self.values.checked_add(table as usize)?;
        let (mut value, mut end) = (-1i32, 0u32);
        for index in 0..MAX_CHANGES {
            let change = self.number(&mut at)?;
            if change == 0 && index != 0 {
                return None;
            }
            value = value.wrapping_add((change >> 1) as i32 ^ -((change & 1) as i32));
            end = end.checked_add(self.number(&mut at)?)?;
            if within < end {
                return u64::try_from(value).ok();
            }
        }
        None
    }

    /// A number of 7 bits a byte, the lowest first.
    fn number(&self, at: &mut usize) -> Option<u32> {
        let mut number = 0u32;
        for shift in (0..32).step_by(7) {
            let byte = *self.bytes.get(*at)?;
            *at += 1;
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
