//! What was counted, for whoever writes it in another format.

use profile::{
    EventId,
    recording::{Recorded, Samples, Tables},
};

use crate::aggregate::{Aggregate, Place, Tally};

/// Samples that have all but their moment in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// What they have in common.
    pub place: profile::recording::Place,
    /// How many they are.
    pub samples: u64,
    /// What they stand for.
    pub weight: u64,
}

/// The samples of a stretch of a recording, those counted together that have all but their moment in common.
#[derive(Debug, Default)]
pub struct Counts {
    /// By event and place: numbers that are dense, so that a sample costs no look-up.
    tallies: Vec<Vec<Tally>>,
}

impl Counts {
    /// Adds samples, with the tables that they refer to.
    pub fn add(&mut self, samples: &Samples, tables: &Tables) {
        let (lanes, places) = (tables.lanes(), tables.places());
        for ((&lane, place), &weight) in samples.lanes().iter().zip(samples.places()).zip(samples.weights()) {
            let event = usize::from(lanes[lane as usize].event.0);
            if event >= self.tallies.len() {
                self.tallies.resize_with(event + 1, Vec::new);
            }
            let tallies = &mut self.tallies[event];
            if tallies.len() < places.len() {
                tallies.resize(places.len(), Tally::default());
            }
            tallies[place.0 as usize].add(Tally { samples: 1, weight });
        }
    }

    /// What was counted of an event, in the order in which its places were first seen.
    pub fn of(&self, event: EventId, tables: &Tables) -> Vec<Counted> {
        let tallies = self.tallies.get(usize::from(event.0)).into_iter().flatten();
        let seen = tables.places().iter().zip(tallies).filter(|(_, tally)| tally.samples > 0);
        seen.map(|(&place, &Tally { samples, weight })| Counted { place, samples, weight }).collect()
    }
}

impl Aggregate {
    /// What the recording says besides its samples.
    pub fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// The samples of an event, in a stable order.
    pub fn counted(&self, event: EventId) -> Vec<Counted> {
        let own = self.tallies.iter().filter(|(place, _)| place.event == event);
        let mut counted: Vec<Counted> = own
            .map(|(&Place { charged_to, process, mode, chain, .. }, tally)| Counted {
                place: profile::recording::Place { charged_to, process, mode, chain },
                samples: tally.samples,
                weight: tally.weight,
            })
            .collect();
        counted.sort_unstable_by_key(|counted| counted.place);
        counted
    }
}
