//! The kernel's clocks, for who takes samples from user space or the kernel.

/// Nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds of CPU time that the calling thread has used.
pub(crate) fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The moment of CLOCK_MONOTONIC at which it was so many ticks after the machine had booted, as `/proc` tells times: that
/// clock goes on while the machine sleeps.
pub(crate) fn monotonic_ns_at(ticks_since_boot: u64) -> u64 {
    let asleep = read(libc::CLOCK_BOOTTIME).saturating_sub(monotonic_ns());
    ticks_since_boot.saturating_mul(tick_ns()).saturating_sub(asleep)
}

/// The unit of times in `/proc`.
pub(crate) fn tick_ns() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000_000 / u64::try_from(ticks).unwrap_or(100).max(1)
}

/// Nanoseconds of CLOCK_MONOTONIC_RAW, which nobody bends.
pub(crate) fn raw_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC_RAW)
}

/// Cycles of this CPU's time stamp counter.
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has it; where reading it is forbidden, whoever forbids it answers in its place.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec; these clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
