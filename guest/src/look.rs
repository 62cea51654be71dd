//! A look into a guest: its memory as it is now, read within one budget.

use std::cell::RefCell;

use profile::GuestVirtual;

use crate::{
    budget::{Budget, Limits},
    error::{GuestError, ReadError},
    memory::{GuestMemory, GuestPhysical},
    page_tables::{PageTables, Translation},
    translations::Translations,
};

const PAGE: u64 = 4096;

/// A look into a guest.
///
/// Translations of addresses are remembered for as long as it lasts and no longer. A running guest goes on meanwhile: a
/// look should be short, and a new one taken for what is asked later.
pub struct Look<'m> {
    memory: &'m dyn GuestMemory,
    budget: Budget,
    translations: RefCell<Translations>,
}

impl<'m> Look<'m> {
    /// Begins a look that may cost as much as `limits` say.
    pub fn new(memory: &'m dyn GuestMemory, limits: Limits) -> Self {
        Self { memory, budget: Budget::new(limits), translations: RefCell::default() }
    }

    /// What the look may still cost.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The memory that is looked at.
    pub fn memory(&self) -> &'m dyn GuestMemory {
        self.memory
    }

    pub(crate) fn read_physical(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), ReadError> {
        self.budget.scan(bytes.len() as u64)?;
        Ok(self.memory.read(address, bytes)?)
    }

    pub(crate) fn physical_u64(&self, address: GuestPhysical) -> Result<u64, ReadError> {
        let mut bytes = [0; 8];
        self.read_physical(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Where `address` leads in an address space.
    pub fn translate(&self, tables: PageTables, address: GuestVirtual) -> Result<Translation, ReadError> {
        if let Some(known) = self.translations.borrow().get(tables, address) {
            return Ok(known);
        }
        let found = tables.walk(self, address)?;
        self.translations.borrow_mut().put(tables, address, found);
        Ok(found)
    }

    /// Fills `bytes` from consecutive addresses of an address space.
    pub fn read(&self, tables: PageTables, address: GuestVirtual, bytes: &mut [u8]) -> Result<(), ReadError> {
        if address.0 % PAGE + bytes.len() as u64 > PAGE {
            self.announce(tables, address, bytes.len() as u64)?;
        }
        self.read_announced(tables, address, bytes)
    }

    fn read_announced(
        &self,
        tables: PageTables,
        address: GuestVirtual,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        let mut address = address;
        let mut rest = bytes;
        while !rest.is_empty() {
            let Translation { address: physical, page, .. } = self.translate(tables, address)?;
            let left = page - address.0 % page;
            let length = rest.len().min(left as usize);
            let (now, later) = rest.split_at_mut(length);
            self.read_physical(physical, now)?;
            address = GuestVirtual(address.0.wrapping_add(length as u64));
            rest = later;
        }
        Ok(())
    }

    /// The same for what will not be read again in this look, so that it need not be kept.
    pub(crate) fn read_once(
        &self,
        tables: PageTables,
        address: GuestVirtual,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        let pages = self.announce(tables, address, bytes.len() as u64)?;
        let read = self.read_announced(tables, address, bytes);
        self.memory.release(&pages);
        read
    }

    /// Tells the memory which pages will be read, as far as they are mapped.
    fn announce(
        &self,
        tables: PageTables,
        address: GuestVirtual,
        length: u64,
    ) -> Result<Vec<GuestPhysical>, ReadError> {
        let mut pages = Vec::new();
        for index in 0..(address.0 % PAGE + length).div_ceil(PAGE) {
            match self.translate(tables, GuestVirtual(address.0.wrapping_add(index * PAGE))) {
                Ok(found) => pages.push(found.address),
                Err(exhausted @ ReadError::Exhausted(_)) => return Err(exhausted),
                Err(_) => {}
            }
        }
        self.memory.announce(&pages);
        Ok(pages)
    }

    /// An address space whose errors say that `what` was being read.
    pub(crate) fn space(&self, tables: PageTables, what: &'static str) -> Space<'_> {
        Space { look: self, tables, what }
    }
}

/// Reads values of one address space.
#[derive(Clone, Copy)]
pub(crate) struct Space<'a> {
    look: &'a Look<'a>,
    tables: PageTables,
    what: &'static str,
}

impl<'a> Space<'a> {
    pub(crate) fn budget(&self) -> &'a Budget {
        &self.look.budget
    }

    /// The error that what is read contradicts itself.
    pub(crate) fn damaged(&self, why: &'static str) -> GuestError {
        GuestError::Damaged { what: self.what, why }
    }

    pub(crate) fn read(&self, address: GuestVirtual, bytes: &mut [u8]) -> Result<(), GuestError> {
        self.look.read(self.tables, address, bytes).map_err(|problem| match problem {
            ReadError::Exhausted(exhausted) => exhausted.into(),
            problem => GuestError::Read { what: self.what, problem },
        })
    }

    fn array<const N: usize>(&self, address: GuestVirtual) -> Result<[u8; N], GuestError> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn u8(&self, address: GuestVirtual) -> Result<u8, GuestError> {
        Ok(self.array::<1>(address)?[0])
    }

    pub(crate) fn u32(&self, address: GuestVirtual) -> Result<u32, GuestError> {
        Ok(u32::from_le_bytes(self.array(address)?))
    }

    pub(crate) fn u64(&self, address: GuestVirtual) -> Result<u64, GuestError> {
        Ok(u64::from_le_bytes(self.array(address)?))
    }

    pub(crate) fn pointer(&self, address: GuestVirtual) -> Result<GuestVirtual, GuestError> {
        Ok(GuestVirtual(self.u64(address)?))
    }

    /// So many bytes, which the caller has bounded.
    pub(crate) fn bytes(&self, address: GuestVirtual, length: usize) -> Result<Vec<u8>, GuestError> {
        self.budget().memory(length as u64)?;
        let mut bytes = vec![0; length];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// A string up to its NUL, or the first `max` bytes of it. What is not UTF-8 is replaced. Untrusted text.
    pub(crate) fn text(&self, address: GuestVirtual, max: usize) -> Result<String, GuestError> {
        let mut text = Vec::new();
        let mut address = address;
        while text.len() < max {
            // Behind the page that has the NUL there may be nothing.
            let left = (PAGE - address.0 % PAGE) as usize;
            let mut part = [0; 64];
            let part = &mut part[..left.min(max - text.len()).min(64)];
            self.read(address, part)?;
            let end = memchr::memchr(0, part);
            text.extend_from_slice(&part[..end.unwrap_or(part.len())]);
            if end.is_some() {
                break;
            }
            address = address.plus(part.len() as u64);
        }
        self.budget().memory(text.len() as u64)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The structures on a circular list: `head` is the list's own link, and each structure has its link `link` bytes
    /// from its start.
    pub(crate) fn list(
        &self,
        head: GuestVirtual,
        link: u64,
        max: usize,
    ) -> Result<Vec<GuestVirtual>, GuestError> {
        let mut found = Vec::new();
        let mut next = self.pointer(head)?;
        // Compared with all that follow, and moved on after 1, 2, 4, 8… of them: a circle that leaves out the head is
        // noticed after no more than three times its length (Brent).
        let (mut earlier, mut moves_at) = (head, 1);
        while next != head {
            if next == earlier || found.len() == max {
                return Err(self.damaged("a list does not come back to its head"));
            }
            if found.len() == moves_at {
                (earlier, moves_at) = (next, moves_at * 2);
            }
            self.budget().memory(8)?;
            found.push(next.minus(link));
            next = self.pointer(next)?;
        }
        Ok(found)
    }
}

/// Lets what can't be read be missing, but does not go on when the budget is spent.
pub(crate) fn unless_exhausted<T>(result: Result<T, GuestError>) -> Result<Option<T>, ReadError> {
    match result {
        Err(GuestError::Exhausted(exhausted)) => Err(exhausted.into()),
        other => Ok(other.ok()),
    }
}

/// Arithmetic on addresses that a guest gave: it wraps, as the processor's does.
pub(crate) trait GuestAddress: Copy {
    fn plus(self, bytes: u64) -> Self;
    fn minus(self, bytes: u64) -> Self;
    fn is_null(self) -> bool;
}

impl GuestAddress for GuestVirtual {
    fn plus(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    fn minus(self, bytes: u64) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }

    fn is_null(self) -> bool {
        self.0 == 0
    }
}
