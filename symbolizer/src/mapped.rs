//! Images that processes map wherever they like: their symbols are kept once, at the addresses they were linked to.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use profile::{CodeAddress, ImageOffset, ProcessId};

use crate::{Resolved, SymbolTable, elf::Linked};

/// The number of an image that a [`Symbolizer`](crate::Symbolizer) knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageId(u32);

/// What is at an address of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Code of an image that nobody has looked into yet.
    Unread(ImageId),
    /// Code of an image, which has it at this linked address.
    Linked(ImageId, u64),
    /// Code with no file behind it.
    Memory,
    /// Code of an image that can't be read.
    Unreadable,
}

/// What each process has mapped.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    images: Vec<MappedImage>,
    processes: HashMap<ProcessId, Process>,
}

#[derive(Debug)]
struct MappedImage {
    /// Untrusted text.
    name: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Nobody has looked yet.
    Unread,
    /// It can't be read: addresses are only located.
    Unreadable,
    /// There is no file behind it, so that offsets mean nothing.
    Memory,
    Read(Linked),
}

#[derive(Debug, Default)]
struct Process {
    /// By the first address; they do not overlap.
    mappings: BTreeMap<u64, Mapping>,
    /// What the process itself says of code that it made.
    generated: Option<SymbolTable>,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    end: u64,
    /// The place in the file of the first address.
    offset: u64,
    image: ImageId,
}

impl Mapped {
    pub(crate) fn add_image(&mut self, name: &str) -> ImageId {
        self.images.push(MappedImage { name: name.to_owned(), content: Content::Unread });
        ImageId(self.images.len() as u32 - 1)
    }

    pub(crate) fn add_memory(&mut self, name: &str) -> ImageId {
        self.images.push(MappedImage { name: name.to_owned(), content: Content::Memory });
        ImageId(self.images.len() as u32 - 1)
    }

    pub(crate) fn set_content(&mut self, image: ImageId, linked: Option<Linked>) {
        self.images[image.0 as usize].content = linked.map_or(Content::Unreadable, Content::Read);
    }

    /// Maps code into a process; what was mapped there before is gone.
    pub(crate) fn map(&mut self, process: ProcessId, addresses: Range<u64>, offset: u64, image: ImageId) {
        if addresses.is_empty() {
            return;
        }
        let mappings = &mut self.processes.entry(process).or_default().mappings;
        if let Some((&start, before)) = mappings.range_mut(..addresses.start).next_back()
            && before.end > addresses.start
        {
            let rest = tail(start, *before, addresses.end);
            before.end = addresses.start;
            mappings.extend(rest);
        }
        let covered: Vec<u64> = mappings.range(addresses.clone()).map(|(&start, _)| start).collect();
        for start in covered {
            let old = mappings.remove(&start).expect("just listed");
            mappings.extend(tail(start, old, addresses.end));
        }
        mappings.insert(addresses.start, Mapping { end: addresses.end, offset, image });
    }

    pub(crate) fn set_generated(&mut self, process: ProcessId, symbols: SymbolTable) {
        self.processes.entry(process).or_default().generated = Some(symbols);
    }

    pub(crate) fn forget(&mut self, process: ProcessId) {
        self.processes.remove(&process);
    }

    /// The image at an address, if nobody has looked into it yet.
    pub(crate) fn unread_at(&self, process: ProcessId, address: u64) -> Option<ImageId> {
        let (_, mapping) = self.mapping_at(process, address)?;
        matches!(self.images[mapping.image.0 as usize].content, Content::Unread).then_some(mapping.image)
    }

    /// What a process has at an address; none where it has no code.
    pub(crate) fn place(&self, process: ProcessId, address: u64) -> Option<Place> {
        let (start, mapping) = self.mapping_at(process, address)?;
        Some(match &self.images[mapping.image.0 as usize].content {
            Content::Unread => Place::Unread(mapping.image),
            Content::Memory => Place::Memory,
            Content::Unreadable => Place::Unreadable,
            Content::Read(linked) => {
                let at = linked.address_of((address - start).wrapping_add(mapping.offset));
                at.map_or(Place::Unreadable, |at| Place::Linked(mapping.image, at))
            }
        })
    }

    fn mapping_at(&self, process: ProcessId, address: u64) -> Option<(u64, Mapping)> {
        let (&start, &mapping) = self.processes.get(&process)?.mappings.range(..=address).next_back()?;
        (address < mapping.end).then_some((start, mapping))
    }

    pub(crate) fn resolve(&self, process: ProcessId, address: CodeAddress) -> Option<Resolved<'_>> {
        let inside = address.for_lookup();
        let generated = self.processes.get(&process)?.generated.as_ref();
        if let Some(symbol) = generated.and_then(|symbols| symbols.lookup(inside)) {
            let offset = ImageOffset(address.raw().wrapping_sub(symbol.start));
            return Some(Resolved { symbol: Some(symbol.name), module: Some("[jit]"), offset, linked: None });
        }
        let (start, mapping) = self.mapping_at(process, inside)?;
        let image = &self.images[mapping.image.0 as usize];
        let in_file = (inside - start).wrapping_add(mapping.offset);
        let linked = match &image.content {
            Content::Read(linked) => linked,
            Content::Memory => return Some(image.located(0)),
            Content::Unread | Content::Unreadable => return Some(image.located(in_file)),
        };
        let Some(at) = linked.address_of(in_file) else { return Some(image.located(in_file)) };
        let symbol = linked.symbols.as_ref().and_then(|symbols| symbols.lookup(at));
        let located = Resolved { linked: linked.build_id.as_deref().map(|id| (id, at)), ..image.located(at) };
        Some(match symbol {
            None => located,
            Some(symbol) => {
                let past = address.raw().wrapping_sub(inside);
                let offset = ImageOffset(at.wrapping_add(past).wrapping_sub(symbol.start));
                Resolved { symbol: Some(symbol.name), offset, ..located }
            }
        })
    }
}

impl MappedImage {
    fn located(&self, offset: u64) -> Resolved<'_> {
        Resolved { symbol: None, module: Some(&self.name), offset: ImageOffset(offset), linked: None }
    }
}

/// What is left of a mapping behind `from`.
fn tail(start: u64, mapping: Mapping, from: u64) -> Option<(u64, Mapping)> {
    (mapping.end > from)
        .then(|| (from, Mapping { offset: mapping.offset.wrapping_add(from - start), ..mapping }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: ProcessId = ProcessId(1);

    fn located(mapped: &Mapped, address: u64) -> Option<(String, u64)> {
        let resolved = mapped.resolve(PROCESS, CodeAddress::InstructionPointer(address))?;
        Some((resolved.module.unwrap().to_owned(), resolved.offset.0))
    }

    #[test]
    fn a_new_mapping_takes_what_it_covers_and_leaves_the_rest() {
        let mut mapped = Mapped::default();
        let (old, new) = (mapped.add_image("old"), mapped.add_image("new"));
        mapped.map(PROCESS, 0x1000..0x5000, 0x100, old);
        mapped.map(PROCESS, 0x2000..0x3000, 0, new);
        assert_eq!(located(&mapped, 0xfff), None);
        assert_eq!(located(&mapped, 0x1fff), Some(("old".into(), 0x10ff)));
        assert_eq!(located(&mapped, 0x2fff), Some(("new".into(), 0xfff)));
        assert_eq!(located(&mapped, 0x3000), Some(("old".into(), 0x2100)));
        assert_eq!(located(&mapped, 0x5000), None);
        // Over several, from the middle of one into the middle of another.
        mapped.map(PROCESS, 0x1800..0x4800, 0, new);
        assert_eq!(located(&mapped, 0x17ff), Some(("old".into(), 0x8ff)));
        assert_eq!(located(&mapped, 0x4000), Some(("new".into(), 0x2800)));
        assert_eq!(located(&mapped, 0x4800), Some(("old".into(), 0x3900)));
        let memory = mapped.add_memory("[anonymous]");
        mapped.map(PROCESS, 0x8000..0x9000, 0, memory);
        assert_eq!(located(&mapped, 0x8123), Some(("[anonymous]".into(), 0)));
        mapped.forget(PROCESS);
        assert_eq!(located(&mapped, 0x4800), None);
    }
}
