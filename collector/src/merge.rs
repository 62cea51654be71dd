//! Puts the samples of all CPUs into the order of their times.
//!
//! Each CPU's stream is in order; its watermark says before which time nothing more will come. What is older than the
//! smallest watermark is complete and can go. A sleeping CPU promises nothing by itself, but it can't be earlier than
//! what another CPU had shown before it was looked at.

use std::collections::VecDeque;

use hv_shim::Watermark;
use profile::Time;

/// A CPU that shows an older watermark than this, compared with the latest of all, is not waited for: it was taken
/// offline, and everybody else's samples would pile up behind it.
const LONGEST_WAIT_NS: u64 = 2_000_000_000;

/// Merges streams of anything that has a time.
pub(crate) struct Merger<T> {
    streams: Vec<Stream<T>>,
    /// The latest watermark of all streams so far.
    latest: Time,
    /// Reused for what is ready.
    ready: Vec<T>,
}

struct Stream<T> {
    waiting: VecDeque<T>,
    /// Nothing earlier will come.
    bound: Time,
}

/// What can be merged.
pub(crate) trait Timed {
    fn time(&self) -> Time;
}

impl<T: Timed> Merger<T> {
    pub(crate) fn new(streams: usize, from: Time) -> Self {
        let stream = || Stream { waiting: VecDeque::new(), bound: from };
        Self { streams: (0..streams).map(|_| stream()).collect(), latest: from, ready: Vec::new() }
    }

    /// Takes the next of one stream.
    pub(crate) fn push(&mut self, stream: usize, item: T) {
        self.streams[stream].waiting.push_back(item);
    }

    /// Takes a stream's watermark, which must have been read before the items pushed since the last call.
    pub(crate) fn advance(&mut self, stream: usize, watermark: Watermark) {
        let bound = match watermark {
            Watermark::At(time) => {
                self.latest = self.latest.max(time);
                time
            }
            Watermark::Asleep => self.latest,
        };
        self.streams[stream].bound = bound;
    }

    /// Everything that is complete, in order.
    pub(crate) fn ready(&mut self) -> impl Iterator<Item = T> + '_ {
        let oldest_bound = self.streams.iter().map(|stream| stream.bound).min().unwrap_or(self.latest);
        let patience = Time(self.latest.0.saturating_sub(LONGEST_WAIT_NS));
        self.take_until(oldest_bound.max(patience))
    }

    /// Everything that is left, in order: no stream will have more.
    pub(crate) fn rest(&mut self) -> impl Iterator<Item = T> + '_ {
        self.take_until(Time(u64::MAX))
    }

    fn take_until(&mut self, until: Time) -> impl Iterator<Item = T> + '_ {
        for stream in &mut self.streams {
            let count = stream.waiting.partition_point(|item| item.time() <= until);
            self.ready.extend(stream.waiting.drain(..count));
        }
        // Runs that are already in order: the sort merges them. It is stable, so equal times keep their CPUs' order.
        self.ready.sort_by_key(Timed::time);
        self.ready.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Timed for u64 {
        fn time(&self) -> Time {
            Time(*self)
        }
    }

    #[test]
    fn only_what_no_stream_can_precede_any_more_is_ready() {
        let mut merger = Merger::new(2, Time(0));
        for time in [10, 30, 50] {
            merger.push(0, time);
        }
        merger.advance(0, Watermark::At(Time(50)));
        merger.push(1, 20);
        merger.advance(1, Watermark::At(Time(20)));
        assert_eq!(merger.ready().collect::<Vec<_>>(), [10, 20]);
        merger.advance(1, Watermark::At(Time(40)));
        assert_eq!(merger.ready().collect::<Vec<_>>(), [30]);
        merger.push(1, 45);
        assert_eq!(merger.rest().collect::<Vec<_>>(), [45, 50]);
    }

    #[test]
    fn sleeping_streams_hold_nobody_up() {
        let mut merger = Merger::new(2, Time(0));
        merger.push(0, 10);
        merger.advance(0, Watermark::At(Time(10)));
        merger.advance(1, Watermark::Asleep);
        assert_eq!(merger.ready().collect::<Vec<_>>(), [10]);
    }

    /// Stream 0 was asleep when it was read, before stream 1 showed 100: it may have woken and sampled at 90 since.
    #[test]
    fn a_sleeper_is_only_as_late_as_what_was_read_before_it() {
        let mut merger = Merger::new(2, Time(0));
        merger.advance(0, Watermark::Asleep);
        merger.push(1, 100);
        merger.advance(1, Watermark::At(Time(100)));
        assert_eq!(merger.ready().count(), 0);
        merger.push(0, 90);
        merger.advance(0, Watermark::Asleep);
        assert_eq!(merger.ready().collect::<Vec<_>>(), [90, 100]);
    }

    /// A quarter of them sleeps, the others are read one after the other.
    #[test]
    fn the_samples_of_256_cpus_come_in_order_and_none_is_lost() {
        const CPUS: u64 = 256;
        let mut merger = Merger::new(CPUS as usize, Time(0));
        let mut seen: Vec<u64> = Vec::new();
        let mut pushed = 0;
        for round in 1..=50 {
            for cpu in 0..CPUS {
                if cpu % 4 == 3 {
                    merger.advance(cpu as usize, Watermark::Asleep);
                    continue;
                }
                // Between the last round's watermark and this one's.
                let times = (0..8).map(|number| (round - 1) * 1_000 + 1 + (cpu * 37 + number * 101) % 900);
                let mut times: Vec<u64> = times.collect();
                times.sort();
                pushed += times.len();
                times.into_iter().for_each(|time| merger.push(cpu as usize, time));
                merger.advance(cpu as usize, Watermark::At(Time(round * 1_000)));
            }
            seen.extend(merger.ready());
        }
        seen.extend(merger.rest());
        assert_eq!(seen.len(), pushed);
        assert!(seen.is_sorted());
    }

    #[test]
    fn a_cpu_that_is_gone_is_not_waited_for() {
        let mut merger = Merger::new(2, Time(0));
        merger.advance(1, Watermark::At(Time(5)));
        merger.push(0, 10);
        merger.push(0, 3 * LONGEST_WAIT_NS);
        merger.advance(0, Watermark::At(Time(3 * LONGEST_WAIT_NS)));
        assert_eq!(merger.ready().collect::<Vec<_>>(), [10]);
    }
}
