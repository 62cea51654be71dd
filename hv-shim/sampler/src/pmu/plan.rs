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

use super::{Counters, Place, Pmu};

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

/// A counter that an event is on, with what an NMI has to know of both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) counter: u8,
    event: u8,
    /// In which modes the event is wanted.
    pub(super) modes: u8,
    pub(super) place: Place,
}

impl Slot {
    const NONE: Self = Self { counter: 0, event: 0, modes: 0, place: Place::NONE };

    /// The event's number.
    #[inline(always)]
    pub(super) fn event(&self) -> usize {
        // It is below in any case; so the compiler knows it, too.
        usize::from(self.event) % MAX_EVENTS
    }
}

/// The counters that are used in one slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    slots: [Slot; MAX_COUNTERS],
    count: u8,
    counters: Counters,
}

impl Share {
    const NONE: Self = Self { slots: [Slot::NONE; MAX_COUNTERS], count: 0, counters: 0 };

    #[inline(always)]
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// The same with what is counted there, in their order.
    #[inline(always)]
    pub(super) fn slots(&self) -> &[Slot] {
        self.slots.get(..usize::from(self.count)).unwrap_or(&[])
    }
}

/// Which event is counted where and when.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub(super) pmu: Pmu,
    pub(super) events: [Event; MAX_EVENTS],
    pub(super) count: u8,
    pub(super) slices: u8,
    /// By slice and counter: an event's number, or [`FREE`].
    rooms: [[u8; MAX_COUNTERS]; MAX_EVENTS],
    /// The same as NMIs and ticks want it, by slice.
    shares: [Share; MAX_EVENTS],
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
        rooms: [[FREE; MAX_COUNTERS]; MAX_EVENTS],
        shares: [Share::NONE; MAX_EVENTS],
        used: 0,
        parts: [1; MAX_EVENTS],
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
        self.fill_rooms(leave)?;
        // What each sample asks for is found out once.
        for (share, rooms) in self.shares.iter_mut().zip(&self.rooms) {
            for (counter, &event) in (0..).zip(rooms).filter(|&(_, &event)| event != FREE) {
                let (modes, place) =
                    (self.events[usize::from(event)].modes as u8, self.pmu.place_of(counter));
                share.slots[usize::from(share.count)] = Slot { counter, event, modes, place };
                share.count += 1;
                share.counters |= 1 << counter;
            }
            self.used |= share.counters;
        }
        for number in 0..self.count {
            self.parts[usize::from(number)] = self.slices_of(number).max(1);
        }
        Ok(())
    }

    fn fill_rooms(&mut self, leave: Counters) -> Result<(), Unusable> {
        let is_free = |counter: u8| leave >> counter & 1 == 0;
        // Those that have a fixed counter are out of the others' way, in every slice.
        let mut waiting = 0u32;
        for number in 0..self.count {
            let fixed = (self.pmu.general.count..self.pmu.count()).find(|&counter| {
                is_free(counter)
                    && self.may_count(counter, number)
                    && self.rooms[0][usize::from(counter)] == FREE
            });
            match fixed {
                Some(counter) => self.rooms.iter_mut().for_each(|slice| slice[usize::from(counter)] = number),
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
                self.rooms[usize::from(slice)][usize::from(counter)] = number;
            }
        }
        Ok(())
    }

    fn may_count(&self, counter: u8, number: u8) -> bool {
        self.pmu.can_count(counter, self.events[usize::from(number)].selector)
    }

    fn is_in(&self, slice: u8, number: u8) -> bool {
        self.rooms.get(usize::from(slice)).is_some_and(|rooms| rooms.contains(&number))
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
        (u64::from(self.slices), u64::from(self.parts[usize::from(number) % MAX_EVENTS]))
    }

    /// The counters that are used in some slice.
    pub fn counters(&self) -> Counters {
        self.used
    }

    /// What is counted in a slice.
    #[inline(always)]
    pub(super) fn share_of(&self, slice: u8) -> &Share {
        &self.shares[usize::from(slice) % MAX_EVENTS]
    }

    /// The processor's counters.
    pub fn pmu(&self) -> &Pmu {
        &self.pmu
    }
}
