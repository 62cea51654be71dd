//! speedscope's own JSON (speedscope.app/file-format-schema.json): a sampled profile for each domain.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use analysis::Aggregate;
use profile::{EventId, recording::Place};
use serde_json::{Value, json};

use crate::{ExportError, place};

/// Writes an event's stacks.
pub fn write_speedscope(
    aggregate: &Aggregate,
    event: EventId,
    mut out: impl Write,
) -> Result<(), ExportError> {
    let recorded = aggregate.recorded();
    let (header, tables) = (&recorded.header, &recorded.tables);
    let sampled = header.events.get(usize::from(event.0));
    let unit = if sampled.is_some_and(|event| event.unit == "ns") { "nanoseconds" } else { "none" };
    let mut frames: Vec<Value> = Vec::new();
    let mut frame_of: HashMap<(String, Option<String>), usize> = HashMap::new();
    let mut number = |name: String, module: Option<String>| {
        *frame_of.entry((name, module)).or_insert_with_key(|(name, module)| {
            frames.push(match module {
                Some(module) => json!({ "name": name, "file": module }),
                None => json!({ "name": name }),
            });
            frames.len() - 1
        })
    };
    let mut domains: BTreeMap<String, (Vec<Vec<usize>>, Vec<u64>)> = BTreeMap::new();
    for counted in aggregate.counted(event) {
        let place: &Place = &counted.place;
        let mut stack: Vec<usize> =
            place::frames(place, tables).map(|frame| number(frame.name, frame.module)).collect();
        stack.push(number(place::process(place, tables).unwrap_or_else(|| place.mode.to_string()), None));
        stack.reverse();
        let (samples, weights) = domains.entry(place::domain(place, tables)).or_default();
        samples.push(stack);
        weights.push(counted.weight);
    }
    let profiles: Vec<Value> = domains
        .into_iter()
        .map(|(name, (samples, weights))| {
            let end = weights.iter().fold(0, |sum: u64, &weight| sum.saturating_add(weight));
            json!({
                "type": "sampled", "name": name, "unit": unit, "startValue": 0, "endValue": end,
                "samples": samples, "weights": weights,
            })
        })
        .collect();
    let file = json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": header.tool,
        "name": format!("{}: {}", header.host.hostname, sampled.map_or("", |event| &event.name)),
        "activeProfileIndex": 0,
        "shared": { "frames": frames },
        "profiles": profiles,
    });
    serde_json::to_writer(&mut out, &file)?;
    Ok(out.flush()?)
}
