//! Text as `perf script` writes it, which many tools read: a line for each sample, its frames below, an empty line.

use std::io::{Read, Write};

use analysis::Visible;
use profile::{
    Sample,
    recording::{Header, Place, Recording, Tables},
};

use crate::{ExportError, place};

/// Writes all samples of a recording.
pub fn write_script<R: Read>(recording: Recording<R>, out: &mut impl Write) -> Result<(), ExportError> {
    let header = recording.header().clone();
    let mut failure = None;
    recording.for_each_sample(|sample, tables| {
        if failure.is_none() {
            failure = write_sample(sample, tables, &header, out).err();
        }
    })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(out.flush()?),
    }
}

fn write_sample(
    sample: &Sample,
    tables: &Tables,
    header: &Header,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let &Sample { charged_to, process, mode, chain, .. } = sample;
    let place = Place { charged_to, process, mode, chain };
    let process = process.map(|id| tables.process(id));
    let name = process.and_then(|process| process.name.as_deref()).unwrap_or(mode.as_str());
    let pid = process.and_then(|process| process.pid).unwrap_or(0);
    let since = sample.time.0.saturating_sub(header.started.0);
    writeln!(
        out,
        "{}/{} {pid} [{:03}] {}.{:06}: {:>10} {}: ",
        word(&place::domain(&place, tables)),
        word(&Visible(name).to_string()),
        sample.cpu.0,
        since / 1_000_000_000,
        since / 1_000 % 1_000_000,
        sample.weight,
        header.events[usize::from(sample.event.0)].name,
    )?;
    for frame in place::frames(&place, tables) {
        let module = if frame.inlined { "inlined" } else { frame.module.as_deref().unwrap_or("[unknown]") };
        let name = if frame.is_function { frame.name.as_str() } else { "[unknown]" };
        writeln!(out, "\t{:16x} {name}+{:#x} ({module})", frame.address, frame.offset.0)?;
        // As `perf script -F +srcline` has it.
        if let Some((file, line)) = &frame.source {
            writeln!(out, "  {file}:{line}")?;
        }
    }
    writeln!(out)
}

/// A text without blanks: they separate fields.
fn word(text: &str) -> String {
    text.replace(char::is_whitespace, "_")
}
