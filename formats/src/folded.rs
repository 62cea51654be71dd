//! Folded stacks: `domain;process;outermost;…;innermost weight`, as flame graph tools read them.

use std::{collections::BTreeMap, io::Write};

use analysis::Aggregate;
use profile::EventId;

use crate::{ExportError, place};

/// Writes an event's stacks, one a line. Semicolons in names become colons: there is no escape for them.
pub fn write_folded(aggregate: &Aggregate, event: EventId, out: &mut impl Write) -> Result<(), ExportError> {
    let tables = &aggregate.recorded().tables;
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for counted in aggregate.counted(event) {
        let place = &counted.place;
        let mut layers: Vec<String> = place::frames(place, tables).map(|frame| frame.name).collect();
        layers.push(place::process(place, tables).unwrap_or_else(|| place.mode.to_string()));
        layers.push(place::domain(place, tables));
        let line = layers.iter().rev().map(|layer| layer.replace(';', ":")).collect::<Vec<_>>().join(";");
        let sum = lines.entry(line).or_default();
        *sum = sum.saturating_add(counted.weight);
    }
    for (line, weight) in lines {
        writeln!(out, "{line} {weight}")?;
    }
    Ok(out.flush()?)
}
