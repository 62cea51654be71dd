//! The buffers that Xen traces into: one circle of records for each CPU (public/trace.h).

use std::sync::atomic::{AtomicU32, Ordering};

use abi::PAGE_SIZE;

use crate::xen::{
    hypercalls::Hypercalls,
    privcmd::{Access, Mapping},
};

/// The name by which Xen's own pages are mapped.
const DOMID_XEN: u16 = 0x7ff2;

const HALVES: usize = PAGE_SIZE / 4;

/// The most that a CPU's buffer can have, so that its positions fit.
const MOST_PAGES: usize = 0xffff;

/// Where the pages of a CPU's buffer are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Located {
    cpu: u32,
    frames: Vec<u64>,
}

/// One CPU's buffer, mapped.
pub(super) struct Ring {
    pub(super) cpu: u32,
    /// Its first page again, which is the only one that is written to.
    head: Mapping,
    /// All pages.
    pages: Mapping,
    /// Up to where it was read.
    read: u32,
}

/// What reading found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Somebody else has read from it.
    Shared,
    /// Its positions are none of it.
    Damaged,
}

/// Maps every CPU's buffer.
pub(super) fn map(xen: &Hypercalls, frame: u64, bytes: u32, highest_cpu: u32) -> std::io::Result<Vec<Ring>> {
    let pages = (bytes as usize).div_ceil(PAGE_SIZE) as u64;
    let frames: Vec<u64> = (0..pages).map(|page| frame + page).collect();
    let table = xen.privcmd.map(DOMID_XEN, &frames, Access::ReadOnly)?;
    let map = |located: Located| {
        let mut ring = Ring {
            cpu: located.cpu,
            head: xen.privcmd.map(DOMID_XEN, &located.frames[..1], Access::Writable)?,
            pages: xen.privcmd.map(DOMID_XEN, &located.frames, Access::ReadOnly)?,
            read: 0,
        };
        ring.read = ring.consumed();
        Ok(ring)
    };
    locate(table.halves(), highest_cpu).into_iter().map(map).collect()
}

/// Reads `struct t_info`: the buffers' size in pages, then where each CPU's list of frames begins, as halves of words,
/// then the lists, as words. A CPU that was not online when the buffers were made has none.
fn locate(table: &[AtomicU32], highest_cpu: u32) -> Vec<Located> {
    let word = |at: usize| table.get(at).map(|word| word.load(Ordering::Relaxed));
    let half = |at: usize| word(at / 2).map(|word| (word >> (16 * (at % 2)) & 0xffff) as usize);
    let pages = half(0).unwrap_or(0).min(MOST_PAGES);
    let of_cpu = |cpu: u32| {
        let at = half(1 + cpu as usize).filter(|&at| at != 0 && pages != 0)?;
        let frames: Option<Vec<u64>> = (at..at + pages).map(|at| word(at).map(u64::from)).collect();
        Some(Located { cpu, frames: frames.filter(|frames| !frames.contains(&0))? })
    };
    (0..=highest_cpu).filter_map(of_cpu).collect()
}

/// `struct t_buf`: two positions, then the records.
const CONSUMED: usize = 0;
const PRODUCED: usize = 1;
const RECORDS: usize = 2;

impl Ring {
    fn consumed(&self) -> u32 {
        self.pages.halves()[CONSUMED].load(Ordering::Relaxed)
    }

    /// Where Xen will write, and where the reader has read.
    pub(super) fn positions(&self) -> (u32, u32) {
        (self.pages.halves()[PRODUCED].load(Ordering::Relaxed), self.consumed())
    }

    /// Forgets all that there is. Nothing may be written meanwhile.
    pub(super) fn empty(&mut self) -> Result<(), Wrong> {
        self.read = self.consumed();
        self.drain(&mut Vec::new())
    }

    /// Appends all that there is, as words; records come in the order in which they were made, and whole.
    pub(super) fn drain(&mut self, into: &mut Vec<u32>) -> Result<(), Wrong> {
        let halves = self.pages.halves();
        if self.consumed() != self.read {
            return Err(Wrong::Shared);
        }
        // Acquire: what was written before the position was moved is seen.
        let produced = halves[PRODUCED].load(Ordering::Acquire);
        copy(&halves[RECORDS..], self.read, produced, into).ok_or(Wrong::Damaged)?;
        self.read = produced;
        // Release: Xen writes over what has been read, not before.
        self.head.halves()[CONSUMED].store(produced, Ordering::Release);
        Ok(())
    }
}

/// Copies what is between two positions. They are bytes, and run up to twice the size, so that a full circle is told from
/// an empty one. No record lies across the end: Xen fills up what is left there.
fn copy(records: &[AtomicU32], from: u32, to: u32, into: &mut Vec<u32>) -> Option<()> {
    let size = 4 * records.len() as u32;
    if !from.is_multiple_of(4) || !to.is_multiple_of(4) || from >= 2 * size || to >= 2 * size {
        return None;
    }
    let bytes = if to >= from { to - from } else { 2 * size - from + to };
    if bytes > size {
        return None;
    }
    let begin = (from % size / 4) as usize;
    let words = (bytes / 4) as usize;
    let to_end = words.min(records.len() - begin);
    let parts = [&records[begin..begin + to_end], &records[..words - to_end]];
    into.extend(parts.into_iter().flatten().map(|word| word.load(Ordering::Relaxed)));
    Some(())
}

const _: () = assert!(MOST_PAGES * HALVES < u32::MAX as usize / 8);

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<AtomicU32> {
        words.iter().map(|&word| AtomicU32::new(word)).collect()
    }

    /// Buffers of three pages; CPUs 1 and 2 came too late for one.
    #[test]
    fn buffers_are_where_the_table_says() {
        let table = words(&[3 | 3 << 16, 0, 9, 0x1234, 0x1235, 0x1299, 0, 0, 0, 0x2000, 0x2001, 0x2002]);
        let expected = [
            Located { cpu: 0, frames: vec![0x1234, 0x1235, 0x1299] },
            Located { cpu: 3, frames: vec![0x2000, 0x2001, 0x2002] },
        ];
        assert_eq!(locate(&table, 3), expected);
        assert_eq!(locate(&table, 2), expected[..1]);
        // A frame that is missing, and lists that lie outside.
        assert!(locate(&words(&[3 | 3 << 16, 0, 0, 0x1234, 0, 0x1299]), 0).is_empty());
        assert!(locate(&words(&[3 | 4 << 16, 0, 0, 0x1234, 0x1235, 0x1299]), 0).is_empty());
        assert!(locate(&words(&[u32::MAX]), u16::MAX.into()).is_empty());
        assert!(locate(&[], 7).is_empty());
    }

    #[test]
    fn all_that_is_there_is_copied_once_and_around_the_end() {
        let records = words(&[10, 11, 12, 13, 14]);
        let copied = |from, to| {
            let mut into = Vec::new();
            copy(&records, from, to, &mut into).map(|()| into)
        };
        assert_eq!(copied(0, 0), Some(vec![]));
        assert_eq!(copied(4, 12).unwrap(), [11, 12]);
        assert_eq!(copied(16, 24).unwrap(), [14, 10]);
        // The second round, and from the end of that to the first again.
        assert_eq!(copied(24, 28).unwrap(), [11]);
        assert_eq!(copied(36, 4).unwrap(), [14, 10]);
        // Full.
        assert_eq!(copied(8, 28).unwrap(), [12, 13, 14, 10, 11]);
        assert_eq!(copied(28, 8).unwrap(), [12, 13, 14, 10, 11]);
        for (from, to) in [(0, 24), (8, 4), (2, 4), (0, 7), (40, 0), (0, 40), (u32::MAX - 3, 0)] {
            assert_eq!(copied(from, to), None, "{from} to {to}");
        }
    }
}
