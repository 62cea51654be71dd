//! `report --sort`: an event's weight by one property after another.

use std::io::{self, Write};

use analysis::{Aggregate, Key, Part, Report};
use anstyle::Style;
use serde_json::json;

use super::table::{Align, Cell, Table};

/// Writes what each event's weight is made of. With `domain`, that of one domain only.
pub(super) fn write(
    out: &mut impl Write,
    (aggregate, report): (&Aggregate, &Report),
    keys: &[Key],
    domain: Option<&str>,
    limit: usize,
) -> io::Result<()> {
    let words = words(keys).map(str::to_uppercase).collect::<Vec<_>>().join(" / ");
    for (index, event) in report.events.iter().enumerate() {
        let measure = if event.unit == "ns" { "time" } else { &event.unit };
        writeln!(out, "{}, in percent of the machine's busy {measure}", event.name)?;
        let mut table = Table::new([("SHARE", Align::Right), ("SAMPLES", Align::Right), ("", Align::Left)]);
        table.row([Cell::new(""), Cell::new(""), Cell::new(&words)]);
        rows(&mut table, &parts(aggregate, index, keys, domain), 0, limit);
        table.write(&mut *out)?;
    }
    Ok(())
}

/// The same as JSON.
pub(super) fn json(
    aggregate: &Aggregate,
    report: &Report,
    keys: &[Key],
    domain: Option<&str>,
) -> serde_json::Value {
    let event = |(index, event): (usize, &analysis::EventReport)| json!({ "name": event.name, "unit": event.unit, "parts": parts(aggregate, index, keys, domain) });
    let events: Vec<_> = report.events.iter().enumerate().map(event).collect();
    json!({ "schema": 1, "sort": words(keys).collect::<Vec<_>>(), "events": events })
}

fn words(keys: &[Key]) -> impl Iterator<Item = &'static str> {
    keys.iter().filter_map(|wanted| Key::ALL.iter().find(|(_, key)| key == wanted)).map(|&(word, _)| word)
}

fn parts(aggregate: &Aggregate, event: usize, keys: &[Key], domain: Option<&str>) -> Vec<Part> {
    let Some(domain) = domain else { return aggregate.breakdown(event, keys) };
    let mut by_domain = aggregate.breakdown(event, &[&[Key::Domain], keys].concat());
    let own = by_domain.iter().position(|part| part.name == domain);
    own.map_or_else(Vec::new, |own| by_domain.swap_remove(own).parts)
}

fn rows(table: &mut Table<3>, parts: &[Part], depth: usize, limit: usize) {
    for part in parts.iter().take(limit) {
        let style = if depth == 0 { Style::new().bold() } else { Style::new() };
        let name = format!("{:1$}{2}", "", 2 * depth, part.name);
        table.row([
            Cell::new(format!("{:.1}%", part.share * 100.0)).styled(style),
            Cell::new(part.samples.to_string()),
            Cell::untrusted(&name),
        ]);
        rows(table, &part.parts, depth + 1, limit);
    }
    if let Some(more) = parts.len().checked_sub(limit).filter(|&more| more > 0) {
        let text = format!("{:1$}… and {more} more (--limit)", "", 2 * depth);
        table.row([Cell::new(""), Cell::new(""), Cell::new(text)]);
    }
}
