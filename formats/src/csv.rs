//! CSV (RFC 4180) with a line of titles.

use std::io::{Read, Write};

use profile::recording::Recording;

use crate::{
    ExportError,
    table::{Texts, unix_ns},
};

const TITLES: &str = "time_ns,cpu,event,weight,sequence,domain,domain_id,domain_uuid,vcpu,mode,pid,process,container,\
                      function,module,stack";

/// Writes all samples of a recording.
pub fn write_csv<R: Read>(recording: Recording<R>, out: &mut impl Write) -> Result<(), ExportError> {
    let header = recording.header().clone();
    let mut texts = Texts::default();
    let mut failure = None;
    writeln!(out, "{TITLES}\r")?;
    recording.for_each_sample(|sample, tables| {
        if failure.is_some() {
            return;
        }
        let place = texts.of(sample, tables);
        let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        let event = &header.events[usize::from(sample.event.0)].name;
        let text = |text: &Option<String>| quoted(text.as_deref().unwrap_or_default());
        let result = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\r",
            unix_ns(sample, &header),
            sample.cpu.0,
            quoted(event),
            sample.weight,
            sample.sequence,
            quoted(&place.domain),
            number(place.domain_number),
            place.domain_uuid.as_deref().unwrap_or_default(),
            number(sample.vcpu.map(|vcpu| vcpu.index)),
            sample.mode,
            number(place.pid),
            text(&place.process),
            text(&place.container),
            text(&place.function),
            text(&place.module),
            quoted(&place.stack),
        );
        failure = result.err();
    })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(out.flush()?),
    }
}

/// A text in quotes if it needs them. One that a spreadsheet would take for a formula is led by an apostrophe.
fn quoted(text: &str) -> String {
    let text = match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains([',', '"', '\n', '\r', '\'']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_write_no_cells() {
        assert_eq!(quoted("plain name"), "plain name");
        assert_eq!(quoted("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(quoted("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
    }
}
