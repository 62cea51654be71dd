//! Names for what was sampled, made once for each address and then remembered.

use std::{collections::HashMap, io::Write};

use profile::{Chain, ChainId, CodeAddress, DomainId, Frame, Space, recording::Writer};
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

    /// Forgets the names of a domain's addresses: other symbols hold now, or none.
    pub(crate) fn forget(&mut self, domain: DomainId) {
        self.chains.retain(|(space, _), _| match space {
            Space::Hypervisor => true,
            Space::Kernel(id) | Space::User(id, _) => *id != domain,
        });
    }
}
