//! Is what dom0 does for a guest charged to the guest?

use std::collections::BTreeMap;

use profile::{Mode, Space};

use crate::{figures, moves::moves};

/// What is charged to the guest with the busy disk: named, and nothing of it to those that have none.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_guest_is_charged_for_what_serves_its_disk() {
    moves().step("backend").ended(0);
    let (observed, report) = (moves().observed("backend.xsr"), moves().report("backend.xsr"));
    observed.assert_balanced();
    let (gamma, dom0) = (observed.domain("gamma"), observed.domain("Domain-0"));
    let mut modules = BTreeMap::<_, usize>::new();
    let (mut samples, mut named) = (0, 0);
    for sample in observed.samples_of(gamma).filter(|sample| sample.mode == Mode::Backend) {
        assert_eq!(sample.vcpu, None, "the vCPU is dom0's");
        let frame = observed.frame(sample);
        assert!(matches!(frame.space, Space::Hypervisor | Space::Kernel(_)), "{frame:?}");
        assert!(frame.space == Space::Hypervisor || frame.space == Space::Kernel(dom0), "{frame:?}");
        *modules.entry(observed.module(sample).unwrap_or("[unknown]")).or_default() += 1;
        samples += 1;
        named += usize::from(frame.function.is_some());
    }
    figures::figure("samples of gamma's backend, by module", format_args!("{modules:?}"));
    assert!(samples > 50 && named * 100 >= samples * 95, "{named} of {samples} have names");
    assert!(modules.contains_key("xen_blkback"), "{modules:?}");
    for row in report.domains().filter(|row| row.name != "gamma") {
        assert_eq!(row.modes["backend"], 0, "{}", row.name);
    }
    let row = report.domain("gamma");
    assert!(row.functions.iter().any(|function| function.mode == "backend"), "{:?}", row.functions);
}

/// What Xen accounts to dom0 is what dom0 did for itself and for the guest.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_books_of_dom0_are_its_own_work_and_its_backends() {
    crate::accuracy::assert_shares(&moves().report("backend.xsr"));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn who_asks_for_a_guest_alone_gets_its_backend_too() {
    let (observed, report) = (moves().observed("filtered.xsr"), moves().report("filtered.xsr"));
    let gamma = observed.domain("gamma");
    assert!(observed.samples.iter().all(|sample| sample.charged_to == Some(gamma)));
    let row = report.domain("gamma");
    figures::share("of gamma alone, its backend", row.modes["backend"] as f64 / row.weight as f64);
    assert!(row.modes["backend"] > 0);
}
