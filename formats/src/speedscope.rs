//! speedscope's own JSON (speedscope.app/file-format-schema.json): a sampled profile for each domain.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use analysis::Aggregate;
use profile::{EventId, recording::Place};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{ExportError, place};

/// A frame, as the format has it.
#[derive(PartialEq, Eq, Hash, Serialize)]
struct Frame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

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
    let mut frame_of: HashMap<Frame, usize> = HashMap::new();
    let mut number = |frame: Frame| {
        *frame_of.entry(frame).or_insert_with_key(|frame| {
            frames.push(json!(frame));
            frames.len() - 1
        })
    };
    let mut domains: BTreeMap<String, (Vec<Vec<usize>>, Vec<u64>)> = BTreeMap::new();
    for counted in aggregate.counted(event) {
        let place: &Place = &counted.place;
        let frames = place::frames(place, tables).map(|named| {
            let (file, line) = (named.file().map(str::to_owned), named.line());
            number(Frame { name: named.name, file, line })
        });
        let mut stack: Vec<usize> = frames.collect();
        let process = place::process(place, tables).unwrap_or_else(|| place.mode.to_string());
        stack.push(number(Frame { name: process, file: None, line: None }));
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
