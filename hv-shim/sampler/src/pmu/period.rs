//! After how many events an event is sampled next.

use abi::pmu::{LONGEST_PERIOD, SHORTEST_PERIOD};

use crate::random::{Random, spread};

/// The mean period of one event on one CPU: kept, or steered towards a rate, and in either case lengthened where the
/// samples would cost more than they may.
pub(super) struct Period {
    /// What was asked for; where a rate was, the mean that is steered.
    asked: u64,
    /// The mean now.
    mean: u64,
    /// The shortest period of that mean, and how many there are. Reckoned when the mean changes, to be drawn from in an NMI.
    shortest: u64,
    choices: u64,
    /// The mean time between samples that was asked for; 0 where a period was.
    interval_ns: u64,
    /// A period was asked for, and that is the mean.
    is_as_asked: bool,
    /// When the last sample was taken, in nanoseconds that the event was counted.
    last: u64,
}

/// A mean moves towards what one interval suggests by one part in this many: single intervals vary.
const INERTIA: u64 = 4;

/// It jumps there where that is away by more than this factor.
const FAR: u64 = 4;

/// An interval shorter than this says nothing: the CPU idled, and the counter counted all the same.
const SHORTEST_NS: u64 = 1_000;

/// Intervals are taken to be no longer than this, so that products fit.
const LONGEST_NS: u64 = 1 << 32;

/// The longest mean: periods are up to a fifth longer.
const LONGEST_MEAN: u64 = LONGEST_PERIOD / 6 * 5;

impl Period {
    pub(super) const fn new(period: u64, interval_ns: u64) -> Self {
        let interval_ns = if interval_ns > LONGEST_NS { LONGEST_NS } else { interval_ns };
        let asked = if period > LONGEST_MEAN { LONGEST_MEAN } else { period };
        let (shortest, choices) = spread(asked);
        Self { asked, mean: asked, shortest, choices, interval_ns, is_as_asked: interval_ns == 0, last: 0 }
    }

    /// Draws a period: even over 0.8 to 1.2 of the mean, so that no guest's rhythm stays in step with it.
    pub(super) fn draw(&self, random: &mut Random) -> u64 {
        self.shortest + random.below(self.choices)
    }

    /// Whether the mean stays what it is, whatever the distance between samples: a period was asked for, and samples
    /// cost too little to lengthen it.
    pub(super) fn is_kept(&self, shortest_ns: u64) -> bool {
        self.is_as_asked && shortest_ns == 0
    }

    /// A sample was taken, `count` events after the one before.
    #[inline(never)]
    pub(super) fn sampled(&mut self, count: u64, pace: Pace) {
        let took = pace.ran_ns.saturating_sub(core::mem::replace(&mut self.last, pace.ran_ns));
        self.steer(count, took, pace);
    }

    /// `count` events have passed since the last sample, and no sample is due yet. True if the period that runs is
    /// far too long for the rate that was asked for: then there is a new mean.
    pub(super) fn is_overdue(&mut self, count: u64, pace: Pace) -> bool {
        let took = pace.ran_ns.saturating_sub(self.last);
        let overdue = self.interval_ns > 0 && took > FAR * pace.interval(self.interval_ns);
        if overdue {
            self.steer(count, took, pace);
        }
        overdue
    }

    fn steer(&mut self, count: u64, took: u64, pace: Pace) {
        if took < SHORTEST_NS {
            return;
        }
        // Below 2^31 · 2^32.
        let suggested = count.min(LONGEST_PERIOD) * pace.interval(self.interval_ns) / took.min(LONGEST_NS);
        let is_far = suggested > self.mean.saturating_mul(FAR) || suggested < self.mean / FAR;
        let mean = if is_far { suggested } else { (self.mean * (INERTIA - 1) + suggested) / INERTIA };
        let least = if self.interval_ns == 0 { self.asked } else { SHORTEST_PERIOD };
        self.mean = mean.max(least).min(LONGEST_MEAN);
        (self.shortest, self.choices) = spread(self.mean);
        self.is_as_asked = self.interval_ns == 0 && self.mean == self.asked;
    }
}

/// What the distance between samples depends on besides what was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// For how long the event has been counted, in nanoseconds.
    pub(super) ran_ns: u64,
    /// How far samples have to be apart for what they cost.
    pub(super) shortest_ns: u64,
    /// By how much what is seen of the event must be multiplied: so much closer are its samples while it is counted.
    pub(super) scale: (u64, u64),
}

impl Pace {
    fn interval(&self, asked: u64) -> u64 {
        let (times, parts) = self.scale;
        asked.max(self.shortest_ns).min(LONGEST_NS) * parts / times.max(1)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// Runs a load of so many events a microsecond, and returns the samples of its second half, a second long.
    fn samples(period: &mut Period, per_us: u64, shortest_ns: u64) -> u64 {
        let mut random = Random::new(11);
        let (mut now, mut samples) = (0, 0);
        while now < 2_000_000_000 {
            let count = period.draw(&mut random);
            now += count * 1_000 / per_us;
            samples += u64::from(now > 1_000_000_000);
            period.sampled(count, Pace { ran_ns: now, shortest_ns, scale: (1, 1) });
        }
        samples
    }

    #[test]
    fn a_rate_is_reached_whatever_the_load() {
        for per_us in [1, 50, 3_000, 4_000] {
            let mut period = Period::new(10_000, 1_000_000);
            let samples = samples(&mut period, per_us, 0);
            assert!(samples.abs_diff(1_000) < 50, "{samples} at {per_us} a microsecond");
        }
    }

    #[test]
    fn what_is_counted_while_the_cpu_idles_does_not_lengthen_the_period() {
        let mut period = Period::new(10_000, 1_000_000);
        samples(&mut period, 3_000, 0);
        let mean = period.mean;
        for _ in 0..10 {
            period.sampled(mean, Pace { ran_ns: period.last, shortest_ns: 0, scale: (1, 1) });
        }
        assert_eq!(period.mean, mean);
    }

    #[test]
    fn a_period_is_kept_unless_it_costs_too_much() {
        let mut period = Period::new(1_000_000, 0);
        assert!(samples(&mut period, 3_000, 0).abs_diff(3_000) < 30);
        let mut period = Period::new(1_000_000, 0);
        let slowed = samples(&mut period, 3_000, 2_000_000);
        assert!(slowed.abs_diff(500) < 30, "{slowed}");
        assert!(samples(&mut period, 3_000, 0).abs_diff(3_000) < 100);
    }
}
