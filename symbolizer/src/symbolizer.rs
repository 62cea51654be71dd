//! Whose image names an address.

use std::{collections::HashMap, ops::Range};

use profile::{CodeAddress, DomainId, ImageOffset, ProcessId, Space};

use crate::{Executable, ImageId, Linked, Place, SymbolTable, SymbolizerError, mapped::Mapped};

/// What the hypervisor's image is called.
const HYPERVISOR: &str = "xen";

/// The images of the hypervisor and of all domains.
///
/// It keeps no answers: callers ask once for each new address and remember.
#[derive(Debug, Default)]
pub struct Symbolizer {
    hypervisor: Option<SymbolTable>,
    domains: HashMap<DomainId, DomainImages>,
    mapped: Mapped,
}

#[derive(Debug, Default)]
struct DomainImages {
    kernel: Option<Kernel>,
    /// What the kernel has loaded, where that is known apart.
    loaded: Option<SymbolTable>,
    executables: Vec<Executable>,
}

#[derive(Debug)]
struct Kernel {
    name: String,
    symbols: SymbolTable,
}

/// What is known of an address, in the terms of [`profile::Frame`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// The function's symbol as its table spells it: untrusted text, for [`demangle`](crate::demangle()).
    pub symbol: Option<&'a str>,
    /// The image that the address lies in: untrusted text.
    pub module: Option<&'a str>,
    /// The offset from the start of `function` if that is known, else from the start of `module`, else 0.
    pub offset: ImageOffset,
    /// The build id of the file that has it, in hexadecimal digits, and the address of the instruction there, where both
    /// are known.
    pub linked: Option<(&'a str, u64)>,
}

impl Resolved<'_> {
    /// What nothing claims.
    const NOWHERE: Self = Self { symbol: None, module: None, offset: ImageOffset(0), linked: None };
}

impl Symbolizer {
    /// Names the hypervisor's code from now on.
    pub fn set_hypervisor(&mut self, symbols: SymbolTable) {
        self.hypervisor = Some(symbols);
    }

    /// Names a domain's kernel code from now on. Code of loadable modules is shown under their own names, all else
    /// under `name`.
    pub fn set_kernel(&mut self, domain: DomainId, name: impl Into<String>, symbols: SymbolTable) {
        self.domains.entry(domain).or_default().kernel = Some(Kernel { name: name.into(), symbols });
    }

    /// Names the modules that a domain's kernel has loaded, and code that it generated, beside what [`Self::set_kernel`]
    /// names.
    pub fn set_loaded(&mut self, domain: DomainId, symbols: Option<SymbolTable>) {
        self.domains.entry(domain).or_default().loaded = symbols;
    }

    /// Whether a domain's kernel has names.
    pub fn has_kernel(&self, domain: DomainId) -> bool {
        self.domains.get(&domain).is_some_and(|images| images.kernel.is_some())
    }

    /// Names what runs in a domain's processes at the addresses of `executable`, whichever the process.
    ///
    /// Fails where that would be a guess: another executable of the domain has code at some of the same addresses.
    pub fn add_executable(
        &mut self,
        domain: DomainId,
        executable: Executable,
    ) -> Result<(), SymbolizerError> {
        let known = &mut self.domains.entry(domain).or_default().executables;
        for other in known.iter() {
            if let Some(address) = shared_address(other, &executable) {
                let (first, second) = (other.name().to_owned(), executable.name().to_owned());
                return Err(SymbolizerError::Ambiguous { domain, first, second, address });
            }
        }
        known.push(executable);
        Ok(())
    }

    /// Makes an image known that processes may map; it is read when it is first needed ([`Self::unread`]).
    pub fn add_image(&mut self, name: &str) -> ImageId {
        self.mapped.add_image(name)
    }

    /// Makes memory known that processes may map and that no file is behind: its code is called by this name.
    pub fn add_memory(&mut self, name: &str) -> ImageId {
        self.mapped.add_memory(name)
    }

    /// Gives an image its content; without, its code is located and never named.
    pub fn set_content(&mut self, image: ImageId, content: Option<Linked>) {
        self.mapped.set_content(image, content);
    }

    /// Maps code into a process, from a place in an image's file on. What was mapped there before is gone.
    pub fn map(&mut self, process: ProcessId, addresses: Range<u64>, offset: u64, image: ImageId) {
        self.mapped.map(process, addresses, offset, image);
    }

    /// Names code that a process made itself from now on.
    pub fn set_generated(&mut self, process: ProcessId, symbols: SymbolTable) {
        self.mapped.set_generated(process, symbols);
    }

    /// Drops what a process has mapped.
    pub fn forget_process(&mut self, process: ProcessId) {
        self.mapped.forget(process);
    }

    /// The image that would name an address, if its content is still to be given.
    pub fn unread(&self, space: Space, address: CodeAddress) -> Option<ImageId> {
        match space {
            Space::User(_, process) => self.mapped.unread_at(process, address.for_lookup()),
            Space::Hypervisor | Space::Kernel(_) => None,
        }
    }

    /// What a process has mapped at an address; none where it has no code.
    pub fn place(&self, process: ProcessId, address: u64) -> Option<Place> {
        self.mapped.place(process, address)
    }

    /// Drops all that is known of a domain, which died or booted anew.
    pub fn forget(&mut self, domain: DomainId) {
        self.domains.remove(&domain);
    }

    /// Names or at least locates an address.
    pub fn resolve(&self, space: Space, address: CodeAddress) -> Resolved<'_> {
        let inside = address.for_lookup();
        match space {
            Space::Hypervisor => {
                self.hypervisor.as_ref().map(|symbols| resolve_in(HYPERVISOR, symbols, address))
            }
            Space::Kernel(domain) => self.domains.get(&domain).and_then(|images| {
                let kernel = images.kernel.as_ref();
                let own = kernel.map(|kernel| resolve_in(&kernel.name, &kernel.symbols, address));
                if own.as_ref().is_some_and(|resolved| resolved.symbol.is_some()) {
                    return own;
                }
                let loaded = images.loaded.as_ref().filter(|loaded| loaded.lookup(inside).is_some());
                loaded.map(|loaded| resolve_in("", loaded, address)).or(own)
            }),
            Space::User(domain, process) => {
                let mapped = self.mapped.resolve(process, address);
                if mapped.as_ref().is_some_and(|resolved| resolved.symbol.is_some()) {
                    return mapped.unwrap_or(Resolved::NOWHERE);
                }
                let executables = self.domains.get(&domain).map_or(&[][..], |images| &images.executables);
                let executable = executables.iter().find(|executable| executable.has_code_at(inside));
                let named =
                    executable.map(|executable| resolve_in(executable.name(), executable.symbols(), address));
                named.or(mapped)
            }
        }
        .unwrap_or(Resolved::NOWHERE)
    }
}

/// The first address at which both have code.
fn shared_address(a: &Executable, b: &Executable) -> Option<u64> {
    let starts =
        |executable: &Executable| executable.text().iter().map(|range| range.start).collect::<Vec<_>>();
    // Where two ranges meet, one of them begins in the other.
    let in_b = starts(a).into_iter().filter(|&start| b.has_code_at(start));
    in_b.chain(starts(b).into_iter().filter(|&start| a.has_code_at(start))).min()
}

fn resolve_in<'a>(image: &'a str, symbols: &'a SymbolTable, address: CodeAddress) -> Resolved<'a> {
    let (inside, raw) = (address.for_lookup(), address.raw());
    let offset_from = |start| ImageOffset(raw.wrapping_sub(start));
    if let Some(symbol) = symbols.lookup(inside) {
        let (module, offset) = (symbol.module.unwrap_or(image), offset_from(symbol.start));
        return Resolved { symbol: Some(symbol.name), module: Some(module), offset, linked: None };
    }
    let extent = symbols.extent();
    if extent.contains(&inside) {
        return Resolved {
            symbol: None,
            module: Some(image),
            offset: offset_from(extent.start),
            linked: None,
        };
    }
    Resolved::NOWHERE
}
