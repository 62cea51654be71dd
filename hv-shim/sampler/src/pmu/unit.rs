//! One CPU's counters at work.
//!
//! Whoever calls a [`Unit`] keeps its two users apart: the NMI, which must leave it alone while a tick works on it, and
//! the tick, which stops the counters before it looks at them.

use core::iter;

use abi::pmu::MAX_EVENTS;

use super::{
    Counters, LVTPC_MASKED, LVTPC_NMI, Position, Registers,
    period::{Pace, Period},
    plan::{MAX_COUNTERS, Plan, Slot},
};
use crate::random::Random;

/// For how long an NMI is waited for whose reason was dealt with before it came.
const LATE_NS: u64 = 100_000_000;

/// How often the status is looked at again in one NMI.
const ROUNDS: usize = 4;

/// One CPU's counters. All zeros is a unit that is off, and not yet prepared.
pub struct Unit {
    state: State,
    slice: u8,
    events: [Counting; MAX_EVENTS],
    random: Random,
    saved: Saved,
    /// When the counters were last known to be at work, in nanoseconds that the CPU has been awake.
    seen: u64,
    /// Until when an NMI that finds nothing is taken for one of ours.
    late_until: u64,
    /// What an NMI has found to be due: kept here, so that no NMI has to clear it.
    due: [Due; MAX_COUNTERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// The registers are as they were found.
    Off = 0,
    Running,
    /// Ours, and still.
    Paused,
    /// Somebody else has programmed them over: they are his.
    Yielded,
}

struct Counting {
    period: Period,
    /// The period that runs, and what of it is left when it is on no counter.
    drawn: u64,
    left: u64,
    /// For how long it has been counted, in nanoseconds, but for the stay on a counter that began at `since`.
    ran: u64,
    since: u64,
}

impl Counting {
    fn has_run(&self, moment: Moment) -> u64 {
        self.ran + moment.awake.saturating_sub(self.since)
    }

    fn pace(&self, plan: &Plan, number: usize, moment: Moment) -> Pace {
        // All events together may cost so much.
        let shortest_ns = moment.shortest * u64::from(plan.count);
        Pace { ran_ns: self.has_run(moment), shortest_ns, scale: plan.scale(number as u8) }
    }
}

/// What the registers held before.
#[derive(Clone, Copy)]
struct Saved {
    selectors: [u64; MAX_COUNTERS],
    counters: [u64; MAX_COUNTERS],
    global: u64,
    lvtpc: u32,
}

/// The time, as an NMI or a tick knows it, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Now.
    pub now: u64,
    /// For how long the CPU has been awake.
    pub awake: u64,
    /// How far samples have to be apart for what they cost.
    pub shortest: u64,
}

/// A sample that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The event's number.
    pub event: u16,
    /// What it stands for, in the event's units: what was counted since the last one, scaled.
    pub weight: u64,
    /// In which modes it is wanted.
    pub modes: u8,
}

/// Counters that have overflowed, and how many of [`Unit`]'s samples are due for it.
struct Served {
    counters: Counters,
    count: usize,
}

/// Whose an NMI was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nmi {
    /// Ours: counters had overflowed.
    Ours,
    /// Ours, though nothing is left of its reason.
    Late,
    /// Somebody else's.
    Foreign,
}

/// What a tick found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    /// Overflows whose interrupt never came.
    pub swallowed: u32,
    /// For how long counters can have been silent, in nanoseconds that the CPU was awake.
    pub masked_ns: u64,
}

impl Unit {
    /// The counters of a CPU, not yet touched.
    pub fn new(plan: &Plan, seed: u64) -> Self {
        let none = [0; MAX_COUNTERS];
        let mut unit = Self {
            state: State::Off,
            slice: 0,
            events: [const { Counting { period: Period::new(0, 0), drawn: 0, left: 0, ran: 0, since: 0 } };
                MAX_EVENTS],
            random: Random::new(0),
            saved: Saved { selectors: none, counters: none, global: 0, lvtpc: 0 },
            seen: 0,
            late_until: 0,
            due: [Due { event: 0, weight: 0, modes: 0 }; MAX_COUNTERS],
        };
        unit.prepare(plan, seed);
        unit
    }

    /// Makes it ready to run, in place.
    pub fn prepare(&mut self, plan: &Plan, seed: u64) {
        self.random = Random::new(seed);
        for (counting, event) in self.events.iter_mut().zip(&plan.events) {
            counting.period = Period::new(event.period, event.interval_ns);
            counting.drawn = counting.period.draw(&mut self.random);
            // The first one begins anywhere in a period.
            counting.left = self.random.below(counting.drawn) + 1;
        }
        self.slice = self.random.below(u64::from(plan.slices)) as u8;
    }

    /// Whether an overflow can come.
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// Whether somebody else has taken the counters over.
    pub fn has_yielded(&self) -> bool {
        self.state == State::Yielded
    }

    /// Starts to count, or to count again.
    pub fn run<R: Registers>(&mut self, plan: &Plan, registers: &R, moment: Moment) {
        match self.state {
            State::Running | State::Yielded => return,
            State::Off => self.save(plan, registers),
            State::Paused => {}
        }
        self.state = State::Running;
        self.seen = moment.awake;
        registers.set_lvtpc(LVTPC_NMI);
        self.start(plan, registers, moment);
    }

    /// Stops to count, for the time being.
    pub fn pause<R: Registers>(&mut self, plan: &Plan, registers: &R, moment: Moment) {
        if self.state != State::Running {
            return;
        }
        registers.set_lvtpc(LVTPC_MASKED);
        plan.pmu.freeze(registers, plan.share_of(self.slice).counters());
        // An overflow whose NMI is under way is not sampled any more.
        let overflowed = self.halt(plan, registers, moment);
        self.expect_late(overflowed, moment.now);
        self.state = State::Paused;
    }

    /// Gives the counters back as they were found.
    pub fn end<R: Registers>(&mut self, plan: &Plan, registers: &R, moment: Moment) {
        self.pause(plan, registers, moment);
        if self.state == State::Paused {
            self.restore(plan, registers);
        }
        self.state = State::Off;
    }

    /// An NMI. Calls `sample` for events that have overflowed.
    pub fn interrupt<R: Registers>(
        &mut self,
        plan: &Plan,
        registers: &R,
        moment: Moment,
        mut sample: impl FnMut(&[Due]),
    ) -> Nmi {
        if self.state != State::Running {
            return self.late_or_foreign(moment.now);
        }
        let (pmu, active) = (&plan.pmu, plan.share_of(self.slice).counters());
        pmu.freeze(registers, active);
        let mut found = 0;
        for _ in 0..ROUNDS {
            let served = match pmu.global {
                None => self.serve(plan, registers, moment, None),
                Some(_) => self.serve_told(plan, registers, moment),
            };
            if served.counters == 0 {
                break;
            }
            // All of them together: what was interrupted is the same.
            sample(self.due.get(..served.count).unwrap_or(&[]));
            found |= served.counters;
            pmu.acknowledge(registers, served.counters);
            if pmu.global.is_none() {
                // Whatever overflows from now on has an NMI of its own.
                break;
            }
        }
        if pmu.masks_lvtpc {
            registers.set_lvtpc(LVTPC_NMI);
        }
        pmu.thaw(registers, active);
        if found == 0 {
            return self.late_or_foreign(moment.now);
        }
        self.seen = moment.awake;
        if found.count_ones() > 1 {
            self.expect_late(found, moment.now);
        }
        Nmi::Ours
    }

    /// Serves the counters that a register tells to have overflowed.
    #[inline(never)]
    fn serve_told<R: Registers>(&mut self, plan: &Plan, registers: &R, moment: Moment) -> Served {
        let told = plan.pmu.told(registers, plan.share_of(self.slice).counters());
        self.serve(plan, registers, moment, told)
    }

    /// Serves the counters that are told to have overflowed, or, where nothing tells, those whose position does: what is due
    /// for them, and their next periods.
    #[inline(always)]
    fn serve<R: Registers>(
        &mut self,
        plan: &Plan,
        registers: &R,
        moment: Moment,
        told: Option<Counters>,
    ) -> Served {
        let mut served = Served { counters: 0, count: 0 };
        for slot in plan.share_of(self.slice).slots() {
            if told.is_some_and(|told| told >> slot.counter & 1 == 0) {
                continue;
            }
            let past = match slot.place.position(registers) {
                Position::Past(past) => past,
                Position::Left(_) if told.is_some() => 0,
                Position::Left(_) => continue,
            };
            served.counters |= 1 << slot.counter;
            let (due, period) = self.take(plan, slot, past, moment);
            slot.place.load(registers, period);
            if let Some(place) = self.due.get_mut(served.count) {
                *place = due;
                served.count += 1;
            }
        }
        served
    }

    /// An event whose counter is so many events past its end: its sample, and its next period.
    #[inline(always)]
    fn take(&mut self, plan: &Plan, slot: &Slot, past: u64, moment: Moment) -> (Due, u64) {
        let event = &mut self.events[slot.event()];
        let counted = event.drawn + past;
        if !event.period.is_kept(moment.shortest) {
            event.period.sampled(counted, event.pace(plan, slot.event(), moment));
        }
        event.drawn = event.period.draw(&mut self.random);
        let weight = match plan.slices() {
            1 => counted,
            _ => {
                let (times, parts) = plan.scale(slot.event() as u8);
                counted * times / parts.max(1)
            }
        };
        (Due { event: slot.event() as u16, weight, modes: slot.modes }, event.drawn)
    }

    /// From time to time: looks whether the counters are still as they were left, sets right what is not, and gives
    /// them to the next slice.
    pub fn tick<R: Registers>(&mut self, plan: &Plan, registers: &R, moment: Moment) -> Silence {
        let silent = moment.awake.saturating_sub(self.seen);
        match self.state {
            State::Off | State::Paused => return Silence::default(),
            State::Yielded => {
                self.seen = moment.awake;
                return Silence { swallowed: 0, masked_ns: silent };
            }
            State::Running => {}
        }
        let pmu = &plan.pmu;
        pmu.freeze(registers, plan.share_of(self.slice).counters());
        let is_armed = registers.lvtpc() & (LVTPC_MASKED | LVTPC_NMI) == LVTPC_NMI
            && (plan.assumed || self.is_armed(plan, registers));
        if !plan.assumed && self.is_taken_over(plan, registers) {
            self.state = State::Yielded;
            self.seen = moment.awake;
            return Silence { swallowed: 0, masked_ns: silent };
        }
        let overflowed = self.halt(plan, registers, moment);
        self.expect_late(overflowed, moment.now);
        self.slice = if self.slice + 1 < plan.slices { self.slice + 1 } else { 0 };
        registers.set_lvtpc(LVTPC_NMI);
        self.start(plan, registers, moment);
        self.seen = moment.awake;
        let is_well = is_armed && overflowed == 0;
        Silence { swallowed: overflowed.count_ones(), masked_ns: if is_well { 0 } else { silent } }
    }

    /// Stops this slice's counters and keeps what is left of their periods. Returns those that had overflowed.
    fn halt<R: Registers>(&mut self, plan: &Plan, registers: &R, moment: Moment) -> Counters {
        let pmu = &plan.pmu;
        let mut overflowed = 0;
        for slot in plan.share_of(self.slice).slots() {
            pmu.stop(registers, slot.counter);
            let event = &mut self.events[slot.event()];
            match slot.place.position(registers) {
                Position::Left(left) => {
                    event.left = left.min(event.drawn);
                    let counted = event.drawn - event.left;
                    let pace = event.pace(plan, slot.event(), moment);
                    if event.period.is_overdue(counted, pace) {
                        event.left = event.period.draw(&mut self.random).min(event.left);
                        event.drawn = counted + event.left;
                    }
                }
                // Nothing counts there, and what is left is not known.
                Position::Past(_) if plan.assumed => event.left = event.drawn,
                Position::Past(_) => {
                    overflowed |= 1 << slot.counter;
                    event.drawn = event.period.draw(&mut self.random);
                    event.left = event.drawn;
                }
            }
            event.ran = event.has_run(moment);
            event.since = moment.awake;
        }
        pmu.acknowledge(registers, overflowed);
        overflowed
    }

    fn start<R: Registers>(&mut self, plan: &Plan, registers: &R, moment: Moment) {
        for slot in plan.share_of(self.slice).slots() {
            let event = &mut self.events[slot.event()];
            event.since = moment.awake;
            plan.pmu.start(registers, slot.counter, &plan.events[slot.event()], event.left.max(1));
        }
        plan.pmu.thaw(registers, plan.share_of(self.slice).counters());
    }

    fn is_armed<R: Registers>(&self, plan: &Plan, registers: &R) -> bool {
        let mut slots = plan.share_of(self.slice).slots().iter();
        slots.all(|slot| plan.pmu.is_armed(registers, slot.counter, &plan.events[slot.event()]))
    }

    /// Whether a selector was set to something else that counts.
    fn is_taken_over<R: Registers>(&self, plan: &Plan, registers: &R) -> bool {
        let mut slots = plan.share_of(self.slice).slots().iter();
        slots.any(|slot| {
            plan.pmu.is_fixed(slot.counter).is_none()
                && plan.pmu.is_started(registers, slot.counter)
                && !plan.pmu.is_armed(registers, slot.counter, &plan.events[slot.event()])
        })
    }

    /// The NMI of these overflows may still come.
    fn expect_late(&mut self, overflowed: Counters, now: u64) {
        if overflowed != 0 {
            self.late_until = now + LATE_NS;
        }
    }

    /// What an NMI is that finds nothing.
    fn late_or_foreign(&mut self, now: u64) -> Nmi {
        // Only one NMI can have been held back.
        if core::mem::take(&mut self.late_until) > now { Nmi::Late } else { Nmi::Foreign }
    }

    fn save<R: Registers>(&mut self, plan: &Plan, registers: &R) {
        let pmu = &plan.pmu;
        for counter in bits(plan.counters()) {
            let place = usize::from(counter);
            self.saved.counters[place] = registers.rdmsr(pmu.counter_of(counter));
            if pmu.is_fixed(counter).is_none() {
                self.saved.selectors[place] = registers.rdmsr(pmu.selector_of(counter));
            }
        }
        if let Some(global) = pmu.global {
            self.saved.global = registers.rdmsr(global.control);
        }
        self.saved.lvtpc = registers.lvtpc();
    }

    fn restore<R: Registers>(&mut self, plan: &Plan, registers: &R) {
        let pmu = &plan.pmu;
        for counter in bits(plan.counters()) {
            let place = usize::from(counter);
            registers.wrmsr(pmu.counter_of(counter), self.saved.counters[place]);
            if pmu.is_fixed(counter).is_none() {
                registers.wrmsr(pmu.selector_of(counter), self.saved.selectors[place]);
            }
        }
        if let Some(global) = pmu.global {
            let ours = pmu.global_bits(plan.counters());
            let others = registers.rdmsr(global.control) & !ours;
            registers.wrmsr(global.control, others | self.saved.global & ours);
        }
        registers.set_lvtpc(self.saved.lvtpc);
    }
}

fn bits(mut counters: Counters) -> impl Iterator<Item = u8> {
    iter::from_fn(move || {
        let first = counters.trailing_zeros() as u8;
        // Without its lowest bit; none is left of none.
        counters &= counters.wrapping_sub(1);
        (first < Counters::BITS as u8).then_some(first)
    })
}
