//! What happens to counters at work: overflows, NMIs of all kinds, interference, the end.

use abi::pmu::Unusable;
use sampler::pmu::{LVTPC_MASKED, LVTPC_NMI, Nmi, Pmu, Silence};

use crate::{
    Sampled, at, config,
    model::{ALL, Cpu, INSTRUCTIONS, Kind, kernel},
    plan,
};

/// Cycles, which have no fixed counter here: a code that both vendors leave to general ones.
const CODE: u64 = 0x76;

fn running(kind: Kind) -> Sampled {
    Sampled::running(Cpu::new(kind), &[config(CODE, 100_000)])
}

#[test]
fn weights_are_what_was_counted() {
    for kind in ALL {
        let mut sampled = running(kind);
        for _ in 0..200_000 {
            sampled.work(1_000, &[kernel(CODE, 3_007)]);
        }
        let (truth, seen) = (200_000 * 3_007, sampled.weight(0));
        // But for the first period and the last.
        assert!(truth - 120_000 <= seen && seen <= truth + 120_000, "{kind:?}: {seen} of {truth}");
        let count = sampled.taken.len() as u64;
        assert!(count.abs_diff(truth / 101_500) < 60, "{kind:?}: {count} samples");
        // Periods vary, so that nothing stays in step with them.
        let longest = sampled.taken.iter().map(|due| due.weight).max().unwrap();
        let shortest = sampled.taken.iter().map(|due| due.weight).min().unwrap();
        assert!(shortest < 85_000 && longest > 117_000, "{kind:?}: {shortest} to {longest}");
    }
}

#[test]
fn an_overflow_far_behind_counts_in_full() {
    let mut sampled = running(Kind::Core);
    sampled.work(1_000, &[kernel(CODE, 10_000_000)]);
    assert!(sampled.weight(0) > 9_900_000, "{:?}", sampled.taken);
}

#[test]
fn nmis_of_others_are_theirs() {
    for kind in ALL {
        let mut sampled = running(kind);
        sampled.work(1_000, &[kernel(CODE, 10)]);
        assert_eq!(sampled.nmi(), Nmi::Foreign, "{kind:?}");
        assert!(sampled.taken.is_empty());
    }
}

/// Two counters overflow before the first NMI is served; where there is no status the second NMI comes with nothing
/// to show.
#[test]
fn the_second_nmi_of_two_overflows_is_claimed_once() {
    for kind in ALL {
        let mut sampled = Sampled::running(Cpu::new(kind), &[config(CODE, 100_000), config(0x77, 100_000)]);
        sampled.cpu.work(kernel(CODE, 150_000));
        sampled.cpu.work(kernel(0x77, 150_000));
        assert_eq!(sampled.nmi(), Nmi::Ours);
        assert_eq!(sampled.taken.len(), 2, "{kind:?}");
        assert_eq!(sampled.nmi(), Nmi::Late);
        assert_eq!(sampled.nmi(), Nmi::Foreign);
        // And not for ever.
        sampled.cpu.work(kernel(CODE, 150_000));
        sampled.cpu.work(kernel(0x77, 150_000));
        assert_eq!(sampled.nmi(), Nmi::Ours);
        sampled.now += 200_000_000;
        assert_eq!(sampled.nmi(), Nmi::Foreign);
    }
}

#[test]
fn a_delivered_interrupt_leaves_intels_lvtpc_masked_and_the_handler_opens_it() {
    let mut sampled = running(Kind::Intel(4));
    sampled.cpu.work(kernel(CODE, 150_000));
    assert_eq!(sampled.cpu.lvtpc.get(), LVTPC_NMI | LVTPC_MASKED);
    // The status is cleared first: otherwise the same overflow would interrupt again.
    sampled.cpu.written.borrow_mut().clear();
    sampled.nmi();
    let written = sampled.cpu.written.borrow();
    let place = |msr| written.iter().position(|&(written, _)| written == msr).unwrap();
    assert!(place(0x390) < place(0), "{written:x?}");
    assert_eq!(sampled.cpu.lvtpc.get(), LVTPC_NMI);
}

/// Xen swallows NMIs while a livepatch is put in place: nothing would ever come from that CPU again.
#[test]
fn a_swallowed_interrupt_is_found_by_the_next_tick_and_counted() {
    for kind in ALL {
        let mut sampled = running(kind);
        sampled.now += 1_000_000;
        sampled.cpu.work(kernel(CODE, 150_000));
        sampled.cpu.nmi.set(false);
        sampled.now += 2_000_000;
        let silence = sampled.unit.tick(&sampled.plan, &sampled.cpu, at(sampled.now));
        assert_eq!(silence, Silence { swallowed: 1, masked_ns: 3_000_000 }, "{kind:?}");
        let quiet = sampled.unit.tick(&sampled.plan, &sampled.cpu, at(sampled.now + 1));
        assert_eq!(quiet, Silence::default());
        for _ in 0..1_000 {
            sampled.work(1_000, &[kernel(CODE, 1_000)]);
        }
        assert!(sampled.taken.len() >= 8, "{kind:?}: {} samples", sampled.taken.len());
    }
}

#[test]
fn a_counter_that_somebody_stopped_is_started_again() {
    for kind in ALL {
        let mut sampled = running(kind);
        sampled.cpu.put(sampled.cpu.selector(0), 0);
        let silence = sampled.unit.tick(&sampled.plan, &sampled.cpu, at(5_000));
        assert_eq!(silence, Silence { swallowed: 0, masked_ns: 4_000 }, "{kind:?}");
        for _ in 0..1_000 {
            sampled.work(1_000, &[kernel(CODE, 1_000)]);
        }
        assert!(sampled.taken.len() >= 8, "{kind:?}");
    }
}

#[test]
fn a_masked_lvtpc_is_opened_again() {
    let mut sampled = running(Kind::AmdV2);
    sampled.cpu.lvtpc.set(LVTPC_MASKED);
    let silence = sampled.unit.tick(&sampled.plan, &sampled.cpu, at(5_000));
    assert_eq!(silence.masked_ns, 4_000);
    assert_eq!(sampled.cpu.lvtpc.get(), LVTPC_NMI);
}

#[test]
fn a_counter_that_somebody_else_programs_is_left_to_him() {
    for kind in ALL {
        let mut sampled = running(kind);
        let theirs = 0x53_00c0;
        sampled.cpu.put(sampled.cpu.selector(0), theirs);
        sampled.unit.tick(&sampled.plan, &sampled.cpu, at(5_000));
        assert!(sampled.unit.has_yielded());
        let silence = sampled.unit.tick(&sampled.plan, &sampled.cpu, at(9_000));
        assert_eq!(silence.masked_ns, 4_000);
        assert_eq!(sampled.nmi(), Nmi::Foreign);
        sampled.unit.end(&sampled.plan, &sampled.cpu, at(10_000));
        assert_eq!(sampled.cpu.get(sampled.cpu.selector(0)), theirs, "{kind:?}");
    }
}

#[test]
fn counters_in_use_are_left_alone() {
    for kind in ALL {
        let cpu = Cpu::new(kind);
        cpu.put(cpu.selector(0), 0x43_0076);
        let in_use = Pmu::probe(&cpu).unwrap().in_use(&cpu);
        assert_eq!(in_use, 1, "{kind:?}");
        let plan = plan(&cpu, &[config(CODE, 100_000)], in_use).unwrap();
        assert_eq!(plan.counters(), 0b10, "{kind:?}");
    }
    let cpu = Cpu::new(Kind::Legacy);
    let refused = plan(&cpu, &[config(CODE, 100_000)], 0b1111).unwrap_err();
    assert_eq!(refused, Unusable::TooFewCounters);
}

#[test]
fn in_the_end_every_register_holds_what_it_held() {
    for kind in ALL {
        let cpu = Cpu::new(kind);
        cpu.put(cpu.counter(0), 0x1234);
        cpu.put(cpu.selector(0), 0x03_0076);
        cpu.lvtpc.set(LVTPC_MASKED | 0xd1);
        let before = cpu.state();
        let mut sampled = Sampled::running(cpu, &[config(CODE, 100_000), config(INSTRUCTIONS, 100_000)]);
        for _ in 0..1_000 {
            sampled.work(1_000, &[kernel(CODE, 3_000), kernel(INSTRUCTIONS, 5_000)]);
        }
        sampled.unit.pause(&sampled.plan, &sampled.cpu, at(sampled.now));
        sampled.unit.run(&sampled.plan, &sampled.cpu, at(sampled.now));
        sampled.unit.end(&sampled.plan, &sampled.cpu, at(sampled.now));
        assert_eq!(sampled.cpu.state(), before, "{kind:?}");
    }
}

#[test]
fn a_pause_is_silent_and_what_comes_of_it_late_is_claimed() {
    for kind in ALL {
        let mut sampled = running(kind);
        // The overflow's NMI is on its way when the pause begins.
        sampled.cpu.work(kernel(CODE, 150_000));
        sampled.unit.pause(&sampled.plan, &sampled.cpu, at(2_000));
        assert_eq!(sampled.nmi(), Nmi::Late, "{kind:?}");
        for _ in 0..100 {
            sampled.work(1_000, &[kernel(CODE, 100_000)]);
        }
        assert!(sampled.taken.is_empty());
        sampled.unit.run(&sampled.plan, &sampled.cpu, at(sampled.now));
        for _ in 0..100 {
            sampled.work(1_000, &[kernel(CODE, 10_000)]);
        }
        assert!(sampled.taken.len() > 5, "{kind:?}");
    }
}
