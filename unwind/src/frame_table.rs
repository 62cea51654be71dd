//! What an image says about the frames of its functions: one row for each stretch of code in which the same holds.
//!
//! This is what an image's tables are made into where they may be parsed, and all that a walk needs: plain data, of which
//! nothing is believed.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{call_frames, go, image::Parts, machine::PRESERVED};

/// Rows of a table at the most, empty ones counted; the largest programs have some millions.
const MAX_ROWS: usize = 8 << 20;

/// A table of frames, at the addresses that an image was linked to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameTable {
    /// What the rows' addresses are counted from.
    pub(crate) base: u64,
    /// Where each row begins, in ascending order; it holds up to the next one.
    pub(crate) starts: Vec<u32>,
    /// What holds there, as an index into `rules`.
    pub(crate) which: Vec<u32>,
    pub(crate) rules: Vec<Rule>,
}

/// How the caller of a frame is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Rule {
    /// Nothing is said about this code.
    Unknown,
    /// It has none: an outermost function.
    Outermost,
    /// It is on another stack.
    OtherStack,
    Caller(Caller),
}

/// How the caller's registers are got from the callee's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Caller {
    pub(crate) cfa: Cfa,
    pub(crate) return_address: Saved,
    pub(crate) sp: Saved,
    pub(crate) preserved: [Saved; PRESERVED.len()],
    /// Whether the "caller" is what a signal interrupted.
    pub(crate) signal: bool,
}

/// Where the frame ends: the stack pointer before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Cfa {
    /// So far from a register.
    Register(u16, i32),
    /// So far from the word that is so far from a register: stacks that were realigned, signal frames.
    Behind { register: u16, offset: i32, plus: i32 },
    /// So far from the stack pointer, and a word further from the instruction of an entry on that is so far in its 16
    /// bytes: tables of linkage.
    Linkage { offset: i32, pushed_from: u8 },
}

/// Where a caller's register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Saved {
    Unchanged,
    /// In memory, so far from the frame's end.
    At(i32),
    /// It is the address so far from the frame's end.
    Is(i32),
    In(u16),
    /// In memory, so far from a register of the callee's.
    AtRegister(u16, i32),
    Lost,
}

impl FrameTable {
    /// Makes a table of what an image has: its call frame information, and Go's functions. What is damaged in them is as if
    /// it were not there.
    pub fn read(parts: &Parts) -> Self {
        let mut rows = Rows::default();
        let of_go = parts.go_functions.as_ref().and_then(|part| go::read(part, &mut rows));
        call_frames::read(parts, &mut rows, of_go.unwrap_or_default());
        rows.into_table()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether nothing is told of any code.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
}

/// The rows of a table that is being made, in any order.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    rows: Vec<(u64, u64, u32)>,
    pushed: usize,
    rules: Vec<Rule>,
    numbers: HashMap<Rule, u32>,
}

impl Rows {
    /// Adds a row for the code from an address up to another. False if there is no more room.
    pub(crate) fn push(&mut self, from: u64, to: u64, rule: Rule) -> bool {
        let rules = &mut self.rules;
        let number = *self.numbers.entry(rule).or_insert_with(|| {
            rules.push(rule);
            (rules.len() - 1) as u32
        });
        if from < to {
            self.rows.push((from, to, number));
        }
        self.pushed += 1;
        self.pushed < MAX_ROWS
    }

    fn into_table(mut self) -> FrameTable {
        self.rows.sort_unstable();
        let Some(&(base, ..)) = self.rows.first() else { return FrameTable::default() };
        let nothing = self.rules.len() as u32;
        self.rules.push(Rule::Unknown);
        let mut table = FrameTable { base, starts: Vec::new(), which: Vec::new(), rules: self.rules };
        let mut end = base;
        for (from, to, number) in self.rows {
            // Of rows that overlap, the one that began earlier holds.
            let from = from.max(end);
            let (Ok(start), true) = (u32::try_from(from - base), from < to) else { continue };
            if from > end {
                table.push((end - base) as u32, nothing);
            }
            table.push(start, number);
            end = to;
        }
        if let Ok(end) = u32::try_from(end - base) {
            table.push(end, nothing);
        }
        table
    }
}

impl FrameTable {
    fn push(&mut self, start: u32, rule: u32) {
        if self.which.last() != Some(&rule) {
            self.starts.push(start);
            self.which.push(rule);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_in_order_with_nothing_in_the_gaps() {
        let mut rows = Rows::default();
        rows.push(0x1100, 0x1200, Rule::Outermost);
        rows.push(0x1000, 0x1080, Rule::OtherStack);
        // Overlaps the one before, and goes on as what it says itself.
        rows.push(0x1180, 0x1280, Rule::OtherStack);
        let table = rows.into_table();
        assert_eq!((table.base, &table.starts[..]), (0x1000, &[0, 0x80, 0x100, 0x200, 0x280][..]));
        let rules: Vec<Rule> = table.which.iter().map(|&which| table.rules[which as usize]).collect();
        let (unknown, other) = (Rule::Unknown, Rule::OtherStack);
        assert_eq!(rules, [other, unknown, Rule::Outermost, other, unknown]);
    }
}
