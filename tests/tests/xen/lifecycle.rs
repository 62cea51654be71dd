//! Does the shim come and go without a trace, whatever becomes of collectors and domains?

use profile::recording::{Completeness, EndReason};

use crate::{
    consoles, figures,
    host::{Booted, Host, Step, host},
};

static BOOTED: Booted = Booted::new();

pub(crate) fn visits() -> &'static Host {
    host(&BOOTED, "lifecycle")
}

const CYCLES: usize = 20;

/// Every so many of them, Xen's free pages are counted.
const COUNTED: usize = 2;

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn twenty_visits_leave_all_memory_behind() {
    let step = visits().step("cycles").ended(0);
    assert_no_page_is_kept(&step, CYCLES / COUNTED);
    show_pauses(&step, CYCLES);
    step.left_nothing_loaded();
}

/// Fails unless Xen had as many free pages as before, each time that a step counted them afterwards.
pub(crate) fn assert_no_page_is_kept(step: &Step, counted: usize) {
    let pages: Vec<u64> =
        step.stdout.lines().filter_map(|line| line.strip_prefix("pages ")?.parse().ok()).collect();
    assert_eq!(pages.len(), counted + 1, "{}", step.stdout);
    figures::figure(
        "Xen's free pages before, and in the end",
        format_args!("{}, {}", pages[0], pages[counted]),
    );
    // The first visit may leave what Xen's own livepatch code keeps; no later one may leave anything.
    assert_eq!(pages[1..], [pages[1]].repeat(counted), "free pages afterwards");
    assert!(pages[0].saturating_sub(pages[1]) < 4, "{} pages were kept", pages[0] - pages[1]);
}

/// Prints for how long the machine stood still in each of a step's visits.
pub(crate) fn show_pauses(step: &Step, visits: usize) {
    for (what, words) in [("load", "putting the shim in place"), ("unload", "putting the shim out")] {
        let mut pauses: Vec<f64> =
            step.stderr.lines().filter(|line| line.contains(words)).map(pause_ms).collect();
        assert_eq!(pauses.len(), visits, "pauses told");
        pauses.sort_by(f64::total_cmp);
        let (least, median, most) = (pauses[0], pauses[visits / 2], pauses[visits - 1]);
        figures::figure(
            format_args!("pause of each {what}, at most, ms"),
            format_args!("{least} … {median} … {most}"),
        );
    }
}

/// `… paused the machine for at most 4.569 ms`
fn pause_ms(line: &str) -> f64 {
    let words: Vec<&str> = line.split(' ').collect();
    words[words.len() - 2].parse().unwrap()
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_hypervisors_console_stays_clean() {
    consoles::assert_clean(&visits().text("console/xen.log"));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_killed_collector_leaves_a_readable_recording_and_a_well_host() {
    let step = visits().step("killed");
    assert!(step.stdout.contains("alpha") && step.stdout.contains("beta"), "{}", step.stdout);
    let cut = visits().observed("killed.xsr");
    let Completeness::Torn { at_byte } = cut.recorded.completeness else { panic!("it was finished") };
    figures::figure("killed after 4 s: samples in the file", cut.samples.len());
    figures::figure("killed after 4 s: read up to byte", at_byte);
    assert!(cut.samples.len() > 1_000);
    assert!(!visits().report("killed.xsr").complete);

    let next = visits().step("next").ended(0);
    let taken = figures::taken(&step.stdout);
    let told = format!("; {} samples taken, quiet on", taken[0]);
    assert!(
        next.stderr.contains("had left behind was removed") && next.stderr.contains(&told),
        "{}",
        next.stderr
    );
    next.left_nothing_loaded();
    let observed = visits().observed("next.xsr");
    observed.assert_balanced();
    assert!(observed.samples.len() > 1_000);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_shim_whose_collector_died_takes_no_sample_once_its_lease_is_over() {
    let step = visits().step("killed").ended(0);
    let taken = figures::taken(&step.stdout);
    figures::figure("killed: samples taken, seven seconds later and nine", format_args!("{taken:?}"));
    assert_eq!(taken.len(), 2, "{}", step.stdout);
    assert_eq!(taken[0], taken[1], "the shim goes on sampling for nobody");
    // The lease lasts five seconds: on a CPU that is busy all the time, samples of that much and no more were taken
    // after the last that was read.
    let written = visits().observed("killed.xsr").samples.len() as u64;
    assert!(taken[0] > written, "{} samples taken, {written} written", taken[0]);
    assert!(step.stdout.contains("left behind by process"), "{}", step.stdout);
    assert!(step.stdout.contains("quiet on 2 of 2 CPUs"), "{}", step.stdout);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_second_collector_is_told_who_the_first_is() {
    let step = visits().step("second").ended(0);
    let first = step.stdout.lines().find_map(|line| line.strip_prefix("first ")).unwrap();
    assert!(step.stdout.contains("second 1"), "{}", step.stdout);
    assert!(step.stderr.contains(&format!("in use by process {first}, since ")), "{}", step.stderr);
    let observed = visits().observed("first.xsr");
    assert_eq!(*observed.end(), EndReason::Duration);
    observed.assert_balanced();
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn domains_come_and_go_while_they_are_recorded() {
    visits().step("domains").ended(0);
    let observed = visits().observed("domains.xsr");
    assert_eq!(*observed.end(), EndReason::Interrupted);
    observed.assert_balanced();
    for guest in ["alpha", "beta", "delta"] {
        let domain = observed.domain(guest);
        let own = format!("{guest}_");
        let names = observed.samples_of(domain).filter_map(|sample| observed.function(sample));
        let (mine, foreign): (Vec<&str>, Vec<&str>) = names
            .filter(|name| ["alpha_", "beta_", "delta_"].iter().any(|prefix| name.starts_with(prefix)))
            .partition(|name| name.starts_with(&own));
        figures::figure(format_args!("{guest}: samples in its own program"), mine.len());
        assert!(mine.len() > 100, "{guest}");
        assert_eq!(foreign, Vec::<&str>::new(), "{guest}");
    }
    let tables = &observed.recorded.tables;
    assert!(tables.gone(observed.domain("beta")).is_some(), "beta was destroyed");
    assert!(tables.gone(observed.domain("alpha")).is_none(), "alpha lives");
    assert!(
        tables.domain(observed.domain("delta")).from > observed.recorded.header.started,
        "delta was born later"
    );
}
