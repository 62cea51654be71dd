//! A machine's memory made by hand: frames with owners, and page tables in them.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use sampler::walk::{FRAME_WORDS, Frame, Memory, Owner};

pub(crate) const PRESENT: u64 = 1;
pub(crate) const USER: u64 = 4;
pub(crate) const LARGE: u64 = 1 << 7;
pub(crate) const GUEST_KERNEL: u64 = 1 << 52;

pub(crate) const GUEST: Owner = Owner(0xffff_8300_0000_3000);
pub(crate) const OTHER: Owner = Owner(0xffff_8300_0000_4000);

/// Frames by their numbers; all others are no memory.
#[derive(Default)]
pub(crate) struct Machine {
    frames: BTreeMap<u64, (Owner, Box<Frame>)>,
    /// How many frames were asked for.
    pub(crate) asked: Cell<usize>,
}

impl Machine {
    /// A new frame of zeros.
    pub(crate) fn add(&mut self, number: u64, owner: Owner) {
        self.frames.insert(number, (owner, Box::new([const { AtomicU64::new(0) }; FRAME_WORDS])));
    }

    /// The numbers of all frames, in order.
    #[allow(dead_code, reason = "fuzzing uses it")]
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.frames.keys().copied()
    }

    pub(crate) fn set(&self, frame: u64, place: usize, word: u64) {
        self.frames[&frame].1[place].store(word, Ordering::Relaxed);
    }

    pub(crate) fn give(&mut self, frame: u64, owner: Owner) {
        self.frames.get_mut(&frame).unwrap().0 = owner;
    }

    /// Whether these are the words of one of an owner's frames.
    pub(crate) fn is_of(&self, page: &Frame, owner: Owner) -> bool {
        self.frames.values().any(|(of, frame)| *of == owner && std::ptr::eq(&**frame, page))
    }

    /// Maps a page in tables that follow the root's frame; makes those that are missing.
    pub(crate) fn map(&mut self, root: u64, address: u64, frame: u64, flags: u64, owner: Owner) {
        let mut table = root;
        for shift in [39, 30, 21] {
            let place = (address >> shift) as usize % FRAME_WORDS;
            let entry = self.frames[&table].1[place].load(Ordering::Relaxed);
            table = if entry == 0 {
                let next = 0x1_0000 + self.frames.len() as u64;
                self.add(next, owner);
                self.set(table, place, next << 12 | PRESENT | USER);
                next
            } else {
                entry >> 12 & 0xff_ffff
            };
        }
        self.set(table, (address >> 12) as usize % FRAME_WORDS, frame << 12 | flags);
    }
}

impl Memory for Machine {
    fn frame(&self, number: u64) -> Option<&Frame> {
        self.asked.set(self.asked.get() + 1);
        self.frames.get(&number).map(|(_, frame)| &**frame)
    }

    fn own_frame(&self, number: u64, domain: Owner) -> Option<&Frame> {
        self.asked.set(self.asked.get() + 1);
        self.frames.get(&number).filter(|(owner, _)| *owner == domain).map(|(_, frame)| &**frame)
    }
}
