//! Processes: the samples of a domain by the process that was current, its own code and the kernel's alike.

use std::{cmp::Reverse, collections::BTreeMap};

use profile::{Mode, Process, ProcessId, recording::Tables};

use crate::{
    aggregate::Tally,
    report::{Modes, ProcessReport, share},
    rows::Row,
};

/// The processes of a row, heaviest first: its own, not those of another domain that worked on its behalf. One that was moved
/// with its guest is the one that it was before.
pub(crate) fn processes(row: &Row, tables: &Tables, busy: u64) -> Vec<ProcessReport> {
    let mut tallies: BTreeMap<ProcessId, (Tally, Modes)> = BTreeMap::new();
    for (place, tally) in &row.places {
        if let Some(id) = place.process.filter(|&id| row.boots.contains(&tables.process(id).domain)) {
            let (sum, modes) = tallies.entry(id).or_default();
            sum.add(*tally);
            modes.add(place.mode, tally.weight);
        }
    }
    for moved in tables.moves().filter(|moved| row.boots.contains(&moved.to)) {
        let before: Vec<ProcessId> = ids(&tallies, |process| process.domain == moved.from, tables);
        for id in before {
            let process = tables.process(id);
            let same = |other: &Process| {
                other.domain == moved.to && other.pid == process.pid && other.name == process.name
            };
            if let Some(&now) = ids(&tallies, same, tables).first().filter(|_| process.pid.is_some())
                && let Some((tally, modes)) = tallies.remove(&id)
            {
                let (sum, sums) = tallies.entry(now).or_default();
                sum.add(tally);
                Mode::ALL.into_iter().for_each(|mode| sums.add(mode, modes.get(mode)));
            }
        }
    }
    let report = |(id, (tally, modes)): (ProcessId, (Tally, Modes))| {
        let process = tables.process(id);
        ProcessReport {
            root: process.root.map(|root| root.to_string()),
            pid: process.pid,
            name: process.name.clone(),
            container: process.container.clone(),
            samples: tally.samples,
            weight: tally.weight,
            share: share(tally.weight, busy),
            modes,
        }
    };
    let mut processes: Vec<ProcessReport> = tallies.into_iter().map(report).collect();
    processes.sort_by_key(|process| Reverse(process.weight));
    processes
}

fn ids(
    tallies: &BTreeMap<ProcessId, (Tally, Modes)>,
    are_wanted: impl Fn(&Process) -> bool,
    tables: &Tables,
) -> Vec<ProcessId> {
    tallies.keys().copied().filter(|&id| are_wanted(tables.process(id))).collect()
}

/// What a process is called: untrusted text.
pub fn label(process: &Process) -> String {
    match (&process.name, process.pid, process.root) {
        (Some(name), Some(pid), _) => format!("{name} [{pid}]"),
        (Some(name), None, _) => name.clone(),
        (None, Some(pid), _) => format!("process {pid}"),
        (None, None, Some(root)) => format!("process {root}"),
        (None, None, None) => "user".to_owned(),
    }
}
