//! Whether counters do what they are there for: virtual machines and broken ones pretend.

use abi::pmu::Unusable;

use super::{Counters, Event, LVTPC_MASKED, LVTPC_NMI, Plan, Position, Registers};

/// How many rounds of [`spin`] a counter is watched for: a few microseconds.
const ROUNDS: u32 = 4_096;

/// More than can be counted meanwhile.
const FAR: u64 = 1 << 30;

/// Instructions retired, on both vendors' processors.
const INSTRUCTIONS: u64 = 0xc0;

/// Work that counts: at least one instruction and, on average, a good part of a cycle a round.
pub fn spin(rounds: u32) {
    for round in 0..rounds {
        core::hint::black_box(round);
    }
}

/// Whether each of the plan's counters counts while it is started, stands still while it is stopped, and tells its
/// overflow. Interrupts must be off; the registers are left stopped, LVTPC masked.
pub fn trust<R: Registers>(plan: &Plan, registers: &R, spin: impl Fn(u32)) -> Result<(), Unusable> {
    let lvtpc = registers.lvtpc();
    registers.set_lvtpc(LVTPC_MASKED);
    let result = each_counter(plan).try_for_each(|counter| counts(plan, registers, counter, &spin));
    registers.set_lvtpc(lvtpc);
    result
}

/// Whether an overflow interrupts. `arrived` tells how many NMIs have been taken for this on this CPU so far, by
/// whoever is called at NMIs.
pub fn interrupts<R: Registers>(
    plan: &Plan,
    registers: &R,
    spin: impl Fn(u32),
    arrived: impl Fn() -> u64,
) -> Result<(), Unusable> {
    let Some(counter) = each_counter(plan).next() else { return Err(Unusable::TooFewCounters) };
    let before = arrived();
    let lvtpc = registers.lvtpc();
    registers.set_lvtpc(LVTPC_NMI);
    try_out(plan, registers, counter, u64::from(ROUNDS / 8), &spin);
    // The interrupt may take its time on its way, but not for ever.
    for _ in 0..16 {
        if arrived() != before {
            break;
        }
        spin(ROUNDS);
    }
    plan.pmu().acknowledge(registers, 1 << counter);
    registers.set_lvtpc(lvtpc);
    if arrived() == before { Err(Unusable::NotInterrupting) } else { Ok(()) }
}

fn each_counter(plan: &Plan) -> impl Iterator<Item = u8> {
    let counters: Counters = plan.counters();
    plan.pmu().all().filter(move |counter| counters >> counter & 1 != 0)
}

fn counts<R: Registers>(
    plan: &Plan,
    registers: &R,
    counter: u8,
    spin: &impl Fn(u32),
) -> Result<(), Unusable> {
    let pmu = plan.pmu();
    let counted = |far: u64| match pmu.place_of(counter).position(registers) {
        Position::Left(left) => far.saturating_sub(left),
        Position::Past(_) => 0,
    };
    try_out(plan, registers, counter, FAR, spin);
    let first = counted(FAR);
    spin(ROUNDS);
    if first < u64::from(ROUNDS / 4) || counted(FAR) != first {
        return Err(Unusable::NotCounting);
    }
    try_out(plan, registers, counter, u64::from(ROUNDS / 8), spin);
    let told = pmu.overflowed(registers, 1 << counter) != 0;
    pmu.acknowledge(registers, 1 << counter);
    let past = matches!(pmu.place_of(counter).position(registers), Position::Past(_));
    registers.wrmsr(pmu.counter_of(counter), 0);
    if told && past { Ok(()) } else { Err(Unusable::NotOverflowing) }
}

/// Has a counter count while there is work.
fn try_out<R: Registers>(plan: &Plan, registers: &R, counter: u8, left: u64, spin: &impl Fn(u32)) {
    let (pmu, mask) = (plan.pmu(), 1 << counter);
    pmu.start(registers, counter, &Event::trial(INSTRUCTIONS), left);
    pmu.thaw(registers, mask);
    spin(ROUNDS);
    pmu.freeze(registers, mask);
    pmu.stop(registers, counter);
}
