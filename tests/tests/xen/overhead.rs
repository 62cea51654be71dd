//! Does sampling cost no more than it may?

use crate::{
    figures,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();

fn hurried() -> &'static Host {
    host(&BOOTED, "overhead")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_rate_comes_down_until_samples_cost_what_they_may() {
    let recording = |name: &str| {
        hurried().step(name).ended(0);
        hurried().observed(&format!("{name}.xsr")).assert_balanced();
        let report = hurried().report(&format!("{name}.xsr"));
        let overhead = report.event().overhead.expect("it was measured");
        figures::figure(
            format_args!("10 kHz asked, {name}"),
            format_args!("{:.0} Hz at {:.2} % of the time", report.event().rate_hz, overhead * 100.0),
        );
        (report, overhead)
    };
    let (free, cost) = recording("unbounded");
    assert!(cost > 0.01, "{cost}: nothing to bring down");
    assert!(!free.notes_say("--max-overhead"), "{:?}", free.notes);
    let (bounded, overhead) = recording("bounded");
    // The first samples are taken before anything is known of their cost.
    assert!(overhead < 0.0125, "{overhead}");
    assert!(bounded.event().rate_hz < free.event().rate_hz, "{}", bounded.event().rate_hz);
    assert!(bounded.notes_say("instead of the 10000 Hz asked for"), "{:?}", bounded.notes);
    assert!(bounded.event().samples > 500, "{}", bounded.event().samples);
}
