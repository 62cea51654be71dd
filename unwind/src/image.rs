//! An image that processes map: from a frame of its code to the caller.

use profile::CodeAddress;

use crate::{
    Broken, FrameTable, Stacks,
    frame_table::{Caller, Cfa, Rule, Saved},
    machine::{BP, Machine, PRESERVED, RA, SP},
};

/// One place in the index stands for so many bytes of code.
const BLOCK: u32 = 256;

/// The code that the index can be of; what lies further on is searched for in all rows.
const MAX_INDEXED: u32 = 1 << 28;

/// Bytes of an image, at the address that they were linked to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The address.
    pub address: u64,
    /// The bytes. What of them could not be read is zeros: no table's entry is.
    pub bytes: Vec<u8>,
}

impl Part {
    /// What of it begins at an address.
    pub(crate) fn from(&self, address: u64) -> Option<Self> {
        let at = usize::try_from(address.checked_sub(self.address)?).ok()?;
        let bytes = self.bytes.get(at..).filter(|bytes| !bytes.is_empty())?.to_vec();
        Some(Self { address, bytes })
    }
}

/// The parts of an image that tell of its frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// `.eh_frame_hdr`, with what follows it in its segment: `.eh_frame` as a rule.
    pub eh_frame_header: Option<Part>,
    /// `.eh_frame`, where it is known by itself.
    pub eh_frame: Option<Part>,
    /// Go's table of functions (`.gopclntab`).
    pub go_functions: Option<Part>,
}

/// What one image says about the frames of its functions, at the addresses that it was linked to.
#[derive(Debug, Default)]
pub struct Image {
    table: FrameTable,
    /// For each block of code, the number of rows that begin before it.
    blocks: Vec<u32>,
}

/// What a step up the stack led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A caller, and whether it was interrupted rather than calling.
    Caller { interrupted: bool },
    /// There is none: this was an outermost function.
    Outermost,
}

impl Image {
    /// Takes an image's table. If that is forged, what comes out is nonsense at the worst.
    pub fn new(table: FrameTable) -> Self {
        let mut blocks = Vec::new();
        for (index, &start) in (0u32..).zip(&table.starts) {
            let block = (start.min(MAX_INDEXED) / BLOCK) as usize;
            blocks.resize(blocks.len().max(block + 1), index);
        }
        Self { table, blocks }
    }

    /// Goes from the frame at a linked address to its caller.
    pub(crate) fn step(
        &self,
        at: CodeAddress,
        registers: &mut Machine,
        stacks: &Stacks<'_>,
    ) -> Result<Step, Broken> {
        let innermost = matches!(at, CodeAddress::InstructionPointer(_));
        match self.rule(at.for_lookup()) {
            Rule::Caller(caller) => {
                *registers = caller.apply(innermost, registers, stacks)?;
                Ok(Step::Caller { interrupted: caller.signal })
            }
            Rule::Outermost => Ok(Step::Outermost),
            Rule::OtherStack => Err(Broken::OtherStack),
            Rule::Unknown if self.table.is_empty() => by_frame_pointer(registers, stacks),
            // By convention, what has no caller has no frame pointer either.
            Rule::Unknown if registers.get(BP) == Some(0) => Ok(Step::Outermost),
            Rule::Unknown => Err(Broken::NoUnwindInfo),
        }
    }

    /// What holds at an address.
    fn rule(&self, address: u64) -> &Rule {
        self.row(address).and_then(|which| self.table.rules.get(which as usize)).unwrap_or(&Rule::Unknown)
    }

    fn row(&self, address: u64) -> Option<u32> {
        let FrameTable { base, starts, which, .. } = &self.table;
        let offset = u32::try_from(address.checked_sub(*base)?).ok()?;
        let block = (offset.min(MAX_INDEXED) / BLOCK) as usize;
        let from = self.blocks.get(block).map_or(starts.len(), |&before| before as usize);
        let to = self.blocks.get(block + 1).map_or(starts.len(), |&before| before as usize);
        let above = from + starts.get(from..to)?.partition_point(|&start| start <= offset);
        which.get(above.checked_sub(1)?).copied()
    }
}

impl Caller {
    /// The registers of the caller.
    fn apply(&self, innermost: bool, registers: &Machine, stacks: &Stacks<'_>) -> Result<Machine, Broken> {
        let register = |number| registers.get(number).ok_or(Broken::NoUnwindInfo);
        let word = |address| stacks.word(address).ok_or(Broken::NotCopied);
        let far = |from: u64, offset: i32| from.wrapping_add_signed(offset.into());
        let cfa = match self.cfa {
            Cfa::Register(number, offset) => far(register(number)?, offset),
            Cfa::Behind { register: number, offset, plus } => {
                far(word(far(register(number)?, offset))?, plus)
            }
            Cfa::Linkage { offset, pushed_from } => {
                let pushed = register(RA)? & 15 >= pushed_from.into();
                far(register(SP)?, offset).wrapping_add(u64::from(pushed) << 3)
            }
        };
        let value = |saved, number| match saved {
            Saved::Unchanged => register(number),
            Saved::At(offset) => {
                let address = far(cfa, offset);
                match stacks.word(address) {
                    // Compilers do not say that what was restored before a return is restored. It still holds what was
                    // just read from there, below the stack pointer, which nobody has to copy.
                    None if innermost && address < registers.sp() => registers.get(number),
                    word => word,
                }
                .ok_or(Broken::NotCopied)
            }
            Saved::Is(offset) => Ok(far(cfa, offset)),
            Saved::In(other) => register(other),
            Saved::AtRegister(other, offset) => word(far(register(other)?, offset)),
            Saved::Lost => Err(Broken::NoUnwindInfo),
        };
        let mut caller = Machine::default();
        caller.set(RA, Some(value(self.return_address, RA)?));
        caller.set(
            SP,
            Some(match self.sp {
                Saved::Unchanged => cfa,
                saved => value(saved, SP)?,
            }),
        );
        for (saved, number) in self.preserved.into_iter().zip(PRESERVED) {
            // What can't be told may never be asked for.
            caller.set(number, value(saved, number).ok());
        }
        Ok(caller)
    }
}

/// The caller of a frame that keeps its frame pointer (System V psABI, section 3.2.2).
pub(crate) fn by_frame_pointer(registers: &mut Machine, stacks: &Stacks<'_>) -> Result<Step, Broken> {
    let frame = registers.get(BP).ok_or(Broken::NoUnwindInfo)?;
    if frame == 0 {
        return Ok(Step::Outermost);
    }
    if frame < registers.sp() || !frame.is_multiple_of(8) {
        return Err(Broken::NoUnwindInfo);
    }
    let caller = stacks.word(frame).zip(stacks.word(frame.wrapping_add(8)));
    let (bp, return_address) = caller.ok_or(Broken::NotCopied)?;
    let mut caller = Machine::default();
    caller.set(BP, Some(bp));
    caller.set(SP, Some(frame.wrapping_add(16)));
    caller.set(RA, Some(return_address));
    *registers = caller;
    Ok(Step::Caller { interrupted: false })
}
