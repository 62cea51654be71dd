//! What each vCPU did with its time, added up from one change of its state to the next.
//!
//! Begins with what Xen says of each vCPU. Where records are missing, the time is unknown: of that, Xen is asked how much
//! the vCPU ran, and the rest is given to no state. Times are cycles of the time stamp counter; Xen's accounts come in
//! nanoseconds.

use std::{collections::BTreeMap, ops::Range};

use super::records::{Runstate, Vcpu};

/// What Xen says of a vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) state: Runstate,
    /// Where it runs, or ran last.
    pub(super) cpu: u32,
    /// For how long it has run since it was made, in nanoseconds.
    pub(super) ran_ns: u64,
    /// Xen was asked after the first of these cycles and had answered before the last.
    pub(super) asked: Range<u64>,
}

/// How long a vCPU was at what, in cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spent {
    pub(super) running: u64,
    pub(super) waiting: u64,
    pub(super) blocked: u64,
    /// Nothing is known of its state.
    pub(super) unknown: u64,
}

impl Spent {
    fn add(&mut self, state: Runstate, cycles: u64) {
        let spent = match state {
            Runstate::Running => &mut self.running,
            Runstate::Runnable => &mut self.waiting,
            Runstate::Blocked => &mut self.blocked,
            // It was not there, or was stopped: nobody waits.
            Runstate::Offline => return,
        };
        // Cycles come from records, which nobody vouches for.
        *spent = spent.saturating_add(cycles);
    }
}

/// One vCPU's.
#[derive(Clone, Debug)]
struct Clock {
    /// None while that is lost.
    state: Option<Runstate>,
    /// What Xen said last: serves where the state is lost, until a record tells it.
    seen: Runstate,
    /// Since when it is at that, as far as it is not in `spent` yet.
    since: u64,
    spent: Spent,
    /// Of the unknown time, what it ran by Xen's account.
    mended: u64,
    /// Around the moment when Xen was asked, what it said and what is traced may be a step apart: a record of these cycles
    /// is right, whatever is believed.
    settling: Range<u64>,
    /// Xen has to be asked.
    is_in_doubt: bool,
    /// It is no more.
    is_gone: bool,
    /// For how long it had run when it was first seen, by Xen's account.
    begun_ns: u64,
    /// For how long it has run since, by Xen's account and by this one, when both were compared last; in cycles.
    compared: (f64, f64),
}

/// All vCPUs'.
pub(super) struct Clocks {
    vcpus: BTreeMap<Vcpu, Clock>,
    /// How far Xen's answers and its records may be apart, in cycles.
    slack: u64,
}

impl Clocks {
    pub(super) fn new(slack: u64) -> Self {
        Self { vcpus: BTreeMap::new(), slack }
    }

    /// The vCPUs that are not known to be gone.
    pub(super) fn alive(&self) -> Vec<Vcpu> {
        let alive = self.vcpus.iter().filter(|(_, clock)| !clock.is_gone);
        alive.map(|(&vcpu, _)| vcpu).collect()
    }

    /// Those for which Xen has to be asked.
    pub(super) fn in_doubt(&self) -> Vec<Vcpu> {
        let doubted = self.vcpus.iter().filter(|(_, clock)| clock.is_in_doubt && !clock.is_gone);
        doubted.map(|(&vcpu, _)| vcpu).collect()
    }

    /// Begins with a vCPU that was there before.
    pub(super) fn begin(&mut self, vcpu: Vcpu, seen: &Seen) {
        let mut clock = Clock::new(seen.state, seen.asked.end);
        clock.settling = seen.asked.start.saturating_sub(self.slack)..seen.asked.end + self.slack;
        clock.begun_ns = seen.ran_ns;
        self.vcpus.insert(vcpu, clock);
    }

    /// A vCPU's state changed. Of each vCPU, changes come in their order.
    pub(super) fn change(&mut self, at: u64, vcpu: Vcpu, old: Runstate, new: Runstate) {
        // One that was not there when tracing began has just been made.
        let clock = self.vcpus.entry(vcpu).or_insert_with(|| Clock::new(old, at));
        if clock.is_gone || at < clock.settling.start {
            return;
        }
        if clock.state.is_none_or(|state| state == old) || clock.settling.contains(&at) {
            clock.state = Some(old);
            clock.close(at);
        } else {
            clock.lose(clock.since, at);
        }
        clock.state = Some(new);
    }

    /// Records are missing: what happened between these moments to any vCPU is not known.
    pub(super) fn lose(&mut self, from: u64, until: u64) {
        self.vcpus.values_mut().for_each(|clock| clock.lose(from, until));
    }

    /// Takes what Xen says of a vCPU in doubt; none if that vCPU is no more.
    pub(super) fn settle(&mut self, vcpu: Vcpu, seen: Option<&Seen>, ns_per_cycle: f64) {
        let Some(clock) = self.vcpus.get_mut(&vcpu) else { return };
        clock.is_in_doubt = false;
        let Some(seen) = seen else {
            clock.is_gone = true;
            return;
        };
        clock.seen = seen.state;
        let (there, here) = clock.ran(seen, ns_per_cycle);
        let mended = clock.mended as f64 + there - here;
        clock.mended = mended.clamp(0.0, clock.spent.unknown as f64) as u64;
        clock.compared = clock.ran(seen, ns_per_cycle);
    }

    /// Doubts a vCPU that did not run for as long as Xen accounts to it, by more than can be on its way.
    pub(super) fn check(&mut self, vcpu: Vcpu, seen: Option<&Seen>, ns_per_cycle: f64) {
        let tolerance = 3.0 * self.slack as f64;
        let Some(clock) = self.vcpus.get_mut(&vcpu) else { return };
        let Some(seen) = seen else {
            clock.is_gone = true;
            return;
        };
        let (there, here) = clock.ran(seen, ns_per_cycle);
        let (there_since, here_since) = (there - clock.compared.0, here - clock.compared.1);
        if (there_since - here_since).abs() > 0.01 * there_since + tolerance {
            clock.lose(clock.since, seen.asked.end);
        } else {
            clock.compared = (there, here);
        }
    }

    /// What each vCPU did up to a moment.
    pub(super) fn until(&self, now: u64) -> impl Iterator<Item = (Vcpu, Spent)> + '_ {
        self.vcpus.iter().map(move |(&vcpu, clock)| {
            let mut spent = clock.spent;
            if !clock.is_gone {
                spent.add(clock.state.unwrap_or(clock.seen), now.saturating_sub(clock.since));
            }
            spent.running = spent.running.saturating_add(clock.mended);
            spent.unknown -= clock.mended;
            (vcpu, spent)
        })
    }
}

impl Clock {
    fn new(state: Runstate, since: u64) -> Self {
        Self {
            state: Some(state),
            seen: state,
            since,
            spent: Spent::default(),
            mended: 0,
            settling: 0..0,
            is_in_doubt: false,
            is_gone: false,
            begun_ns: 0,
            compared: (0.0, 0.0),
        }
    }

    /// Gives the time until then to the state; none of what is lost already.
    fn close(&mut self, at: u64) {
        if let Some(state) = self.state {
            self.spent.add(state, at.saturating_sub(self.since));
            self.since = self.since.max(at);
        }
    }

    fn lose(&mut self, from: u64, until: u64) {
        self.close(from);
        self.spent.unknown = self.spent.unknown.saturating_add(until.saturating_sub(self.since));
        self.since = self.since.max(until);
        self.state = None;
        self.is_in_doubt = true;
    }

    /// For how long it ran, by Xen's account and by this one, in cycles.
    fn ran(&self, seen: &Seen, ns_per_cycle: f64) -> (f64, f64) {
        let open = match self.state.unwrap_or(seen.state) {
            Runstate::Running => seen.asked.end.saturating_sub(self.since),
            _ => 0,
        };
        let here = self.spent.running as f64 + self.mended as f64 + open as f64;
        (seen.ran_ns.saturating_sub(self.begun_ns) as f64 / ns_per_cycle, here)
    }
}

#[cfg(test)]
mod tests {
    use super::{Runstate::*, *};

    const VCPU: Vcpu = Vcpu { domain: 1, index: 0 };
    /// Half a nanosecond a cycle.
    const NS_PER_CYCLE: f64 = 0.5;

    fn seen(state: Runstate, ran_ns: u64, asked: Range<u64>) -> Seen {
        Seen { state, cpu: 0, ran_ns, asked }
    }

    fn begun(state: Runstate) -> Clocks {
        let mut clocks = Clocks::new(10);
        clocks.begin(VCPU, &seen(state, 500, 990..1_000));
        clocks
    }

    fn spent(clocks: &Clocks, now: u64) -> (u64, u64, u64, u64) {
        let (_, spent) = clocks.until(now).find(|&(vcpu, _)| vcpu == VCPU).unwrap();
        (spent.running, spent.waiting, spent.blocked, spent.unknown)
    }

    #[test]
    fn each_state_has_its_time() {
        let mut clocks = begun(Running);
        clocks.change(1_100, VCPU, Running, Blocked);
        clocks.change(1_400, VCPU, Blocked, Runnable);
        clocks.change(1_450, VCPU, Runnable, Running);
        assert_eq!(spent(&clocks, 1_600), (250, 50, 300, 0));
        clocks.change(1_600, VCPU, Running, Offline);
        clocks.change(1_700, VCPU, Offline, Runnable);
        assert_eq!(spent(&clocks, 1_710), (250, 60, 300, 0), "stopped is nothing");
        assert!(clocks.in_doubt().is_empty());
    }

    #[test]
    fn around_the_question_the_records_are_right() {
        // Xen had not yet noted that it had been taken off its CPU.
        let mut clocks = begun(Running);
        clocks.change(985, VCPU, Running, Blocked);
        assert_eq!(spent(&clocks, 1_100), (0, 0, 100, 0));
        // It went on meanwhile.
        clocks.change(1_005, VCPU, Runnable, Running);
        assert_eq!(spent(&clocks, 1_100), (95, 5, 0, 0));
        // What was before was before.
        clocks.change(970, VCPU, Running, Blocked);
        assert_eq!(spent(&clocks, 1_100), (95, 5, 0, 0));
        assert!(clocks.in_doubt().is_empty());
    }

    #[test]
    fn where_records_are_missing_xen_knows_what_ran() {
        let mut clocks = begun(Running);
        clocks.change(1_200, VCPU, Running, Runnable);
        clocks.lose(1_300, 2_100);
        assert_eq!(clocks.in_doubt(), [VCPU]);
        // It ran for 150 ns in all since the beginning, 300 cycles, of which 200 were seen.
        clocks.settle(VCPU, Some(&seen(Blocked, 650, 2_190..2_200)), NS_PER_CYCLE);
        assert_eq!(spent(&clocks, 2_200), (300, 100, 100, 700));
        assert!(clocks.in_doubt().is_empty());
        // The next record says what it was at since then.
        clocks.change(2_300, VCPU, Runnable, Running);
        assert_eq!(spent(&clocks, 2_350), (350, 300, 0, 700));
        // What was taken for time on a CPU can be another account's.
        clocks.lose(2_400, 2_500);
        clocks.settle(VCPU, Some(&seen(Blocked, 690, 2_590..2_600)), NS_PER_CYCLE);
        assert_eq!(spent(&clocks, 2_600), (380, 300, 100, 820));
    }

    #[test]
    fn losses_that_are_told_twice_count_once() {
        let mut clocks = begun(Running);
        clocks.lose(1_100, 1_300);
        clocks.lose(1_200, 1_400);
        clocks.lose(1_150, 1_250);
        assert_eq!(spent(&clocks, 1_400), (100, 0, 0, 300));
    }

    #[test]
    fn a_change_from_what_it_was_not_is_doubted() {
        let mut clocks = begun(Running);
        clocks.change(1_200, VCPU, Blocked, Runnable);
        assert_eq!(clocks.in_doubt(), [VCPU]);
        assert_eq!(spent(&clocks, 1_300), (0, 100, 0, 200));
        clocks.settle(VCPU, Some(&seen(Runnable, 550, 1_290..1_300)), NS_PER_CYCLE);
        assert_eq!(spent(&clocks, 1_300), (100, 100, 0, 100));
    }

    #[test]
    fn what_xen_accounts_otherwise_is_doubted() {
        let mut clocks = begun(Running);
        clocks.check(VCPU, Some(&seen(Running, 500 + 50_000, 100_990..101_000)), NS_PER_CYCLE);
        assert!(clocks.in_doubt().is_empty());
        // A CPU that is not traced, for a second of two: nothing of that is known but what Xen says.
        let xen = seen(Blocked, 500 + 60_000, 200_990..201_000);
        clocks.check(VCPU, Some(&xen), NS_PER_CYCLE);
        assert_eq!(clocks.in_doubt(), [VCPU]);
        clocks.settle(VCPU, Some(&xen), NS_PER_CYCLE);
        assert_eq!(spent(&clocks, 201_000), (120_000, 0, 0, 80_000));
        clocks.check(VCPU, Some(&seen(Blocked, 500 + 60_000, 300_990..301_000)), NS_PER_CYCLE);
        assert!(clocks.in_doubt().is_empty());
        assert_eq!(spent(&clocks, 301_000), (120_000, 0, 100_000, 80_000));
    }

    #[test]
    fn vcpus_come_and_go() {
        let mut clocks = Clocks::new(10);
        clocks.change(1_000, VCPU, Offline, Runnable);
        clocks.change(1_100, VCPU, Runnable, Running);
        // All that Xen accounts to it was since then.
        clocks.check(VCPU, Some(&seen(Running, 4_500, 10_090..10_100)), NS_PER_CYCLE);
        assert_eq!(clocks.in_doubt(), []);
        clocks.check(VCPU, None, NS_PER_CYCLE);
        assert_eq!(spent(&clocks, 20_000), (0, 100, 0, 0), "nobody knows until when it ran");
        assert!(clocks.alive().is_empty());
    }
}
