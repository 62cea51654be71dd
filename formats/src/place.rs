//! What a place is called: the texts that every format needs, made once for each.

use analysis::{Visible, frame_name, frames_with_modes, process_label};
use profile::{
    ImageOffset, Mode,
    recording::{Place, Tables},
};

/// A frame with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Named {
    /// Its function, or where it lies.
    pub(crate) name: String,
    /// Whether `name` is a function's.
    pub(crate) is_function: bool,
    pub(crate) module: Option<String>,
    pub(crate) mode: Mode,
    pub(crate) address: u64,
    pub(crate) offset: ImageOffset,
    /// The file and line of source, where debug information has told.
    pub(crate) source: Option<(String, u32)>,
    /// Whether it has no code of its own: it is part of the next frame.
    pub(crate) inlined: bool,
}

impl Named {
    /// The file of source, or, where that is not known, the module.
    pub(crate) fn file(&self) -> Option<&str> {
        self.source.as_ref().map(|(file, _)| file.as_str()).or(self.module.as_deref())
    }

    /// The line of source.
    pub(crate) fn line(&self) -> Option<u32> {
        self.source.as_ref().map(|(_, line)| *line).filter(|line| *line > 0)
    }
}

/// The frames of a place, innermost first.
pub(crate) fn frames(place: &Place, tables: &Tables) -> impl Iterator<Item = Named> {
    frames_with_modes(tables, place.chain, place.charged_to, place.mode).map(|(frame, mode)| Named {
        name: Visible(&frame_name(frame, tables)).to_string(),
        is_function: frame.function.is_some(),
        module: frame.module.map(|module| Visible(tables.name(module)).to_string()),
        mode,
        address: frame.address.raw(),
        offset: frame.offset,
        source: frame.origin.line.map(|line| (Visible(tables.name(line.file)).to_string(), line.line)),
        inlined: frame.origin.inlined,
    })
}

/// The domain that is charged.
pub(crate) fn domain(place: &Place, tables: &Tables) -> String {
    match place.charged_to {
        Some(id) => Visible(&tables.domain(id).name).to_string(),
        None => "hypervisor".to_owned(),
    }
}

/// The process that was current, if it is known.
pub(crate) fn process(place: &Place, tables: &Tables) -> Option<String> {
    place.process.map(|id| Visible(&process_label(tables.process(id))).to_string())
}

/// The program that the process was in, if it is known.
pub(crate) fn program(place: &Place, tables: &Tables) -> Option<String> {
    let name = tables.process(place.process?).name.as_ref()?;
    Some(Visible(name).to_string())
}
