//! Files as the guest has them in its page cache: those of their pages that are in memory.

use profile::GuestVirtual;

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError, ReadError},
    file::{FileBytes, FileError},
    kernel::Kernel,
    look::{GuestAddress, Look},
    mappings::FileId,
    memory::{Frames, GuestPhysical},
};

const PAGE: u64 = 4096;
/// Below this, what looks like a pointer to a node is a value.
const LOWEST_NODE: u64 = 4096;

/// Where a file's tree of pages, and pages themselves, have what is asked of them.
#[derive(Debug)]
pub(crate) struct PageCacheLayout {
    head: u64,
    node_shift: u64,
    node_slots: u64,
    /// The bits of an index that each level takes.
    slot_bits: u32,
    page: u64,
    page_flags: u64,
    page_owner: u64,
    page_index: u64,
    up_to_date: u32,
}

impl PageCacheLayout {
    pub(crate) fn of(btf: &Btf) -> Result<Self, LayoutError> {
        let node = |member| btf.offset("xa_node", member);
        let slots = btf.elements("xa_node", "slots")?;
        if slots != 64 && slots != 16 {
            return Err(LayoutError::DamagedBtf("a node of page trees has neither 64 nor 16 slots"));
        }
        // What was a page's is a folio's since 5.16; the members lie where they lay.
        let of_page = |member| btf.offset("folio", member).or_else(|_| btf.offset("page", member));
        let page = btf.size("page")?;
        if page == 0 {
            return Err(LayoutError::DamagedBtf("pages have no size"));
        }
        Ok(Self {
            head: btf.offset("address_space", "i_pages.xa_head")?,
            node_shift: node("shift")?,
            node_slots: node("slots")?,
            slot_bits: slots.trailing_zeros(),
            page,
            page_flags: btf.offset("page", "flags")?,
            page_owner: of_page("mapping")?,
            page_index: of_page("index")?,
            up_to_date: btf.enumerator("PG_uptodate")?.min(63),
        })
    }
}

/// What a slot of a file's tree holds.
enum Entry {
    /// Nothing, or what only tells of a page that was there once.
    Nothing,
    Node(GuestVirtual),
    /// The same as another slot of the node: a page that is larger than one slot.
    Sibling(u64),
    /// The structure of a page, or of the first of several.
    Page(GuestVirtual),
}

impl Entry {
    fn of(raw: u64, slots: u64) -> Self {
        match raw & 3 {
            2 if raw > LOWEST_NODE => Self::Node(GuestVirtual(raw - 2)),
            2 if raw >> 2 < slots => Self::Sibling(raw >> 2),
            0 if raw != 0 => Self::Page(GuestVirtual(raw)),
            _ => Self::Nothing,
        }
    }
}

impl Kernel {
    /// A file's bytes, as far as the guest has them in memory.
    pub fn file<'a>(&'a self, look: &'a Look<'a>, file: FileId) -> Result<MappedFile<'a>, GuestError> {
        let layout = self.layout(|layouts| &layouts.page_cache)?;
        Ok(MappedFile { kernel: self, look, layout, file })
    }
}

/// A file in the guest's page cache. Nothing of it is copied but what is read.
pub struct MappedFile<'a> {
    kernel: &'a Kernel,
    look: &'a Look<'a>,
    layout: &'a PageCacheLayout,
    file: FileId,
}

impl MappedFile<'_> {
    /// Whether a page, counted in 4 KiB from the file's start, is in memory.
    pub fn has_page(&self, index: u64) -> Result<bool, GuestError> {
        Ok(self.frame(index)?.is_some())
    }

    /// The frame, as the guest numbers it, of a page of the file.
    fn frame(&self, index: u64) -> Result<Option<u64>, GuestError> {
        let layout = self.layout;
        let space = self.kernel.space(self.look, "the pages of a file");
        let slots = 1_u64 << layout.slot_bits;
        let mut entry = Entry::of(space.u64(self.file.pages.plus(layout.head))?, slots);
        // The shift of the node above: each node's is smaller, so that there are few.
        let mut above = u64::BITS;
        while let Entry::Node(node) = entry {
            let shift = u32::from(space.u8(node.plus(layout.node_shift))?);
            if shift >= above || shift % layout.slot_bits != 0 {
                return Err(space.damaged("a tree is no tree"));
            }
            let slot = index >> shift;
            // At the top, what does not fit is past the last page that there is.
            if above == u64::BITS && slot >= slots {
                return Ok(None);
            }
            let read = |slot: u64| {
                let at = node.plus(layout.node_slots + 8 * (slot % slots));
                Ok::<_, GuestError>(Entry::of(space.u64(at)?, slots))
            };
            entry = match read(slot)? {
                Entry::Sibling(first) => read(first)?,
                other => other,
            };
            above = shift;
        }
        // A root without a node is the file's first page.
        let Entry::Page(page) = entry else { return Ok(None) };
        if above == u64::BITS && index > 0 {
            return Ok(None);
        }
        let way = page.minus(self.kernel.places.page_array.0).0;
        let first = space.u64(page.plus(layout.page_index))?;
        let owner = space.pointer(page.plus(layout.page_owner))?;
        // Meanwhile the page may have come to serve another file, or still be on its way from the disk.
        let up_to_date = space.u64(page.plus(layout.page_flags))? >> layout.up_to_date & 1 == 1;
        if way % layout.page != 0 || owner != self.file.pages || first > index || !up_to_date {
            return Ok(None);
        }
        Ok((way / layout.page).checked_add(index - first))
    }

    /// Where a frame is in the guest's memory.
    fn place(&self, frame: u64) -> Result<GuestPhysical, ReadError> {
        let way = frame.wrapping_mul(PAGE);
        match self.look.memory().frames() {
            Frames::Guest => Ok(GuestPhysical(way)),
            // The guest's numbers mean something to its page tables only, which have all memory mapped.
            Frames::Machine => {
                let address = self.kernel.places.direct_map.plus(way);
                Ok(self.look.translate(self.kernel.tables, address)?.address)
            }
        }
    }

    /// Fills `bytes`, which lie in one page, from a place in a frame.
    fn read_frame(&self, frame: u64, offset: u64, bytes: &mut [u8]) -> Result<(), GuestError> {
        let read = self.place(frame).and_then(|place| self.look.read_physical(place.plus(offset), bytes));
        read.map_err(|problem| GuestError::Read { what: "a page of a file", problem })
    }
}

impl FileBytes for MappedFile<'_> {
    fn size(&self) -> u64 {
        self.file.size
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= self.file.size);
        if end.is_none() {
            return Err(FileError::PastEnd(offset));
        }
        if offset % PAGE + bytes.len() as u64 > PAGE {
            self.announce(offset, bytes.len() as u64);
        }
        let mut offset = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = offset % PAGE;
            let length = rest.len().min((PAGE - within) as usize);
            let (now, later) = rest.split_at_mut(length);
            let frame = self.frame(offset / PAGE)?.ok_or(FileError::NotResident(offset & !(PAGE - 1)))?;
            self.read_frame(frame, within, now)?;
            offset += length as u64;
            rest = later;
        }
        Ok(())
    }

    fn announce(&self, offset: u64, length: u64) {
        let indices = offset / PAGE..offset.saturating_add(length).div_ceil(PAGE);
        let place = |index| self.place(self.frame(index).ok().flatten()?).ok();
        self.look.memory().announce(&indices.filter_map(place).collect::<Vec<_>>());
    }
}
