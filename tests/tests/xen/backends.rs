//! Is what dom0 does for a guest charged to the guest?

use std::collections::BTreeMap;

use profile::{Mode, Space};

use crate::{accuracy, figures, host::Host, lifecycle::visits, moves::moves};

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_guest_is_charged_for_what_serves_its_disk() {
    visits().step("domains").ended(0);
    assert_charged(visits(), "domains.xsr", "delta");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_a_guest_is_charged_for_what_serves_its_disk_all_the_time() {
    moves().step("backend").ended(0);
    assert_charged(moves(), "backend.xsr", "gamma");
}

/// Fails unless the guest with the busy disk is charged for what dom0 does for that, with names, and nobody else for
/// anything of the like.
fn assert_charged(host: &Host, recording: &str, guest: &str) {
    let (observed, report) = (host.observed(recording), host.report(recording));
    observed.assert_balanced();
    let (id, dom0) = (observed.domain(guest), observed.domain("Domain-0"));
    let mut modules = BTreeMap::<_, usize>::new();
    let (mut samples, mut named) = (0, 0);
    for sample in observed.samples_of(id).filter(|sample| sample.mode == Mode::Backend) {
        assert_eq!(sample.vcpu, None, "the vCPU is dom0's");
        let frame = observed.frame(sample);
        assert!(frame.space == Space::Hypervisor || frame.space == Space::Kernel(dom0), "{frame:?}");
        *modules.entry(observed.module(sample).unwrap_or("[unknown]")).or_default() += 1;
        samples += 1;
        named += usize::from(frame.function.is_some());
    }
    figures::figure(format_args!("samples of {guest}'s backend, by module"), format_args!("{modules:?}"));
    assert!(samples > 20 && named * 100 >= samples * 95, "{named} of {samples} have names");
    assert!(modules.contains_key("xen_blkback"), "{modules:?}");
    for row in report.domains().filter(|row| row.name != guest) {
        assert_eq!(row.modes["backend"], 0, "{}", row.name);
    }
    let row = report.domain(guest);
    assert!(row.functions.iter().any(|function| function.mode == "backend"), "{:?}", row.functions);
}

/// What Xen accounts to dom0 is what dom0 did for itself and for the guest.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_the_books_of_dom0_are_its_own_work_and_its_backends() {
    accuracy::assert_shares(&moves().report("backend.xsr"));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_who_asks_for_a_guest_alone_gets_its_backend_too() {
    let (observed, report) = (moves().observed("filtered.xsr"), moves().report("filtered.xsr"));
    let gamma = observed.domain("gamma");
    assert!(observed.samples.iter().all(|sample| sample.charged_to == Some(gamma)));
    let row = report.domain("gamma");
    figures::share("of gamma alone, its backend", row.modes["backend"] as f64 / row.weight as f64);
    assert!(row.modes["backend"] > 0);
}
