//! Does every sample lie in code that its domain can run?

use std::collections::BTreeSet;

use profile::{Domain, Mode, Space};

use crate::{
    accuracy::loads,
    figures,
    observed::Observed,
    symbols::{self, Functions},
};

/// The guests, and the addresses that only their own program has.
const PROGRAMS: [(&str, u64); 4] =
    [("alpha", 0x1000_0000), ("beta", 0x2000_0000), ("gamma", 0x3000_0000), ("eta", 0x5000_0000)];

const DOM0: &str = "Domain-0";

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn no_sample_lies_in_a_function_that_its_domain_cannot_run() {
    let observed = loads().observed("loads.xsr");
    let xen = symbols::listed(&loads().text("symbols/xensyms"));
    let kernel = |name: &str| symbols::listed(&loads().text(format!("symbols/{name}.kallsyms")));
    let (dom0, kernel_of_dom0) = (observed.domain(DOM0), kernel(DOM0));
    let mut checked = 0;
    for domain in observed.recorded.tables.domains() {
        let kernel = kernel(&domain.name);
        let program = program(domain);
        for sample in observed.samples_of(domain.id) {
            let frame = observed.frame(sample);
            let Some(function) = observed.function(sample) else { continue };
            let module = frame.module.map(|module| observed.recorded.tables.name(module));
            let known = match frame.space {
                Space::Hypervisor => xen.contains(function) || module == Some("xenoscope"),
                // What dom0 does for a guest, by its device model.
                Space::Kernel(owner) if sample.mode == Mode::Backend => {
                    owner == dom0 && kernel_of_dom0.contains(function)
                }
                Space::Kernel(owner) => owner == domain.id && kernel.contains(function),
                Space::User(owner, _) => owner == domain.id && program.contains(function),
            };
            assert!(known, "{}: {function} of {module:?} at {frame:?}", domain.name);
            checked += 1;
        }
        figures::figure(format_args!("{}, samples named", domain.name), named(&observed, domain));
    }
    figures::figure("named samples that lie in code of their own domain", checked);
    assert!(checked > 20_000);
}

fn named(observed: &Observed, domain: &Domain) -> String {
    let all = observed.samples_of(domain.id).count();
    let named = observed.samples_of(domain.id).filter(|sample| observed.function(sample).is_some()).count();
    format!("{named} of {all}")
}

/// The functions of a guest's program.
fn program(domain: &Domain) -> BTreeSet<String> {
    match PROGRAMS.iter().any(|(name, _)| *name == domain.name) {
        true => Functions::of(&loads().path(format!("symbols/{}", domain.name)))
            .names()
            .map(str::to_owned)
            .collect(),
        false => BTreeSet::new(),
    }
}

/// Each program has addresses of its own: a sample given to the wrong guest shows by its address, named or not.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn no_guest_runs_at_another_programs_addresses() {
    let observed = loads().observed("loads.xsr");
    for (name, _) in PROGRAMS {
        let domain = observed.domain(name);
        let user = observed.samples_of(domain).map(|sample| observed.frame(sample));
        let user = user.filter(|frame| matches!(frame.space, Space::User(..)));
        let addresses: Vec<u64> = user.map(|frame| frame.address.raw()).collect();
        assert!(addresses.len() > 100, "{name} has only {} user samples", addresses.len());
        for (other, base) in PROGRAMS.iter().filter(|(other, _)| *other != name) {
            let foreign =
                addresses.iter().filter(|address| (*base..base + 0x1000_0000).contains(*address)).count();
            assert_eq!(foreign, 0, "{name} was seen in the program of {other}");
        }
    }
}
