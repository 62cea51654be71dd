//! Folded stacks: what pictures are made of.

use profile::{EventId, Mode, Space};

use crate::{
    aggregate::Aggregate,
    functions::{frames_with_modes, name},
    rows::rows,
};

/// A call chain with its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The row it belongs to: an index into [`EventReport::domains`](crate::EventReport::domains).
    pub domain: usize,
    /// Outermost first: the mode, or the process for user code; then the chain's functions.
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
                let group = match tables.frame(tables.chain(place.chain).frame).space {
                    Space::User(_, root) if place.mode == Mode::User => format!("process {root}"),
                    _ => place.mode.to_string(),
                };
                let mut layers: Vec<Layer> =
                    frames_with_modes(tables, place.chain, place.charged_to, place.mode)
                        .map(|(frame, mode)| Layer { name: name(frame, tables), mode })
                        .collect();
                layers.push(Layer { name: group, mode: place.mode });
                layers.reverse();
                Stack { domain, layers, weight: tally.weight }
            },
        )
    }
}
