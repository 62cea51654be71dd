//! Pages of Xen's heap that dom0 may map: single ones, because aged hosts have no larger runs of free memory.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use abi::{PAGE_SIZE, config::OptionalSymbols};
use sampler::probe::{DIRECT_MAP, Refusal};

use crate::{
    hooks::config,
    xen::{address, call},
};

/// `frame_table` (asm-x86/config.h): an array of `struct page_info`, by the pages' indexes in the direct map.
pub(crate) const FRAME_TABLE: u64 = 0xffff_82e0_0000_0000;

/// Offsets in `struct page_info`, and its size (asm-x86/mm.h). Checked on every page that is taken.
pub(crate) mod page_info {
    pub(crate) const SIZE: u64 = 32;
    pub(crate) const COUNT_INFO: u64 = 8;
    /// The owner's index in the direct map, 32 bits. Checked before it is relied on (`memory`).
    pub(crate) const OWNER: u64 = 24;
    /// PGC_allocated: the owner's own reference.
    pub(crate) const ALLOCATED: u64 = 1 << 63;
    /// PGC_xen_heap, all that a new page of the heap has set.
    pub(super) const XEN_HEAP: u64 = 1 << 62;
}

/// Clears a page. The compiler would call memset, and Xen has one of its own by that name.
///
/// # Safety
/// The page is the caller's.
unsafe fn clear(address: u64) {
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention.
    unsafe {
        core::arch::asm!("rep stosq", inout("rcx") PAGE_SIZE / 8 => _, inout("rdi") address => _, in("rax") 0,
            options(nostack, preserves_flags));
    }
}

/// Who may do what with a page that is shared (`share_xen_page_with_guest`).
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// dom0 may write it.
    Writable = 0,
    /// dom0 may only read it.
    ReadOnly = 1,
}

/// A page of Xen's heap, cleared.
#[derive(Clone, Copy)]
pub(crate) struct Page(NonNull<u8>);

impl Page {
    /// Takes a page that stays private.
    pub(crate) fn private() -> Result<Self, Refusal> {
        // SAFETY: void *alloc_xenheap_pages(unsigned int order, unsigned int memflags), from a context that may
        // allocate: hooks run with interrupts on.
        let address = unsafe { call!(alloc_xenheap_pages, 0, 0) };
        let pointer = NonNull::new(address as *mut u8).ok_or(Refusal::NoMemory)?;
        let page = Self(pointer);
        // SAFETY: the page is ours alone.
        let count_info = unsafe {
            clear(address);
            if DIRECT_MAP.contains(&address) { (*page.count_info()).load(Ordering::Relaxed) } else { 0 }
        };
        if count_info != page_info::XEN_HEAP {
            // Not taken for granted: then nothing is known about this page but that it was ours to return.
            // SAFETY: void free_xenheap_pages(void *, unsigned int order), of what was just allocated.
            unsafe { call!(free_xenheap_pages, address, 0) };
            return Err(Refusal::PageInfo);
        }
        Ok(page)
    }

    /// Takes a page that dom0 may map.
    pub(crate) fn shared(access: Access) -> Result<Self, Refusal> {
        let page = Self::private()?;
        // SAFETY: void share_xen_page_with_guest(struct page_info *, struct domain *, enum { SHARE_rw, SHARE_ro }):
        // the page is Xen's and new, dom_xen is the domain that owns such pages.
        unsafe {
            let dom_xen = *(address!(dom_xen) as *const u64);
            call!(share_xen_page_with_guest, page.info(), dom_xen, access);
        }
        Ok(page)
    }

    /// The page that begins at a pointer which [`Self::cast`] or [`Self::words`] gave out.
    pub(crate) fn of<T>(pointer: *mut T) -> Self {
        // SAFETY: such a pointer is not null.
        Self(unsafe { NonNull::new_unchecked(pointer.cast()) })
    }

    /// Its words.
    pub(crate) fn words(self) -> *mut u64 {
        self.0.as_ptr().cast()
    }

    /// What it holds, from its first byte.
    pub(crate) fn cast<T>(self) -> *mut T {
        const { assert!(size_of::<T>() <= PAGE_SIZE) };
        self.0.as_ptr().cast()
    }

    /// Its machine frame number, by which dom0 maps it.
    pub(crate) fn mfn(self) -> u64 {
        let index = self.index();
        let OptionalSymbols {
            pfn_pdx_hole_shift: shift, pfn_pdx_bottom_mask: bottom, pfn_top_mask: top, ..
        } = config().optional;
        if shift == 0 || bottom == 0 || top == 0 {
            return index;
        }
        // SAFETY: the loader resolved these variables of Xen: unsigned int, unsigned long, unsigned long.
        let (shift, bottom, top) =
            unsafe { (*(shift as *const u32), *(bottom as *const u64), *(top as *const u64)) };
        index & bottom | index << shift & top
    }

    fn index(self) -> u64 {
        (self.0.as_ptr() as u64 - DIRECT_MAP.start) / PAGE_SIZE as u64
    }

    fn info(self) -> u64 {
        FRAME_TABLE + self.index() * page_info::SIZE
    }

    fn count_info(self) -> *const AtomicU64 {
        (self.info() + page_info::COUNT_INFO) as *const AtomicU64
    }

    /// Gives a private page back.
    pub(crate) fn free_private(self) {
        // SAFETY: allocated by alloc_xenheap_pages with order 0, and not used any more.
        unsafe { call!(free_xenheap_pages, self.0.as_ptr(), 0) };
    }

    /// Gives a shared page back. A page that somebody still maps is left to him for good: it must not be used for
    /// something else under his eyes.
    pub(crate) fn free_shared(self) {
        // SAFETY: the page was shared by `shared` and its owner's reference not dropped yet: what Xen's own
        // put_page_alloc_ref does. count_info is only changed by atomic operations.
        let count_info = unsafe {
            (*self.count_info()).fetch_and(!page_info::ALLOCATED, Ordering::AcqRel);
            call!(put_page, self.info());
            (*self.count_info()).load(Ordering::Acquire)
        };
        if count_info & !page_info::XEN_HEAP == 0 {
            self.free_private();
        }
    }
}
