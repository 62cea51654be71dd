//! Loadable modules, and the symbols that each has in a table of its own.

use std::ops::Range;

use profile::GuestVirtual;

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError},
    kernel::Kernel,
    look::{GuestAddress, Look, Space},
    symbols::SymbolList,
    words::{u32_at, u64_at},
};

const MAX_MODULES: usize = 4096;
/// The kernel's own limit is 64 less a word.
const MAX_MODULE_NAME: usize = 56;
const MAX_SYMBOLS: u32 = 1 << 20;
const MAX_STRINGS: u64 = 8 << 20;
const MAX_NAME: usize = 512;
/// The size of an ELF symbol.
const SYMBOL: usize = 24;
/// `MODULE_STATE_UNFORMED`: its structure is being set up.
const UNFORMED: u32 = 3;

/// Where a module's structure has what is asked of it.
#[derive(Debug)]
pub(crate) struct ModuleLayout {
    list: u64,
    name: u64,
    state: u64,
    text: u64,
    text_size: u64,
    kallsyms: u64,
    symbols: u64,
    symbol_count: u64,
    strings: u64,
    kinds: u64,
}

impl ModuleLayout {
    pub(crate) fn of(btf: &Btf) -> Result<Self, LayoutError> {
        let module = |member| btf.offset("module", member);
        // One range of everything up to 6.3; one for each kind of content since, of which code is the first.
        let (text, text_size) = match module("core_layout.base") {
            Ok(base) => (base, module("core_layout.size")?),
            Err(_) => {
                let first = module("mem")?;
                (first + btf.offset("module_memory", "base")?, first + btf.offset("module_memory", "size")?)
            }
        };
        Ok(Self {
            list: module("list")?,
            name: module("name")?,
            state: module("state")?,
            text,
            text_size,
            kallsyms: module("kallsyms")?,
            symbols: btf.offset("mod_kallsyms", "symtab")?,
            symbol_count: btf.offset("mod_kallsyms", "num_symtab")?,
            strings: btf.offset("mod_kallsyms", "strtab")?,
            kinds: btf.offset("mod_kallsyms", "typetab")?,
        })
    }
}

/// A module that is loaded. That two lists of them are equal says that none was loaded or unloaded between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name: untrusted text.
    pub name: String,
    /// Where its code is. Up to Linux 6.3 its data follow in the same range.
    pub text: Range<u64>,
    pub(crate) structure: GuestVirtual,
}

impl Kernel {
    /// The modules that are loaded now, the last that was loaded first, as in `/proc/modules`.
    pub fn modules(&self, look: &Look<'_>) -> Result<Vec<Module>, GuestError> {
        let layout = self.layout(|layouts| &layouts.modules)?;
        let space = self.space(look, "the list of modules");
        let head = self.places.modules.ok_or(GuestError::NoSymbol("modules"))?;
        let mut modules = Vec::new();
        for structure in space.list(head, layout.list, MAX_MODULES)? {
            if space.u32(structure.plus(layout.state))? == UNFORMED {
                continue;
            }
            let name = space.text(structure.plus(layout.name), MAX_MODULE_NAME)?;
            let start = space.u64(structure.plus(layout.text))?;
            let size = space.u32(structure.plus(layout.text_size))?;
            modules.push(Module { name, text: start..start.saturating_add(size.into()), structure });
        }
        Ok(modules)
    }

    /// The symbols of a module, in the order of its table.
    pub fn module_symbols(&self, look: &Look<'_>, module: &Module) -> Result<SymbolList, GuestError> {
        let layout = self.layout(|layouts| &layouts.modules)?;
        let space = self.space(look, "the symbols of a module");
        let table = space.pointer(module.structure.plus(layout.kallsyms))?;
        let count = space.u32(table.plus(layout.symbol_count))?;
        if count > MAX_SYMBOLS {
            return Err(space.damaged("there are more than a million"));
        }
        let count = count as usize;
        let symbols = space.bytes(space.pointer(table.plus(layout.symbols))?, count * SYMBOL)?;
        let kinds = space.bytes(space.pointer(table.plus(layout.kinds))?, count)?;
        let symbols = symbols.as_chunks::<SYMBOL>().0;
        let strings = space.pointer(table.plus(layout.strings))?;
        let strings =
            strings_up_to(&space, strings, symbols.iter().filter_map(|symbol| u32_at(symbol, 0)).max())?;
        space.budget().memory(SymbolList::bytes(count, strings.len()))?;
        let mut list = SymbolList::with_capacity(count, strings.len());
        let mut text = 0;
        for (symbol, &kind) in symbols.iter().zip(&kinds) {
            let (Some(name), Some(value)) = (u32_at(symbol, 0), u64_at(symbol, 8)) else { break };
            let name = strings.get(name as usize..).unwrap_or_default();
            let name = &name[..name.len().min(MAX_NAME)];
            let name = String::from_utf8_lossy(&name[..memchr::memchr(0, name).unwrap_or(0)]);
            if !name.is_empty() {
                // Forged symbols can share one long string, and make much of it.
                text += name.len();
                if text > 2 * strings.len() + MAX_NAME {
                    space.budget().memory(name.len() as u64)?;
                }
                list.push(value, kind, &name);
            }
        }
        Ok(list)
    }
}

/// The string table, of which only the beginning of its last string is known.
fn strings_up_to(space: &Space<'_>, start: GuestVirtual, last: Option<u32>) -> Result<Vec<u8>, GuestError> {
    let length = u64::from(last.unwrap_or(0)).min(MAX_STRINGS);
    let mut strings = space.bytes(start, length as usize)?;
    strings.extend(space.text(start.plus(length), MAX_NAME)?.as_bytes());
    strings.push(0);
    Ok(strings)
}
