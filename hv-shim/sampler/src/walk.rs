//! From an address as a guest uses it to the words of memory behind it, by the guest's own page tables.
//!
//! Fit for an NMI: it cannot fault, lock or wait. It reads memory through Xen's map of all of it, and only frames that
//! [`Memory`] vouches for. What is read last, the memory itself, has to belong to the guest; so do the page tables of
//! a hardware guest, which it writes as it likes. The tables that the processor walks itself (a paravirtualized guest's
//! and those of nested paging) Xen has checked or written; they need not belong to the guest.
//!
//! Nothing that is reached can be given to somebody else meanwhile: that takes a flush of this CPU's translations,
//! which this CPU has to acknowledge by an interrupt, and those are off.

use core::sync::atomic::{AtomicU64, Ordering};

/// Words of a page.
pub const FRAME_WORDS: usize = 512;

/// A page of memory. Whoever owns it writes it at any time.
pub type Frame = [AtomicU64; FRAME_WORDS];

/// The machine's memory, as far as it can be read without a fault.
pub trait Memory {
    /// A frame of plain memory; none for what is no memory, or not mapped here.
    fn frame(&self, number: u64) -> Option<&Frame>;

    /// The same, if it is the domain's own and in use.
    fn own_frame(&self, number: u64, domain: Owner) -> Option<&Frame>;

    /// Copies as many words as both have.
    fn copy(&self, to: &[AtomicU64], from: &[AtomicU64]) {
        for (to, from) in to.iter().zip(from) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// The owner of a frame, in the form in which the hypervisor notes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner(pub u64);

/// For whom memory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The guest's kernel.
    Kernel,
    /// A process of the guest.
    User,
}

/// How the guest's addresses are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// Its tables hold machine frames (paravirtualized).
    Direct,
    /// Its tables hold its own frames, which tables with this root translate (nested paging).
    Nested(u64),
}

/// Where an entry points.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The entry is in use: the same bit in guests' tables, AMD's nested ones and Intel's (there: may be read).
const PRESENT: u64 = 1 << 0;
/// A process may use it.
const USER: u64 = 1 << 2;
/// The entry maps a large page itself.
const LARGE: u64 = 1 << 7;
/// Xen's mark on what only a paravirtualized guest's kernel may use (`_PAGE_GUEST_KERNEL`): the processor, which runs
/// that kernel as it runs processes, can't tell.
const GUEST_KERNEL: u64 = 1 << 52;

/// Xen's own part of a paravirtualized guest's addresses (asm-x86/config.h).
const XENS_OWN: core::ops::Range<u64> = 0xffff_8000_0000_0000..0xffff_8800_0000_0000;

/// Where processes' addresses end.
const USER_END: u64 = 1 << 47;

/// How far an entry of the root table reaches, in bits of the address.
const ROOT_SHIFT: u32 = 39;
const PAGE_SHIFT: u32 = 12;
/// How many bits of an address four levels of tables translate.
const ADDRESS_BITS: u32 = 48;
/// How far one of the last tables reaches.
const LAST_TABLE_SHIFT: u32 = 21;

/// A guest's address space.
pub struct AddressSpace<'a, M> {
    memory: &'a M,
    root: u64,
    paging: Paging,
    domain: Owner,
    /// The last table that was walked through: whose, for which addresses. Stacks' pages lie side by side.
    last: Option<(Reader, u64, &'a Frame)>,
}

impl<'a, M: Memory> AddressSpace<'a, M> {
    /// The address space with this root (CR3), of a domain.
    pub fn new(memory: &'a M, root: u64, paging: Paging, domain: Owner) -> Self {
        Self { memory, root: root & ADDRESS, paging, domain, last: None }
    }

    /// The page that an address lies in, if its reader may read it and it is the guest's own memory.
    pub fn page(&mut self, address: u64, reader: Reader) -> Option<&'a Frame> {
        if !is_reachable(address, self.paging, reader) {
            return None;
        }
        let page = match self.last {
            Some((of, at, table)) if of == reader && at == address >> LAST_TABLE_SHIFT => {
                self.follow(entry(table, address, PAGE_SHIFT), PAGE_SHIFT, reader)? & ADDRESS
            }
            _ => self.walk(address, reader)?,
        };
        self.own(page)
    }

    /// The word at an address, which must be aligned.
    pub fn word(&mut self, address: u64, reader: Reader) -> Option<u64> {
        let page = self.page(address, reader)?;
        Some(page[(address >> 3) as usize % FRAME_WORDS].load(Ordering::Relaxed))
    }

    /// Walks the guest's tables from their root: the address of the page as they have it.
    fn walk(&mut self, address: u64, reader: Reader) -> Option<u64> {
        descend(self.root, address, |table, shift| {
            let frame = self.table(table)?;
            if shift == PAGE_SHIFT {
                self.last = Some((reader, address >> LAST_TABLE_SHIFT, frame));
            }
            self.follow(entry(frame, address, shift), shift, reader)
        })
    }

    /// An entry, if the reader may go on through it.
    #[inline]
    fn follow(&self, entry: u64, shift: u32, reader: Reader) -> Option<u64> {
        let (needed, forbidden) = match (reader, self.paging) {
            (Reader::Kernel, _) => (PRESENT, 0),
            (Reader::User, Paging::Direct) if shift == PAGE_SHIFT => (PRESENT | USER, GUEST_KERNEL),
            (Reader::User, _) => (PRESENT | USER, 0),
        };
        (entry & needed == needed && entry & forbidden == 0).then_some(entry)
    }

    /// A table of the guest's.
    fn table(&self, address: u64) -> Option<&'a Frame> {
        match self.paging {
            Paging::Direct => self.memory.frame(address >> PAGE_SHIFT),
            Paging::Nested(_) => self.own(address),
        }
    }

    /// A page of the guest's, by its address in the guest's tables.
    fn own(&self, address: u64) -> Option<&'a Frame> {
        let machine = match self.paging {
            Paging::Direct => address,
            Paging::Nested(root) => translate(self.memory, root & ADDRESS, address)?,
        };
        self.memory.own_frame((machine & ADDRESS) >> PAGE_SHIFT, self.domain)
    }
}

/// Translates by tables that the processor walks itself, whatever they map.
pub fn translate<M: Memory>(memory: &M, root: u64, address: u64) -> Option<u64> {
    if address >> ADDRESS_BITS != 0 {
        return None;
    }
    descend(root, address, |table, shift| {
        let entry = entry(memory.frame(table >> PAGE_SHIFT)?, address, shift);
        (entry & PRESENT != 0).then_some(entry)
    })
}

/// Goes down tables of four levels to the address of a page. `pass` reads the entry of the table at an address on the level
/// of a shift; none ends the way.
#[inline]
fn descend(root: u64, address: u64, mut pass: impl FnMut(u64, u32) -> Option<u64>) -> Option<u64> {
    let mut table = root;
    let mut shift = ROOT_SHIFT;
    loop {
        let entry = pass(table, shift)?;
        if shift == PAGE_SHIFT {
            return Some(entry & ADDRESS);
        }
        if entry & LARGE != 0 {
            return large_page(entry, address, shift);
        }
        table = entry & ADDRESS;
        shift -= 9;
    }
}

#[inline]
fn entry(table: &Frame, address: u64, shift: u32) -> u64 {
    table[(address >> shift) as usize % FRAME_WORDS].load(Ordering::Relaxed)
}

/// The page within a large one; there is none as large as an entry of the root table reaches.
fn large_page(entry: u64, address: u64, shift: u32) -> Option<u64> {
    let within = (1 << shift) - 1;
    (shift < ROOT_SHIFT).then_some(entry & ADDRESS & !within | address & within & ADDRESS)
}

/// Whether a reader can have such an address at all.
fn is_reachable(address: u64, paging: Paging, reader: Reader) -> bool {
    let canonical = ((address << 16) as i64 >> 16) as u64 == address;
    canonical
        && match reader {
            Reader::User => address < USER_END,
            Reader::Kernel => paging != Paging::Direct || !XENS_OWN.contains(&address),
        }
}
