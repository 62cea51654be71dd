//! Does the shim live with what a host may do while it samples, and harm nobody?

use profile::{PhysCpu, Sample, recording::EndReason};

use crate::{
    consoles, figures,
    host::{Booted, Host, Step, host},
    nmi,
    observed::Observed,
};

static BOOTED: Booted = Booted::new();

fn ordeals() -> &'static Host {
    host(&BOOTED, "adversity")
}

/// A step, which must end well itself and leave nothing loaded.
fn step(name: &str) -> Step {
    ordeals().step(name).ended(0).left_nothing_loaded()
}

fn says(step: &Step, words: &[&str]) {
    for words in words {
        assert!(step.stdout.contains(words) || step.stderr.contains(words), "no {words:?} in {step:?}");
    }
}

/// The CPU that goes and comes.
const CPU: PhysCpu = PhysCpu(1);

const SECOND: u64 = 1_000_000_000;

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn it_goes_on_top_of_another_livepatch_which_then_stays() {
    let step = step("below");
    says(
        &step,
        &[
            "loaded: neighbour (applied)",
            "the shim goes on top of neighbour",
            "Reverting neighbour... failed",
        ],
    );
    says(&step, &["neighbour (applied), xenoscope (applied); xenoscope's shim: used by process"]);
    let observed = ordeals().observed("below.xsr");
    observed.assert_balanced();
    let alpha = observed.domain("alpha");
    let own = observed
        .samples_of(alpha)
        .filter(|sample| observed.function(sample).is_some_and(|name| name.starts_with("alpha_")));
    assert!(own.count() > 100);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_livepatch_on_top_of_it_keeps_it_in_and_it_can_be_silenced_until_then() {
    let step = step("above");
    // Built for the hypervisor itself: refused for as long as the shim is the last that was applied.
    says(
        &step,
        &[
            "Applying neighbour... failed",
            "record 1",
            "another livepatch was applied on top of it",
            "unload 1",
        ],
    );
    says(&step, &["neighbour (applied)", "xenoscope quiet", "told to be quiet", "the shim was taken out"]);
    let taken = figures::taken(&step.stdout);
    assert_eq!(taken.len(), 3, "{}", step.stdout);
    assert_eq!(taken[1], taken[2], "a silenced shim takes samples");
    ordeals().observed("above.xsr").assert_balanced();
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn it_is_silent_when_told_so_and_not_taken_from_under_a_collector() {
    let step = step("silenced");
    says(&step, &["there is no shim", "unload 1", "in use by process", "told to be quiet (used by process"]);
    let observed = ordeals().observed("silenced.xsr");
    observed.assert_balanced();
    let end = observed.recorded.until.0 - observed.recorded.header.started.0;
    let late = observed.samples.iter().filter(|sample| observed.since_start(sample) + SECOND > end).count();
    assert!(observed.samples.len() > 100, "{} samples before it was silenced", observed.samples.len());
    assert_eq!(late, 0, "samples in the last second");
    let report = ordeals().report("silenced.xsr");
    assert!(report.notes_say("nothing was sampled from then on"), "{:?}", report.notes);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_a_cpu_that_goes_offline_and_comes_back_is_sampled_while_it_is_there() {
    step("hotplug");
    let observed = ordeals().observed("hotplug.xsr");
    assert_eq!(*observed.end(), EndReason::Interrupted);
    observed.assert_balanced();
    let times: Vec<u64> = observed.samples_on(CPU).map(|sample| observed.since_start(sample)).collect();
    let (from, until) = longest_gap(&times);
    let weight = |is_of: &dyn Fn(u64) -> bool| -> u64 {
        let of = observed.samples_on(CPU).filter(|sample| is_of(observed.since_start(sample)));
        of.map(|sample| sample.weight).sum()
    };
    let (before, after) = (weight(&|time| time <= from), weight(&|time| time >= until));
    figures::figure("CPU 1: ns sampled before it went and after it came", format_args!("{before}, {after}"));
    figures::figure("CPU 1: seconds away", format_args!("{:.1}", (until - from) as f64 / SECOND as f64));
    assert!(before > SECOND && after > SECOND && until - from > 2 * SECOND);
    assert_nobodys(&observed, until - from, until);
    // The other CPU's samples did not wait for it.
    let meanwhile = observed.samples_on(PhysCpu(0)).map(|sample| observed.since_start(sample));
    assert!(meanwhile.filter(|time| (from..until).contains(time)).count() > 100);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_a_cpu_that_comes_online_later_is_sampled_from_then_on() {
    step("hotplug");
    let observed = ordeals().observed("late.xsr");
    observed.assert_balanced();
    let times: Vec<u64> = observed.samples_on(CPU).map(|sample| observed.since_start(sample)).collect();
    figures::figure("CPU 1, offline at first: samples", times.len());
    assert!(
        times.len() > 100 && times[0] > SECOND / 2,
        "{} samples, the first at {:?}",
        times.len(),
        times.first()
    );
    assert_nobodys(&observed, times[0], times[0]);
}

/// Fails if what the samples of the CPU stand for is of the time, too, in which it was away: until its sample at `back`.
fn assert_nobodys(observed: &Observed, away: u64, back: u64) {
    // By the samples of the CPU that was always there: the recorder's clock begins when all is set up.
    let recorded =
        observed.samples_on(PhysCpu(0)).map(|sample| observed.since_start(sample)).max().unwrap_or(0);
    let (first, others): (Vec<&Sample>, Vec<&Sample>) =
        observed.samples_on(CPU).partition(|sample| observed.since_start(sample) == back);
    // The emulator's interrupts may be late: then the first sample is of the time since the CPU came.
    let first: u64 = first.iter().map(|sample| sample.weight).sum();
    assert!(first + SECOND / 2 < away, "the first sample stands for {first} ns, {away} ns after the last");
    let (weight, there): (u64, u64) = (others.iter().map(|sample| sample.weight).sum(), recorded - away);
    assert!(weight < there + SECOND / 4, "{weight} ns sampled in {there} ns that it was there");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_cpu_goes_and_comes_under_counters() {
    ordeals().step("counted").ended(0);
    step("counted-end");
    let observed = ordeals().observed("counted.xsr");
    observed.assert_balanced();
    assert!(ordeals().injected > 200, "{}", ordeals().injected);
    nmi::assert_each_is_accounted_for(ordeals(), "counted.xsr");
}

/// The longest time without a sample: the last before it, the first after it.
fn longest_gap(times: &[u64]) -> (u64, u64) {
    let gaps = times.windows(2).map(|pair| (pair[0], pair[1]));
    gaps.max_by_key(|(from, until)| until - from).expect("at least two samples")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn an_enemy_in_dom0_costs_nobody_but_himself() {
    let step = step("scribble");
    says(
        &step,
        &["the control page: read-only", "a header: read-only", "data: read-only", "a directory: read-only"],
    );
    let words = step.stdout.lines().find_map(|line| line.strip_prefix("words written: ")).expect("words");
    figures::figure("words scribbled over the shim's writable pages", words);
    assert!(words.parse::<u64>().unwrap() > 10_000);
    says(&step, &["alpha", "beta"]);
    let afterwards = ordeals().observed("afterwards.xsr");
    afterwards.end();
    afterwards.assert_balanced();
    // Two CPUs that are always busy, for two seconds.
    let weight: u64 = afterwards.samples.iter().map(|sample| sample.weight).sum();
    assert!(weight > 2 * SECOND, "{weight} ns were sampled");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_hypervisor_does_not_complain() {
    consoles::assert_clean(&ordeals().text("console/xen.log"));
}

#[test]
fn the_longest_gap_is_found() {
    assert_eq!(longest_gap(&[1, 2, 9, 10, 12]), (2, 9));
}
