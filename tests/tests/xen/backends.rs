//! Is what dom0 does for a guest charged to the guest?

use std::collections::BTreeMap;

use profile::{Mode, Sample, Space};

use crate::{
    accuracy, figures,
    host::{Booted, Host, host},
    lifecycle::visits,
    moves::moves,
    observed::Observed,
};

static BOOTED: Booted = Booted::new();

/// The host whose guests are served by QEMU and by netback.
fn served() -> &'static Host {
    host(&BOOTED, "backends")
}

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
    let backend = backend(&observed, guest);
    // Its threads are the kernel's own.
    assert!(backend.iter().all(|sample| !matches!(observed.frame(sample).space, Space::User(..))));
    let named = backend.iter().filter(|sample| observed.function(sample).is_some()).count();
    assert!(
        backend.len() > 20 && named * 100 >= backend.len() * 95,
        "{named} of {} have names",
        backend.len()
    );
    let modules = modules(&observed, guest, &backend);
    assert!(modules.contains_key("xen_blkback"), "{modules:?}");
    for row in report.domains().filter(|row| row.name != guest) {
        assert_eq!(row.modes["backend"], 0, "{}", row.name);
    }
    let row = report.domain(guest);
    assert!(row.functions.iter().any(|function| function.mode == "backend"), "{:?}", row.functions);
}

/// The samples of a guest's backend, which ran nowhere but in dom0 and in Xen.
fn backend<'a>(observed: &'a Observed, guest: &str) -> Vec<&'a Sample> {
    let (id, dom0) = (observed.domain(guest), observed.domain("Domain-0"));
    let backend: Vec<_> = observed.samples_of(id).filter(|sample| sample.mode == Mode::Backend).collect();
    for sample in &backend {
        assert_eq!(sample.vcpu, None, "the vCPU is dom0's");
        let is_dom0s = match observed.frame(sample).space {
            Space::Hypervisor => true,
            Space::Kernel(owner) | Space::User(owner, _) => owner == dom0,
        };
        assert!(is_dom0s, "{:?}", observed.frame(sample));
    }
    backend
}

/// The images that they lie in, and how many in each.
fn modules<'a>(observed: &'a Observed, guest: &str, samples: &[&Sample]) -> BTreeMap<&'a str, usize> {
    let mut modules = BTreeMap::new();
    for sample in samples {
        *modules.entry(observed.module(sample).unwrap_or("[unknown]")).or_default() += 1;
    }
    figures::figure(format_args!("samples of {guest}'s backend, by module"), format_args!("{modules:?}"));
    modules
}

/// QEMU serves a disk, netback a network.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test --long"]
fn long_a_guest_is_charged_for_its_qemu_and_for_its_netback() {
    served().step("record").ended(0).left_nothing_loaded();
    let (observed, report) = (served().observed("record.xsr"), served().report("record.xsr"));
    observed.assert_balanced();
    for guest in ["gamma", "delta"] {
        let row = report.domain(guest);
        figures::share(
            format_args!("of {guest}, its backend"),
            row.modes["backend"] as f64 / row.weight as f64,
        );
        let backend = backend(&observed, guest);
        assert!(backend.len() > 100, "{guest}: {}", backend.len());
        let modules = modules(&observed, guest, &backend);
        let of_qemu = |sample: &&&Sample| {
            observed.process_name(sample).is_some_and(|name| name.starts_with("xen-qemu"))
        };
        let qemus = backend.iter().filter(of_qemu).count();
        figures::figure(format_args!("of them in processes of QEMU's, by name, {guest}"), qemus);
        match guest {
            "gamma" => assert!(qemus > 20, "{modules:?}"),
            _ => assert!(qemus == 0 && modules.contains_key("xen_netback"), "{modules:?}"),
        }
    }
    assert_eq!(report.domain("alpha").modes["backend"], 0, "nobody serves it");
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
