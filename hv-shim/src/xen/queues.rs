//! Samples that dom0 takes itself, without a shim's rings: queued by physical CPU, with their books.

use std::collections::{BTreeMap, VecDeque};

use profile::{CpuAccount, LossCause, PhysCpu};

use crate::{Record, Taken};

/// A minute's at 1 kHz: more than ever waits, unless nobody reads any more.
const LONGEST: usize = 60_000;

/// One queue for each CPU.
pub(super) struct Queues(Vec<Queue>);

/// One CPU's samples that nobody has fetched yet, and its books.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Taken>,
    /// The next sample's number.
    taken: u64,
    written: u64,
    filtered: u64,
    lost: BTreeMap<LossCause, u64>,
    weight: u64,
}

impl Queues {
    /// For CPUs up to this number.
    pub(super) fn new(highest_cpu: u32) -> Self {
        Self((0..=highest_cpu).map(|_| Queue::default()).collect())
    }

    pub(super) fn cpus(&self) -> Vec<PhysCpu> {
        (0..self.0.len() as u32).map(PhysCpu).collect()
    }

    /// A CPU's queue; none where there was no such CPU in the beginning.
    pub(super) fn of(&mut self, cpu: u32) -> Option<&mut Queue> {
        self.0.get_mut(cpu as usize)
    }

    /// How many samples were taken, and what they weigh.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |(taken, weight), queue| (taken + queue.taken, weight + queue.weight))
    }

    pub(super) fn drain(&mut self, ring: usize, each: &mut dyn FnMut(Record)) {
        self.0[ring].waiting.drain(..).map(Record::Sample).for_each(each);
    }

    pub(super) fn account(&self, ring: usize) -> CpuAccount {
        let queue = &self.0[ring];
        // What waits is in no recording yet.
        let waiting = queue.waiting.len() as u64;
        CpuAccount {
            taken: queue.taken - waiting,
            written: queue.written - waiting,
            filtered: queue.filtered,
            lost: queue.lost.clone(),
            ..CpuAccount::default()
        }
    }

    /// What one CPU's samples weigh.
    pub(super) fn weight(&self, ring: usize) -> u64 {
        self.0[ring].weight
    }
}

impl Queue {
    /// Takes a sample, and gives it its number.
    pub(super) fn push(&mut self, mut sample: Taken) {
        if self.waiting.len() >= LONGEST {
            return self.lose(LossCause::RingFull, 1);
        }
        sample.sequence = self.taken;
        self.taken += 1;
        self.written += 1;
        self.weight += sample.weight;
        self.waiting.push_back(sample);
    }

    /// Counts a sample that nobody wants.
    pub(super) fn filter(&mut self, weight: u64) {
        self.taken += 1;
        self.filtered += 1;
        self.weight += weight;
    }

    /// Counts samples that were due and can't be had.
    pub(super) fn lose(&mut self, cause: LossCause, count: u64) {
        if count > 0 {
            self.taken += count;
            *self.lost.entry(cause).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use profile::{EventId, Mode, Time};

    use super::*;
    use crate::Owner;

    fn sample(weight: u64) -> Taken {
        Taken {
            time: Time(0),
            sequence: 0,
            weight,
            event: EventId(0),
            charged_to: Some(1),
            vcpu: Some(0),
            mode: Mode::Kernel,
            owner: Owner::Kernel(1),
            process: None,
            page_tables: None,
            instruction_pointer: 0,
            stretches: Vec::new(),
            missing: None,
            serves: None,
        }
    }

    fn fetched(queues: &mut Queues) -> Vec<u64> {
        let mut numbers = Vec::new();
        queues.drain(1, &mut |record| match record {
            Record::Sample(taken) => numbers.push(taken.sequence),
            Record::Change { .. } | Record::Exits(_) => panic!("only samples are queued"),
        });
        numbers
    }

    #[test]
    fn every_sample_has_its_number_and_its_place_in_the_books() {
        let mut queues = Queues::new(1);
        let queue = queues.of(1).unwrap();
        queue.push(sample(5));
        queue.filter(7);
        queue.lose(LossCause::Unreadable, 2);
        queue.push(sample(11));
        assert_eq!((queues.account(1).taken, queues.account(1).written), (3, 0), "nothing was fetched");
        assert_eq!(fetched(&mut queues), [0, 4]);
        let account = queues.account(1);
        assert!(account.balances() && account.taken == 5 && account.filtered == 1, "{account:?}");
        assert_eq!((queues.weight(1), queues.totals()), (23, (5, 23)));
        assert!(queues.of(2).is_none());
    }

    #[test]
    fn what_nobody_fetches_is_lost() {
        let mut queues = Queues::new(1);
        for _ in 0..LONGEST + 3 {
            queues.of(1).unwrap().push(sample(1));
        }
        assert_eq!(fetched(&mut queues).len(), LONGEST);
        assert_eq!(queues.account(1).lost[&LossCause::RingFull], 3);
    }
}
