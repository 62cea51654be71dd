//! Folded stacks: what pictures are made of.

use profile::{EventId, Mode, Process};

use crate::{
    aggregate::Aggregate,
    functions::{frames_with_modes, name},
    processes::label,
    rows::rows,
};

/// A call chain with its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The row it belongs to: an index into [`EventReport::domains`](crate::EventReport::domains).
    pub domain: usize,
    /// Outermost first: the process, or the mode where none is known; then the chain's functions.
    pub layers: Vec<Layer>,
    /// What its samples stand for.
    pub weight: u64,
}

/// A layer of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What it is called: untrusted text.
    pub name: String,
    /// In which mode it ran.
    pub mode: Mode,
}

impl Aggregate {
    /// The stacks of an event, row by row. Chains that differ in addresses only come out as equal stacks.
    ///
    /// Yields nothing for an event that is not in the recording.
    pub fn stacks(&self, event: EventId) -> impl Iterator<Item = Stack> {
        let rows = rows(self, event).into_iter().enumerate();
        rows.flat_map(|(index, row)| row.places.into_iter().map(move |counted| (index, counted))).map(
            |(domain, (place, tally))| {
                let tables = &self.recorded.tables;
                // A process of another domain that works on this one's behalf is its backend, whichever it is.
                let own = |process: &&Process| place.charged_to == Some(process.domain);
                let process = place.process.map(|id| tables.process(id)).filter(own);
                let group = process.map_or_else(|| place.mode.to_string(), label);
                let mut layers: Vec<Layer> =
                    frames_with_modes(tables, place.chain, place.charged_to, place.mode)
                        .map(|(frame, mode)| Layer { name: name(frame, tables), mode })
                        .collect();
                // One root for a process, whether a sample of it was taken in the kernel or not.
                let mode = if process.is_some() { Mode::User } else { place.mode };
                layers.push(Layer { name: group, mode });
                layers.reverse();
                Stack { domain, layers, weight: tally.weight }
            },
        )
    }
}
