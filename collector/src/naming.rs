//! Names for what was sampled, made once for each address and then remembered.

use std::{collections::HashMap, io::Write};

use profile::{Chain, ChainId, CodeAddress, DomainId, Frame, ProcessId, Space, recording::Writer};
use symbolizer::Symbolizer;

/// Names addresses, and remembers.
pub(crate) struct Namer {
    pub(crate) symbolizer: Symbolizer,
    chains: HashMap<(Space, CodeAddress), ChainId>,
}

impl Namer {
    pub(crate) fn new(symbolizer: Symbolizer) -> Self {
        Self { symbolizer, chains: HashMap::new() }
    }

    /// The chain of one frame for an address, if it was named before.
    pub(crate) fn known(&self, space: Space, address: CodeAddress) -> Option<ChainId> {
        self.chains.get(&(space, address)).copied()
    }

    /// Whether no symbol names an address yet.
    pub(crate) fn is_unnamed(&self, space: Space, address: CodeAddress) -> bool {
        self.symbolizer.resolve(space, address).function.is_none()
    }

    /// The chain of one frame for an address.
    pub(crate) fn chain<W: Write>(
        &mut self,
        space: Space,
        address: CodeAddress,
        writer: &mut Writer<W>,
    ) -> ChainId {
        let symbolizer = &self.symbolizer;
        *self.chains.entry((space, address)).or_insert_with(|| {
            let resolved = symbolizer.resolve(space, address);
            let frame = Frame {
                space,
                address,
                function: resolved.function.map(|name| writer.name(&name)),
                module: resolved.module.map(|name| writer.name(name)),
                offset: resolved.offset,
            };
            let frame = writer.frame(frame);
            writer.chain(Chain { caller: None, frame })
        })
    }

    /// Forgets the names of processes' addresses: they are no more, or tell of new code.
    pub(crate) fn forget_processes(&mut self, processes: &[ProcessId]) {
        if !processes.is_empty() {
            self.chains
                .retain(|(space, _), _| !matches!(space, Space::User(_, id) if processes.contains(id)));
        }
    }

    /// Forgets the names of a domain's addresses: other symbols hold now, or none.
    pub(crate) fn forget(&mut self, domain: DomainId) {
        self.chains.retain(|(space, _), _| match space {
            Space::Hypervisor => true,
            Space::Kernel(id) | Space::User(id, _) => *id != domain,
        });
    }
}
