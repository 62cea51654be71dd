//! Sampling by performance counters: who is asked for them, the NMI, the tick, and how they are given back.
//!
//! The NMI is the one producer of a CPU's ring here, wherever it finds the CPU. The timer only looks after the
//! counters ([`tick`]): are they as they were left, whose turn is it, does the lease hold. What both touch is kept
//! apart by a flag: an NMI that comes while a tick is at work counts its sample as lost.

use core::{
    arch::asm,
    cell::UnsafeCell,
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence},
};

use abi::{
    pmu::{MAX_EVENTS, TRUST_ASSUME, Unusable},
    record::{SOURCE_PMU, Sample},
    ring::{Loss, WATERMARK_ASLEEP},
};
use sampler::{
    Budget, Schedule, interrupted,
    pmu::{Due, Event, LVTPC_MASKED, Moment, Nmi, Plan, Pmu, Registers, Unit, interrupts, spin, trust},
};

use crate::{
    hooks::{config, layout},
    interrupts::{is_told_to_be_quiet, system_time, tell_cost, this_cpu, write},
    machine::{ThisCpu, stack_top, time_stamp},
    percpu::{self, Cpu},
    registers::{Msrs, find_apic},
    xen::{address, call},
};

unsafe extern "C" {
    fn xenoscope_enter_nmi();
    fn xenoscope_enter_survey();
    fn xenoscope_enter_trial();
    fn xenoscope_enter_end();
    fn xenoscope_enter_nothing();
}

/// What is counted where: written once, before any NMI comes here.
static mut PLAN: Plan = Plan::NONE;

/// Whether the counters serve.
static SERVING: AtomicBool = AtomicBool::new(false);
/// Set when the shim goes: no sample is taken any more.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Whether the NMI's callback is ours.
static INSTALLED: AtomicBool = AtomicBool::new(false);
/// The callback that was there; 0 for none, and until that is known.
static CALLBACK: AtomicU64 = AtomicU64::new(0);

/// What the survey found: the counters in use anywhere, and the first reason not to use any ([`Unusable`]).
static IN_USE: AtomicU64 = AtomicU64::new(0);
static UNUSABLE: AtomicU64 = AtomicU64::new(0);

/// One CPU's counters. All zeros is how they begin.
pub(crate) struct Counters {
    /// The tick is at work, or the NMI.
    busy: AtomicBool,
    /// The counters are being tried out, and how many NMIs have come of it.
    trying: AtomicBool,
    tried: AtomicU64,
    /// NMIs that found the tick at work since the last one.
    nested: AtomicU64,
    /// The lease as the NMI knows it: until when samples may be taken.
    holds_until: AtomicU64,
    /// The time never goes back, though an NMI can find the clock half-way through being set.
    latest: AtomicU64,
    work: UnsafeCell<Work>,
}

struct Work {
    unit: Unit,
    budget: Budget,
}

impl Counters {
    /// Somebody has looked for dom0's sign of life: until when samples may be taken.
    pub(crate) fn may_sample_until(&self, time: u64) {
        self.holds_until.store(time, Ordering::Relaxed);
    }

    /// Has the work for itself; none if an interrupted tick has it.
    fn enter(&self) -> Option<Inside<'_>> {
        if self.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the flag was not set: nobody on this CPU has it, and no other CPU comes here.
        Some(Inside { work: unsafe { &mut *self.work.get() }, busy: &self.busy })
    }
}

struct Inside<'a> {
    work: &'a mut Work,
    busy: &'a AtomicBool,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Relaxed);
    }
}

#[inline(always)]
fn plan() -> &'static Plan {
    let plan = &raw const PLAN;
    // SAFETY: written by `begin` only, before the callback is installed.
    unsafe { &*plan }
}

/// Whether the counters take the samples; else the timer does.
#[inline(always)]
pub(crate) fn serve() -> bool {
    SERVING.load(Ordering::Relaxed)
}

/// How often a tick is wanted, in nanoseconds.
pub(crate) fn tick_ns() -> u64 {
    if plan().slices() > 1 { 4_000_000 } else { 100_000_000 }
}

/// How the events share the counters, as the control page tells it.
pub(crate) fn slices() -> [u64; 2] {
    let mut words = [0, 0];
    let slices = plan().slices();
    words[0] = u64::from(slices);
    for number in 0..MAX_EVENTS.min(config().events as usize) {
        let (times, parts) = plan().scale(number as u8);
        // In lowest terms or not: of `slices` ones.
        let of_all = parts * u64::from(slices) / times.max(1);
        words[(number + 1) / 8] |= of_all << ((number + 1) % 8 * 8);
    }
    words
}

/// Takes the counters, if nobody else has them and they prove themselves. The CPUs' states are there.
pub(crate) fn begin(cpus: u64) -> Result<(), Unusable> {
    let config = config();
    if config.events == 0 {
        return Err(Unusable::NotAsked);
    }
    ask_the_neighbours()?;
    find_apic()?;
    let pmu = Pmu::probe(&Msrs).ok_or(Unusable::NoCounters)?;
    let assumed = config.trust == TRUST_ASSUME;
    let plan = &raw mut PLAN;
    // SAFETY: nobody reads it yet.
    unsafe { (*plan).describe(pmu, assumed) };
    everywhere(address!(of xenoscope_enter_survey));
    found()?;
    for event in config.event.iter().take(config.events as usize) {
        if let Some(event) = Event::of(event) {
            // SAFETY: as above.
            unsafe { (*plan).add(&event) };
        }
    }
    // SAFETY: as above.
    unsafe { (*plan).share_out(IN_USE.load(Ordering::Relaxed) as u32)? };
    for number in 0..cpus {
        let cpu = percpu::cpu(number);
        if !cpu.is_null() {
            // SAFETY: no NMI comes here yet.
            unsafe { (*cpu).counters.prepare(number, config.overhead_millionths) };
        }
    }
    // SAFETY: nmi_callback_t *set_nmi_callback(nmi_callback_t *), from any context.
    let before = unsafe { call!(set_nmi_callback, address!(of xenoscope_enter_nmi)) };
    CALLBACK.store(before, Ordering::Relaxed);
    INSTALLED.store(true, Ordering::Relaxed);
    if !assumed {
        everywhere(address!(of xenoscope_enter_trial));
        if let Err(why) = found() {
            give_callback_back();
            return Err(why);
        }
    }
    SERVING.store(true, Ordering::Release);
    Ok(())
}

impl Counters {
    /// # Safety
    /// Nobody else has the state.
    unsafe fn prepare(&self, number: u64, millionths: u64) {
        let seed = time_stamp() ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // SAFETY: the caller's promise.
        let work = unsafe { &mut *self.work.get() };
        work.unit.prepare(plan(), seed);
        work.budget = Budget::new(millionths, time_stamp(), system_time());
    }
}

/// Whoever may use the counters besides us.
fn ask_the_neighbours() -> Result<(), Unusable> {
    let optional = config().optional;
    // SAFETY: the loader resolved these variables of Xen; all of them are unsigned ints or enums, constant or read at
    // one moment.
    let value = |address: u64| unsafe { ptr::read_volatile(address as *const u32) };
    let needed =
        [optional.set_nmi_callback, optional.on_selected_cpus, optional.vpmu_mode, optional.nmi_watchdog];
    if needed.contains(&0) {
        return Err(Unusable::NoNmi);
    }
    if value(optional.vpmu_mode) != 0 {
        return Err(Unusable::Vpmu);
    }
    if value(optional.nmi_watchdog) != 0 {
        return Err(Unusable::Watchdog);
    }
    // What Xen falls back to when a session has ended, for ever: nobody holds the counters.
    const XENOPROF_INITIALIZED: u32 = 1;
    if optional.xenoprof_state != 0 && value(optional.xenoprof_state) > XENOPROF_INITIALIZED {
        return Err(Unusable::Xenoprof);
    }
    Ok(())
}

/// What the CPUs found wrong, if anything.
fn found() -> Result<(), Unusable> {
    Unusable::of_code(UNUSABLE.load(Ordering::Acquire)).map_or(Ok(()), Err)
}

fn find(why: Unusable) {
    let _ = UNUSABLE.compare_exchange(0, why as u64, Ordering::AcqRel, Ordering::Relaxed);
}

/// Has every CPU that is online run a function of ours, interrupts off, and waits for it.
fn everywhere(function: u64) {
    // SAFETY: void on_selected_cpus(const cpumask_t *, void (*)(void *), void *, int wait); hooks run with interrupts
    // on.
    unsafe { call!(on_selected_cpus, address!(cpu_online_map), function, 0, 1) };
}

/// On every CPU: is it like the others, and who uses its counters?
#[unsafe(no_mangle)]
extern "C" fn xenoscope_survey(_: u64) {
    let pmu = plan().pmu();
    if Pmu::probe(&Msrs).as_ref() != Some(pmu) {
        return find(Unusable::CpusDiffer);
    }
    if Msrs.lvtpc() & LVTPC_MASKED == 0 {
        return find(Unusable::ApicInUse);
    }
    if !pmu.is_accessible(&Msrs) {
        return find(Unusable::NoCounters);
    }
    IN_USE.fetch_or(u64::from(pmu.in_use(&Msrs)), Ordering::AcqRel);
}

/// On every CPU: do the counters count, overflow and interrupt?
#[unsafe(no_mangle)]
extern "C" fn xenoscope_trial(_: u64) {
    let Some(cpu) = this_cpu() else { return };
    let counters = &cpu.counters;
    counters.trying.store(true, Ordering::Relaxed);
    let arrived = || counters.tried.load(Ordering::Relaxed);
    let result = trust(plan(), &Msrs, spin).and_then(|()| interrupts(plan(), &Msrs, spin, arrived));
    counters.trying.store(false, Ordering::Relaxed);
    if let Err(why) = result {
        find(why);
    }
}

/// While all CPUs stand still: no sample is taken any more.
pub(crate) fn stop_sampling() {
    ENDING.store(true, Ordering::Release);
}

/// Gives the counters and the NMI back. Interrupts are on.
pub(crate) fn end() {
    if !INSTALLED.load(Ordering::Relaxed) {
        return;
    }
    everywhere(address!(of xenoscope_enter_end));
    SERVING.store(false, Ordering::Release);
    give_callback_back();
}

fn give_callback_back() {
    // SAFETY: as in `begin`.
    let current = unsafe { call!(set_nmi_callback, CALLBACK.load(Ordering::Relaxed)) };
    if current != address!(of xenoscope_enter_nmi) {
        // Somebody else has taken it over since: it stays his.
        // SAFETY: as above.
        unsafe { call!(set_nmi_callback, current) };
    }
    INSTALLED.store(false, Ordering::Relaxed);
    // Who serves this has left the callback.
    everywhere(address!(of xenoscope_enter_nothing));
}

#[unsafe(no_mangle)]
extern "C" fn xenoscope_end(_: u64) {
    if let Some(cpu) = this_cpu()
        && let Some(inside) = cpu.counters.enter()
    {
        inside.work.unit.end(plan(), &Msrs, moment(cpu, inside.work.budget.shortest_ns()));
    }
}

#[unsafe(no_mangle)]
extern "C" fn xenoscope_nothing(_: u64) {}

/// The time on this CPU.
fn moment(cpu: &Cpu, shortest: u64) -> Moment {
    let latest = &cpu.counters.latest;
    let now = system_time().max(latest.load(Ordering::Relaxed));
    latest.store(now, Ordering::Relaxed);
    Moment { now, awake: cpu.awake_ns(now), shortest }
}

/// An NMI: `regs` is the interrupted frame, `number` this CPU's. Returns whether it was ours.
#[unsafe(no_mangle)]
extern "C" fn xenoscope_nmi(regs: u64, number: u32) -> u32 {
    let before = time_stamp();
    // SAFETY: each CPU reaches its own state only; it lives as long as the callback is installed.
    let cpu = unsafe { percpu::cpu(u64::from(number)).as_ref() };
    if cpu.is_some_and(|cpu| is_ours(cpu, regs, before)) {
        return 1;
    }
    // Nobody, as a rule: then Xen deals with it as it does without us.
    let callback = CALLBACK.load(Ordering::Relaxed);
    if callback == 0 {
        return 0;
    }
    let others: u64;
    // SAFETY: int or bool (const struct cpu_user_regs *, int), through Xen's own thunk.
    unsafe {
        asm!("call {thunk}", thunk = sym crate::xen::__x86_indirect_thunk_rax,
            inout("rax") callback => others,
            inout("rdi") regs => _, inout("rsi") u64::from(number) => _, clobber_abi("C"));
    }
    (others & 0xff) as u32
}

fn is_ours(cpu: &Cpu, regs: u64, before: u64) -> bool {
    let (counters, header) = (&cpu.counters, cpu.ring.header());
    if counters.trying.load(Ordering::Relaxed) {
        let overflowed = plan().pmu().overflowed(&Msrs, plan().counters()) != 0;
        counters.tried.fetch_add(u64::from(overflowed), Ordering::Relaxed);
        return overflowed;
    }
    let Some(inside) = counters.enter() else {
        let overflowed = plan().pmu().overflowed(&Msrs, plan().counters()) != 0;
        if overflowed {
            counters.nested.fetch_add(1, Ordering::Relaxed);
            lose(cpu);
        } else {
            header.counts.0.foreign.fetch_add(1, Ordering::Relaxed);
        }
        return overflowed;
    };
    let Work { unit, budget } = &mut *inside.work;
    let moment = moment(cpu, budget.shortest_ns());
    let may_sample = moment.now < counters.holds_until.load(Ordering::Relaxed)
        && !is_told_to_be_quiet()
        && !ENDING.load(Ordering::Relaxed);
    // A CPU that is only disturbed in its sleep promises nothing by a time, but for as long as this lasts.
    let watermark = &header.watermark.0;
    let asleep = watermark.load(Ordering::Relaxed) == WATERMARK_ASLEEP;
    watermark.store(moment.now, Ordering::Release);
    let verdict = unit.interrupt(plan(), &Msrs, moment, |due| {
        if may_sample {
            samples(cpu, regs, moment.now, due);
        }
    });
    if asleep {
        watermark.store(WATERMARK_ASLEEP, Ordering::Release);
    }
    match verdict {
        Nmi::Ours => {
            let after = time_stamp();
            if budget.sampled(after.wrapping_sub(before), after, moment.now) {
                tell_cost(cpu, budget);
            }
        }
        Nmi::Late => {
            header.counts.0.late.fetch_add(1, Ordering::Relaxed);
        }
        Nmi::Foreign => {
            header.counts.0.foreign.fetch_add(1, Ordering::Relaxed);
        }
    }
    verdict != Nmi::Foreign
}

/// What was interrupted is read once, however many counters have overflowed.
fn samples(cpu: &Cpu, regs: u64, now: u64, due: &[Due]) {
    let header = cpu.ring.header();
    let Some(mut taking) = cpu.producer.begin(due.len() as u64, header, cpu.ring.consumer()) else { return };
    let interrupted = interrupted::sample(&ThisCpu, layout(), stack_top(), regs, 0, now, 0);
    let mut words = Sample { source: SOURCE_PMU, ..interrupted }.encode();
    for &Due { event, weight, modes } in due {
        Sample::change(&mut words, taking.sequence(), event, weight);
        write(&mut taking, cpu, Some(regs), &words, modes);
    }
    taking.end();
}

/// A sample that was due and can't be taken.
fn lose(cpu: &Cpu) {
    // Where one is being written, the attempt itself counts it.
    if let Some(mut taking) = cpu.producer.begin(1, cpu.ring.header(), cpu.ring.consumer()) {
        taking.lose(Loss::Masked);
        taking.end();
    }
}

/// From time to time, interrupts off: looks after the counters.
pub(crate) fn tick(cpu: &Cpu) {
    let counters = &cpu.counters;
    let Some(inside) = counters.enter() else { return };
    let Work { unit, budget } = &mut *inside.work;
    let moment = moment(cpu, budget.shortest_ns());
    let silence = unit.tick(plan(), &Msrs, moment);
    drop(inside);
    let header = cpu.ring.header();
    header.counts.0.masked_ns.fetch_add(silence.masked_ns, Ordering::Relaxed);
    // Those whose NMI came while this was at work are counted by it.
    let nested = counters.nested.swap(0, Ordering::Relaxed);
    for _ in nested..u64::from(silence.swallowed) {
        lose(cpu);
    }
    header.watermark.0.store(moment.now, Ordering::Release);
}

/// Starts or pauses the counters as the schedule has it. Interrupts are off.
pub(crate) fn follow(cpu: &Cpu, schedule: &Schedule) {
    let is_quiet = schedule.is_quiet();
    let Some(inside) = cpu.counters.enter() else { return };
    let Work { unit, budget } = &mut *inside.work;
    if is_quiet == unit.is_running() {
        let moment = moment(cpu, budget.shortest_ns());
        if is_quiet {
            unit.pause(plan(), &Msrs, moment);
        } else {
            cpu.counters.may_sample_until(schedule.holds_until());
            unit.run(plan(), &Msrs, moment);
        }
    }
}

/// Pauses the counters of a CPU that goes offline: an NMI would find nothing there that it needs. Interrupts are off,
/// and the clock, which is per-CPU data, may be gone.
pub(crate) fn leave(cpu: &Cpu) {
    let Some(inside) = cpu.counters.enter() else { return };
    let Work { unit, budget } = &mut *inside.work;
    if unit.is_running() {
        let now = cpu.counters.latest.load(Ordering::Relaxed);
        let moment = Moment { now, awake: cpu.awake_ns(now), shortest: budget.shortest_ns() };
        unit.pause(plan(), &Msrs, moment);
    }
}
