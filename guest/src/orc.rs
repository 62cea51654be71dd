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

/// What exceptions' entries are called, and what they call to save the registers; then comes `mov rsp, rax`, or what stands
/// for it in a paravirtualized kernel.
const ENTRIES: &str = "asm_";
const SAVING: [&str; 2] = ["error_entry", "xen_error_entry"];
const ENTRY_BYTES: usize = 32;
const CALL: u8 = 0xe8;
const CALL_BYTES: usize = 5;
const AFTER_SAVING: [[u8; 3]; 2] = [[0x48, 0x89, 0xc4], [0x0f, 0x1f, 0]];

/// How Xen enters a paravirtualized kernel (`xen_pv_trap` in arch/x86/xen/xen-asm.S), behind a mark that some builds have:
/// `pop rcx`, `pop r11`, `jmp`.
const XEN_ENTRIES: &str = "xen_asm_";
const TARGET_MARK: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const XEN_ENTRY: [u8; 4] = [0x59, 0x41, 0x5b, 0xe9];

/// How it is left for Xen (`xen_iret`): `push 0`, `push rcx`, `push r11`, `push rax`, `mov eax, 23`, `syscall`.
const XEN_EXIT_NAME: &str = "xen_iret";
const XEN_EXIT: [u8; 13] = [0x6a, 0, 0x51, 0x41, 0x53, 0x50, 0xb8, 23, 0, 0, 0, 0x0f, 0x05];

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

/// A stretch of code at the border of a kernel of which its table does not tell what holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Border {
    /// The stretch.
    pub code: Range<u64>,
    /// How many bytes there are on the stack in front of what is saved.
    pub before: u8,
    /// The code that goes on, and whose entry tells what is saved; none where it is what the processor itself saves.
    pub like: Option<GuestVirtual>,
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

    /// Code by which this kernel is entered and left, and of which its table does not tell what holds. What is not as it is
    /// known to be is left out.
    pub fn borders(&self, look: &Look<'_>) -> Vec<Border> {
        let saving: Vec<u64> = self.symbols().addresses(&SAVING).values().map(|at| at.0).collect();
        let mut borders = Vec::new();
        for symbol in self.symbols().iter() {
            let find: FindBorders = match symbol.name {
                XEN_EXIT_NAME => xen_exit,
                name if name.starts_with(XEN_ENTRIES) => xen_entry,
                name if name.starts_with(ENTRIES) => exception_entry,
                _ => continue,
            };
            let code = self.space(look, WHAT).bytes(symbol.address, ENTRY_BYTES);
            borders.extend(
                code.ok().and_then(|code| find(symbol.address.0, &code, &saving)).unwrap_or_default(),
            );
        }
        borders
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

/// Looks for borders in code at an address, which may call one of these functions to save registers.
type FindBorders = fn(u64, &[u8], &[u64]) -> Option<Vec<Border>>;

/// From where to where from an address on, behind how much, and like what.
fn border(at: u64, code: Range<u64>, before: u8, like: Option<u64>) -> Border {
    let code = at.wrapping_add(code.start)..at.wrapping_add(code.end);
    Border { code, before, like: like.map(GuestVirtual) }
}

fn exception_entry(at: u64, code: &[u8], saving: &[u64]) -> Option<Vec<Border>> {
    let saves = |&from: &usize| {
        let end = at.wrapping_add((from + CALL_BYTES) as u64);
        let leads_to = |distance: &[u8; 4]| end.wrapping_add_signed(i32::from_le_bytes(*distance).into());
        code[from] == CALL
            && code[from + 1..].first_chunk().is_some_and(|distance| saving.contains(&leads_to(distance)))
            && AFTER_SAVING.iter().any(|after| code[from + CALL_BYTES..].starts_with(after))
    };
    let end = ((0..code.len()).find(saves)? + CALL_BYTES) as u64;
    Some(vec![border(at, end..end + 3, 0, Some(at.wrapping_add(end + 3)))])
}

fn xen_entry(at: u64, code: &[u8], _: &[u64]) -> Option<Vec<Border>> {
    let mark = if code.starts_with(&TARGET_MARK) { TARGET_MARK.len() } else { 0 };
    let distance = i32::from_le_bytes(*code[mark..].strip_prefix(&XEN_ENTRY)?.first_chunk()?);
    let pops = mark as u64;
    let target = at.wrapping_add(pops + 8).wrapping_add_signed(distance.into());
    let stretches = [(0, pops + 1, 16), (pops + 1, pops + 3, 8), (pops + 3, pops + 8, 0)];
    Some(stretches.map(|(from, to, before)| border(at, from..to, before, Some(target))).into())
}

fn xen_exit(at: u64, code: &[u8], _: &[u64]) -> Option<Vec<Border>> {
    // Xen has the vCPU behind the last instruction while it works on it.
    let stretches = [(0, 2, 0), (2, 3, 8), (3, 5, 16), (5, 6, 24), (6, 14, 32)];
    let is_known = code.starts_with(&XEN_EXIT);
    is_known.then(|| stretches.map(|(from, to, before)| border(at, from..to, before, None)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0xffff_ffff_8102_6000;

    fn shape(borders: Option<Vec<Border>>) -> Vec<(Range<u64>, u8, Option<u64>)> {
        let short = |border: Border| {
            let code = border.code.start - AT..border.code.end - AT;
            (code, border.before, border.like.map(|like| like.0.wrapping_sub(AT)))
        };
        borders.unwrap_or_default().into_iter().map(short).collect()
    }

    #[test]
    fn entries_are_told_by_their_code() {
        let code =
            |parts: &[&[u8]]| [&parts.concat()[..], &[0xcc; ENTRY_BYTES]].concat()[..ENTRY_BYTES].to_vec();
        let entered = code(&[&XEN_ENTRY, &[0x20, 0, 0, 0]]);
        let expected = [(0..1, 16, Some(0x28)), (1..3, 8, Some(0x28)), (3..8, 0, Some(0x28))];
        assert_eq!(shape(xen_entry(AT, &entered, &[])), expected);
        let marked = code(&[&TARGET_MARK, &XEN_ENTRY, &[0x20, 0, 0, 0]]);
        assert_eq!(shape(xen_entry(AT, &marked, &[]))[2], (7..12, 0, Some(0x2c)));
        let left = code(&[&XEN_EXIT]);
        assert_eq!(shape(xen_exit(AT, &left, &[])).last(), Some(&(6..14, 32, None)));
        // clac, cld, push -1, call error_entry, mov rsp, rax
        for after in AFTER_SAVING {
            let exception = code(&[&[0x90, 0x90, 0x90, 0xfc, 0x6a, 0xff, CALL, 0xf5, 0, 0, 0], &after]);
            assert_eq!(shape(exception_entry(AT, &exception, &[AT + 0x100])), [(11..14, 0, Some(14))]);
            assert_eq!(shape(exception_entry(AT, &exception, &[AT + 0x101])), []);
        }
        for find in [exception_entry, xen_entry, xen_exit] {
            assert_eq!(shape(find(AT, &[0xcc; ENTRY_BYTES], &[])), []);
            assert_eq!(shape(find(AT, &[], &[])), []);
        }
    }
}
