//! The four pointers of Xen that the shim takes over, and what runs behind them.
//!
//! | pointer | what the shim does there |
//! |---|---|
//! | the local APIC timer's entry in `direct_apic_vector` | takes the sample, with the true interrupted frame |
//! | the timer softirq's entry in `softirq_handlers` | after Xen has set the timer for its own next deadline, brings it forward to the next sample's due time |
//! | `pm_idle` | puts the CPU's schedule to sleep and the timer back to Xen's deadline, so that idle CPUs stay asleep |
//! | `dead_idle` | puts the schedule of a CPU that goes offline to sleep, until it is back |
//!
//! Setting the timer for ourselves, rather than through a timer of Xen's, keeps the due times exact: Xen serves its
//! timers up to 50 µs late to coalesce them, always away from whatever ran just before, and so would hide work that
//! follows a guest's tick.

use core::{
    arch::asm,
    sync::atomic::{AtomicU64, Ordering},
};

use abi::{
    control::COMMAND_QUIET,
    record::{self, SAMPLE_WORDS, Sample},
    ring::{Taking, WATERMARK_ASLEEP},
    section::{MISSING_WORDS, Missing},
};
use sampler::{
    Budget, Machine, Schedule, Verdict,
    capture::{Interrupted, Wanted, capture, missing},
    interrupted,
    probe::{Layout, Symbols, is_online},
};

use crate::{
    counters,
    hooks::{config, layout, lease},
    machine::{InterruptsOff, ThisCpu, stack_top, time_stamp},
    memory::{self, AllMemory},
    percpu::{self, Cpu, Timer},
    xen::{address, call},
};

/// The timers' softirq (`TIMER_SOFTIRQ` in xen/softirq.h).
const TIMER_SOFTIRQ: u64 = 0;

/// The closest that the timer is ever set: nearer ones could pass before they are set.
const SHORTEST_NS: u64 = 5_000;

unsafe extern "C" {
    fn xenoscope_enter_timer();
    fn xenoscope_enter_softirq();
    fn xenoscope_enter_idle();
    fn xenoscope_enter_dead();
    fn xenoscope_overdue();
}

/// What `pm_idle` pointed to.
static IDLE: AtomicU64 = AtomicU64::new(0);

/// What `dead_idle` pointed to.
static DEAD: AtomicU64 = AtomicU64::new(0);

/// A function pointer of Xen.
fn slot(address: u64) -> &'static AtomicU64 {
    // SAFETY: aligned pointers in Xen's data, alive for as long as Xen runs; Xen reads them with single loads.
    unsafe { &*(address as *const AtomicU64) }
}

fn timer_slot(layout: &Layout) -> &'static AtomicU64 {
    slot(address!(direct_apic_vector) + layout.timer_vector * 8)
}

fn softirq_slot() -> &'static AtomicU64 {
    slot(address!(softirq_handlers) + TIMER_SOFTIRQ * 8)
}

/// Begins to sample all CPUs that have a state. Returns since when.
pub(crate) fn install(layout: &Layout, symbols: &Symbols, cpus: u64) -> u64 {
    let now = system_time();
    let word = lease().renewed.load(Ordering::Relaxed);
    for number in 0..cpus {
        let cpu = percpu::cpu(number);
        if !cpu.is_null() {
            // SAFETY: no interrupt finds its way to the state yet.
            unsafe {
                let schedule = &mut (*cpu).timer().schedule;
                if counters::serve() {
                    schedule.set_mean(counters::tick_ns());
                }
                schedule.start(now, word);
                (*cpu).starts(now);
                if is_online(&ThisCpu, symbols, number) {
                    (*cpu).ring.header().watermark.0.store(now, Ordering::Relaxed);
                } else {
                    schedule.offline();
                    (*cpu).falls_asleep(now);
                }
            }
        }
    }
    IDLE.store(slot(address!(pm_idle)).load(Ordering::Relaxed), Ordering::Relaxed);
    slot(address!(pm_idle)).store(address!(of xenoscope_enter_idle), Ordering::Release);
    DEAD.store(slot(address!(dead_idle)).load(Ordering::Relaxed), Ordering::Relaxed);
    slot(address!(dead_idle)).store(address!(of xenoscope_enter_dead), Ordering::Release);
    softirq_slot().store(address!(of xenoscope_enter_softirq), Ordering::Release);
    timer_slot(layout).store(address!(of xenoscope_enter_timer), Ordering::Release);
    for number in 0..cpus {
        if !percpu::cpu(number).is_null() && is_online(&ThisCpu, symbols, number) {
            // The softirq sets that CPU's timer.
            // SAFETY: void cpu_raise_softirq(unsigned int cpu, unsigned int nr), from any context.
            unsafe { call!(cpu_raise_softirq, number, TIMER_SOFTIRQ) };
        }
    }
    now
}

/// Gives the pointers back. One that somebody else has taken over since is left to him.
pub(crate) fn restore(layout: &Layout) {
    let give_back = |slot: &AtomicU64, ours: u64, theirs: u64| {
        let _ = slot.compare_exchange(ours, theirs, Ordering::AcqRel, Ordering::Relaxed);
    };
    give_back(slot(address!(pm_idle)), address!(of xenoscope_enter_idle), IDLE.load(Ordering::Relaxed));
    give_back(slot(address!(dead_idle)), address!(of xenoscope_enter_dead), DEAD.load(Ordering::Relaxed));
    give_back(softirq_slot(), address!(of xenoscope_enter_softirq), address!(timer_softirq_action));
    if layout.timer_vector != 0 {
        give_back(timer_slot(layout), address!(of xenoscope_enter_timer), address!(apic_timer_interrupt));
    }
}

/// The local APIC timer's interrupt, interrupts off. `regs` is what this Xen passes to such handlers: up to 4.18 the
/// interrupted frame, later nothing.
#[unsafe(no_mangle)]
extern "C" fn xenoscope_timer(regs: u64) {
    let before = time_stamp();
    if let Some(cpu) = this_cpu() {
        let now = system_time();
        // SAFETY: interrupts are off.
        let timer = unsafe { cpu.timer() };
        // Xen's own timers come here too, between two of ours.
        if timer.schedule.due().is_none_or(|due| due <= now) {
            is_due(cpu, timer, before, now);
        }
    }
    // SAFETY: the handler that this one stands in for, with what it was given.
    unsafe { call!(apic_timer_interrupt, regs) };
}

/// A sample of the timer's is due, or a tick of the counters', or else it is to be seen whether there is a lease again.
#[inline(never)]
fn is_due(cpu: &Cpu, timer: &mut Timer, before: u64, now: u64) {
    timer.is_settled = false;
    let (word, quiet) = dom0s_will();
    let verdict = timer.schedule.interrupt(now, word, quiet);
    header_follows_schedule(cpu, &timer.schedule, now);
    let Verdict::Sample { weight } = verdict else { return };
    if counters::serve() {
        return counters::tick(cpu);
    }
    // do_IRQ keeps the interrupted frame per CPU, in every version.
    let regs = ThisCpu.read(this_cpus_own(address!(per_cpu__irq_regs)));
    take(cpu, now, Some(regs), |sequence| {
        interrupted::sample(&ThisCpu, layout(), stack_top(), regs, sequence, now, weight)
    });
    timer.keep_to_budget(cpu, before, now);
}

/// The lease's word, and whether the shim is to be quiet.
#[inline(always)]
fn dom0s_will() -> (u64, bool) {
    (lease().renewed.load(Ordering::Relaxed), is_told_to_be_quiet())
}

/// Whether dom0 wants no sample any more.
#[inline(always)]
pub(crate) fn is_told_to_be_quiet() -> bool {
    lease().command.load(Ordering::Relaxed) == COMMAND_QUIET
}

#[inline(always)]
fn take(cpu: &Cpu, now: u64, regs: Option<u64>, sample: impl FnOnce(u64) -> Sample) {
    let header = cpu.ring.header();
    let Some(mut taking) = cpu.producer.begin(1, header, cpu.ring.consumer()) else { return };
    let sample = sample(taking.sequence());
    write(&mut taking, cpu, regs, &sample.encode(), config().modes as u8);
    taking.end();
    // After the record: who sees the watermark sees the record too.
    header.watermark.0.store(now, Ordering::Release);
}

/// Ends a sample that was begun: into the ring, unless nobody wants those of its mode. `regs` is the interrupted frame,
/// if there is one.
#[inline(always)]
pub(crate) fn write(
    taking: &mut Taking<'_>,
    cpu: &Cpu,
    regs: Option<u64>,
    words: &[u64; SAMPLE_WORDS],
    modes: u8,
) {
    if modes >> record::mode(words[0]) & 1 == 0 {
        return taking.filter();
    }
    if let Some(wanted) = memory::wanted()
        && let Some(regs) = regs
        && write_with_callers(taking, cpu, regs, words, wanted)
    {
        return;
    }
    taking.write(words, &cpu.ring);
}

/// The same with what is captured for finding callers, if there is room for as much of it as there may be; else with the
/// word that there was none.
#[inline(never)]
fn write_with_callers(
    taking: &mut Taking<'_>,
    cpu: &Cpu,
    regs: u64,
    words: &[u64; SAMPLE_WORDS],
    wanted: Wanted,
) -> bool {
    // Read back, since to keep it beside its words would cost those samples, too, of which nothing is captured.
    let Ok(sample) = Sample::decode(words) else { return false };
    let open = |words| taking.open(words, &cpu.ring);
    let whole = open(wanted.record_words());
    let is_whole = whole.is_some();
    let Some(mut room) = whole.or_else(|| open(SAMPLE_WORDS + MISSING_WORDS)) else { return false };
    for &word in words {
        room.push(word);
    }
    if is_whole {
        let loaded_vcpu = ThisCpu.read(this_cpus_own(address!(per_cpu__curr_vcpu)));
        let interrupted =
            Interrupted { machine: &ThisCpu, layout: layout(), stack_top: stack_top(), regs, loaded_vcpu };
        capture(&interrupted, &AllMemory, &sample, wanted, &mut room);
    } else {
        missing(sample.mode, Missing::Room, &mut room);
    }
    taking.close(room);
    true
}

impl Timer {
    /// A sample was taken by a handler that began at this time stamp. What it will cost to set the timer again is
    /// added to the next one.
    fn keep_to_budget(&mut self, cpu: &Cpu, before: u64, now: u64) {
        let after = time_stamp();
        let cost = after.wrapping_sub(before) + core::mem::take(&mut self.cost);
        self.has_sampled = true;
        if self.budget.sampled(cost, after, now) {
            self.schedule.set_mean(config().period_ns.max(self.budget.shortest_ns()));
            tell_cost(cpu, &self.budget);
        }
    }
}

/// What samples have cost, for dom0.
#[inline(always)]
pub(crate) fn tell_cost(cpu: &Cpu, budget: &Budget) {
    let counts = &cpu.ring.header().counts.0;
    counts.own_ns.store(budget.own_ns(), Ordering::Relaxed);
    counts.shortest_ns.store(budget.shortest_ns(), Ordering::Relaxed);
}

/// The timers' softirq: interrupts on, no lock held.
#[unsafe(no_mangle)]
extern "C" fn xenoscope_softirq() {
    // SAFETY: the handler that this one stands in for; it takes no arguments.
    unsafe { call!(timer_softirq_action) };
    let _off = InterruptsOff::new();
    if let Some(cpu) = this_cpu() {
        // SAFETY: interrupts are off.
        let timer = unsafe { cpu.timer() };
        // Xen's own timers come here too, between two of ours, and as a rule another one follows before ours.
        let xens = xens_deadline();
        let is_xens = timer.schedule.due().is_some_and(|due| xens != 0 && xens <= due);
        if !(timer.is_settled && is_xens) {
            settle(cpu, timer);
        }
    }
}

/// What is to be done for a sample or a tick that is over, or for a CPU that has just begun.
#[inline(never)]
fn settle(cpu: &Cpu, timer: &mut Timer) {
    // What is done without a sample is none's cost.
    let before = core::mem::take(&mut timer.has_sampled).then(time_stamp);
    take_idle_over();
    // Not on every softirq: some idle drivers serve them in their sleep.
    if timer.schedule.is_offline() {
        let now = system_time();
        timer.schedule.wake(now, dom0s_will().0);
        cpu.wakes(now);
    }
    if counters::serve() {
        counters::follow(cpu, &timer.schedule);
    }
    bring_forward(timer.schedule.due());
    timer.is_settled = true;
    if let Some(before) = before {
        timer.cost = time_stamp().wrapping_sub(before);
    }
}

/// What idle CPUs do, with the schedule asleep meanwhile.
#[unsafe(no_mangle)]
extern "C" fn xenoscope_idle() {
    {
        let _off = InterruptsOff::new();
        if let Some(cpu) = this_cpu() {
            // SAFETY: interrupts are off.
            let schedule = unsafe { &mut cpu.timer().schedule };
            let armed = schedule.due().is_some();
            let now = system_time();
            let (word, quiet) = dom0s_will();
            let verdict = schedule.sleep(now, word, quiet);
            if let Verdict::Sample { weight } = verdict
                && !counters::serve()
            {
                let last = ThisCpu.read(this_cpus_own(address!(per_cpu__curr_vcpu)));
                let nowhere = address!(of xenoscope_overdue);
                take(cpu, now, None, |sequence| {
                    interrupted::overdue(&ThisCpu, layout(), last, nowhere, sequence, now, weight)
                });
            }
            cpu.ring.header().watermark.0.store(WATERMARK_ASLEEP, Ordering::Release);
            if armed {
                set_timer(xens_deadline());
            }
            cpu.falls_asleep(now);
        }
    }
    // SAFETY: what pm_idle pointed to: void (void). Through Xen's own thunk, which is whatever this host needs
    // against speculation through indirect branches.
    unsafe {
        asm!("call {thunk}", thunk = sym crate::xen::__x86_indirect_thunk_rax,
            inout("rax") IDLE.load(Ordering::Relaxed) => _, clobber_abi("C"));
    }
    let _off = InterruptsOff::new();
    if let Some(cpu) = this_cpu() {
        let now = system_time();
        cpu.wakes(now);
        // SAFETY: interrupts are off.
        let schedule = unsafe { &mut cpu.timer().schedule };
        schedule.wake(now, dom0s_will().0);
        cpu.ring.header().watermark.0.store(now, Ordering::Release);
        header_follows_schedule(cpu, schedule, now);
        bring_forward(schedule.due());
    }
}

/// A CPU goes offline: interrupts are off for good, and its per-CPU data may be gone. Returns what `dead_idle` pointed
/// to, to be jumped to.
#[unsafe(no_mangle)]
extern "C" fn xenoscope_dead() -> u64 {
    if let Some(cpu) = this_cpu() {
        // SAFETY: interrupts are off.
        let timer = unsafe { cpu.timer() };
        timer.schedule.offline();
        timer.is_settled = false;
        // The clock is per-CPU data: what was shown last is the time.
        let shown = cpu.ring.header().watermark.0.swap(WATERMARK_ASLEEP, Ordering::AcqRel);
        if shown != WATERMARK_ASLEEP {
            cpu.falls_asleep(shown);
        }
        if counters::serve() {
            counters::leave(cpu);
        }
    }
    DEAD.load(Ordering::Relaxed)
}

/// A CPU that is quiet says so, with a watermark that holds nobody up.
fn header_follows_schedule(cpu: &Cpu, schedule: &Schedule, now: u64) {
    let header = cpu.ring.header();
    let quiet = schedule.quiet_ns();
    header.counts.0.quiet_ns.store(quiet, Ordering::Relaxed);
    header.counts.0.quiet_since.store(schedule.quiet_since().unwrap_or(0), Ordering::Relaxed);
    header.counts.0.awake_ns.store(cpu.awake_ns(now).saturating_sub(quiet), Ordering::Relaxed);
    cpu.counters.may_sample_until(schedule.holds_until());
    if schedule.due().is_none() {
        header.watermark.0.store(WATERMARK_ASLEEP, Ordering::Release);
    }
}

/// The idle driver is chosen late, when dom0 has told Xen about the processor's power states: follow it.
fn take_idle_over() {
    let ours = address!(of xenoscope_enter_idle);
    let slot = slot(address!(pm_idle));
    let current = slot.load(Ordering::Relaxed);
    if current != ours {
        IDLE.store(current, Ordering::Relaxed);
        let _ = slot.compare_exchange(current, ours, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// When this CPU's timer is to fire for Xen itself; 0 is never.
fn xens_deadline() -> u64 {
    ThisCpu.read(this_cpus_own(address!(per_cpu__timer_deadline)))
}

/// Xen has set this CPU's timer: sets it for us if we need it earlier. Interrupts are off.
fn bring_forward(ours: Option<u64>) {
    let xens = xens_deadline();
    if let Some(due) = ours
        && (xens == 0 || due < xens)
    {
        set_timer(due.max(system_time() + SHORTEST_NS));
    }
}

/// Sets this CPU's timer. Interrupts are off.
fn set_timer(at: u64) {
    // SAFETY: int reprogram_timer(s_time_t timeout), which touches this CPU's timer only: 0 switches it off; it
    // returns 0 where the time has passed.
    let set = unsafe { call!(reprogram_timer, at) } as u32;
    if set == 0 && at != 0 {
        // Xen's own way out: look again what is due.
        // SAFETY: void raise_softirq(unsigned int nr), from any context.
        unsafe { call!(raise_softirq, TIMER_SOFTIRQ) };
    }
}

/// Nanoseconds of Xen's system time.
#[inline(always)]
pub(crate) fn system_time() -> u64 {
    // SAFETY: s_time_t get_s_time(void), from any context.
    unsafe { call!(get_s_time) }
}

/// This CPU's state. Interrupts must be off, so that nobody else on this CPU has it.
#[inline(always)]
pub(crate) fn this_cpu() -> Option<&'static Cpu> {
    // cpu_info: processor_id stands in the word before current_vcpu.
    let number = ThisCpu.read32(stack_top() - layout().current_below_top - 8);
    // SAFETY: interrupts are off, and each CPU reaches its own state only.
    unsafe { percpu::cpu(u64::from(number)).as_ref() }
}

/// This CPU's copy of a per-CPU variable.
#[inline(always)]
fn this_cpus_own(variable: u64) -> u64 {
    // cpu_info: per_cpu_offset stands behind current_vcpu.
    variable.wrapping_add(ThisCpu.read(stack_top() - layout().current_below_top + 8))
}
