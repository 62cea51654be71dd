//! What the shim keeps for each CPU: one private page, which also lists the ring's pages.

use core::{
    cell::UnsafeCell,
    ptr, slice,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};

use abi::{
    PAGE_WORDS,
    control::{directory, directory::MAX_DATA_PAGES},
    ring::{ConsumerPage, Data, Producer, RingHeader, WATERMARK_ASLEEP},
};
use sampler::{Budget, Schedule, probe::Refusal};

use crate::{
    counters::Counters,
    hooks::config,
    interrupts::system_time,
    machine::time_stamp,
    pages::{Access, Page},
};

/// `NR_CPUS` of the largest Xen that anybody builds.
pub(crate) const MAX_CPUS: usize = 4096;

static CPUS: [AtomicPtr<Cpu>; MAX_CPUS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];

/// One CPU's state. Touched by that CPU alone, with interrupts off, between [`publish`] and [`retire`]. An NMI may come
/// all the same: it uses `producer`, `ring`, `counters` and the times only, which are made for that.
pub(crate) struct Cpu {
    timer: UnsafeCell<Timer>,
    pub(crate) counters: Counters,
    /// When sampling began, plus the nanoseconds that the CPU has idled since, up to when it last woke.
    away_ns: AtomicU64,
    /// Since when it idles; 0 while it does not.
    asleep_since: AtomicU64,
    pub(crate) producer: Producer,
    pub(crate) ring: Ring,
}

/// What the timer's handlers have for themselves.
pub(crate) struct Timer {
    pub(crate) schedule: Schedule,
    pub(crate) budget: Budget,
    /// A sample was taken, and the timer is not yet set for the next one.
    pub(crate) has_sampled: bool,
    /// Nothing has changed since the softirq last looked after everything.
    pub(crate) is_settled: bool,
    /// What setting the timer cost after the last sample.
    pub(crate) cost: u64,
}

const _: () = assert!(size_of::<Cpu>() <= abi::PAGE_SIZE);

impl Cpu {
    /// Allocates a CPU's state and ring. Whatever was taken before a failure is given back.
    pub(crate) fn allocate(number: u64) -> Result<*mut Self, Refusal> {
        let config = config();
        let page = Page::private()?;
        let this: *mut Self = page.cast();
        // Built in place: a copy would call memcpy, and Xen has one of its own by that name.
        // SAFETY: the page is ours, cleared, large and aligned enough; a ring of no pages is what zeros mean.
        unsafe {
            let seed = time_stamp() ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let timer = (*this).timer.get();
            (&raw mut (*timer).schedule).write(Schedule::new(config.period_ns, config.lease_ns, seed));
            (&raw mut (*timer).budget).write(Budget::new(
                config.overhead_millionths,
                time_stamp(),
                system_time(),
            ));
            (&raw mut (*this).producer).write(Producer::new(config.ring_pages as usize * PAGE_WORDS));
            if let Err(refusal) = (*this).ring.allocate(config.ring_pages as usize) {
                Self::free(this);
                return Err(refusal);
            }
            (*this).ring.describe(number);
        }
        Ok(this)
    }

    /// Sampling begins.
    pub(crate) fn starts(&self, now: u64) {
        self.away_ns.store(now, Ordering::Relaxed);
    }

    /// The CPU begins to idle.
    pub(crate) fn falls_asleep(&self, now: u64) {
        self.asleep_since.store(now, Ordering::Relaxed);
    }

    /// It has something to do again.
    pub(crate) fn wakes(&self, now: u64) {
        let since = self.asleep_since.swap(0, Ordering::Relaxed);
        if since != 0 {
            self.away_ns.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
        }
    }

    /// For how long it has been awake since sampling began.
    pub(crate) fn awake_ns(&self, now: u64) -> u64 {
        let now = match self.asleep_since.load(Ordering::Relaxed) {
            0 => now,
            since => since,
        };
        now.saturating_sub(self.away_ns.load(Ordering::Relaxed))
    }

    /// What the timer's handlers have for themselves.
    ///
    /// # Safety
    /// Interrupts are off on this, the state's CPU, and the last one is not used any more.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn timer(&self) -> &mut Timer {
        // SAFETY: the caller's promise; NMIs do not come here.
        unsafe { &mut *self.timer.get() }
    }

    pub(crate) fn directory_mfn(&self) -> u64 {
        self.ring.mfn_of(DIRECTORY)
    }

    /// Gives everything back.
    ///
    /// # Safety
    /// `this` came from [`Self::allocate`], and no CPU uses it any more.
    pub(crate) unsafe fn free(this: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe { (*this).ring.free() };
        Page::of(this).free_private();
    }
}

/// The places of the pages that are not data.
const DIRECTORY: usize = 0;
const HEADER: usize = 1;
const CONSUMER: usize = 2;
const DATA: usize = 3;

/// The ring's pages as the producer sees them: the directory, the header, the consumer's page, then the data.
pub(crate) struct Ring {
    count: usize,
    pages: [*mut u64; DATA + MAX_DATA_PAGES],
}

impl Ring {
    #[inline(always)]
    pub(crate) fn header(&self) -> &RingHeader {
        // SAFETY: the page lives as long as this ring; all its fields are atomics.
        unsafe { &*self.pages[HEADER].cast() }
    }

    #[inline(always)]
    pub(crate) fn consumer(&self) -> &ConsumerPage {
        // SAFETY: as above; dom0 writes it, hence atomics.
        unsafe { &*self.pages[CONSUMER].cast() }
    }

    fn allocate(&mut self, data_pages: usize) -> Result<(), Refusal> {
        for page in self.pages.iter_mut().take(DATA + data_pages) {
            let access = if self.count == CONSUMER { Access::Writable } else { Access::ReadOnly };
            *page = Page::shared(access)?.words();
            self.count += 1;
        }
        Ok(())
    }

    /// Fills in what dom0 reads.
    fn describe(&self, number: u64) {
        let words = self.pages[DIRECTORY];
        // SAFETY: the directory is ours, and the indexes are inside of it.
        unsafe {
            *words.add(directory::HEADER) = self.mfn_of(HEADER);
            *words.add(directory::CONSUMER) = self.mfn_of(CONSUMER);
            *words.add(directory::DATA_PAGES) = (self.count - DATA) as u64;
            for place in DATA..self.count {
                *words.add(directory::DATA + place - DATA) = self.mfn_of(place);
            }
        }
        let header = self.header();
        header.cpu.store(number, Ordering::Relaxed);
        header.size.store(((self.count - DATA) * PAGE_WORDS) as u64, Ordering::Relaxed);
        header.watermark.0.store(WATERMARK_ASLEEP, Ordering::Relaxed);
    }

    fn mfn_of(&self, place: usize) -> u64 {
        Page::of(self.pages[place]).mfn()
    }

    fn free(&self) {
        for &page in self.pages.iter().take(self.count) {
            Page::of(page).free_shared();
        }
    }
}

impl Data for Ring {
    #[inline(always)]
    fn run(&self, place: usize, most: usize) -> &[AtomicU64] {
        let in_page = place % PAGE_WORDS;
        // SAFETY: places are below the circle's size, which is the number of data pages, all of them listed; the run
        // ends with its page. dom0 reads the words at any time, hence atomics.
        unsafe {
            let page = *self.pages.get_unchecked(DATA + place / PAGE_WORDS);
            slice::from_raw_parts(page.add(in_page).cast(), most.min(PAGE_WORDS - in_page))
        }
    }
}

/// The state of a CPU, null where it is not sampled.
#[inline(always)]
pub(crate) fn cpu(number: u64) -> *mut Cpu {
    match CPUS.get(number as usize) {
        Some(cpu) => cpu.load(Ordering::Acquire),
        None => ptr::null_mut(),
    }
}

/// Lets a CPU find its state.
pub(crate) fn publish(number: u64, cpu: *mut Cpu) {
    CPUS[number as usize].store(cpu, Ordering::Release);
}

/// Takes a CPU's state away; null where it had none.
pub(crate) fn retire(number: u64) -> *mut Cpu {
    CPUS[number as usize].swap(ptr::null_mut(), Ordering::AcqRel)
}
