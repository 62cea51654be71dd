//! The tables by which a kernel finds callers in its own code (ORC), and that of its modules.

use std::ops::Range;

use profile::GuestVirtual;

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError},
    kernel::Kernel,
    look::{GuestAddress, Look},
};

/// Kernels have half a million entries.
const MAX_ENTRIES: u64 = 4 << 20;
const ADDRESS: u64 = 4;
const ENTRY: u64 = 6;

/// What code for indirect jumps begins with, and how large each is (`RETPOLINE_THUNK_SIZE`).
const THUNKS: &str = "__x86_indirect_";
const THUNK_BYTES: u64 = 32;

/// Where a module's structure has its table.
#[derive(Debug)]
pub(crate) struct OrcLayout {
    count: u64,
    addresses: u64,
    entries: u64,
}

impl OrcLayout {
    pub(crate) fn of(btf: &Btf) -> Result<Self, LayoutError> {
        let module = |member| btf.offset("module", member);
        Ok(Self {
            count: module("arch.num_orcs")?,
            addresses: module("arch.orc_unwind_ip")?,
            entries: module("arch.orc_unwind")?,
        })
    }
}

/// A table as it is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrcBytes {
    /// Where [`Self::addresses`] are: each is relative to its own place.
    pub at: GuestVirtual,
    /// `.orc_unwind_ip`: numbers of four bytes.
    pub addresses: Vec<u8>,
    /// `.orc_unwind`: six bytes each.
    pub entries: Vec<u8>,
}

impl Kernel {
    /// The kernel's own table; fails where it has none, because it keeps frame pointers.
    pub fn orc(&self, look: &Look<'_>) -> Result<OrcBytes, GuestError> {
        let addresses = self.places.orc_addresses.clone();
        let entries = self.places.orc_entries.clone();
        let (addresses, entries) =
            addresses.zip(entries).ok_or(GuestError::NoSymbol("__start_orc_unwind"))?;
        let count = addresses.end.saturating_sub(addresses.start) / ADDRESS;
        if entries.end.saturating_sub(entries.start) / ENTRY != count {
            return Err(self.space(look, WHAT).damaged("it has more addresses than entries, or fewer"));
        }
        self.orc_at(look, GuestVirtual(addresses.start), GuestVirtual(entries.start), count)
    }

    /// Those of the modules that are loaded now. What can't be read of them is left out.
    pub fn orc_of_modules(&self, look: &Look<'_>) -> Result<Vec<OrcBytes>, GuestError> {
        let layout = self.layout(|layouts| &layouts.orc)?;
        let mut tables = Vec::new();
        for module in self.modules(look)? {
            let space = self.space(look, WHAT);
            let read = || {
                let count = space.u32(module.structure.plus(layout.count))?;
                let addresses = space.pointer(module.structure.plus(layout.addresses))?;
                let entries = space.pointer(module.structure.plus(layout.entries))?;
                self.orc_at(look, addresses, entries, count.into())
            };
            match read() {
                Err(exhausted @ GuestError::Exhausted(_)) => return Err(exhausted),
                table => tables.extend(table.ok()),
            }
        }
        Ok(tables)
    }

    /// The kernel's code for indirect jumps, which leads on to somewhere else without having been called.
    pub fn thunks(&self) -> Vec<Range<u64>> {
        let thunks = self.symbols().iter().filter(|symbol| symbol.name.starts_with(THUNKS));
        let mut starts: Vec<u64> = thunks.map(|symbol| symbol.address.0).collect();
        starts.sort_unstable();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for start in starts {
            let end = start.saturating_add(THUNK_BYTES);
            match ranges.last_mut() {
                Some(last) if last.end >= start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    fn orc_at(
        &self,
        look: &Look<'_>,
        at: GuestVirtual,
        entries: GuestVirtual,
        count: u64,
    ) -> Result<OrcBytes, GuestError> {
        let space = self.space(look, WHAT);
        if count > MAX_ENTRIES {
            return Err(space.damaged("it has more than four million entries"));
        }
        Ok(OrcBytes {
            at,
            addresses: space.bytes(at, (count * ADDRESS) as usize)?,
            entries: space.bytes(entries, (count * ENTRY) as usize)?,
        })
    }
}

const WHAT: &str = "a kernel's table of callers";
