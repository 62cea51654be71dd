//! Does it stay well over a hundred visits, and while fifty domains are born and destroyed?

use profile::recording::EndReason;

use crate::{
    consoles, figures,
    host::{Host, scenario},
    lifecycle::{assert_no_page_is_kept, show_pauses},
};

/// A host that goes through one of the steps, each of which takes minutes, without one of its guests or with all.
fn endured(step: &str, without: Option<&str>) -> Host {
    let mut scenario = scenario("endurance").unwrap();
    scenario.steps.retain(|known| known.name.get_ref() == step);
    scenario.guests.retain(|guest| Some(guest.name.get_ref().as_str()) != without);
    Host::run(&format!("endurance-{step}"), &scenario).unwrap()
}

const VISITS: usize = 100;
/// Paravirtualized ones, and others at the least: those that the emulator brings down are started once more.
const DOMAINS: usize = 50;
const MORE_DOMAINS: usize = 5;

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_a_hundred_visits_under_load_leave_all_memory_behind() {
    let host = endured("visits", None);
    let step = host.step("visits").ended(0);
    assert_no_page_is_kept(&step, VISITS / 10);
    show_pauses(&step, VISITS);
    step.left_nothing_loaded();
    consoles::assert_clean(&host.text("console/xen.log"));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_fifty_domains_are_born_and_destroyed_while_they_are_recorded() {
    // The emulator brings a PVH guest down sooner or later (docs/lab.md).
    let host = endured("domains", Some("beta"));
    let step = host.step("domains").ended(0).left_nothing_loaded();
    let observed = host.observed("domains.xsr");
    assert_eq!(*observed.end(), EndReason::Interrupted);
    observed.assert_balanced();
    let tables = &observed.recorded.tables;
    let came_and_went = |name: &str| {
        let born: Vec<_> =
            tables.domains().filter(|domain| domain.name == name).map(|domain| domain.id).collect();
        let sampled = born.iter().filter(|&&domain| observed.samples_of(domain).next().is_some()).count();
        figures::figure(
            format_args!("domains called {name} that came and went while recorded, and sampled ones of them"),
            format_args!("{}, {sampled}", born.len()),
        );
        assert!(born.iter().all(|&domain| tables.gone(domain).is_some()), "all were destroyed");
        (born.len(), sampled)
    };
    assert_eq!(came_and_went("delta"), (DOMAINS, DOMAINS), "each lived for half a second at least");
    let (born, sampled) = came_and_went("epsilon");
    assert!(born >= MORE_DOMAINS && sampled > 0, "{born} of epsilon, {sampled} sampled");
    // None is kept from dying by a page that is still mapped.
    assert!(!step.stdout.contains("(null)"), "{}", step.stdout);
    assert_no_page_is_kept(&step, 1);
    consoles::assert_clean(&host.text("console/xen.log"));
}
