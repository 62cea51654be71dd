//! Is every sample that was taken written, filtered or counted as lost?

use crate::{
    accuracy, figures,
    host::{Booted, Host, host},
    observed::Observed,
};

static BOOTED: Booted = Booted::new();

fn stopped() -> &'static Host {
    host(&BOOTED, "books")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_books_of_a_quiet_recording_balance() {
    let observed = accuracy::loads().observed("loads.xsr");
    observed.end();
    observed.assert_balanced();
    let lost: u64 = observed.accounts().iter().map(|(_, account)| account.lost_total()).sum();
    figures::figure("lost in 25 s at 1 kHz", lost);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_full_ring_loses_the_newest_and_counts_them() {
    let step = stopped().step("full").ended(0);
    step.left_nothing_loaded();
    let observed = stopped().observed("full.xsr");
    observed.end();
    observed.assert_balanced();
    let report = stopped().report("full.xsr");
    let lost = report.event().lost["ring-full"];
    figures::figure("rings of 4 KiB, collector stopped for 3 s: lost", lost);
    assert!(lost > 1_000, "{lost} samples lost in three seconds without a reader");
    assert_goes_on(&observed);
}

/// Fails unless samples came until the end, long after the collector had gone on.
fn assert_goes_on(observed: &Observed) {
    let end = observed.recorded.until.0 - observed.recorded.header.started.0;
    let last = observed.samples.iter().filter(|sample| observed.since_start(sample) + 1_000_000_000 > end);
    let last = last.count();
    assert!(last > 200, "{last} samples in the last second");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_collector_that_is_away_for_longer_than_its_lease_finds_a_quiet_shim() {
    stopped().step("quiet").ended(0).left_nothing_loaded();
    let observed = stopped().observed("quiet.xsr");
    observed.end();
    observed.assert_balanced();
    let report = stopped().report("quiet.xsr");
    let quiet = report.event().quiet_s.expect("books");
    figures::figure(
        "collector stopped for 8 s: seconds of CPU time without samples",
        format_args!("{quiet:.1}"),
    );
    assert!(quiet > 1.0, "{quiet} s");
    assert!(report.notes_say("the collector did not run"), "{:?}", report.notes);
    assert_goes_on(&observed);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn what_the_user_filters_is_counted() {
    stopped().step("filter").ended(0);
    let observed = stopped().observed("filter.xsr");
    observed.assert_balanced();
    let alpha = observed.domain("alpha");
    assert!(observed.samples.iter().all(|sample| sample.charged_to == Some(alpha)));
    let filtered = stopped().report("filter.xsr").event().filtered.expect("books");
    figures::figure("filtered out by --domain", filtered);
    assert!(filtered > 500 && observed.samples.len() > 500);
}
