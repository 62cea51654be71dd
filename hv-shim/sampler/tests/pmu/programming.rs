//! Which registers are written, in which order, on each generation.

use abi::pmu::{EventConfig, MODE_HYPERVISOR, MODE_USER, REFERENCE_CYCLES, Unusable};
use sampler::pmu::{Event, Pmu, Registers};

use crate::{
    Sampled, config,
    model::{ALL, Cpu, INSTRUCTIONS, Kind},
    plan,
};

const LVTPC: u32 = 0;
/// USER, KERNEL, INTERRUPT and ENABLE.
const ON: u64 = 0x53_0000;

/// The writes of a session's beginning, with counters' values left out: they are drawn.
fn beginning(kind: Kind, events: &[EventConfig]) -> Vec<(u32, Option<u64>)> {
    let sampled = Sampled::running(Cpu::new(kind), events);
    let cpu = &sampled.cpu;
    let is_counter = |msr: u32| (0..cpu.general() + cpu.fixed()).any(|it| cpu.counter(it) == msr);
    let written = cpu.written.borrow();
    written.iter().map(|&(msr, value)| (msr, (!is_counter(msr)).then_some(value))).collect()
}

#[test]
fn amd_is_programmed_counter_before_selector() {
    let legacy = [(LVTPC, Some(0x400)), (0xc001_0004, None), (0xc001_0000, Some(ON | 0x76))];
    assert_eq!(beginning(Kind::Legacy, &[config(0x76, 100_000)]), legacy);
    let core = [(LVTPC, Some(0x400)), (0xc001_0201, None), (0xc001_0200, Some(ON | 0x76))];
    assert_eq!(beginning(Kind::Core, &[config(0x76, 100_000)]), core);
    let v2 = [&core[..], &[(0xc000_0301, Some(0x3f))]].concat();
    assert_eq!(beginning(Kind::AmdV2, &[config(0x76, 100_000)]), v2);
}

#[test]
fn intel_gives_fixed_events_fixed_counters() {
    let events = [config(0xc0, 100_000), config(0x412e, 10_000), config(REFERENCE_CYCLES, 100_000)];
    let expected = [
        (LVTPC, Some(0x400)),
        (0xc1, None),
        (0x186, Some(ON | 0x412e)),
        (0x309, None),
        (0x38d, Some(0xb)),
        (0x30b, None),
        (0x38d, Some(0xb0b)),
        (0x38f, Some(0x7_0000_000f)),
    ];
    assert_eq!(beginning(Kind::Intel(4), &events), expected);
    // Version 1 has neither fixed counters nor a global control.
    let expected = [(LVTPC, Some(0x400)), (0xc1, None), (0x186, Some(ON | 0xc0))];
    assert_eq!(beginning(Kind::Intel(1), &events[..1]), expected);
}

#[test]
fn selectors_say_what_of_the_modes_the_processor_can_tell() {
    let only = |modes| EventConfig { modes, ..config(0x76, 100_000) };
    let selector = |kind, modes| {
        let written = beginning(kind, &[only(modes)]);
        let cpu = Cpu::new(kind);
        written.iter().find(|(msr, _)| *msr == cpu.selector(0)).unwrap().1.unwrap()
    };
    assert_eq!(selector(Kind::Core, MODE_USER), 0x51_0076);
    assert_eq!(selector(Kind::Core, MODE_HYPERVISOR), 0x200_0052_0076);
    assert_eq!(selector(Kind::Intel(1), MODE_HYPERVISOR), 0x52_0076);
}

#[test]
fn values_fit_each_generations_counters() {
    for kind in ALL {
        // The model refuses whatever does not fit; what it took must be the negative of the period.
        let sampled = Sampled::running(Cpu::new(kind), &[config(INSTRUCTIONS, 2_000_000_000)]);
        let counter = if matches!(kind, Kind::Intel(2..)) { sampled.cpu.general() } else { 0 };
        let bits = if kind == Kind::Intel(1) { 40 } else { 48 };
        let left = (1u64 << bits) - sampled.cpu.get(sampled.cpu.counter(counter));
        assert!((1..=1 << 31).contains(&left), "{kind:?}: {left:#x}");
    }
}

#[test]
fn what_a_processor_has_is_found() {
    let counts: Vec<u8> = ALL.iter().map(|&kind| Pmu::probe(&Cpu::new(kind)).unwrap().count()).collect();
    assert_eq!(counts, [4, 6, 6, 2, 5, 5, 7, 7]);
    for kind in ALL {
        let cpu = Cpu::new(kind);
        assert!(Pmu::probe(&cpu).unwrap().is_accessible(&cpu));
    }
}

/// Somebody else's processor, and one of ours without counters.
struct Bare(&'static str);

impl Registers for Bare {
    fn rdmsr(&self, _: u32) -> u64 {
        panic!("no register may be read")
    }
    fn wrmsr(&self, _: u32, _: u64) {
        panic!("no register may be written")
    }
    fn try_rdmsr(&self, _: u32) -> Option<u64> {
        None
    }
    fn try_wrmsr(&self, _: u32, _: u64) -> bool {
        false
    }
    fn cpuid(&self, leaf: u32, _: u32) -> [u32; 4] {
        let word = |at: usize| u32::from_le_bytes(self.0.as_bytes()[at..at + 4].try_into().unwrap());
        if leaf == 0 { [0x16, word(0), word(8), word(4)] } else { [0; 4] }
    }
    fn lvtpc(&self) -> u32 {
        0
    }
    fn set_lvtpc(&self, _: u32) {}
}

#[test]
fn others_have_none() {
    for vendor in ["GenuineIntel", "CentaurHauls", "AuthenticAMD"] {
        assert_eq!(Pmu::probe(&Bare(vendor)), None, "{vendor}");
    }
}

#[test]
fn what_cannot_be_counted_is_refused() {
    for impossible in [
        config(0x76, 999),
        config(0x76, 1 << 31),
        config(0x40_0076, 100_000),
        EventConfig { modes: 0, ..config(0x76, 100_000) },
        EventConfig { modes: 8, ..config(0x76, 100_000) },
    ] {
        assert_eq!(Event::of(&impossible), None, "{impossible:?}");
    }
    // Reference cycles have no code: without their fixed counter there is none.
    let cpu = Cpu::new(Kind::Intel(4));
    let everything_fixed = 0x70;
    let refused = plan(&cpu, &[config(REFERENCE_CYCLES, 100_000)], everything_fixed);
    assert_eq!(refused.unwrap_err(), Unusable::TooFewCounters);
}
