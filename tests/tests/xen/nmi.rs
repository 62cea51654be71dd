//! Samples by NMI: is every interrupt accounted for, and does each sample find what was interrupted? QEMU has no
//! counters, so interrupts are injected from outside, and the shim is told to take them for its own.

use std::collections::BTreeMap;

use lab::scenario::Release;
use profile::{Mode, PhysCpu};

use crate::{
    figures,
    host::{self, Booted, Host},
    observed::Observed,
};

/// Few enough that each one is over before the next comes.
fn slowly() -> &'static Host {
    static BOOTED: Booted = Booted::new();
    at(&BOOTED, 20.0)
}

/// So many that some are merged on their way, by QEMU or by the processor.
fn quickly() -> &'static Host {
    static BOOTED: Booted = Booted::new();
    at(&BOOTED, 200.0)
}

fn at(booted: &'static Booted, hz: f64) -> &'static Host {
    let run = || {
        let mut scenario = host::scenario("nmi")?;
        *scenario.nmi.as_mut().expect("a table [nmi]").hz.get_mut() = hz;
        Host::run(&format!("nmi-{hz}"), &scenario)
    };
    host::booted(booted, run)
}

/// Taken, and passed on.
fn seen(host: &Host, recording: &str) -> (u64, u64) {
    let report = host.report(recording);
    let event = report.event();
    assert_eq!((event.name.as_str(), event.source.as_str()), ("cycles", "pmu"));
    assert!(report.notes_say("--pmu-trust=assume"), "{:?}", report.notes);
    (event.taken.expect("books"), event.foreign_nmis.expect("books"))
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn twenty_a_second_are_all_taken() {
    slowly().step("end").ended(0).left_nothing_loaded();
    slowly().observed("nmi.xsr").assert_balanced();
    assert!(slowly().injected > 400, "{}", slowly().injected);
    assert_each_is_accounted_for(slowly(), "nmi.xsr");
}

/// Fails unless every NMI that was injected was taken for a sample or passed on.
pub(crate) fn assert_each_is_accounted_for(host: &Host, recording: &str) {
    let (taken, foreign) = seen(host, recording);
    figures::figure(
        format_args!("NMIs, few: injected, taken, foreign ({recording})"),
        format_args!("{}, {taken}, {foreign}", host.injected),
    );
    assert_eq!(taken + foreign, host.injected);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn more_are_never_taken_than_there_were() {
    quickly().step("end").ended(0).left_nothing_loaded();
    quickly().observed("nmi.xsr").assert_balanced();
    let (taken, foreign) = seen(quickly(), "nmi.xsr");
    figures::figure(
        "NMIs at 200 Hz: injected, taken, foreign",
        format_args!("{}, {taken}, {foreign}", quickly().injected),
    );
    assert!(taken + foreign <= quickly().injected);
    assert!(taken * 10 > quickly().injected * 9, "{taken} of {}", quickly().injected);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn each_finds_the_guest_the_mode_and_the_function() {
    let observed = quickly().observed("nmi.xsr");
    // The counters never end by themselves: nothing comes from the CPU that no interrupt reaches.
    assert!(observed.samples.iter().all(|sample| sample.cpu == PhysCpu(0)));
    for guest in ["alpha", "gamma"] {
        let (inside, user) = user_functions(&observed, guest);
        let hot = inside.get(&format!("{guest}_hot")).copied().unwrap_or(0) as f64 / user as f64;
        figures::share(format_args!("{guest}_hot by NMI, of 70 %"), hot);
        // Not one user sample outside of the program's own functions; the shares within four standard errors.
        assert_eq!(inside.values().sum::<u64>(), user, "{guest}: {inside:?}");
        assert!(user > 500, "{guest}: {user} user samples");
        assert!((hot - 0.7).abs() < 4.0 * (0.21 / user as f64).sqrt() + 0.02, "{guest}: {hot}");
    }
    // The other guest works in its kernel.
    let beta: Vec<_> = observed.samples_of(observed.domain("beta")).collect();
    let in_kernel = beta.iter().filter(|sample| sample.mode == Mode::Kernel);
    let named = in_kernel.clone().filter(|sample| observed.function(sample).is_some()).count();
    assert!(named > 50 && named == in_kernel.count(), "{named} named of {} samples", beta.len());
    let in_hypervisor = observed.samples.iter().filter(|sample| sample.mode == Mode::Hypervisor).count();
    assert!(in_hypervisor > 50, "{in_hypervisor} in the hypervisor");
}

/// The same on another release.
fn serves(release: Release, guests: &[&str]) {
    let mut scenario = host::scenario("nmi").unwrap();
    scenario.hypervisor.release = release;
    scenario.guests.retain(|guest| guests.contains(&guest.name.get_ref().as_str()));
    if !guests.contains(&"gamma") {
        for step in &mut scenario.steps {
            step.run = step.run.lines().filter(|line| !line.contains("gamma")).collect::<Vec<_>>().join("\n");
        }
    }
    let host = Host::run(&format!("nmi-{}", release.name()), &scenario).unwrap();
    host.step("end").ended(0).left_nothing_loaded();
    let observed = host.observed("nmi.xsr");
    observed.assert_balanced();
    assert_each_is_accounted_for(&host, "nmi.xsr");
    for guest in guests.iter().filter(|&&guest| guest != "beta") {
        let (inside, user) = user_functions(&observed, guest);
        assert_eq!(inside.values().sum::<u64>(), user, "{guest}: {inside:?}");
        assert!(user > 30, "{guest}: {user} user samples");
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_on_xen_4_14() {
    // Without the PVH guest, whose kernel may panic there: the emulator gives it interrupts twice (docs/lab.md).
    serves(Release::Bullseye, &["alpha", "beta"]);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_on_xen_4_20() {
    serves(Release::Trixie, &["alpha", "beta", "gamma"]);
}

/// A guest's user samples by function, and how many there are in all.
fn user_functions(observed: &Observed, guest: &str) -> (BTreeMap<String, u64>, u64) {
    let own = ["hot", "warm", "cool", "turn"].map(|function| format!("{guest}_{function}"));
    let mut inside = BTreeMap::new();
    let mut user = 0;
    for sample in observed.samples_of(observed.domain(guest)).filter(|sample| sample.mode == Mode::User) {
        user += 1;
        let name = observed.function(sample).unwrap_or("[unknown]");
        if own.iter().any(|known| known == name) || name == "main" {
            *inside.entry(name.to_owned()).or_default() += 1;
        }
    }
    (inside, user)
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn counters_that_do_not_count_are_not_believed() {
    let step = slowly().step("distrust").ended(0);
    let report = slowly().report("distrust.xsr");
    assert_eq!((report.event().name.as_str(), report.event().source.as_str()), ("cpu-clock", "timer"));
    assert!(report.notes_say("they do not count"), "{:?}", report.notes);
    // What a timer can't stand in for is refused in one line, and nothing stays behind.
    let refusals: Vec<&str> = step.stderr.lines().filter(|line| line.contains("error:")).collect();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(
        refusals[0].contains("they do not count") && refusals[0].contains("-e cpu-clock"),
        "{refusals:?}"
    );
    assert!(step.stdout.contains("refused with 1"));
    // Codes, and events that this processor lacks.
    assert!(step.stdout.contains("counters: AMD, family 0x10"), "{}", step.stdout);
    assert!(step.stdout.contains("r77e") && step.stdout.contains("not on this host"), "{}", step.stdout);
    step.left_nothing_loaded();
}
