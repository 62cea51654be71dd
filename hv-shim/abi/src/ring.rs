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
    /// The words from this place of the circle on that lie in a row: at least one, no more than `most`, and none beyond
    /// the circle's end. Is not asked for a place at or above the circle's size.
    fn run(&self, place: usize, most: usize) -> &[AtomicU64];
}

impl Data for [AtomicU64] {
    #[inline]
    fn run(&self, place: usize, most: usize) -> &[AtomicU64] {
        &self[place..self.len().min(place + most)]
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

/// Counts so many more; only this context writes the count. Returns how many there were.
#[inline]
fn count(count: &AtomicU64, more: u64) -> u64 {
    let before = count.load(Ordering::Relaxed);
    count.store(before + more, Ordering::Relaxed);
    before
}

impl Producer {
    /// A producer of a new ring of `size` words, which must be a power of two.
    pub const fn new(size: usize) -> Self {
        Self { mask: (size - 1) as u64, busy: Private::new(0), head: Private::new(0) }
    }

    /// Begins so many samples of one moment, each of which gets a sequence number.
    ///
    /// A sampling interrupt that arrives while another is at work on this CPU gets `None`, and its samples are counted.
    #[inline]
    pub fn begin<'a>(
        &'a self,
        samples: u64,
        header: &'a RingHeader,
        consumer: &ConsumerPage,
    ) -> Option<Taking<'a>> {
        let nested = &header.counts.0.lost[Loss::Nested as usize];
        if self.busy.load(Ordering::Relaxed) != 0 {
            count(nested, samples);
            return None;
        }
        self.busy.store(1, Ordering::Relaxed);
        // An NMI after this line finds `busy` set, one before it has ended its samples: the counts below are ours.
        compiler_fence(Ordering::SeqCst);
        let sequence = count(&header.counts.0.begun, samples) + nested.load(Ordering::Relaxed);
        // Acquire: what the consumer read before it stored this tail, it has read before we write over it.
        let tail = consumer.tail.load(Ordering::Acquire);
        let head = self.head.load(Ordering::Relaxed);
        // None where the tail can't be.
        let left = (self.mask + 1).checked_sub(head.wrapping_sub(tail));
        let cause = if left.is_some() { Loss::Full } else { Loss::Damaged };
        Some(Taking { producer: self, header, head, left: left.unwrap_or(0), cause, sequence, written: 0 })
    }
}

/// Samples that are being taken. Each that was begun has its number from [`Self::sequence`] and ends with exactly one of
/// [`Self::write`], [`Self::close`], [`Self::filter`] and [`Self::lose`]; [`Self::end`] ends them all.
#[must_use]
pub struct Taking<'a> {
    producer: &'a Producer,
    header: &'a RingHeader,
    head: u64,
    /// The words that there is room for, and why there are no more.
    left: u64,
    cause: Loss,
    sequence: u64,
    written: u64,
}

impl Taking<'_> {
    /// The next sample's number.
    #[inline]
    pub fn sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence - 1
    }

    /// Writes a sample's record, or counts it as lost where it does not fit.
    #[inline]
    pub fn write<const WORDS: usize, D: Data + ?Sized>(&mut self, words: &[u64; WORDS], data: &D) {
        if self.left < WORDS as u64 {
            return self.lose(self.cause);
        }
        let place = (self.head & self.producer.mask) as usize;
        match data.run(place, WORDS).get(..WORDS) {
            // As a rule: stores whose number the compiler knows.
            Some(run) => copy(run, words),
            None => self.write_in_runs(words, data),
        }
        self.wrote(WORDS);
    }

    /// Writes words that do not lie in a row: at the circle's end, and where pages lie apart.
    #[cold]
    #[inline(never)]
    fn write_in_runs<D: Data + ?Sized>(&self, words: &[u64], data: &D) {
        let (mut position, mut rest) = (self.head, words);
        while !rest.is_empty() {
            let place = position & self.producer.mask;
            let run = data.run(place as usize, rest.len());
            copy(run, rest);
            position += run.len() as u64;
            rest = rest.get(run.len()..).unwrap_or(&[]);
        }
    }

    /// Room for a record of at most so many words; none where the ring has less, and then the sample is still to be ended.
    #[inline]
    pub fn open<'a, D: Data + ?Sized>(&self, most: usize, data: &'a D) -> Option<Room<'a, D>> {
        let room = Room { data, mask: self.producer.mask, head: self.head, length: 0, most };
        (self.left >= most as u64).then_some(room)
    }

    /// Ends a sample whose record stands in its room, but for its length.
    #[inline]
    pub fn close<D: Data + ?Sized>(&mut self, room: Room<'_, D>) {
        room.set(0, record::with_length(room.get(0), room.length));
        self.wrote(room.length);
    }

    #[inline(always)]
    fn wrote(&mut self, words: usize) {
        self.head += words as u64;
        self.left -= words as u64;
        self.written += 1;
    }

    /// Ends a sample that is not wanted.
    #[inline]
    pub fn filter(&mut self) {
        count(&self.header.counts.0.filtered, 1);
    }

    /// Ends a sample that can't be written.
    #[cold]
    pub fn lose(&mut self, cause: Loss) {
        count(&self.header.counts.0.lost[cause as usize], 1);
    }

    /// Shows the consumer what was written.
    #[inline]
    pub fn end(self) {
        self.producer.head.store(self.head, Ordering::Relaxed);
        count(&self.header.counts.0.written, self.written);
        // Release: pairs with the consumer's Acquire, which then sees the words and the counts.
        self.header.head.0.store(self.head, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
        self.producer.busy.store(0, Ordering::Relaxed);
    }
}

/// Room for one record, which is written piece by piece and seen by nobody before [`Taking::end`].
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
            let run = self.data.run(place as usize, rest.len());
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
                let run = data.run(place as usize, length - read);
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
