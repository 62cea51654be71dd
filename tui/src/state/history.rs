//! The last minutes, sample by sample: what leaves the window is taken off the sums, and what is looked back at is
//! still there.

use std::{collections::VecDeque, ops::Range};

use super::index::PlaceId;

/// The length of a slice, in nanoseconds: windows are made of whole ones.
pub(crate) const SLICE_NS: u64 = 1_000_000_000;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most so many slices of a second.
    pub slices: u64,
    /// At most so many bytes of samples; older ones go first.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { slices: 600, bytes: 128 << 20 }
    }
}

/// A sample as it is kept: 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) weight: u64,
    pub(crate) sequence: u64,
    /// Nanoseconds from the beginning of its slice.
    pub(crate) offset: u32,
    pub(crate) place: PlaceId,
    pub(crate) cpu: u16,
    /// The index of a vCPU of the domain that is charged.
    pub(crate) vcpu: Option<u16>,
}

/// A second.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) kept: Vec<Kept>,
    /// The weight of the event that is shown, by row.
    pub(crate) rows: Vec<u64>,
    /// That of all rows.
    pub(crate) total: u64,
}

impl Slice {
    pub(crate) fn count(&mut self, row: usize, weight: u64) {
        if self.rows.len() <= row {
            self.rows.resize(row + 1, 0);
        }
        self.rows[row] = self.rows[row].wrapping_add(weight);
        self.total = self.total.wrapping_add(weight);
    }

    pub(crate) fn of_row(&self, row: usize) -> u64 {
        self.rows.get(row).copied().unwrap_or(0)
    }
}

/// Slices that follow each other, numbered from the beginning of sampling.
#[derive(Debug)]
pub(crate) struct History {
    limits: Limits,
    first: u64,
    slices: VecDeque<Slice>,
    samples: usize,
}

impl History {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, first: 0, slices: VecDeque::from([Slice::default()]), samples: 0 }
    }

    /// The numbers of the slices that are there: at least one.
    pub(crate) fn range(&self) -> Range<u64> {
        self.first..self.first + self.slices.len() as u64
    }

    pub(crate) fn newest(&self) -> u64 {
        self.range().end - 1
    }

    pub(crate) fn slice(&self, number: u64) -> &Slice {
        &self.slices[(number - self.first) as usize]
    }

    pub(crate) fn slice_mut(&mut self, number: u64) -> &mut Slice {
        &mut self.slices[(number - self.first) as usize]
    }

    pub(crate) fn slices_mut(&mut self) -> impl Iterator<Item = &mut Slice> {
        self.slices.iter_mut()
    }

    /// Keeps a sample in a slice that is there.
    pub(crate) fn keep(&mut self, number: u64, kept: Kept) {
        self.slice_mut(number).kept.push(kept);
        self.samples += 1;
    }

    /// Opens slices up to `number`, unless that is more than is ever kept.
    pub(crate) fn open(&mut self, number: u64) -> bool {
        let missing = number.saturating_sub(self.newest());
        if missing > self.limits.slices {
            return false;
        }
        self.slices.resize_with(self.slices.len() + missing as usize, Slice::default);
        true
    }

    /// Begins anew.
    pub(crate) fn restart(&mut self, number: u64) {
        *self = Self { first: number, ..Self::new(self.limits) };
    }

    /// From which slice on history is kept; what lies before can be dropped.
    pub(crate) fn kept_from(&self) -> u64 {
        let mut bytes = self.bytes();
        let mut from = self.range().end.saturating_sub(self.limits.slices).max(self.first);
        let outside = (from - self.first) as usize;
        bytes -= self.slices.range(..outside).map(bytes_of).sum::<usize>();
        for slice in self.slices.range(outside..self.slices.len() - 1) {
            if bytes <= self.limits.bytes {
                break;
            }
            bytes -= bytes_of(slice);
            from += 1;
        }
        from
    }

    pub(crate) fn drop_before(&mut self, number: u64) {
        while self.first < number && self.slices.len() > 1 {
            let slice = self.slices.pop_front();
            self.samples -= slice.map_or(0, |slice| slice.kept.len());
            self.first += 1;
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.slices.iter().map(bytes_of).sum()
    }

    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }
}

fn bytes_of(slice: &Slice) -> usize {
    slice.kept.capacity() * size_of::<Kept>() + slice.rows.capacity() * size_of::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Kept { weight: 1, sequence: 0, offset: 0, place: PlaceId(0), cpu: 0, vcpu: None }
    }

    #[test]
    fn a_sample_takes_what_is_said() {
        assert_eq!(size_of::<Kept>(), 32);
    }

    #[test]
    fn the_oldest_go_first_by_time_and_by_memory() {
        let mut history = History::new(Limits { slices: 4, bytes: 4096 });
        for number in 0..10 {
            assert!(history.open(number));
            history.keep(number, kept());
            history.drop_before(history.kept_from());
        }
        assert_eq!((history.range(), history.samples()), (6..10, 4));
        (0..200).for_each(|_| history.keep(9, kept()));
        history.drop_before(history.kept_from());
        assert_eq!(history.range(), 9..10, "the newest stays, however much it is");
        assert!(!history.open(100));
        history.restart(100);
        assert_eq!(history.range(), 100..101);
    }
}
