//! Names for what was sampled and for its callers, made once for each address and then remembered.

use std::io::Write;

use profile::{
    CodeAddress, DomainId, Frame, FrameId, ImageOffset, Linked, NameId, Origin, ProcessId, Space,
    recording::Writer,
};
use symbolizer::{Symbolizer, demangle};

/// Names addresses, and remembers.
pub(crate) struct Namer {
    pub(crate) symbolizer: Symbolizer,
    frames: HashMap<(Space, CodeAddress), FrameId>,
    /// What each symbol is called when it is shown: telling that costs more than remembering.
    functions: HashMap<Box<str>, NameId>,
}

/// Quick, and keyed at random: guests choose the addresses.
type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

impl Namer {
    pub(crate) fn new(symbolizer: Symbolizer) -> Self {
        Self { symbolizer, frames: HashMap::default(), functions: HashMap::default() }
    }

    /// The frame for an address, if it was named before.
    pub(crate) fn known(&self, space: Space, address: CodeAddress) -> Option<FrameId> {
        self.frames.get(&(space, address)).copied()
    }

    /// Whether no symbol names an address yet.
    pub(crate) fn is_unnamed(&self, space: Space, address: CodeAddress) -> bool {
        self.symbolizer.resolve(space, address).symbol.is_none()
    }

    /// Names an address.
    pub(crate) fn name<W: Write>(
        &mut self,
        space: Space,
        address: CodeAddress,
        writer: &mut Writer<W>,
    ) -> FrameId {
        let resolved = self.symbolizer.resolve(space, address);
        let function = resolved.symbol.map(|symbol| match self.functions.get(symbol) {
            Some(&name) => name,
            None => {
                let name = writer.name(&demangle(symbol));
                self.functions.insert(symbol.into(), name);
                name
            }
        });
        let module = resolved.module.map(|name| writer.name(name));
        let linked =
            resolved.linked.map(|(build_id, address)| Linked { build_id: writer.name(build_id), address });
        let origin = Origin { linked, ..Origin::default() };
        let frame = writer.frame(Frame { space, address, function, module, offset: resolved.offset, origin });
        self.frames.insert((space, address), frame);
        frame
    }

    /// The frame that stands for callers that could not be found.
    pub(crate) fn gap<W: Write>(&self, space: Space, why: &'static str, writer: &mut Writer<W>) -> FrameId {
        let (address, function) = (CodeAddress::ReturnAddress(0), Some(writer.name(why)));
        let (offset, origin) = (ImageOffset(0), Origin::default());
        writer.frame(Frame { space, address, function, module: None, offset, origin })
    }

    /// Forgets the names of processes' addresses: they are no more, or tell of new code.
    pub(crate) fn forget_processes(&mut self, processes: &[ProcessId]) {
        if !processes.is_empty() {
            self.frames
                .retain(|(space, _), _| !matches!(space, Space::User(_, id) if processes.contains(id)));
        }
    }

    /// Forgets the names of a domain's addresses: other symbols hold now, or none.
    pub(crate) fn forget(&mut self, domain: DomainId) {
        self.frames.retain(|(space, _), _| match space {
            Space::Hypervisor => true,
            Space::Kernel(id) | Space::User(id, _) => *id != domain,
        });
    }
}
