//! Do the ways of sampling that need no livepatch find what is there, and do they say what they get wrong?

use lab::{Scenario, scenario::Release};
use profile::{Mode, PhysCpu};

use crate::{
    bootstrap, consoles, figures,
    host::{Booted, Host, booted, scenario},
    observed::Observed,
};

static BOOTED: Booted = Booted::new();

/// The guests that every run has: PV and PVH.
const GUESTS: [&str; 2] = ["alpha", "gamma"];

/// Fully virtualized.
const HVM: &str = "eta";

fn without_hvm() -> Scenario {
    let mut scenario = scenario("sources").unwrap();
    scenario.guests.retain(|guest| guest.name.get_ref() != HVM);
    scenario
}

fn sources() -> &'static Host {
    booted(&BOOTED, || Host::run("sources", &without_hvm()))
}

/// Longer than a guest's turn on the CPU.
const BLOCK_NS: u64 = 200_000_000;

fn own_functions(guest: &str) -> [String; 5] {
    ["hot", "warm", "cool", "turn", "main"]
        .map(|name| if name == "main" { name.to_owned() } else { format!("{guest}_{name}") })
}

/// How many of a guest's user samples lie in its program, and how many there are.
fn in_program(observed: &Observed, guest: &str) -> (usize, usize) {
    let own = own_functions(guest);
    let user = || observed.samples_of(observed.domain(guest)).filter(|sample| sample.mode == Mode::User);
    let inside = user()
        .filter(|sample| observed.function(sample).is_some_and(|name| own.iter().any(|own| own == name)));
    (inside.count(), user().count())
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_reading_vcpus_finds_each_function_at_its_share() {
    let step = sources().step("poll").ended(0).left_nothing_loaded();
    assert!(step.stdout.contains("a recording takes shim"), "{}", step.stdout);
    let observed = sources().observed("poll.xsr");
    observed.assert_balanced();
    for guest in GUESTS {
        let all = ["hot", "warm", "cool"].map(|function| format!("{guest}_{function}"));
        for (function, truth) in all.iter().zip([0.7, 0.2, 0.1]) {
            let blocks = observed.blocks(observed.domain(guest), &all, function, BLOCK_NS);
            let (share, error) = (bootstrap::share(&blocks), bootstrap::standard_error(&blocks));
            figures::figure(
                format_args!("{function} by vcpu-poll"),
                format_args!("{:.2} ± {:.2} % of {:.0} %", share * 100.0, error * 100.0, truth * 100.0),
            );
            assert!((share - truth).abs() < 4.0 * error, "{function}: {share} ± {error}, not {truth}");
        }
        let (inside, user) = in_program(&observed, guest);
        figures::figure(
            format_args!("{guest}'s user samples in its program, by vcpu-poll"),
            format_args!("{inside} of {user}"),
        );
        assert!(user > 100, "{guest}: {user} user samples");
        assert_eq!(inside, user, "{guest}");
    }
    // All else is in kernels, and there is nothing of the hypervisor.
    for sample in &observed.samples {
        assert_ne!(sample.mode, Mode::Hypervisor);
        let address = observed.frame(sample).address.raw();
        let is_kernels = address >= 0xffff_8000_0000_0000;
        assert!(sample.mode == Mode::User || is_kernels, "{address:#x} in kernel mode");
    }
    let report = sources().report("poll.xsr");
    assert_eq!(report.event().source, "vcpu-poll");
    let note = report.notes.iter().find(|note| note.text.contains("readings paused"));
    figures::figure("what reading vCPUs at 1 kHz cost", &note.expect("what it cost").text);
    for name in GUESTS {
        let row = report.domain(name);
        let (sampled, accounted) = (row.weight as f64 / 1e9, row.cpu_s.expect("accounts"));
        figures::figure(
            format_args!("{name}'s CPU time by vcpu-poll, and by Xen"),
            format_args!("{sampled:.2} s, {accounted:.2} s"),
        );
        assert!((sampled / accounted - 1.0).abs() < 0.05, "{name}: {sampled} of {accounted}");
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_reading_vcpus_costs_what_it_may() {
    sources().step("poll").ended(0);
    let observed = sources().observed("bounded.xsr");
    observed.assert_balanced();
    assert!(observed.samples.iter().all(|sample| sample.mode == Mode::Kernel));
    assert!(observed.accounts().iter().any(|(_, account)| account.filtered > 0));
    let report = sources().report("bounded.xsr");
    assert!(report.notes_say("instead of the 1000 Hz asked for"), "{:?}", report.notes);
    assert!(!report.notes_say("do not balance"), "{:?}", report.notes);
    let overhead = report.event().overhead.expect("it was measured");
    figures::share("overhead of vcpu-poll, 1 kHz asked, 1 % allowed", overhead);
    // The first round is made before anything is known of its cost, and each takes the emulator milliseconds.
    assert!(overhead < 0.03, "{overhead}");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_shim_is_right_where_xenoprof_is_stale() {
    assert_right_where_stale(sources(), &GUESTS);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test --long"]
fn long_the_shim_is_right_in_an_hvm_guest_too() {
    let mut scenario = scenario("sources").unwrap();
    // No more of it than has to be: while it is sampled, the emulator brings an HVM guest down within minutes (docs/lab.md).
    scenario
        .steps
        .retain(|step| ["shim", "xenoprof", "xenoprof-end"].contains(&step.name.get_ref().as_str()));
    let host = Host::run("sources-hvm", &scenario).unwrap();
    assert_right_where_stale(&host, &[&GUESTS[..], &[HVM]].concat());
}

fn assert_right_where_stale(host: &Host, guests: &[&str]) {
    host.step("shim").ended(0).left_nothing_loaded();
    host.step("xenoprof-end").ended(0).left_nothing_loaded();
    let (shim, xenoprof) = (host.observed("shim.xsr"), host.observed("xenoprof.xsr"));
    for &guest in guests {
        let (right, all) = in_program(&shim, guest);
        let (stale_right, stale_all) = in_program(&xenoprof, guest);
        figures::figure(
            format_args!("{guest}'s user samples in its program, by the shim and by xenoprof"),
            format_args!("{right} of {all}, {stale_right} of {stale_all}"),
        );
        assert!(all > 100, "{guest}: {all}");
        assert_eq!(right, all, "{guest}, by the shim");
        // Of a PV guest, xenoprof tells the truth.
        if guest == "alpha" {
            assert!(stale_all > 100 && stale_right == stale_all, "{stale_right} of {stale_all}");
        } else {
            assert!(stale_right < stale_all, "{guest}: {stale_right} of {stale_all}");
        }
    }
    xenoprof.assert_balanced();
    let report = host.report("xenoprof.xsr");
    assert_eq!(report.event().source, "xenoprof");
    assert!(report.notes_say("HVM or PVH guests on an AMD processor"), "{:?}", report.notes);
    assert!(report.notes_say("--pmu-trust=assume"), "{:?}", report.notes);
    // Only the CPU 0 is reached by the NMIs.
    assert!(xenoprof.samples.iter().any(|sample| sample.cpu == PhysCpu(0)));
    consoles::assert_clean(&host.text("console/xen.log"));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_session_of_xenoprof_that_was_killed_leaves_nothing_behind() {
    let step = sources().step("killed").ended(0).left_nothing_loaded();
    assert!(step.stdout.contains("a session of xenoprof was left behind"), "{}", step.stdout);
    // Of two that live, the second is refused.
    assert!(step.stdout.contains("second 1"), "{}", step.stdout);
    assert!(step.stderr.contains("in use by another recording"), "{}", step.stderr);
    // The shim finds the counters free.
    let after = sources().report("after.xsr");
    assert!(after.notes_say("left behind was ended first"), "{:?}", after.notes);
    assert_eq!(after.event().source, "pmu", "{:?}", after.notes);
    assert!(!step.stdout.contains("process "), "{}", step.stdout);
    let again = sources().report("again.xsr");
    assert!(again.complete && !again.notes_say("left behind"), "{:?}", again.notes);
    // No guest is kept from dying.
    assert!(!step.stdout.contains("(null)"), "{}", step.stdout);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_without_the_shim_the_next_best_is_taken() {
    let step = sources().step("fallback").ended(0).left_nothing_loaded();
    assert!(step.stdout.contains("shim 1"), "{}", step.stdout);
    let report = sources().report("fallback.xsr");
    assert_eq!(report.event().source, "vcpu-poll");
    assert!(report.notes_say("the shim was not used: Xen refused to upload"), "{:?}", report.notes);
    assert!(report.notes_say("xenoprof was not used"), "{:?}", report.notes);
    assert!(report.event().samples > 10, "{}", report.event().samples);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn what_a_source_cannot_do_is_told_in_a_line() {
    let step = sources().step("refused").ended(0).left_nothing_loaded();
    assert_eq!(step.stdout.matches("status 1").count(), 6, "{}", step.stdout);
    assert_eq!(step.stdout.matches("status 2").count(), 1, "{}", step.stdout);
    let lines: Vec<&str> = step.stderr.lines().filter(|line| line.starts_with("xenoscope:")).collect();
    let expected = [
        "do not count",
        "instructions can't be sampled by xenoprof",
        "not to be trusted",
        "cycles can't be sampled by reading vCPUs",
        "50000 Hz is out of range",
        "not at a period",
    ];
    assert_eq!(lines.len(), expected.len(), "{}", step.stderr);
    for (line, words) in lines.iter().zip(expected) {
        assert!(line.contains(words), "no {words:?} in {line:?}");
    }
    assert!(step.stderr.contains("invalid value 'nonsense'"), "{}", step.stderr);
    assert!(step.stderr.contains("/tmp/none.xsr: No such file"), "{}", step.stderr);
}

/// Xen's later releases have no xenoprof, or have it left out; vCPUs can be read in all of them.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_on_xen_4_20() {
    let mut scenario = without_hvm();
    scenario.hypervisor.release = Release::Trixie;
    scenario.nmi = None;
    scenario.steps.retain(|step| step.name.get_ref() == "releases");
    let host = Host::run("sources-4.20", &scenario).unwrap();
    let step = host.step("releases").ended(0).left_nothing_loaded();
    figures::figure("what doctor says of sources on 4.20", step.stdout.lines().next().unwrap_or_default());
    assert!(step.stdout.contains("xenoprof 1"), "{}", step.stdout);
    assert!(step.stderr.contains("this Xen has no xenoprof"), "{}", step.stderr);
    let observed = host.observed("release.xsr");
    observed.assert_balanced();
    for guest in ["alpha", "gamma"] {
        let (inside, user) = in_program(&observed, guest);
        assert!(user > 100 && inside == user, "{guest}: {inside} of {user} user samples lie in its program");
    }
}
