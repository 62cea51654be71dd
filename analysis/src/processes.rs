//! Processes: the samples of a domain by the process that was current, its own code and the kernel's alike.

use std::{cmp::Reverse, collections::BTreeMap};

use profile::{Process, ProcessId, recording::Tables};

use crate::{
    aggregate::Tally,
    report::{Modes, ProcessReport, share},
    rows::Row,
};

/// The processes of a row, heaviest first: its own, not those of another domain that worked on its behalf.
pub(crate) fn processes(row: &Row, tables: &Tables, busy: u64) -> Vec<ProcessReport> {
    let mut tallies: BTreeMap<ProcessId, (Tally, Modes)> = BTreeMap::new();
    for (place, tally) in &row.places {
        if let Some(id) = place.process.filter(|&id| row.boots.contains(&tables.process(id).domain)) {
            let (sum, modes) = tallies.entry(id).or_default();
            sum.add(*tally);
            modes.add(place.mode, tally.weight);
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
