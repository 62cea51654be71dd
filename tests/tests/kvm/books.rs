//! Is every sample accounted for?

use crate::{
    accuracy::{loads, without_guests},
    figures,
    observed::Observed,
};

fn lost(observed: &Observed) -> u64 {
    observed.accounts().iter().map(|(_, account)| account.lost_total()).sum()
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_recording_loses_nothing() {
    let observed = loads().observed("loads.xsr");
    observed.assert_balanced();
    assert_eq!(lost(&observed), 0);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn what_a_collector_that_stood_still_lost_is_counted() {
    loads().step("books").ended(0);
    let observed = loads().observed("stopped.xsr");
    observed.assert_balanced();
    figures::figure("samples lost while the collector stood still for three seconds", lost(&observed));
    assert!(lost(&observed) > 0);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn throttling_is_told() {
    loads().step("throttled").ended(0);
    loads().observed("throttled.xsr").assert_balanced();
    let report = loads().report("throttled.xsr");
    let quiet_s = report.event().quiet_s.unwrap();
    figures::figure("seconds of CPU time throttled", format_args!("{quiet_s:.2}"));
    assert!(quiet_s > 0.0 && report.notes_say("the kernel throttled"), "{:?}", report.notes);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_cpu_that_comes_back_is_sampled_again() {
    without_guests().step("hotplug").ended(0);
    let observed = without_guests().observed("hotplug.xsr");
    observed.assert_balanced();
    let seconds: Vec<u64> = observed
        .samples
        .iter()
        .filter(|sample| sample.cpu.0 == 1)
        .map(|sample| observed.since_start(sample) / 1_000_000_000)
        .collect();
    let at = |second: u64| seconds.iter().filter(|&&at| at == second).count();
    figures::figure(
        "samples of CPU 1 in each second",
        format_args!("{:?}", (0..12).map(at).collect::<Vec<_>>()),
    );
    assert!(at(1) > 100 && at(10) > 100, "it ran before and after");
    assert!((3..9).any(|second| at(second) == 0), "it was away");
    let report = without_guests().report("hotplug.xsr");
    assert!(report.notes_say("CPU 1 went offline") && report.notes_say("CPU 1 came online"));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_killed_collector_leaves_what_it_had() {
    let report = without_guests().report("killed.xsr");
    assert!(!report.complete && report.event().samples > 0, "{} samples", report.event().samples);
}
