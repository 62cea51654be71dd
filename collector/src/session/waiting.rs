//! Records on their way into the recording, in the order of their times: the first of them waits for its names.

use std::collections::VecDeque;

use hv_shim::Record;
use profile::{CodeAddress, Stretch, Time};

use super::Pending;
use crate::merge::Timed;

/// So many bytes wait for names, or for the rings to be emptied first, at the most: a fraction of a second's samples with
/// their stacks on a large machine.
const MOST_BYTES: usize = 128 << 20;

/// Of which that many only while it is the rings that have to be emptied first.
const MOST_BYTES_BEHIND: usize = MOST_BYTES / 2;

/// What waits.
#[derive(Default)]
pub(super) struct Waiting {
    records: VecDeque<Pending>,
    bytes: usize,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether more waits than may wait for names.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > MOST_BYTES
    }

    /// Whether so little waits that the rings may be emptied first.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < MOST_BYTES_BEHIND
    }

    pub(super) fn extend(&mut self, records: impl Iterator<Item = Pending>) {
        for record in records {
            self.bytes += bytes(&record);
            self.records.push_back(record);
        }
    }

    /// When the first of them was recorded.
    pub(super) fn since(&self) -> Option<Time> {
        self.records.front().map(Timed::time)
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        let record = self.records.pop_front()?;
        self.bytes -= bytes(&record);
        Some(record)
    }

    /// Puts the first one back.
    pub(super) fn put_back(&mut self, record: Pending) {
        self.bytes += bytes(&record);
        self.records.push_front(record);
    }

    /// All but the first so many.
    pub(super) fn later(&self, from: usize) -> impl Iterator<Item = &Record> {
        self.records.range(from..).map(|pending| &pending.record)
    }
}

/// About how much memory a record takes.
fn bytes(Pending { record, .. }: &Pending) -> usize {
    let stretches = record.taken().map_or(&[][..], |taken| &taken.stretches);
    let copied = |stretch: &Stretch| match stretch {
        Stretch::Copied { stacks, .. } => stacks.iter().map(|piece| piece.bytes.len()).sum(),
        Stretch::Walked(frames) => frames.len() * size_of::<CodeAddress>(),
    };
    size_of::<Pending>()
        + stretches.iter().map(|captured| size_of_val(captured) + copied(&captured.stretch)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use hv_shim::{Captured, Owner, Taken};
    use profile::{EventId, Mode, Registers, StackPiece};

    use super::*;

    fn with_stack(bytes: usize) -> Pending {
        let stacks = vec![StackPiece { address: 0, bytes: vec![0; bytes] }];
        let stretch = Stretch::Copied { registers: Registers::default(), stacks };
        let record = Record::Sample(Taken {
            time: Time(0),
            sequence: 0,
            weight: 1,
            event: EventId(0),
            charged_to: None,
            vcpu: None,
            mode: Mode::User,
            owner: Owner::Process(1),
            process: None,
            page_tables: None,
            instruction_pointer: 0,
            stretches: vec![Captured { owner: Owner::Process(1), page_tables: None, stretch }],
            missing: None,
            serves: None,
        });
        Pending { ring: 0, record }
    }

    #[test]
    fn what_waits_is_bounded_by_what_it_takes() {
        let mut waiting = Waiting::default();
        let most = MOST_BYTES / (8 << 10);
        waiting.extend((0..most).map(|_| with_stack(8 << 10)));
        assert!(waiting.is_full() && !waiting.has_room());
        let first = waiting.pop().unwrap();
        waiting.put_back(first);
        assert!(waiting.is_full());
        assert_eq!(waiting.later(most - 3).count(), 3);
        while waiting.pop().is_some() {}
        assert_eq!(waiting.bytes, 0);
        // Without stacks, many more.
        waiting.extend((0..10 * most).map(|_| with_stack(0)));
        assert!(waiting.has_room(), "{} bytes", waiting.bytes);
    }
}
