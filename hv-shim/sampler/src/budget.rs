//! What sampling costs a CPU, and how far samples have to be apart for it.

/// After how many samples the distance is reckoned anew.
const WINDOW: u64 = 16;

/// One sample is taken to cost no more than this many times the average: what is beyond was not ours (the firmware's
/// interrupts, a hypervisor below this one).
const OUTLIER: u64 = 8;

/// What the first ones may be taken to cost: some hundredths of a second.
const MOST: u64 = 1 << 27;

/// The longest distance that is asked for.
const LONGEST_NS: u64 = 1_000_000_000;

/// What sampling costs one CPU. Costs are in ticks of the time stamp counter.
pub struct Budget {
    /// How many millionths of the time sampling may use; 0 is no bound.
    millionths: u64,
    /// Of one sample, and what one is taken to cost at the most.
    average: u64,
    most: u64,
    cost: u64,
    samples: u64,
    /// When the window began, in ticks and in nanoseconds.
    began: (u64, u64),
    shortest_ns: u64,
    /// Nanoseconds used so far.
    own_ns: u64,
}

impl Budget {
    /// A budget of which nothing is used yet; it is now so many ticks and so many nanoseconds.
    pub const fn new(millionths: u64, ticks: u64, now_ns: u64) -> Self {
        let began = (ticks, now_ns);
        Self { millionths, average: 0, most: MOST, cost: 0, samples: 0, began, shortest_ns: 0, own_ns: 0 }
    }

    /// How far samples have to be apart; 0 while nothing is known.
    pub fn shortest_ns(&self) -> u64 {
        self.shortest_ns
    }

    /// Nanoseconds that samples have cost so far.
    pub fn own_ns(&self) -> u64 {
        self.own_ns
    }

    /// A sample has cost so many ticks; it is now so many ticks and so many nanoseconds. Whether that made a difference to
    /// the other figures.
    #[inline]
    pub fn sampled(&mut self, cost: u64, ticks: u64, now_ns: u64) -> bool {
        self.cost += cost.min(self.most);
        self.samples += 1;
        let is_complete = self.samples >= WINDOW;
        if is_complete {
            self.reckon(ticks, now_ns);
        }
        is_complete
    }

    #[cold]
    fn reckon(&mut self, ticks: u64, now_ns: u64) {
        let (ticks_then, ns_then) = self.began;
        let (ticks_passed, ns_passed) = (ticks.saturating_sub(ticks_then), now_ns.saturating_sub(ns_then));
        let of_window = self.cost / self.samples;
        self.average = if self.average == 0 { of_window } else { (self.average * 3 + of_window) / 4 };
        self.most = if self.average == 0 { MOST } else { self.average * OUTLIER };
        // A window is at most seconds long, a sample's cost far below one: the products fit.
        let to_ns = |cost: u64| cost * (ns_passed >> 10) / (ticks_passed >> 10).max(1);
        self.own_ns += to_ns(self.cost);
        if self.millionths > 0 && ticks_passed > 0 {
            self.shortest_ns = (to_ns(self.average) * 1_000_000 / self.millionths).min(LONGEST_NS);
        }
        (self.cost, self.samples, self.began) = (0, 0, (ticks, now_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock of three ticks a nanosecond.
    fn sample(budget: &mut Budget, cost_ns: u64, every_ns: u64, count: u64) {
        let start = budget.began.1;
        for number in 1..=count {
            let now = start + number * every_ns;
            budget.sampled(3 * cost_ns, 3 * now, now);
        }
    }

    #[test]
    fn samples_are_so_far_apart_that_they_cost_what_they_may() {
        let mut budget = Budget::new(10_000, 0, 0);
        assert_eq!(budget.shortest_ns(), 0);
        sample(&mut budget, 2_000, 100_000, 320);
        // Two microseconds are one percent of 200.
        assert!(budget.shortest_ns().abs_diff(200_000) < 4_000, "{}", budget.shortest_ns());
        assert!(budget.own_ns().abs_diff(640_000) < 40_000, "{}", budget.own_ns());
    }

    #[test]
    fn what_is_far_out_was_not_ours() {
        let mut budget = Budget::new(10_000, 0, 0);
        sample(&mut budget, 2_000, 100_000, 64);
        budget.sampled(3 * 50_000_000, 0, 0);
        sample(&mut budget, 2_000, 100_000, 63);
        assert!(budget.shortest_ns() < 320_000, "{}", budget.shortest_ns());
    }

    #[test]
    fn without_a_bound_nothing_is_asked_for() {
        let mut budget = Budget::new(0, 0, 0);
        sample(&mut budget, 50_000, 100_000, 320);
        assert_eq!(budget.shortest_ns(), 0);
    }
}
