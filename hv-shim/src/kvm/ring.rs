//! The buffer that the kernel writes an event's records to (`struct perf_event_mmap_page`, perf_event_open(2)).
//!
//! Rules of this shared memory: no reference into it is ever made. The kernel writes between head and tail only, so
//! what lies between tail and head is stable and is copied out in one piece before it is parsed.

use std::{
    io,
    os::fd::AsRawFd,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use perf_event_open_sys::bindings::perf_event_mmap_page;

use super::perf::PerfEvent;

/// One event's records.
pub(super) struct Ring {
    /// The control page, and behind it the data.
    base: *mut libc::c_void,
    page: usize,
    /// Bytes of data: a power of two.
    size: usize,
}

// SAFETY: the mapping is process-wide memory that this struct alone refers to.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps `bytes` of data, rounded up to a power of two of pages.
    pub(super) fn map(event: &PerfEvent, bytes: usize) -> io::Result<Self> {
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let size = bytes.max(page).next_power_of_two();
        // SAFETY: a new mapping, where the kernel likes it.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                page + size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.file().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { base, page, size }) }
    }

    /// Appends all whole records to `out` and makes their room free.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        let control: *mut perf_event_mmap_page = self.base.cast();
        // SAFETY: the control page is mapped as long as self, and the two positions are aligned words of it that the
        // kernel accesses as a whole.
        let (head, tail) = unsafe {
            (
                AtomicU64::from_ptr(&raw mut (*control).data_head),
                AtomicU64::from_ptr(&raw mut (*control).data_tail),
            )
        };
        // Acquire: pairs with the kernel's barrier between writing records and moving the head.
        let end = head.load(Ordering::Acquire);
        let start = tail.load(Ordering::Relaxed);
        // The kernel is trusted; the bound keeps a mistake here from becoming a read outside of the mapping.
        let length = (end.wrapping_sub(start) as usize).min(self.size);
        let at = start as usize & (self.size - 1);
        let first = length.min(self.size - at);
        out.reserve(length);
        // SAFETY: both pieces lie within the data area, the second at its beginning; `out` has room for both.
        unsafe {
            let data: *const u8 = self.base.cast::<u8>().add(self.page);
            let to = out.as_mut_ptr().add(out.len());
            ptr::copy_nonoverlapping(data.add(at), to, first);
            ptr::copy_nonoverlapping(data, to.add(first), length - first);
            out.set_len(out.len() + length);
        }
        // Release: the copy is done before the kernel may write there again.
        tail.store(end, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing refers to it any more.
        unsafe { libc::munmap(self.base, self.page + self.size) };
    }
}
