//! A domain's memory by foreign mappings: page by page as it is asked for, and only for as long as a look lasts.
//!
//! A mapping that outlived its domain would keep that from being destroyed. Only pages that are asked for are mapped: to
//! map one that a domain was promised and never used (populate on demand) would give it that page.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use abi::PAGE_SIZE;
use guest::{Frames, GuestMemory, GuestPhysical, Missing};
use profile::{AddressSpaceRoot, DomainKind};

use super::{
    domctl::VcpuQueries,
    hypercalls::Hypercalls,
    privcmd::{Access, Mapping},
};
use crate::Memories;

/// Pages that stay mapped at the most: 64 MiB.
const MOST_PAGES: usize = 16 << 10;

/// Whoever asks (xen/xen.h).
const DOMID_SELF: u16 = 0x7ff0;

/// How the domain that this runs in is virtualized: `PV` or `PVH`. Only the former may map its own pages by their frames.
const OWN_TYPE: &str = "/sys/hypervisor/guest_type";

fn is_pv() -> bool {
    fs::read_to_string(OWN_TYPE).is_ok_and(|kind| kind.trim() == "PV")
}

/// The memory of all domains of a running Xen.
pub(super) struct XenMemories(pub(super) Arc<Hypercalls>);

impl Memories for XenMemories {
    fn open(&self, domain: u32, kind: DomainKind) -> Option<Box<dyn GuestMemory>> {
        let frames = match kind {
            DomainKind::Pv => Frames::Machine,
            DomainKind::Pvh | DomainKind::Hvm => Frames::Guest,
            DomainKind::Dom0 if is_pv() => Frames::Machine,
            _ => return None,
        };
        // Nobody may map his own pages as somebody else's.
        let domain = if kind == DomainKind::Dom0 { DOMID_SELF } else { u16::try_from(domain).ok()? };
        Some(Box::new(ForeignMemory { xen: self.0.clone(), domain, frames, pages: RefCell::default() }))
    }

    /// Those of its first vCPU, which is paused for a moment.
    fn root(&self, domain: u32, kind: DomainKind) -> Option<AddressSpaceRoot> {
        // The vCPU that asks can't be asked about, and dom0 may have only that.
        if kind == DomainKind::Dom0 {
            return None;
        }
        let mut queries = VcpuQueries::new(self.0.clone()).ok()?;
        let root = queries.kernel_root(u16::try_from(domain).ok()?, 0).ok()?;
        (root != 0).then_some(AddressSpaceRoot(root))
    }
}

struct ForeignMemory {
    xen: Arc<Hypercalls>,
    domain: u16,
    frames: Frames,
    pages: RefCell<HashMap<u64, Option<Page>>>,
}

/// A mapped page: a piece of a mapping.
#[derive(Clone)]
struct Page {
    mapping: Rc<Mapping>,
    index: usize,
}

impl ForeignMemory {
    /// Maps what of some frames is not mapped yet: together if that works, else one by one.
    fn map(&self, frames: &[u64]) {
        let mut pages = self.pages.borrow_mut();
        if pages.len() > MOST_PAGES {
            pages.clear();
        }
        let mut unmapped: Vec<u64> =
            frames.iter().copied().filter(|frame| !pages.contains_key(frame)).collect();
        if unmapped.is_empty() {
            return;
        }
        unmapped.sort_unstable();
        unmapped.dedup();
        let map = |frames: &[u64]| self.xen.privcmd.map(self.domain, frames, Access::ReadOnly).map(Rc::new);
        match map(&unmapped) {
            Ok(mapping) => {
                for (index, &frame) in unmapped.iter().enumerate() {
                    pages.insert(frame, Some(Page { mapping: mapping.clone(), index }));
                }
            }
            Err(_) => {
                for &frame in &unmapped {
                    pages.insert(frame, map(&[frame]).ok().map(|mapping| Page { mapping, index: 0 }));
                }
            }
        }
    }
}

impl GuestMemory for ForeignMemory {
    fn read(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), Missing> {
        if bytes.is_empty() {
            return Ok(());
        }
        let missing = Missing(address);
        let last = address.0.checked_add(bytes.len() as u64 - 1).ok_or(missing)?;
        let frame_of = |address: u64| address / PAGE_SIZE as u64;
        // No single read is larger than what may be mapped.
        if frame_of(last) - frame_of(address.0) >= MOST_PAGES as u64 {
            return Err(missing);
        }
        self.map(&(frame_of(address.0)..=frame_of(last)).collect::<Vec<_>>());
        let pages = self.pages.borrow();
        let mut place = address.0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let page = pages.get(&frame_of(place)).and_then(Option::as_ref).ok_or(missing)?;
            let within = place as usize % PAGE_SIZE;
            let (piece, after) = rest.split_at_mut((PAGE_SIZE - within).min(rest.len()));
            page.copy(within, piece);
            place += piece.len() as u64;
            rest = after;
        }
        Ok(())
    }

    fn announce(&self, pages: &[GuestPhysical]) {
        let frames: Vec<u64> = pages.iter().map(|page| page.0 / PAGE_SIZE as u64).collect();
        // All at once: a mapping costs more than what it maps.
        self.map(&frames);
    }

    fn frames(&self) -> Frames {
        self.frames
    }
}

impl Page {
    fn copy(&self, at: usize, bytes: &mut [u8]) {
        let words = &self.mapping.words()[self.index * PAGE_SIZE / WORD..][..PAGE_SIZE / WORD];
        copy(words, at, bytes);
    }
}

const WORD: usize = size_of::<AtomicU64>();

/// Copies bytes out of a page, from one of its bytes on: word by word, since the domain writes when it likes.
fn copy(words: &[AtomicU64], at: usize, bytes: &mut [u8]) {
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed).to_le_bytes();
    let (mut first, mut rest) = (at / WORD, bytes);
    if !at.is_multiple_of(WORD) {
        let within = at % WORD;
        let (piece, after) = rest.split_at_mut((WORD - within).min(rest.len()));
        piece.copy_from_slice(&load(&words[first])[within..within + piece.len()]);
        (first, rest) = (first + 1, after);
    }
    let (whole, end) = rest.as_chunks_mut::<WORD>();
    for (piece, word) in whole.iter_mut().zip(&words[first..]) {
        *piece = load(word);
    }
    if !end.is_empty() {
        end.copy_from_slice(&load(&words[first + whole.len()])[..end.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_a_page_is_copied() {
        let bytes: Vec<u8> = (0..64).collect();
        let words: Vec<AtomicU64> =
            bytes.as_chunks().0.iter().map(|&word| AtomicU64::new(u64::from_le_bytes(word))).collect();
        for at in 0..bytes.len() {
            for length in 0..=bytes.len() - at {
                let mut copied = vec![0xff; length];
                copy(&words, at, &mut copied);
                assert_eq!(copied, bytes[at..at + length], "{length} from {at} on");
            }
        }
    }
}
