//! Guests that are born, boot anew and die while they are recorded, and watched on a console without UTF-8.

use lab::evidence::shown::{Shown, assert_shows, line_of};

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

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_busiest_guest_is_shown_down_to_its_instructions() {
    let shown = Shown::read(&lives().path("top.tty"), 100, 30);
    println!("{}", shown.at("two seconds later"));
    shown.assert_drilled_down("qemu-system-x86-", "beta");
    let first = shown.at("first");
    assert!(first.is_ascii(), "no locale was given\n{first}");
    assert_shows(&first, &["cpu-clock: ", "host"]);
    // The hottest function is the first of them.
    assert_eq!(line_of(&first, "beta_hot"), line_of(&first, "SELF  TOTAL") + 1, "{first}");
}

/// Not in every run: on a slow machine the names come later than is waited for.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_a_guest_that_boots_anew_while_it_is_watched_has_its_names() {
    let shown = Shown::read(&lives().path("top.tty"), 100, 30);
    let twice = shown.between("booted twice", "log", &["gamma", "gamma_hot"]);
    println!("{}", twice.unwrap_or_else(|| panic!("no gamma with its function in\n{}", shown.at("log"))));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn guests_come_and_go_while_they_are_watched() {
    let step = lives().step("lives").ended(0);
    assert!(step.stdout.contains("ended 0") && step.stdout.contains("terminal as before"), "{}", step.stdout);
    let shown = Shown::read(&lives().path("top.tty"), 100, 30);
    let log = shown.at("log");
    println!("{log}");
    let line_of = |kind: &str, name: &str| {
        let line = log.lines().position(|line| line.contains(kind) && line.contains(name));
        line.unwrap_or_else(|| panic!("no {kind} {name} in\n{log}"))
    };
    // The newest is the first.
    assert!(line_of("rebooted", "gamma") < line_of("died", "gamma"), "{log}");
    assert!(line_of("died", "gamma") < line_of("died", "qemu-system-x86-"), "{log}");
    assert!(line_of("died", "qemu-system-x86-") < line_of("born", "gamma"), "{log}");
    assert!(shown.is_given_back());
}
