//! All of the machine's memory, through Xen's map of it, for the core's page walks.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::{
    PAGE_SIZE,
    config::{CALL_GRAPH_FRAMES, CALL_GRAPH_OFF, OptionalSymbols},
    control::{CALL_GRAPH_NO_MEMORY, CALL_GRAPH_SERVES, CALL_GRAPH_UNWANTED},
};
use sampler::{
    Machine,
    capture::{MOST_STACK_WORDS, Wanted},
    probe::DIRECT_MAP,
    walk::{Frame, Memory, Owner, translate},
};

use crate::{
    hooks::config,
    machine::ThisCpu,
    pages::{FRAME_TABLE, Page, page_info},
    xen::{address, call},
};

/// Where the part of the map ends that paravirtualized guests' page tables have too (`HYPERVISOR_VIRT_END`): what lies
/// above is not read.
const EVERYWHERE_MAPPED: u64 = 0xffff_8800_0000_0000;

/// What is captured: how many words of each stack, or one of these.
static WANTED: AtomicU64 = AtomicU64::new(NOTHING);
const NOTHING: u64 = u64::MAX;
const FRAMES: u64 = u64::MAX - 1;

/// What is captured with each sample, if anything.
#[inline(always)]
pub(crate) fn wanted() -> Option<Wanted> {
    match WANTED.load(Ordering::Relaxed) {
        NOTHING => None,
        FRAMES => Some(Wanted::Frames),
        words => Some(Wanted::Stacks(words as usize)),
    }
}

/// Begins to capture what the settings want, if guests' memory can be told from other memory. A shared page is at hand
/// to try it on. Returns the outcome, as the control page tells it.
pub(crate) fn begin(shared: Page) -> u64 {
    let config = config();
    if config.call_graph == CALL_GRAPH_OFF {
        return CALL_GRAPH_UNWANTED;
    }
    if !proves_itself(shared) {
        return CALL_GRAPH_NO_MEMORY;
    }
    let wanted = match config.call_graph {
        CALL_GRAPH_FRAMES => FRAMES,
        _ => config.stack_words.min(MOST_STACK_WORDS as u64),
    };
    WANTED.store(wanted, Ordering::Relaxed);
    CALL_GRAPH_SERVES
}

/// Xen's own page tables, walked by numbers of frames as a guest's will be, must lead to the page, and the page's owner be
/// whom it was shared with.
fn proves_itself(page: Page) -> bool {
    // SAFETY: struct domain *dom_xen, constant after boot.
    let dom_xen = Owner(unsafe { *(address!(dom_xen) as *const u64) });
    let at = page.words() as u64;
    config().optional.mfn_valid != 0
        && DIRECT_MAP.contains(&dom_xen.0)
        && translate(&AllMemory, ThisCpu.cr3() & 0x000f_ffff_ffff_f000, at & 0x0000_ffff_ffff_ffff)
            .is_some_and(|machine| machine / PAGE_SIZE as u64 == page.mfn())
        && AllMemory
            .own_frame(page.mfn(), dom_xen)
            .is_some_and(|frame| core::ptr::from_ref(frame) as u64 == at)
}

/// A frame's index in Xen's map.
#[inline(always)]
fn index(frame: u64) -> u64 {
    let OptionalSymbols { pfn_pdx_hole_shift: shift, pfn_pdx_bottom_mask: bottom, pfn_top_mask: top, .. } =
        config().optional;
    if shift == 0 || bottom == 0 || top == 0 {
        return frame;
    }
    // SAFETY: the loader resolved these variables of Xen: unsigned int, unsigned long, unsigned long.
    let (shift, bottom, top) =
        unsafe { (*(shift as *const u32), *(bottom as *const u64), *(top as *const u64)) };
    frame & bottom | (frame & top) >> (shift & 63)
}

/// A frame's index, if it is memory that is mapped under all page tables.
#[inline(always)]
fn mapped(frame: u64) -> Option<u64> {
    // SAFETY: bool __mfn_valid(unsigned long mfn), from any context: it reads constant variables and a bitmap.
    let valid = unsafe { call!(__mfn_valid, frame) } & 0xff != 0;
    let index = index(frame);
    (valid && index < (EVERYWHERE_MAPPED - DIRECT_MAP.start) / PAGE_SIZE as u64).then_some(index)
}

/// Where a machine address is mapped.
pub(crate) fn direct_map(machine: u64) -> Option<u64> {
    let page = PAGE_SIZE as u64;
    Some(DIRECT_MAP.start + mapped(machine / page)? * page + machine % page)
}

/// The machine's memory.
pub(crate) struct AllMemory;

impl Memory for AllMemory {
    #[inline(always)]
    fn frame(&self, number: u64) -> Option<&Frame> {
        let address = DIRECT_MAP.start + mapped(number)? * PAGE_SIZE as u64;
        // SAFETY: Xen maps all memory there, for as long as it runs; others write it at any time, hence atomics.
        Some(unsafe { &*(address as *const Frame) })
    }

    #[inline(always)]
    fn own_frame(&self, number: u64, domain: Owner) -> Option<&Frame> {
        let index = mapped(number)?;
        let info = FRAME_TABLE + index * page_info::SIZE;
        // SAFETY: there is a page_info for every frame of memory.
        let (owner, count_info) = unsafe {
            let owner = (info + page_info::OWNER) as *const u32;
            (
                owner.read_volatile(),
                (*((info + page_info::COUNT_INFO) as *const AtomicU64)).load(Ordering::Relaxed),
            )
        };
        let is_owned = domain
            .0
            .checked_sub(DIRECT_MAP.start)
            .is_some_and(|at| at / PAGE_SIZE as u64 == u64::from(owner));
        if !is_owned || count_info & page_info::ALLOCATED == 0 {
            return None;
        }
        // SAFETY: as in `frame`.
        Some(unsafe { &*((DIRECT_MAP.start + index * PAGE_SIZE as u64) as *const Frame) })
    }

    #[inline(always)]
    fn copy(&self, to: &[AtomicU64], from: &[AtomicU64]) {
        // SAFETY: both are as long as that, and do not overlap: one is the ring's, the other a guest's. Whatever a guest
        // writes meanwhile is copied, or is not.
        unsafe {
            core::arch::asm!("rep movsq", inout("rcx") to.len().min(from.len()) => _,
                inout("rdi") to.as_ptr() => _, inout("rsi") from.as_ptr() => _, options(nostack, preserves_flags));
        }
    }
}
