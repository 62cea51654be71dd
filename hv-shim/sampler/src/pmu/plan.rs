//! Which event is counted where and when: the same on every CPU.
//!
//! When there are more events than counters, counting goes round in slices: every slice gives the counters to as many
//! events as fit, every event is in at least one, and the rooms that are left are shared out evenly. An event that is
//! in `n` of `m` slices is seen for that part of the time, and its samples stand for `m / n` times what was counted:
//! [`Plan::scale`].

use abi::pmu::{
    EventConfig, LONGEST_PERIOD, MAX_EVENTS, MODE_HYPERVISOR, MODE_KERNEL, MODE_USER, MODES, SELECTOR_BITS,
    SHORTEST_PERIOD, Unusable,
};

use super::{Counters, Pmu};

/// The most counters that are used.
pub const MAX_COUNTERS: usize = 11;

/// An event that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub(super) selector: u64,
    /// Count at privilege level 3: processes, and kernels that are paravirtualized.
    pub(super) user: bool,
    /// Count at the others: the hypervisor, and kernels of hardware guests.
    pub(super) kernel: bool,
    /// Nothing of guests is wanted.
    pub(super) host_only: bool,
    pub(super) modes: u64,
    pub(super) period: u64,
    pub(super) interval_ns: u64,
}

impl Event {
    const NONE: Self = Self {
        selector: 0,
        user: false,
        kernel: false,
        host_only: false,
        modes: 0,
        period: SHORTEST_PERIOD,
        interval_ns: 0,
    };

    /// An event for trying a counter out, wherever the CPU is.
    pub(super) const fn trial(selector: u64) -> Self {
        Self { selector, user: true, kernel: true, ..Self::NONE }
    }

    /// An event as it was asked for; none if that is out of range.
    pub fn of(config: &EventConfig) -> Option<Self> {
        let &EventConfig { selector, period, interval_ns, modes } = config;
        let periods = SHORTEST_PERIOD..=LONGEST_PERIOD;
        let is_possible =
            selector & !SELECTOR_BITS == 0 && periods.contains(&period) && modes != 0 && modes & !MODES == 0;
        is_possible.then_some(Self {
            selector,
            user: modes & (MODE_USER | MODE_KERNEL) != 0,
            kernel: modes & (MODE_HYPERVISOR | MODE_KERNEL) != 0,
            host_only: modes == MODE_HYPERVISOR,
            modes,
            period,
            interval_ns,
        })
    }
}

/// Nothing is counted there.
const FREE: u8 = u8::MAX;

/// Which event is counted where and when.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub(super) pmu: Pmu,
    pub(super) events: [Event; MAX_EVENTS],
    pub(super) count: u8,
    pub(super) slices: u8,
    /// By slice and counter: an event's number, or [`FREE`].
    slots: [[u8; MAX_COUNTERS]; MAX_EVENTS],
    /// By slice: the counters that are used in it.
    active: [Counters; MAX_EVENTS],
    /// The counters that are used in some slice.
    used: Counters,
    /// By event: in how many slices it is.
    parts: [u8; MAX_EVENTS],
    /// The counters are believed without evidence.
    pub(super) assumed: bool,
}

impl Plan {
    /// A plan for nothing on a processor that has nothing.
    pub const NONE: Self = Self {
        pmu: Pmu::NONE,
        events: [Event::NONE; MAX_EVENTS],
        count: 0,
        slices: 1,
        slots: [[FREE; MAX_COUNTERS]; MAX_EVENTS],
        active: [0; MAX_EVENTS],
        used: 0,
        parts: [0; MAX_EVENTS],
        assumed: false,
    };

    /// A plan for these events, but for counters that are to be left alone.
    pub fn new(pmu: Pmu, events: &[Event], leave: Counters, assumed: bool) -> Result<Self, Unusable> {
        let mut plan = Self::NONE;
        plan.describe(pmu, assumed);
        events.iter().for_each(|event| plan.add(event));
        plan.share_out(leave)?;
        Ok(plan)
    }

    /// Says what there is. Plans are made in place: they are too large to be moved about in a hypervisor.
    pub fn describe(&mut self, pmu: Pmu, assumed: bool) {
        (self.pmu, self.assumed) = (pmu, assumed);
    }

    /// Adds an event; what is too many is left out.
    pub fn add(&mut self, event: &Event) {
        if let Some(place) = self.events.get_mut(usize::from(self.count)) {
            *place = *event;
            self.count += 1;
        }
    }

    /// Shares the counters out.
    pub fn share_out(&mut self, leave: Counters) -> Result<(), Unusable> {
        self.fill_slots(leave)?;
        // What each sample asks for is found out once.
        for slice in 0..self.slices {
            let active = self.slots_of(slice).fold(0, |all, (counter, _)| all | 1 << counter);
            self.active[usize::from(slice)] = active;
            self.used |= active;
        }
        for number in 0..self.count {
            self.parts[usize::from(number)] = self.slices_of(number);
        }
        Ok(())
    }

    fn fill_slots(&mut self, leave: Counters) -> Result<(), Unusable> {
        let is_free = |counter: u8| leave >> counter & 1 == 0;
        // Those that have a fixed counter are out of the others' way, in every slice.
        let mut waiting = 0u32;
        for number in 0..self.count {
            let fixed = (self.pmu.general.count..self.pmu.count()).find(|&counter| {
                is_free(counter)
                    && self.may_count(counter, number)
                    && self.slots[0][usize::from(counter)] == FREE
            });
            match fixed {
                Some(counter) => self.slots.iter_mut().for_each(|slice| slice[usize::from(counter)] = number),
                None => waiting |= 1 << number,
            }
        }
        let general = (0..self.pmu.general.count).filter(|&counter| is_free(counter));
        let rooms = general.clone().count() as u32;
        if waiting == 0 {
            return Ok(());
        }
        if rooms == 0 {
            return Err(Unusable::TooFewCounters);
        }
        self.slices = waiting.count_ones().div_ceil(rooms) as u8;
        // Whoever has been in the fewest slices is next.
        for slice in 0..self.slices {
            for counter in general.clone() {
                let next = (0..self.count)
                    .filter(|&number| waiting >> number & 1 != 0 && !self.is_in(slice, number))
                    .min_by_key(|&number| self.slices_of(number));
                let Some(number) = next else { break };
                if !self.may_count(counter, number) {
                    return Err(Unusable::TooFewCounters);
                }
                self.slots[usize::from(slice)][usize::from(counter)] = number;
            }
        }
        Ok(())
    }

    fn may_count(&self, counter: u8, number: u8) -> bool {
        self.pmu.can_count(counter, self.events[usize::from(number)].selector)
    }

    fn is_in(&self, slice: u8, number: u8) -> bool {
        self.slots.get(usize::from(slice)).is_some_and(|slots| slots.contains(&number))
    }

    fn slices_of(&self, number: u8) -> u8 {
        (0..self.slices).filter(|&slice| self.is_in(slice, number)).count() as u8
    }

    /// How many slices there are; one where every event has a counter of its own.
    pub fn slices(&self) -> u8 {
        self.slices
    }

    /// What a sample of an event stands for, as a multiple of what was counted: numerator and denominator.
    pub fn scale(&self, number: u8) -> (u64, u64) {
        let parts = self.parts.get(usize::from(number)).copied().unwrap_or(0);
        (u64::from(self.slices), u64::from(parts.max(1)))
    }

    /// The counters that are used in some slice.
    pub fn counters(&self) -> Counters {
        self.used
    }

    /// The counters that are used in a slice.
    pub(super) fn counters_in(&self, slice: u8) -> Counters {
        self.active.get(usize::from(slice)).copied().unwrap_or(0)
    }

    /// A slice's counters, with the numbers of what they count.
    pub(super) fn slots_of(&self, slice: u8) -> impl Iterator<Item = (u8, usize)> + '_ {
        let slots = self.slots.get(usize::from(slice)).into_iter().flatten().enumerate();
        slots
            .filter(|&(_, &number)| usize::from(number) < MAX_EVENTS)
            .map(|(counter, &number)| (counter as u8, usize::from(number)))
    }

    /// What a counter counts in a slice.
    pub(super) fn event_on(&self, slice: u8, counter: u8) -> Option<usize> {
        let number = *self.slots.get(usize::from(slice))?.get(usize::from(counter))?;
        Some(usize::from(number)).filter(|&number| number < MAX_EVENTS)
    }

    /// The processor's counters.
    pub fn pmu(&self) -> &Pmu {
        &self.pmu
    }
}
