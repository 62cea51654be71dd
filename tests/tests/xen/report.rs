//! What the tests read of a report's JSON.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A report.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) complete: bool,
    pub(crate) notes: Vec<Note>,
    events: Vec<Event>,
}

/// A remark.
#[derive(Debug, Deserialize)]
pub(crate) struct Note {
    pub(crate) text: String,
}

/// What was sampled.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) taken: Option<u64>,
    pub(crate) foreign_nmis: Option<u64>,
    pub(crate) rate_hz: f64,
    pub(crate) overhead: Option<f64>,
    pub(crate) samples: u64,
    pub(crate) filtered: Option<u64>,
    pub(crate) lost: BTreeMap<String, u64>,
    pub(crate) quiet_s: Option<f64>,
    pub(crate) domains: Vec<Domain>,
}

/// A row.
#[derive(Debug, Deserialize)]
pub(crate) struct Domain {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) weight: u64,
    pub(crate) cpu_s: Option<f64>,
}

impl Report {
    pub(crate) fn parse(json: &[u8]) -> Self {
        serde_json::from_slice(json)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(json)))
    }

    /// The one event that there is.
    pub(crate) fn event(&self) -> &Event {
        assert_eq!(self.events.len(), 1, "events");
        &self.events[0]
    }

    /// The only row of a name.
    pub(crate) fn domain(&self, name: &str) -> &Domain {
        let mut rows = self.event().domains.iter().filter(|domain| domain.name == name);
        let row = rows.next().unwrap_or_else(|| panic!("no row of {name}"));
        assert!(rows.next().is_none(), "two rows of {name}");
        row
    }

    /// The rows of domains, without that of the hypervisor's own work.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.event().domains.iter().filter(|domain| domain.kind != "hypervisor")
    }

    /// Whether one of the notes has these words in it.
    pub(crate) fn notes_say(&self, words: &str) -> bool {
        self.notes.iter().any(|note| note.text.contains(words))
    }
}

/// A domain's share of the samples of all domains, and of the CPU time that the hypervisor accounts to them.
pub(crate) struct Shares<'a> {
    pub(crate) domain: &'a str,
    pub(crate) sampled: f64,
    pub(crate) accounted: f64,
}

impl Report {
    /// The shares of all domains.
    pub(crate) fn shares(&self) -> Vec<Shares<'_>> {
        let accounted = |domain: &Domain| domain.cpu_s.expect("a whole recording has accounts");
        let all_weight: u64 = self.domains().map(|domain| domain.weight).sum();
        let all_time: f64 = self.domains().map(accounted).sum();
        let rows = self.domains().map(|row| Shares {
            domain: &row.name,
            sampled: row.weight as f64 / all_weight as f64,
            accounted: accounted(row) / all_time,
        });
        rows.collect()
    }
}
