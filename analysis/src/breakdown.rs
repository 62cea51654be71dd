//! An event's weight, broken down by one property after another: by domain, within each by process, and so on.

use std::{cmp::Reverse, collections::BTreeMap, str::FromStr};

use profile::{Mode, recording::Tables};
use serde::Serialize;

use crate::{
    aggregate::{Aggregate, Place, Tally},
    functions, processes,
    report::share,
    rows::rows,
};

/// What samples are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The domain that they are charged to.
    Domain,
    /// The process that was current, with its number.
    Process,
    /// What the process is called, whatever its number.
    Comm,
    /// The process's control group.
    Container,
    /// The mode.
    Mode,
    /// The image whose code ran.
    Module,
    /// The function that ran.
    Function,
}

impl Key {
    /// All of them, with the words for them.
    pub const ALL: [(&'static str, Self); 7] = [
        ("domain", Self::Domain),
        ("process", Self::Process),
        ("comm", Self::Comm),
        ("container", Self::Container),
        ("mode", Self::Mode),
        ("module", Self::Module),
        ("function", Self::Function),
    ];
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(word, _)| *word == text);
        known
            .map(|&(_, key)| key)
            .ok_or_else(|| format!("not one of {}", Self::ALL.map(|(word, _)| word).join(", ")))
    }
}

/// Samples that have a property in common, and its parts by the next property.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// The property's value: untrusted text.
    pub name: String,
    /// How many samples.
    pub samples: u64,
    /// What they stand for.
    pub weight: u64,
    /// Of the event's busy weight.
    pub share: f64,
    /// Broken down further, heaviest first; none by the last property.
    pub parts: Vec<Part>,
}

impl Aggregate {
    /// Breaks the weight of the event of an index down, heaviest first; empty if there is no such event.
    pub fn breakdown(&self, event: usize, keys: &[Key]) -> Vec<Part> {
        let Some(event) = u16::try_from(event).ok().filter(|&event| usize::from(event) < self.events())
        else {
            return Vec::new();
        };
        let rows = rows(self, profile::EventId(event));
        let busy = Tally::sum(rows.iter().map(|row| row.total)).weight;
        let places: Vec<(&str, Place, Tally)> = rows
            .iter()
            .flat_map(|row| row.places.iter().map(|&(place, tally)| (row.name.as_str(), place, tally)))
            .collect();
        parts(&places, keys, &self.recorded.tables, busy)
    }

    fn events(&self) -> usize {
        self.recorded.header.events.len()
    }
}

fn parts(places: &[(&str, Place, Tally)], keys: &[Key], tables: &Tables, busy: u64) -> Vec<Part> {
    let Some((&key, rest)) = keys.split_first() else { return Vec::new() };
    let mut groups: BTreeMap<String, Vec<(&str, Place, Tally)>> = BTreeMap::new();
    for place in places {
        groups.entry(value(key, place.0, &place.1, tables)).or_default().push(*place);
    }
    let part = |(name, places): (String, Vec<_>)| {
        let total = Tally::sum(places.iter().map(|&(_, _, tally)| tally));
        Part {
            name,
            samples: total.samples,
            weight: total.weight,
            share: share(total.weight, busy),
            parts: parts(&places, rest, tables, busy),
        }
    };
    let mut parts: Vec<Part> = groups.into_iter().map(part).collect();
    parts.sort_by_key(|part| Reverse(part.weight));
    parts
}

fn value(key: Key, domain: &str, place: &Place, tables: &Tables) -> String {
    let process = place.process.map(|id| tables.process(id));
    let frame = tables.frame(tables.chain(place.chain).frame);
    // Code that belongs to no process: whose it is says its mode.
    let nobody = || match place.mode {
        Mode::Hypervisor => "[hypervisor]".to_owned(),
        _ => "[kernel]".to_owned(),
    };
    match key {
        Key::Domain => domain.to_owned(),
        Key::Process => process.map_or_else(nobody, processes::label),
        Key::Comm => process
            .map_or_else(nobody, |process| process.name.clone().unwrap_or_else(|| processes::label(process))),
        Key::Container => {
            process.and_then(|process| process.container.clone()).unwrap_or_else(|| "-".to_owned())
        }
        Key::Mode => place.mode.as_str().to_owned(),
        Key::Module => {
            frame.module.map_or_else(|| "[unknown]".to_owned(), |name| tables.name(name).to_owned())
        }
        Key::Function => functions::name(frame, tables),
    }
}
