//! Is a guest that works in step with a clock of the sampler's own rate seen as it is?

use crate::{
    accuracy, figures,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();

/// The function that works.
const WORK: &str = "phaselock_work";

/// What stands for samples whose place is not known.
const OVERDUE: &str = "xenoscope_overdue";

/// Percentage points of a CPU between what the program tells of itself and what was sampled: the interrupts that hit
/// it while it works are in its figure, and in the samples stand for themselves.
const TOLERANCE: f64 = 0.05;

/// The program on one CPU: what was sampled of it and what is known otherwise, all as shares of the CPU.
struct Shares {
    /// The domain, sampled.
    domain: f64,
    /// The domain, accounted by Xen.
    accounted: f64,
    /// In the function that works, sampled.
    work: f64,
    /// In the function that works, by the program's own clock.
    told: f64,
    /// At a place that is not known, sampled.
    overdue: f64,
}

impl Shares {
    fn of(host: &Host) -> Self {
        let observed = host.observed("lockstep.xsr");
        let duration = (observed.recorded.until.0 - observed.recorded.header.started.0) as f64;
        let domain = observed.domain("lockstep");
        let sampled = |function: Option<&str>| {
            let samples = observed.samples_of(domain);
            let samples =
                samples.filter(|&sample| function.is_none() || observed.function(sample) == function);
            samples.map(|sample| sample.weight).sum::<u64>() as f64 / duration
        };
        let shares = Self {
            domain: sampled(None),
            accounted: host.report("lockstep.xsr").domain("lockstep").cpu_s.expect("an account") * 1e9
                / duration,
            work: sampled(Some(WORK)),
            told: told(host),
            overdue: sampled(Some(OVERDUE)),
        };
        figures::share("lockstep, of one CPU, sampled", shares.domain);
        figures::share("lockstep, of one CPU, accounted by Xen", shares.accounted);
        figures::share("phaselock_work, of one CPU, sampled", shares.work);
        figures::share("phaselock_work, of one CPU, by its own clock", shares.told);
        figures::share("lockstep, of one CPU, sampled at a place that is not known", shares.overdue);
        shares
    }

    fn assert_domain(&self) {
        let Self { domain, accounted, .. } = self;
        assert!(
            (domain - accounted).abs() < TOLERANCE,
            "{domain} of a CPU was sampled, {accounted} accounted"
        );
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_where_timers_are_exact_a_guest_in_step_with_the_sampler_is_seen_as_it_is() {
    let shares = Shares::of(host(&BOOTED, "lockstep"));
    shares.assert_domain();
    let Shares { work, told, overdue, .. } = shares;
    assert!(told > 0.2, "the program worked for {told} of the time");
    assert!((work - told).abs() < TOLERANCE, "{WORK} has {work} of a CPU, not {told}");
    assert!(overdue < 0.01, "{overdue} of a CPU at a place that is not known");
}

/// The emulator's timers are late by a good part of what the guest does between two sleeps. What is overdue when it
/// sleeps has no place: so much, and no more, can be missing where it works.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_where_timers_are_late_it_is_told_what_has_no_place() {
    let shares = Shares::of(accuracy::loads());
    shares.assert_domain();
    let Shares { work, told, overdue, .. } = shares;
    assert!(work < told + TOLERANCE, "{WORK} has {work} of a CPU, more than {told}");
    assert!(
        work + overdue > told - TOLERANCE,
        "{WORK} has {work} of a CPU, {overdue} have no place, {told} worked"
    );
}

/// The share of its time that the program worked, of the lines that it wrote while it was recorded.
fn told(host: &Host) -> f64 {
    let step = host.step("lockstep").ended(0);
    let counts =
        step.stdout.lines().find_map(|line| line.strip_prefix("lines ")).expect("the numbers of lines");
    let counts: Vec<usize> = counts.split(' ').map(|count| count.parse().unwrap()).collect();
    let console = host.text("console/lockstep.log");
    let lines = console.lines().filter_map(|line| line.split_once("phaselock: cpu ").map(|(_, rest)| rest));
    // `… s in … s, work … s`
    let numbers = |line: &str| -> Vec<f64> { line.split(' ').filter_map(|word| word.parse().ok()).collect() };
    let during = lines.skip(counts[0]).take(counts[1] - counts[0]).map(numbers);
    let (wall, work) = during.fold((0.0, 0.0), |(wall, work), line| (wall + line[1], work + line[2]));
    work / wall
}
