//! Call frame information of ELF images (`.eh_frame`, Linux Standard Base; DWARF 5, section 6.4).
//!
//! Rows are found by the binary search table in `.eh_frame_hdr` where that has the form that all linkers give it, else by
//! one made from all entries. The parser of single entries is gimli.

use std::{cell::RefCell, collections::HashMap};

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, Evaluation, EvaluationResult, LittleEndian,
    RegisterRule, UnwindContext, UnwindExpression, UnwindSection, UnwindTableRow, Value,
};

use crate::{
    Broken, Stacks,
    image::Part,
    machine::{Machine, PRESERVED, RA, SP},
};

/// Rules that are remembered for an image; more than any program's hot code needs.
const MAX_RULES: usize = 1 << 16;
/// Entries of an image without a search table.
const MAX_ENTRIES: usize = 1 << 20;
/// What an expression may take: real ones have a handful of operations.
const MAX_OPERATIONS: u32 = 64;

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Expression = UnwindExpression<usize>;

/// The call frame information of one image, at the addresses that it was linked to.
#[derive(Debug)]
pub(crate) struct CallFrames {
    frames: Part,
    index: Index,
    cache: RefCell<Cache>,
}

/// Where the entries are, by the first address of each.
#[derive(Debug)]
enum Index {
    /// As the linker made it: pairs of numbers of 32 bits, counted from this address.
    Linked { base: u64, rows: Vec<u8> },
    /// Made here: address, and place in the section.
    Made(Vec<(u64, usize)>),
}

#[derive(Debug)]
struct Cache {
    context: UnwindContext<usize>,
    rules: HashMap<u64, Option<Rule>, ahash::RandomState>,
}

/// How the caller's registers are got from the callee's at one address.
#[derive(Clone, Copy, Debug)]
struct Rule {
    cfa: Cfa,
    /// The return address; none marks an outermost function.
    return_address: Option<Saved>,
    sp: Saved,
    preserved: [Saved; PRESERVED.len()],
    /// Whether the "caller" is what a signal interrupted.
    signal: bool,
}

/// Where the frame ends: the stack pointer before the call.
#[derive(Clone, Copy, Debug)]
enum Cfa {
    Register(u16, i64),
    Expression(Expression),
}

/// Where a caller's register is.
#[derive(Clone, Copy, Debug)]
enum Saved {
    Unchanged,
    /// In memory, so far from the frame's end.
    At(i64),
    /// It is the address so far from the frame's end.
    Is(i64),
    In(u16),
    AtExpression(Expression),
    IsExpression(Expression),
    Lost,
}

/// What a step up the stack led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A caller, and whether it was interrupted rather than calling.
    Caller { interrupted: bool },
    /// There is none: this was an outermost function.
    Outermost,
}

impl CallFrames {
    /// Takes an image's `.eh_frame_hdr` and what follows it in its segment, and `.eh_frame` if that is elsewhere.
    pub(crate) fn new(header: Option<Part>, frames: Option<Part>) -> Option<Self> {
        let linked = header.as_ref().and_then(linked_index);
        let frames = match (frames, &header, &linked) {
            (Some(frames), ..) => frames,
            (None, Some(header), Some((at, _))) => header.from(*at)?,
            _ => return None,
        };
        let index = match linked {
            Some((_, index)) => index,
            None => Index::Made(made_index(&frames)?),
        };
        let cache = Cache { context: UnwindContext::new(), rules: HashMap::default() };
        Some(Self { frames, index, cache: RefCell::new(cache) })
    }

    /// Replaces the registers of the frame at a linked address by those of its caller; none where nothing is said
    /// about that address.
    pub(crate) fn step(
        &self,
        address: u64,
        innermost: bool,
        registers: &mut Machine,
        stacks: &Stacks<'_>,
    ) -> Option<Result<Step, Broken>> {
        let mut cache = self.cache.borrow_mut();
        let rule = match cache.rules.get(&address) {
            Some(rule) => *rule,
            None => {
                let rule = self.rule(&mut cache.context, address);
                if cache.rules.len() == MAX_RULES {
                    cache.rules.clear();
                }
                cache.rules.insert(address, rule);
                rule
            }
        };
        Some(self.apply(&rule?, innermost, registers, stacks))
    }

    fn section(&self) -> EhFrame<Reader<'_>> {
        let mut section = EhFrame::new(&self.frames.bytes, LittleEndian);
        section.set_address_size(8);
        section
    }

    fn rule(&self, context: &mut UnwindContext<usize>, address: u64) -> Option<Rule> {
        let section = self.section();
        let bases = bases(&self.frames);
        let offset = self.index.entry(address, self.frames.address)?;
        let entry = section.fde_from_offset(&bases, offset.into(), EhFrame::cie_from_offset).ok()?;
        let row = entry.unwind_info_for_address(&section, &bases, context, address).ok()?;
        Rule::of(row, entry.is_signal_trampoline())
    }

    fn apply(
        &self,
        rule: &Rule,
        innermost: bool,
        registers: &mut Machine,
        stacks: &Stacks<'_>,
    ) -> Result<Step, Broken> {
        let Some(return_address) = rule.return_address else { return Ok(Step::Outermost) };
        let cfa = match rule.cfa {
            Cfa::Register(register, offset) => {
                registers.get(register).ok_or(Broken::NoUnwindInfo)?.wrapping_add_signed(offset)
            }
            Cfa::Expression(expression) => self.evaluate(expression, None, registers, stacks)?,
        };
        let value = |saved, register| match saved {
            Saved::Unchanged => registers.get(register).ok_or(Broken::NoUnwindInfo),
            Saved::At(offset) => {
                let address = cfa.wrapping_add_signed(offset);
                match stacks.word(address) {
                    // Compilers do not say that what was restored before a return is restored. It still holds what was
                    // just read from there, below the stack pointer, which nobody has to copy.
                    None if innermost && address < registers.sp() => registers.get(register),
                    word => word,
                }
                .ok_or(Broken::NotCopied)
            }
            Saved::Is(offset) => Ok(cfa.wrapping_add_signed(offset)),
            Saved::In(other) => registers.get(other).ok_or(Broken::NoUnwindInfo),
            Saved::AtExpression(expression) => {
                let address = self.evaluate(expression, Some(cfa), registers, stacks)?;
                stacks.word(address).ok_or(Broken::NotCopied)
            }
            Saved::IsExpression(expression) => self.evaluate(expression, Some(cfa), registers, stacks),
            Saved::Lost => Err(Broken::NoUnwindInfo),
        };
        let mut caller = Machine::default();
        caller.set(RA, Some(value(return_address, RA)?));
        caller.set(
            SP,
            Some(match rule.sp {
                Saved::Unchanged => cfa,
                saved => value(saved, SP)?,
            }),
        );
        for (saved, register) in rule.preserved.into_iter().zip(PRESERVED) {
            // What can't be told may never be asked for.
            caller.set(register, value(saved, register).ok());
        }
        *registers = caller;
        Ok(Step::Caller { interrupted: rule.signal })
    }

    /// The value of an expression, which has the frame's end to begin with if that is known.
    fn evaluate(
        &self,
        expression: Expression,
        cfa: Option<u64>,
        registers: &Machine,
        stacks: &Stacks<'_>,
    ) -> Result<u64, Broken> {
        let damaged = |_| Broken::NoUnwindInfo;
        let operations = expression.get(&self.section()).map_err(damaged)?;
        let encoding = gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 4 };
        let mut evaluation = Evaluation::new(operations.0, encoding);
        evaluation.set_max_iterations(MAX_OPERATIONS);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa);
        }
        let mut state = evaluation.evaluate().map_err(damaged)?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = registers.get(register.0).ok_or(Broken::NoUnwindInfo)?;
                    evaluation.resume_with_register(Value::Generic(value))
                }
                EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                    let word = stacks.word(address).ok_or(Broken::NotCopied)?;
                    evaluation.resume_with_memory(Value::Generic(word))
                }
                _ => return Err(Broken::NoUnwindInfo),
            }
            .map_err(damaged)?;
        }
        match evaluation.as_result().last().map(|piece| piece.location) {
            Some(gimli::Location::Address { address }) => Ok(address),
            _ => Err(Broken::NoUnwindInfo),
        }
    }
}

impl Rule {
    /// None where the row does not lead to a caller, nor says that there is none.
    fn of(row: &UnwindTableRow<usize>, signal: bool) -> Option<Self> {
        let cfa = match *row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => Cfa::Register(register.0, offset),
            CfaRule::Expression(expression) => Cfa::Expression(expression),
        };
        let saved = |register| match row.register(gimli::Register(register)) {
            None | Some(RegisterRule::SameValue) => Saved::Unchanged,
            Some(RegisterRule::Offset(offset)) => Saved::At(offset),
            Some(RegisterRule::ValOffset(offset)) => Saved::Is(offset),
            Some(RegisterRule::Register(other)) => Saved::In(other.0),
            Some(RegisterRule::Expression(expression)) => Saved::AtExpression(expression),
            Some(RegisterRule::ValExpression(expression)) => Saved::IsExpression(expression),
            _ => Saved::Lost,
        };
        let return_address = match row.register(gimli::Register(RA))? {
            RegisterRule::Undefined => None,
            _ => Some(saved(RA)),
        };
        Some(Self { cfa, return_address, sp: saved(SP), preserved: PRESERVED.map(saved), signal })
    }
}

impl Index {
    /// The place in the section of the last entry that begins at an address or before.
    fn entry(&self, address: u64, section: u64) -> Option<usize> {
        match self {
            Self::Linked { base, rows } => {
                let rows = rows.as_chunks::<8>().0;
                let number =
                    |half: &[u8]| i64::from(i32::from_le_bytes([half[0], half[1], half[2], half[3]]));
                let wanted = i64::try_from(address).ok()?.checked_sub(i64::try_from(*base).ok()?)?;
                let above = rows.partition_point(|row| number(&row[..4]) <= wanted);
                let entry = base.wrapping_add_signed(number(&rows[above.checked_sub(1)?][4..]));
                usize::try_from(entry.checked_sub(section)?).ok()
            }
            Self::Made(entries) => {
                let above = entries.partition_point(|&(start, _)| start <= address);
                Some(entries[above.checked_sub(1)?].1)
            }
        }
    }
}

fn bases(frames: &Part) -> BaseAddresses {
    BaseAddresses::default().set_eh_frame(frames.address)
}

/// The address of `.eh_frame` and the search table, if the header has the form that GNU ld, gold and lld give it: version 1;
/// the address relative to its own place, the count plain, the table relative to the header; all of 32 bits.
fn linked_index(header: &Part) -> Option<(u64, Index)> {
    let (fixed, rows) = header.bytes.split_first_chunk::<12>()?;
    let [1, 0x1b, 0x03, 0x3b, rest @ ..] = *fixed else { return None };
    let [a, b, c, d, e, f, g, h] = rest;
    let frames = header.address.wrapping_add(4).wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into());
    let count = usize::try_from(u32::from_le_bytes([e, f, g, h])).ok()?;
    let rows = rows.get(..count.checked_mul(8)?)?.to_vec();
    Some((frames, Index::Linked { base: header.address, rows }))
}

/// A search table of all entries; none where there are none that can be read.
fn made_index(frames: &Part) -> Option<Vec<(u64, usize)>> {
    let section = EhFrame::new(&frames.bytes, LittleEndian);
    let bases = bases(frames);
    let mut entries = section.entries(&bases);
    let mut index = Vec::new();
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        if let Ok(entry) = partial.parse(EhFrame::cie_from_offset) {
            index.push((entry.initial_address(), entry.offset()));
        }
        if index.len() == MAX_ENTRIES {
            break;
        }
    }
    index.sort_unstable();
    (!index.is_empty()).then_some(index)
}
