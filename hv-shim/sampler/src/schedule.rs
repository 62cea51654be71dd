//! When one CPU takes its samples.
//!
//! The due times are a renewal process: independent periods, even over ±20 % of the mean, so that no guest's tick
//! stays in step with them. Every nanosecond in which a CPU is awake is equally likely to be sampled, whenever it
//! woke: at each wake-up the time to the next sample is drawn from the process's *residual* life (what is left of a
//! period that is met at a random moment), not from a whole period. Without that, work in bursts shorter than a
//! period would never be seen. Idle CPUs have no due time and stay asleep.

use crate::random::{Random, spread};

/// The most periods that are counted one by one when an interrupt came late.
const PERIODS_TO_STEP: u64 = 32;

/// An interrupt later than this was not delayed: the CPU was offline or the machine suspended.
const LONGEST_DELAY_NS: u64 = 1_000_000_000;

/// One CPU's due times, and the lease on which they depend.
pub struct Schedule {
    mean: u64,
    /// What the mean is to be once the period that runs has ended.
    next_mean: u64,
    random: Random,
    state: State,
    due: u64,
    lease: Lease,
    quiet_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Never started, or stopped for good.
    Off,
    Awake,
    /// The CPU idles: nothing to sample.
    Asleep,
    /// There is no CPU.
    Offline,
    /// The lease ran out.
    Quiet {
        since: u64,
    },
}

/// dom0's sign of life: a word that changes.
struct Lease {
    length: u64,
    seen: u64,
    until: u64,
}

impl Lease {
    /// Whether the lease holds, `word` being dom0's word now.
    fn holds(&mut self, word: u64, now: u64) -> bool {
        if word != self.seen {
            self.seen = word;
            self.until = now + self.length;
        }
        now < self.until
    }
}

/// What an interrupt is to the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No sample is due.
    NotDue,
    /// Take a sample that stands for `weight` nanoseconds: the mean period, times the number of due times that have
    /// passed since the last one (more than one when interrupts were held off).
    Sample {
        /// In nanoseconds.
        weight: u64,
    },
}

impl Schedule {
    /// A schedule that is off.
    pub const fn new(mean_ns: u64, lease_ns: u64, seed: u64) -> Self {
        Self {
            mean: mean_ns,
            next_mean: mean_ns,
            random: Random::new(seed),
            state: State::Off,
            due: 0,
            lease: Lease { length: lease_ns, seen: 0, until: 0 },
            quiet_ns: 0,
        }
    }

    /// Begins to sample; the lease begins too.
    pub fn start(&mut self, now: u64, lease_word: u64) {
        self.state = State::Awake;
        self.lease.seen = lease_word;
        self.lease.until = now + self.lease.length;
        self.due = now + self.residual();
    }

    /// Takes no sample any more.
    pub fn stop(&mut self, now: u64) {
        if let State::Quiet { since } = self.state {
            self.quiet_ns += now - since;
        }
        self.state = State::Off;
    }

    /// When the timer has to fire; none while there is nothing to sample.
    pub fn due(&self) -> Option<u64> {
        (self.state == State::Awake).then_some(self.due)
    }

    /// Whether the lease has run out, or dom0 wants quiet.
    pub fn is_quiet(&self) -> bool {
        matches!(self.state, State::Quiet { .. } | State::Off)
    }

    /// The mean period from the next one on.
    pub fn set_mean(&mut self, mean_ns: u64) {
        self.next_mean = mean_ns;
    }

    /// Until when samples may be taken, if nobody looks for another sign of life of dom0's before.
    pub fn holds_until(&self) -> u64 {
        self.lease.until
    }

    /// Nanoseconds spent without a lease, up to the last time that it came back.
    pub fn quiet_ns(&self) -> u64 {
        self.quiet_ns
    }

    /// Since when there is no lease; none while it holds.
    pub fn quiet_since(&self) -> Option<u64> {
        match self.state {
            State::Quiet { since } => Some(since),
            _ => None,
        }
    }

    /// An interrupt of the timer, whoever it was set for. `lease_word` is dom0's word, `command_quiet` its wish.
    pub fn interrupt(&mut self, now: u64, lease_word: u64, command_quiet: bool) -> Verdict {
        match self.state {
            State::Off | State::Asleep | State::Offline => return Verdict::NotDue,
            State::Awake if now < self.due => return Verdict::NotDue,
            State::Awake | State::Quiet { .. } => {}
        }
        let may_sample = self.lease.holds(lease_word, now) && !command_quiet;
        match (self.state, may_sample) {
            (State::Quiet { since }, true) => {
                self.quiet_ns += now - since;
                self.state = State::Awake;
                self.due = now + self.residual();
                Verdict::NotDue
            }
            (State::Awake, false) => {
                self.state = State::Quiet { since: now };
                Verdict::NotDue
            }
            (State::Awake, true) => Verdict::Sample { weight: self.pass(now) },
            _ => Verdict::NotDue,
        }
    }

    /// The CPU is about to idle. A sample that is due by now is overdue: its interrupt is late, and what it was to
    /// see has ended. It must be taken all the same, or work in short bursts would be seen less than it deserves.
    pub fn sleep(&mut self, now: u64, lease_word: u64, command_quiet: bool) -> Verdict {
        let verdict = self.interrupt(now, lease_word, command_quiet);
        if self.state == State::Awake {
            self.state = State::Asleep;
        }
        verdict
    }

    /// The CPU has something to do again. However long it slept, dom0 may have given signs of life meanwhile.
    pub fn wake(&mut self, now: u64, lease_word: u64) {
        self.lease.holds(lease_word, now);
        if matches!(self.state, State::Asleep | State::Offline) {
            self.state = State::Awake;
            self.due = now + self.residual();
        }
    }

    /// The CPU goes offline, or has not been online yet.
    pub fn offline(&mut self) {
        if matches!(self.state, State::Awake | State::Asleep) {
            self.state = State::Offline;
        }
    }

    /// Whether there is no CPU, as far as is known. One that is back may find work before it ever idles.
    pub fn is_offline(&self) -> bool {
        self.state == State::Offline
    }

    /// Moves `due` past `now` and returns what the due times passed stand for.
    fn pass(&mut self, now: u64) -> u64 {
        // The period that has ended stands for the mean that it was drawn from.
        let first = self.mean;
        self.mean = self.next_mean;
        if now - self.due > LONGEST_DELAY_NS {
            self.due = now + self.residual();
            return first;
        }
        let mut passed = 0;
        while self.due <= now && passed < PERIODS_TO_STEP {
            self.due += self.period();
            passed += 1;
        }
        if self.due <= now {
            passed += (now - self.due) / self.mean + 1;
            self.due = now + self.residual();
        }
        first + (passed - 1) * self.mean
    }

    /// A period: even over 0.8 to 1.2 of the mean.
    fn period(&mut self) -> u64 {
        let (shortest, choices) = spread(self.mean);
        shortest + self.random.below(choices)
    }

    /// What is left of a period that is met at a random moment. Long periods are met more often, in proportion to
    /// their length, and met anywhere in them.
    fn residual(&mut self) -> u64 {
        let longest = self.mean * 6 / 5;
        loop {
            let period = self.period();
            if self.random.below(longest) < period {
                return self.random.below(period) + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    const MEAN: u64 = 1_000_000;
    const LEASE: u64 = 5_000_000_000;

    fn started(seed: u64) -> Schedule {
        let mut schedule = Schedule::new(MEAN, LEASE, seed);
        schedule.start(0, 0);
        schedule
    }

    fn weight(verdict: Verdict) -> u64 {
        match verdict {
            Verdict::NotDue => 0,
            Verdict::Sample { weight } => weight,
        }
    }

    #[test]
    fn periods_spread_evenly_over_a_fifth_to_each_side() {
        let mut schedule = started(7);
        let (mut shortest, mut longest, mut sum) = (u64::MAX, 0, 0);
        for _ in 0..100_000 {
            let period = schedule.period();
            shortest = shortest.min(period);
            longest = longest.max(period);
            sum += period;
        }
        assert!((800_000..801_000).contains(&shortest), "{shortest}");
        assert!((1_199_000..=1_200_000).contains(&longest), "{longest}");
        assert!((sum / 100_000).abs_diff(MEAN) < 2_000, "{}", sum / 100_000);
    }

    /// Bursts of a tenth of a period, each after an idle time, must be seen as often as their length deserves.
    #[test]
    fn short_bursts_are_sampled_in_proportion_to_their_length() {
        let mut schedule = started(42);
        let (mut now, mut busy, mut seen) = (0, 0, 0);
        schedule.sleep(now, 0, false);
        for _ in 0..200_000 {
            now += 3_700_000;
            schedule.wake(now, now);
            let end = now + MEAN / 10;
            // Every other interrupt is late, and comes when the CPU idles again.
            while let Some(due) = schedule.due().filter(|&due| due < end && due % 2 == 0) {
                seen += weight(schedule.interrupt(due, due, false));
            }
            seen += weight(schedule.sleep(end, end, false));
            busy += MEAN / 10;
            now = end;
        }
        let ratio = seen as f64 / busy as f64;
        // 20,000 samples expected: a standard error of 0.7 %.
        assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    }

    /// A guest that works for 30 % of each of its own 1 kHz periods, always at the same phase.
    #[test]
    fn a_phase_locked_guest_is_seen_at_its_true_share() {
        let mut schedule = started(3);
        let (mut inside, mut all) = (0u64, 0u64);
        let mut now = 0;
        while all < 50_000 {
            now = schedule.due().unwrap();
            assert_ne!(schedule.interrupt(now, now, false), Verdict::NotDue);
            all += 1;
            inside += u64::from(now % MEAN < MEAN * 3 / 10);
        }
        let share = inside as f64 / all as f64;
        assert!((share - 0.3).abs() < 0.012, "{share} of the samples until {now}");
    }

    #[test]
    fn a_late_interrupt_stands_for_all_the_due_times_it_missed() {
        let mut schedule = started(9);
        let first = schedule.due().unwrap();
        let seen = weight(schedule.interrupt(first + 10 * MEAN, 1, false));
        assert!((9 * MEAN..=13 * MEAN).contains(&seen), "{seen}");
        // Longer than what is stepped through one by one.
        let next = schedule.due().unwrap();
        let seen = weight(schedule.interrupt(next + 500 * MEAN, 2, false));
        assert!(seen.abs_diff(501 * MEAN) < 10 * MEAN, "{seen}");
    }

    /// Samples stand for the periods that they were drawn from, so that time is neither lost nor found.
    #[test]
    fn a_new_mean_begins_with_the_next_period() {
        let mut schedule = started(5);
        let (mut seen, mut now) = (0, 0);
        for round in 0..20_000 {
            schedule.set_mean(if round / 100 % 2 == 0 { MEAN } else { 5 * MEAN });
            now = schedule.due().unwrap();
            seen += weight(schedule.interrupt(now, now, false));
        }
        assert!((seen as f64 / now as f64 - 1.0).abs() < 0.002, "{seen} of {now}");
    }

    #[test]
    fn a_suspended_machine_is_not_one_heavy_sample() {
        let mut schedule = started(9);
        let due = schedule.due().unwrap();
        assert_eq!(weight(schedule.interrupt(due + 2 * LONGEST_DELAY_NS, 1, false)), MEAN);
        assert!(schedule.due().unwrap() > due + 2 * LONGEST_DELAY_NS);
    }

    #[test]
    fn idle_cpus_have_no_due_time_and_other_timers_are_no_samples() {
        let mut schedule = started(1);
        let due = schedule.due().unwrap();
        assert_eq!(schedule.interrupt(due - 1, 1, false), Verdict::NotDue);
        assert_eq!(schedule.sleep(due - 1, 1, false), Verdict::NotDue);
        assert_eq!(schedule.due(), None);
        assert_eq!(schedule.interrupt(due, 2, false), Verdict::NotDue);
        schedule.wake(due + 5, 2);
        assert!(schedule.due().unwrap() > due + 5);
    }

    #[test]
    fn the_time_offline_is_nobodys() {
        let mut schedule = started(1);
        schedule.offline();
        assert_eq!(schedule.due(), None);
        let back = 700 * MEAN;
        assert_eq!(schedule.interrupt(back, 1, false), Verdict::NotDue);
        assert!(schedule.is_offline());
        schedule.wake(back + 1, 1);
        assert!(!schedule.is_offline());
        let due = schedule.due().unwrap();
        assert!(due > back && due < back + 2 * MEAN);
        assert_eq!(schedule.interrupt(due, 2, false), Verdict::Sample { weight: MEAN });
        // One that idles first.
        schedule.offline();
        assert_eq!(schedule.sleep(3 * back, 3, false), Verdict::NotDue);
        schedule.wake(3 * back + 1, 3);
        assert!(schedule.due().unwrap() > 3 * back);
        // Timers are served while a CPU idles, too: that must not wake it.
        schedule.sleep(3 * back + 1, 4, false);
        assert!(!schedule.is_offline());
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn without_a_lease_the_shim_goes_quiet_and_comes_back_when_it_is_renewed() {
        let mut schedule = started(5);
        assert_ne!(schedule.interrupt(LEASE - 1, 0, false), Verdict::NotDue);
        let due = schedule.due().unwrap().max(LEASE);
        assert_eq!(schedule.interrupt(due, 0, false), Verdict::NotDue);
        assert_eq!(schedule.due(), None);
        assert_eq!(schedule.interrupt(due + 1_000, 0, false), Verdict::NotDue);
        assert_eq!((schedule.due(), schedule.quiet_since()), (None, Some(due)));
        assert_eq!(schedule.interrupt(due + 7_000, 1, false), Verdict::NotDue);
        assert_eq!((schedule.quiet_ns(), schedule.quiet_since()), (7_000, None));
        let due = schedule.due().unwrap();
        assert_ne!(schedule.interrupt(due, 1, false), Verdict::NotDue);
    }

    #[test]
    fn told_to_be_quiet_it_is_quiet_though_the_lease_is_renewed() {
        let mut schedule = started(5);
        let due = schedule.due().unwrap();
        assert_eq!(schedule.interrupt(due, 1, true), Verdict::NotDue);
        assert_eq!(schedule.interrupt(due + MEAN, 2, true), Verdict::NotDue);
        assert_eq!(schedule.due(), None);
        schedule.stop(due + 2 * MEAN);
        assert_eq!(schedule.quiet_ns(), 2 * MEAN);
        assert_eq!(schedule.interrupt(due + 3 * MEAN, 3, false), Verdict::NotDue);
    }
}
