//! Processes: user samples by the address space they ran in.

use std::{cmp::Reverse, collections::BTreeMap};

use profile::{AddressSpaceRoot, DomainId, Mode, Space, recording::Tables};

use crate::{
    aggregate::Tally,
    report::{ProcessReport, share},
    rows::Row,
};

/// The processes of a row, heaviest first. A root that serves again after a reboot is another process.
pub(crate) fn processes(row: &Row, tables: &Tables, busy: u64) -> Vec<ProcessReport> {
    let mut tallies: BTreeMap<(DomainId, AddressSpaceRoot), Tally> = BTreeMap::new();
    for (place, tally) in row.places.iter().filter(|(place, _)| place.mode == Mode::User) {
        if let Space::User(domain, root) = tables.frame(tables.chain(place.chain).frame).space {
            tallies.entry((domain, root)).or_default().add(*tally);
        }
    }
    let mut processes: Vec<ProcessReport> = tallies
        .into_iter()
        .map(|((_, root), tally)| ProcessReport {
            root: root.to_string(),
            samples: tally.samples,
            weight: tally.weight,
            share: share(tally.weight, busy),
        })
        .collect();
    processes.sort_by_key(|process| Reverse(process.weight));
    processes
}
