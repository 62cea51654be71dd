//! What was counted, for whoever writes it in another format.

use profile::{EventId, recording::Recorded};

use crate::aggregate::{Aggregate, Place};

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
