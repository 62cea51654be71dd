//! Does it stay well over a hundred visits, and while fifty domains are born and destroyed?

use profile::recording::EndReason;

use crate::{
    consoles, figures,
    host::{Host, scenario},
    lifecycle::{assert_no_page_is_kept, show_pauses},
};

/// A host that goes through one of the steps: each takes minutes.
fn endured(step: &str) -> Host {
    let mut scenario = scenario("endurance").unwrap();
    scenario.steps.retain(|known| known.name.get_ref() == step);
    Host::run(&format!("endurance-{step}"), &scenario).unwrap()
}

const VISITS: usize = 100;
const DOMAINS: usize = 50;

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_a_hundred_visits_under_load_leave_all_memory_behind() {
    let host = endured("visits");
    let step = host.step("visits").ended(0);
    assert_no_page_is_kept(&step, VISITS / 10);
    show_pauses(&step, VISITS);
    step.left_nothing_loaded();
    consoles::assert_clean(&host.text("console/xen.log"));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_fifty_domains_are_born_and_destroyed_while_they_are_recorded() {
    let host = endured("domains");
    let step = host.step("domains").ended(0).left_nothing_loaded();
    let observed = host.observed("domains.xsr");
    assert_eq!(*observed.end(), EndReason::Interrupted);
    observed.assert_balanced();
    let tables = &observed.recorded.tables;
    let born: Vec<_> = tables
        .domains()
        .filter(|domain| ["delta", "epsilon"].contains(&domain.name.as_str()))
        .map(|domain| domain.id)
        .collect();
    let sampled = born.iter().filter(|&&domain| observed.samples_of(domain).next().is_some()).count();
    figures::figure("domains that came and went while recorded", born.len());
    figures::figure("of them sampled", sampled);
    assert_eq!(born.len(), DOMAINS);
    assert_eq!(sampled, DOMAINS, "each lived for half a second at least");
    assert!(born.iter().all(|&domain| tables.gone(domain).is_some()), "all were destroyed");
    // None is kept from dying by a page that is still mapped.
    assert!(!step.stdout.contains("(null)"), "{}", step.stdout);
    assert_no_page_is_kept(&step, 1);
    consoles::assert_clean(&host.text("console/xen.log"));
}
