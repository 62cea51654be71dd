//! One CPU's ring: where its words stand, and the two halves of the protocol.
//!
//! The data pages are one circle of words. Positions count words from the beginning of time and are never reduced;
//! a word's place is its position modulo the circle's size. The producer owns `[head, tail + size)`, the consumer
//! `[tail, head)`:
//!
//! * the producer writes a record's words, then stores `head` with `Release`; the consumer loads `head` with
//!   `Acquire` before it reads them;
//! * the consumer reads a record's words, then stores `tail` with `Release`; the producer loads `tail` with
//!   `Acquire` before it writes over them.
//!
//! A record is never torn by the circle's end: positions are words, and records are whole words. When a record does
//! not fit, it is the *newest* that is dropped and counted, so that what is in the ring stays in order.

use core::sync::atomic::compiler_fence;

use crate::{AtomicU64, Ordering, record};

/// Why the producer did not write a sample. The discriminants are the indexes of [`RingHeader::lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Loss {
    /// The ring was full.
    Full = 0,
    /// The sampling interrupt came while this CPU was writing a sample.
    Nested = 1,
    /// The consumer's position lies outside of what it may be.
    Damaged = 2,
    /// A counter overflowed and its interrupt was masked, swallowed by somebody else, or came while the counters were
    /// being looked after.
    Masked = 3,
}

/// How many loss counters a header has room for.
pub const LOSS_CAUSES: usize = 8;

/// A watermark of a CPU that takes no samples now: idle, or quiet. Whoever merges may take it for the latest
/// watermark of any other CPU that was read before this one.
pub const WATERMARK_ASLEEP: u64 = u64::MAX;

/// Pads what one side writes often to a line that the other side's words do not share (two lines: the neighbour is
/// fetched along).
#[repr(C, align(128))]
#[derive(Default)]
pub struct Line<T>(pub T);

/// What the producer tells; read-only to dom0.
#[repr(C)]
#[derive(Default)]
pub struct RingHeader {
    /// The CPU whose ring this is.
    pub cpu: AtomicU64,
    /// Words in the circle.
    pub size: AtomicU64,
    /// The position behind the last whole record.
    pub head: Line<AtomicU64>,
    /// No later record of this CPU has an earlier time than this, or [`WATERMARK_ASLEEP`].
    pub watermark: Line<AtomicU64>,
    /// The counts: written before `head`, so that whoever has read `head` sees no less than belongs to it.
    pub counts: Line<Counts>,
}

/// What became of every sample: `taken = written + filtered + lost`. One writer each: the producer.
#[repr(C)]
#[derive(Default)]
pub struct Counts {
    /// Samples that were begun; see [`Self::taken`].
    pub begun: AtomicU64,
    /// Samples that are in the ring or were.
    pub written: AtomicU64,
    /// Samples left out on purpose.
    pub filtered: AtomicU64,
    /// Nanoseconds in which no sample was due because the lease had run out.
    pub quiet_ns: AtomicU64,
    /// Nanoseconds in which counters were silent, because somebody else had masked or stopped them.
    pub masked_ns: AtomicU64,
    /// NMIs that were not ours, and were passed on.
    pub foreign: AtomicU64,
    /// NMIs of ours that found nothing more to do: their counters had been looked at before.
    pub late: AtomicU64,
    /// Nanoseconds that the CPU was awake while sampling.
    pub awake_ns: AtomicU64,
    /// Nanoseconds that samples have cost.
    pub own_ns: AtomicU64,
    /// How far samples had to be apart for what they cost, in nanoseconds; 0 while that is not known or not bounded.
    pub shortest_ns: AtomicU64,
    /// Since when no sample is due because the lease has run out; 0 while it holds.
    pub quiet_since: AtomicU64,
    /// Samples lost, by [`Loss`].
    pub lost: [AtomicU64; LOSS_CAUSES],
}

impl Counts {
    /// Samples that were due and attempted: those begun and those that found one being written. Each has a sequence
    /// number, whatever became of it.
    pub fn taken(&self) -> u64 {
        self.begun.load(Ordering::Relaxed) + self.lost[Loss::Nested as usize].load(Ordering::Relaxed)
    }
}

/// What the consumer tells: the one page of a ring that dom0 may write.
#[repr(C)]
#[derive(Default)]
pub struct ConsumerPage {
    /// The position up to which all has been read.
    pub tail: AtomicU64,
}

/// The words of a ring's data, wherever they lie.
pub trait Data {
    /// The words from this place of the circle on that lie in a row: at least one, and no more than `most`. Is not
    /// asked for a place at or above the circle's size, nor for words beyond its end.
    fn run(&self, place: usize, most: usize) -> &[AtomicU64];
}

impl Data for [AtomicU64] {
    #[inline]
    fn run(&self, place: usize, most: usize) -> &[AtomicU64] {
        &self[place..place + most]
    }
}

/// The producer's half. It keeps its own size and position; the counts it keeps in the header, which dom0 can't write.
///
/// It is entered again by an NMI that interrupts it, on the same CPU: hence shared references and relaxed atomics
/// (plain loads and stores), and counts that only one of the two contexts writes.
pub struct Producer {
    /// Words in the circle, less one: sizes are powers of two.
    mask: u64,
    busy: Private,
    head: Private,
}

/// A word of the producer's own. Never loom's: no other thread sees it.
type Private = core::sync::atomic::AtomicU64;

#[inline(always)]
fn copy(to: &[AtomicU64], from: &[u64]) {
    for (to, &word) in to.iter().zip(from) {
        to.store(word, Ordering::Relaxed);
    }
}

/// Counts one more; only this context writes the count. Returns how many there were.
#[inline]
fn count_one(count: &AtomicU64) -> u64 {
    let before = count.load(Ordering::Relaxed);
    count.store(before + 1, Ordering::Relaxed);
    before
}

impl Producer {
    /// A producer of a new ring of `size` words, which must be a power of two.
    pub const fn new(size: usize) -> Self {
        Self { mask: (size - 1) as u64, busy: Private::new(0), head: Private::new(0) }
    }

    /// Takes the next sequence number. Every sample begins here, and ends with exactly one of [`Self::write`],
    /// [`Self::filter`] and [`Self::lose`].
    ///
    /// A sampling interrupt that arrives while one is at work on this CPU gets `None` and is counted.
    #[inline]
    pub fn begin(&self, header: &RingHeader) -> Option<u64> {
        let nested = &header.counts.0.lost[Loss::Nested as usize];
        if self.busy.load(Ordering::Relaxed) != 0 {
            count_one(nested);
            return None;
        }
        self.busy.store(1, Ordering::Relaxed);
        // An NMI after this line finds `busy` set, one before it has ended its sample: the counts below are ours.
        compiler_fence(Ordering::SeqCst);
        let sequence = count_one(&header.counts.0.begun) + nested.load(Ordering::Relaxed);
        Some(sequence)
    }

    /// Writes one record, or counts it as lost where it does not fit.
    #[inline]
    pub fn write<D: Data + ?Sized>(
        &self,
        words: &[u64],
        data: &D,
        header: &RingHeader,
        consumer: &ConsumerPage,
    ) {
        // Acquire: what the consumer read before it stored this tail, it has read before we write over it.
        let tail = consumer.tail.load(Ordering::Acquire);
        let head = self.head.load(Ordering::Relaxed);
        let used = head.wrapping_sub(tail);
        if used > self.mask + 1 {
            return self.lose(Loss::Damaged, header);
        }
        if used + words.len() as u64 > self.mask + 1 {
            return self.lose(Loss::Full, header);
        }
        let place = head & self.mask;
        let run = data.run(place as usize, words.len().min((self.mask + 1 - place) as usize));
        match run.get(..words.len()) {
            // As a rule: a copy whose length the compiler knows.
            Some(run) => copy(run, words),
            None => self.copy_in_runs(words, data, head),
        }
        let head = head + words.len() as u64;
        self.head.store(head, Ordering::Relaxed);
        count_one(&header.counts.0.written);
        // Release: pairs with the consumer's Acquire, which then sees the words and the counts.
        header.head.0.store(head, Ordering::Release);
        self.end();
    }

    /// Writes words that do not lie in a row: at the circle's end, and where pages lie apart.
    #[cold]
    fn copy_in_runs<D: Data + ?Sized>(&self, words: &[u64], data: &D, head: u64) {
        let (mut position, mut rest) = (head, words);
        while !rest.is_empty() {
            let place = position & self.mask;
            let run = data.run(place as usize, rest.len().min((self.mask + 1 - place) as usize));
            copy(run, rest);
            position += run.len() as u64;
            rest = rest.get(run.len()..).unwrap_or(&[]);
        }
    }

    /// Room for a record of at most so many words, for a sample that was begun; none where the ring has less. The sample
    /// is then still to be ended, as is one with room: by [`Self::close`].
    #[inline]
    pub fn open<'a, D: Data + ?Sized>(
        &self,
        most: usize,
        data: &'a D,
        consumer: &ConsumerPage,
    ) -> Option<Room<'a, D>> {
        // Acquire: as in `write`.
        let tail = consumer.tail.load(Ordering::Acquire);
        let head = self.head.load(Ordering::Relaxed);
        let used = head.wrapping_sub(tail);
        let size = self.mask + 1;
        if used > size || used + most as u64 > size {
            return None;
        }
        Some(Room { data, mask: self.mask, head, length: 0, most })
    }

    /// Ends a sample whose record stands in its room, but for its length.
    #[inline]
    pub fn close<D: Data + ?Sized>(&self, room: Room<'_, D>, header: &RingHeader) {
        room.set(0, record::with_length(room.get(0), room.length));
        let head = room.head + room.length as u64;
        self.head.store(head, Ordering::Relaxed);
        count_one(&header.counts.0.written);
        // Release: as in `write`.
        header.head.0.store(head, Ordering::Release);
        self.end();
    }

    /// Ends a sample that was begun and is not wanted.
    #[inline]
    pub fn filter(&self, header: &RingHeader) {
        count_one(&header.counts.0.filtered);
        self.end();
    }

    /// Ends a sample that was begun and can't be written.
    #[cold]
    pub fn lose(&self, cause: Loss, header: &RingHeader) {
        count_one(&header.counts.0.lost[cause as usize]);
        self.end();
    }

    #[inline]
    fn end(&self) {
        compiler_fence(Ordering::SeqCst);
        self.busy.store(0, Ordering::Relaxed);
    }
}

/// Room for one record, which is written piece by piece and seen by nobody before [`Producer::close`].
pub struct Room<'a, D: ?Sized> {
    data: &'a D,
    mask: u64,
    head: u64,
    length: usize,
    most: usize,
}

impl<D: Data + ?Sized> Room<'_, D> {
    /// How many words have been written.
    #[inline]
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many more there is room for.
    #[inline]
    pub fn left(&self) -> usize {
        self.most - self.length
    }

    /// Writes a word. Words beyond the room are dropped.
    #[inline]
    pub fn push(&mut self, word: u64) {
        if self.left() > 0 {
            self.length += 1;
            self.set(self.length - 1, word);
        }
    }

    /// Writes words from memory that others may change meanwhile, by a function that copies as many as both have.
    #[inline]
    pub fn copy<W>(&mut self, words: &[W], copy: impl Fn(&[AtomicU64], &[W])) {
        let mut rest = words.get(..words.len().min(self.left())).unwrap_or(&[]);
        while !rest.is_empty() {
            let place = (self.head + self.length as u64) & self.mask;
            let run = self.data.run(place as usize, rest.len().min((self.mask + 1 - place) as usize));
            let (now, later) = rest.split_at(run.len().min(rest.len()));
            copy(run, now);
            self.length += now.len();
            rest = later;
        }
    }

    /// Writes over a word that was written before.
    #[inline]
    pub fn set(&self, place: usize, word: u64) {
        self.word(place).store(word, Ordering::Relaxed);
    }

    /// Gives up what was written from this word on.
    #[inline]
    pub fn shorten(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    fn get(&self, place: usize) -> u64 {
        self.word(place).load(Ordering::Relaxed)
    }

    fn word(&self, place: usize) -> &AtomicU64 {
        &self.data.run(((self.head + place as u64) & self.mask) as usize, 1)[0]
    }
}

/// The consumer's half.
pub struct Consumer {
    size: u64,
    tail: u64,
}

/// What the producer's side shows can't be: the consumer stops reading this ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The position at which reading stopped.
    pub at: u64,
}

impl Consumer {
    /// A consumer of a new ring of `size` words, which must be a power of two.
    pub const fn new(size: usize) -> Self {
        Self { size: size as u64, tail: 0 }
    }

    /// Hands every record that is complete to `each`, oldest first, straight from the ring through a buffer of its
    /// words, then gives the room back. Returns how many there were.
    pub fn drain<D: Data + ?Sized>(
        &mut self,
        data: &D,
        header: &RingHeader,
        consumer: &ConsumerPage,
        mut each: impl FnMut(&[u64]),
    ) -> Result<usize, Damaged> {
        // Acquire: pairs with the producer's Release, so that all words below `head` are there.
        let head = header.head.0.load(Ordering::Acquire);
        if head.wrapping_sub(self.tail) > self.size {
            return Err(Damaged { at: self.tail });
        }
        let mut words = [0; record::MAX_WORDS];
        let mut records = 0;
        while self.tail != head {
            let place = (self.tail & (self.size - 1)) as usize;
            let first = data.run(place, 1)[0].load(Ordering::Relaxed);
            let length = record::length_in_words(first);
            if length == 0 || length > record::MAX_WORDS || length as u64 > head - self.tail {
                return Err(Damaged { at: self.tail });
            }
            // The first word is not read again: it could say something else by now.
            words[0] = first;
            let mut read = 1;
            while read < length {
                let place = (self.tail + read as u64) & (self.size - 1);
                let run = data.run(place as usize, (length - read).min((self.size - place) as usize));
                for (word, from) in words[read..length].iter_mut().zip(run) {
                    *word = from.load(Ordering::Relaxed);
                }
                read += run.len();
            }
            each(&words[..length]);
            self.tail += length as u64;
            records += 1;
        }
        // Release: pairs with the producer's Acquire; our reads are over before it writes there again.
        consumer.tail.store(self.tail, Ordering::Release);
        Ok(records)
    }
}
