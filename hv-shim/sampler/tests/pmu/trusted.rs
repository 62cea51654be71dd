//! Counters that only pretend are found out.

use abi::pmu::Unusable;
use sampler::pmu::{interrupts, trust};

use crate::{
    config,
    model::{ALL, Cpu, Flaw, INSTRUCTIONS, Kind, kernel},
    plan,
};

/// What both checks say; the rounds of their work are two instructions and a cycle each.
fn verdict(kind: Kind, flaw: Flaw) -> Result<(), Unusable> {
    let cpu = Cpu::new(kind);
    let plan = plan(&cpu, &[config(INSTRUCTIONS, 100_000), config(0x76, 100_000)], 0).unwrap();
    cpu.flaw.set(flaw);
    let spin = |rounds: u32| {
        for _ in 0..rounds / 64 {
            cpu.work(kernel(INSTRUCTIONS, 128));
        }
    };
    trust(&plan, &cpu, spin)?;
    let taken = std::cell::Cell::new(0);
    let arrived = || {
        taken.set(taken.get() + u64::from(cpu.nmi.replace(false)));
        taken.get()
    };
    interrupts(&plan, &cpu, spin, arrived)
}

#[test]
fn what_works_is_trusted_and_left_as_it_was() {
    for kind in ALL {
        let before = Cpu::new(kind).state();
        assert_eq!(verdict(kind, Flaw::None), Ok(()), "{kind:?}");
        let cpu = Cpu::new(kind);
        let plan = plan(&cpu, &[config(INSTRUCTIONS, 100_000)], 0).unwrap();
        trust(&plan, &cpu, |rounds| cpu.work(kernel(INSTRUCTIONS, u64::from(rounds)))).unwrap();
        assert_eq!(cpu.state().1, before.1);
        assert_eq!(cpu.state().0.keys().collect::<Vec<_>>().len(), before.0.len(), "{kind:?}");
    }
}

#[test]
fn what_pretends_is_not() {
    for kind in ALL {
        assert_eq!(verdict(kind, Flaw::Zero), Err(Unusable::NotCounting), "{kind:?}");
        assert_eq!(verdict(kind, Flaw::Still), Err(Unusable::NotCounting), "{kind:?}");
        assert_eq!(verdict(kind, Flaw::Unstoppable), Err(Unusable::NotCounting), "{kind:?}");
        assert_eq!(verdict(kind, Flaw::Saturating), Err(Unusable::NotOverflowing), "{kind:?}");
        assert_eq!(verdict(kind, Flaw::Silent), Err(Unusable::NotInterrupting), "{kind:?}");
    }
}
