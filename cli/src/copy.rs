//! Copies of whole recordings.

use std::path::Path;

use profile::recording::{
    Completeness, Copier, End, EndReason, Header, Note, Recorded, Recording, Selection, Writer,
};

use crate::output::Output;

/// Copies a recording, with another header, into a file, books included.
pub(crate) fn whole(
    input: &Path,
    output: &Path,
    header: &Header,
    selection: &Selection<'_>,
) -> anyhow::Result<Recorded> {
    let mut copier = Copier::new(Writer::new(Output::open(output)?, header)?);
    let recorded = copier.copy(Recording::open(input)?, selection, 0)?;
    copier.add_books(&recorded, 0);
    let end = match &recorded.completeness {
        Completeness::Whole(end) => end.clone(),
        Completeness::Torn { at_byte } | Completeness::Damaged { at_byte, .. } => {
            let text = format!("the original was not whole: it was copied up to byte {at_byte}");
            copier.note(Note { time: recorded.until, text });
            End { time: recorded.until, reason: EndReason::Interrupted }
        }
    };
    copier.finish(end)?;
    Ok(recorded)
}
