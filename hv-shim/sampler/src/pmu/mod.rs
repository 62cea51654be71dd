//! Performance counters: programmed, armed, acknowledged, given back.
//!
//! Comes in: events as selectors with periods ([`abi::pmu::EventConfig`]), and the processor through [`Registers`].
//! Goes out: which event has overflowed, what its sample stands for ([`Unit::interrupt`]), and whether an NMI was
//! ours ([`Nmi`]). Not here: what was interrupted (`interrupted`), and who is asked before the counters are taken
//! (`xen-payload`).
//!
//! A [`Pmu`] says what the processor has: [`amd`] and [`intel`] make it from CPUID. All generations of both count in
//! banks of pairs of one selector and one counter, so that one description serves for them; what differs is where
//! the registers stand, whether there is a global control, and Intel's fixed counters. A [`Plan`] says which event is
//! counted where and when, the same for every CPU; a [`Unit`] is one CPU's counters at work.

mod amd;
mod fixmap;
mod intel;
mod period;
mod plan;
mod trust;
mod unit;

pub use fixmap::fixmap_of;
pub use plan::{Event, MAX_COUNTERS, Plan};
pub use trust::{interrupts, spin, trust};
pub use unit::{Due, Moment, Nmi, Silence, Unit};

/// The processor's registers. What faults would end the machine: nothing but [`Self::try_rdmsr`] and
/// [`Self::try_wrmsr`] is ever used on a register that is not known to be there.
pub trait Registers {
    /// A model-specific register's value.
    fn rdmsr(&self, msr: u32) -> u64;
    /// Sets one.
    fn wrmsr(&self, msr: u32, value: u64);
    /// Its value; none where the processor has no such register.
    fn try_rdmsr(&self, msr: u32) -> Option<u64>;
    /// Sets one; false where the processor refuses.
    fn try_wrmsr(&self, msr: u32, value: u64) -> bool;
    /// CPUID: eax, ebx, ecx, edx.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// The local APIC's entry for performance counters (LVTPC).
    fn lvtpc(&self) -> u32;
    /// Sets it.
    fn set_lvtpc(&self, value: u32);
}

/// LVTPC: deliver as NMI, not masked.
pub const LVTPC_NMI: u32 = 4 << 8;
/// LVTPC: delivers nothing. What a reset leaves.
pub const LVTPC_MASKED: u32 = 1 << 16;

/// Bits of a selector, on both vendors' processors.
mod select {
    pub(super) const USER: u64 = 1 << 16;
    pub(super) const KERNEL: u64 = 1 << 17;
    pub(super) const INTERRUPT: u64 = 1 << 20;
    pub(super) const ENABLE: u64 = 1 << 22;
    /// AMD, where there is SVM: not in guests.
    pub(super) const HOST_ONLY: u64 = 1 << 41;
}

/// A bit for each counter: the general ones from 0 on, then the fixed ones.
pub type Counters = u32;

/// What a processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pmu {
    general: Bank,
    fixed: Option<Fixed>,
    global: Option<Global>,
    /// The bits of a counter.
    width: u8,
    /// An interrupt that was delivered leaves LVTPC masked.
    masks_lvtpc: bool,
    /// A selector can leave guests out.
    host_only: bool,
}

/// Pairs of a selector and a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bank {
    selector: u32,
    counter: u32,
    /// From one pair to the next.
    stride: u32,
    count: u8,
}

/// Intel's counters of one event each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fixed {
    control: u32,
    counter: u32,
    count: u8,
    width: u8,
}

/// Registers for all counters at once. General counters have their own number's bit, fixed ones those from
/// [`Global::FIXED`] on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Global {
    control: u32,
    status: u32,
    /// Bits written to it are cleared in `status`.
    clear: u32,
}

impl Global {
    const FIXED: u8 = 32;
}

impl Pmu {
    /// A processor that has nothing.
    const NONE: Self = Self {
        general: Bank { selector: 0, counter: 0, stride: 0, count: 0 },
        fixed: None,
        global: None,
        width: 48,
        masks_lvtpc: false,
        host_only: false,
    };

    /// What this processor has; none where it has nothing that is known here.
    pub fn probe<R: Registers>(registers: &R) -> Option<Self> {
        let [highest, b, c, d] = registers.cpuid(0, 0);
        match (b, d, c) {
            // "GenuineIntel"
            (0x756e_6547, 0x4965_6e69, 0x6c65_746e) => intel::probe(registers, highest),
            // "AuthenticAMD", "HygonGenuine"
            (0x6874_7541, 0x6974_6e65, 0x444d_4163) | (0x6f67_7948, 0x6e65_476e, 0x656e_6975) => {
                amd::probe(registers)
            }
            _ => None,
        }
    }

    /// How many counters there are.
    pub fn count(&self) -> u8 {
        self.general.count + self.fixed.map_or(0, |fixed| fixed.count)
    }

    /// All of them.
    fn all(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.count()
    }

    fn is_fixed(&self, counter: u8) -> Option<(Fixed, u8)> {
        let fixed = self.fixed?;
        counter.checked_sub(self.general.count).map(|number| (fixed, number))
    }

    fn selector_of(&self, counter: u8) -> u32 {
        self.general.selector + self.general.stride * u32::from(counter)
    }

    /// A counter's register, and the bits of its values.
    fn place_of(&self, counter: u8) -> Place {
        let (msr, width) = match self.is_fixed(counter) {
            Some((fixed, number)) => (fixed.counter + u32::from(number), fixed.width),
            None => (self.general.counter + self.general.stride * u32::from(counter), self.width),
        };
        Place { msr, mask: (1 << width) - 1 }
    }

    fn counter_of(&self, counter: u8) -> u32 {
        self.place_of(counter).msr
    }

    fn global_bits(&self, counters: Counters) -> u64 {
        let general = u64::from(counters) & ((1 << self.general.count) - 1);
        general | u64::from(counters >> self.general.count) << Global::FIXED
    }

    /// Of these counters, the ones whose bits are set in a global register.
    fn counters_in(&self, global: u64, counters: Counters) -> Counters {
        let set = global & self.global_bits(counters);
        let general = set & ((1 << self.general.count) - 1);
        (general | (set >> Global::FIXED) << self.general.count) as Counters
    }

    /// Whether a counter can count what a selector says.
    pub fn can_count(&self, counter: u8, selector: u64) -> bool {
        match self.is_fixed(counter) {
            // Instructions retired, cycles, reference cycles: fixed since architectural version 2.
            Some((_, 0)) => selector == 0xc0,
            Some((_, 1)) => selector == 0x3c,
            Some((_, 2)) => selector == abi::pmu::REFERENCE_CYCLES,
            Some(_) => false,
            None => counter < self.general.count && (self.fixed.is_none() || selector & 0xff != 0),
        }
    }

    /// The counters that somebody has started.
    pub fn in_use<R: Registers>(&self, registers: &R) -> Counters {
        self.all().filter(|&counter| self.is_started(registers, counter)).fold(0, |used, it| used | 1 << it)
    }

    fn is_started<R: Registers>(&self, registers: &R, counter: u8) -> bool {
        match self.is_fixed(counter) {
            Some((fixed, number)) => registers.rdmsr(fixed.control) >> (4 * number) & 0b11 != 0,
            None => registers.rdmsr(self.selector_of(counter)) & select::ENABLE != 0,
        }
    }

    /// Whether every register that will be used can be read and written: machines that are emulated lack some. Leaves
    /// them as they were; those of counters in use are not written.
    pub fn is_accessible<R: Registers>(&self, registers: &R) -> bool {
        let keeps = |msr| registers.try_rdmsr(msr).is_some_and(|value| registers.try_wrmsr(msr, value));
        let takes = |msr, value| {
            let before = registers.try_rdmsr(msr);
            before.is_some_and(|before| registers.try_wrmsr(msr, value) && registers.try_wrmsr(msr, before))
        };
        let control = self.fixed.is_none_or(|fixed| keeps(fixed.control));
        let global = self.global.is_none_or(|global| {
            keeps(global.control)
                && registers.try_rdmsr(global.status).is_some()
                && registers.try_wrmsr(global.clear, 0)
        });
        control
            && global
            && self.all().all(|counter| {
                let selector = self.selector_of(counter);
                match self.is_fixed(counter) {
                    Some(_) => keeps(self.counter_of(counter)),
                    None => match registers.try_rdmsr(selector) {
                        None => false,
                        Some(value) if value & select::ENABLE != 0 => {
                            registers.try_rdmsr(self.counter_of(counter)).is_some()
                        }
                        Some(_) => {
                            takes(selector, select::USER | select::KERNEL | 0xc0)
                                && keeps(self.counter_of(counter))
                        }
                    },
                }
            })
    }

    /// Starts a counter that has `left` events to go until it overflows. Under a global control it counts once
    /// [`Self::thaw`] says so.
    fn start<R: Registers>(&self, registers: &R, counter: u8, event: &Event, left: u64) {
        self.place_of(counter).load(registers, left);
        match self.is_fixed(counter) {
            Some((fixed, number)) => {
                let wanted = u64::from(event.kernel) | u64::from(event.user) << 1 | 1 << 3;
                let others = registers.rdmsr(fixed.control) & !(0b1111 << (4 * number));
                registers.wrmsr(fixed.control, others | wanted << (4 * number));
            }
            None => registers.wrmsr(self.selector_of(counter), self.selector(event)),
        }
    }

    fn selector(&self, event: &Event) -> u64 {
        let when = |condition: bool, bit| if condition { bit } else { 0 };
        event.selector
            | when(event.user, select::USER)
            | when(event.kernel, select::KERNEL)
            | when(self.host_only && event.host_only, select::HOST_ONLY)
            | select::INTERRUPT
            | select::ENABLE
    }

    /// Whether a counter is as [`Self::start`] left it.
    fn is_armed<R: Registers>(&self, registers: &R, counter: u8, event: &Event) -> bool {
        match self.is_fixed(counter) {
            Some(_) => self.is_started(registers, counter),
            None => registers.rdmsr(self.selector_of(counter)) == self.selector(event),
        }
    }

    fn stop<R: Registers>(&self, registers: &R, counter: u8) {
        match self.is_fixed(counter) {
            Some((fixed, number)) => {
                registers.wrmsr(fixed.control, registers.rdmsr(fixed.control) & !(0b1111 << (4 * number)));
            }
            None => registers.wrmsr(self.selector_of(counter), 0),
        }
    }

    /// Of these counters, the ones that a register says have overflowed; none where there is no such register.
    fn told<R: Registers>(&self, registers: &R, counters: Counters) -> Option<Counters> {
        self.global.map(|global| self.counters_in(registers.rdmsr(global.status), counters))
    }

    /// Of these counters, the ones that have overflowed.
    pub fn overflowed<R: Registers>(&self, registers: &R, counters: Counters) -> Counters {
        self.told(registers, counters).unwrap_or_else(|| {
            let past = |&counter: &u8| {
                counters >> counter & 1 != 0
                    && matches!(self.place_of(counter).position(registers), Position::Past(_))
            };
            self.all().filter(past).fold(0, |found, counter| found | 1 << counter)
        })
    }

    fn acknowledge<R: Registers>(&self, registers: &R, counters: Counters) {
        if let Some(global) = self.global {
            registers.wrmsr(global.clear, self.global_bits(counters));
        }
    }

    /// Stops all of these counters at once, where there is a register for that; others' go on.
    fn freeze<R: Registers>(&self, registers: &R, counters: Counters) {
        if let Some(global) = self.global {
            let control = registers.rdmsr(global.control);
            registers.wrmsr(global.control, control & !self.global_bits(counters));
        }
    }

    fn thaw<R: Registers>(&self, registers: &R, counters: Counters) {
        if let Some(global) = self.global {
            let control = registers.rdmsr(global.control);
            registers.wrmsr(global.control, control | self.global_bits(counters));
        }
    }
}

/// A counter's register.
#[derive(Clone, Copy, Debug)]
struct Place {
    msr: u32,
    /// The bits that it counts with.
    mask: u64,
}

impl Place {
    const NONE: Self = Self { msr: 0, mask: 0 };

    /// Loads the counter with what it takes to overflow after `left` events.
    fn load<R: Registers>(self, registers: &R, left: u64) {
        registers.wrmsr(self.msr, left.wrapping_neg() & self.mask);
    }

    /// The events that the counter still has to go until it overflows, or has counted since it did.
    fn position<R: Registers>(self, registers: &R) -> Position {
        let value = registers.rdmsr(self.msr) & self.mask;
        // Periods are far below half of the range: a counter that has not overflowed has its top bit set.
        if value > self.mask >> 1 { Position::Left(self.mask + 1 - value) } else { Position::Past(value) }
    }
}

/// Where a counter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// Before its overflow, by so many events.
    Left(u64),
    /// Behind it.
    Past(u64),
}
