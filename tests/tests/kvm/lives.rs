//! Guests that are born, boot anew and die while they are recorded.

use crate::{
    figures,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();

fn lives() -> &'static Host {
    host(&BOOTED, "kvm_lives")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn guests_come_and_go_while_they_are_recorded() {
    lives().step("lives").ended(0);
    let observed = lives().observed("lives.xsr");
    observed.assert_balanced();
    let tables = &observed.recorded.tables;
    let gamma = observed.domain("gamma");
    let born = tables.domain(gamma).from.0 - observed.recorded.header.started.0;
    figures::figure("gamma is known after", format_args!("{:.1} s", born as f64 / 1e9));
    assert!(born > 1_000_000_000, "it was born while others were recorded");
    // A guest that boots anew is still the same virtual machine.
    assert!(observed.samples_of(gamma).count() > 500);
    let beta = tables.domains().find(|domain| domain.name.starts_with("qemu-system-x86-")).expect("beta");
    let gone = tables.gone(beta.id).expect("its end was noticed");
    let last = observed.samples_of(beta.id).map(|sample| sample.time).max().unwrap();
    let late = gone.0.saturating_sub(last.0) as f64 / 1e9;
    figures::figure("a killed monitor's guest is known to be gone after", format_args!("{late:.2} s"));
    assert!(late < 2.0, "{late} s");
    assert!(tables.gone(gamma).is_none());
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_guest_that_was_never_there_is_an_error() {
    let step = lives().step("nobody").ended(1);
    assert!(step.stderr.contains("no domain was called nobody"), "{}", step.stderr);
}
