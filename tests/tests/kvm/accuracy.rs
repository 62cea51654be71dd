//! Are the shares right, of guests, of the host and of functions?

use profile::{DomainKind, Mode, Space};

use crate::{
    bootstrap, figures,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();

/// The host with known loads, for all who ask about it.
pub(crate) fn loads() -> &'static Host {
    host(&BOOTED, "kvm_loads")
}

static WITHOUT_GUESTS: Booted = Booted::new();

/// A host without guests, for all who ask about it.
pub(crate) fn without_guests() -> &'static Host {
    host(&WITHOUT_GUESTS, "kvm_host")
}

/// Two percentage points.
const DOMAIN_TOLERANCE: f64 = 0.02;

/// Longer than anything that the loads or the emulator do as a whole.
const BLOCK_NS: u64 = 200_000_000;

/// The programs' own addresses, by the domain that has them.
const PROGRAMS: [(&str, u64); 3] = [("alpha", 0x1000_0000), ("beta", 0x2000_0000), ("host", 0x4000_0000)];

/// The guest that nobody gave a name.
fn is_anonymous(name: &str) -> bool {
    name.starts_with("qemu-system-x86-")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn guests_have_the_share_that_the_kernel_accounts_to_their_vcpus() {
    let report = loads().report("loads.xsr");
    for shares in report.shares() {
        let name = shares.domain;
        figures::share(format_args!("{name}, sampled"), shares.sampled);
        figures::share(format_args!("{name}, accounted by the host"), shares.accounted);
        let off = (shares.sampled - shares.accounted).abs();
        assert!(off < DOMAIN_TOLERANCE, "{name}: {} sampled, {} accounted", shares.sampled, shares.accounted);
    }
    let kinds: Vec<&str> = report.domains().map(|domain| &*domain.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "kvm").count(), 2, "{kinds:?}");
    let alpha = report.domain("alpha");
    assert!(alpha.uuid.is_some(), "its monitor was told a UUID");
    assert!(report.domains().any(|domain| is_anonymous(&domain.name)));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn functions_have_the_share_that_their_program_gives_them() {
    let observed = loads().observed("loads.xsr");
    for (domain, program) in [("alpha", "alpha"), ("host", "batch")] {
        let all = ["hot", "warm", "cool"].map(|function| format!("{program}_{function}"));
        for (function, truth) in all.iter().zip([0.7, 0.2, 0.1]) {
            let blocks = observed.blocks(observed.domain(domain), &all, function, BLOCK_NS);
            let (share, error) = (bootstrap::share(&blocks), bootstrap::standard_error(&blocks));
            let measured = format!("{:.2} ± {:.2} % of {:.0} %", share * 100.0, error * 100.0, truth * 100.0);
            figures::figure(function, &measured);
            assert!((share - truth).abs() < 4.0 * error, "{function}: {measured}");
        }
    }
}

/// Debian 12's kernel says of half of all guests' samples that they are of the wrong ring.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn every_sample_is_of_the_domain_and_mode_whose_code_ran() {
    let observed = loads().observed("loads.xsr");
    let tables = &observed.recorded.tables;
    let kind = |id| tables.domain(id).kind;
    let program_of = |address: u64| {
        PROGRAMS
            .iter()
            .find(|(_, base)| (*base..base + 0x1000_0000).contains(&address))
            .map(|(name, _)| *name)
    };
    let mut in_programs = 0;
    for sample in &observed.samples {
        let frame = observed.frame(sample);
        let charged_to = sample.charged_to.expect("somebody's");
        let guest = kind(charged_to) == DomainKind::Kvm;
        let (in_kernel_half, address) = (frame.address.raw() >> 63 == 1, frame.address.raw());
        let expected = match frame.space {
            // On the threads of the monitor that are no vCPUs, the kernel works as the backend.
            Space::Kernel(owner) if kind(owner) == DomainKind::Host && guest => {
                match (sample.vcpu, sample.mode) {
                    (None, Mode::Backend) => Mode::Backend,
                    _ => Mode::Hypervisor,
                }
            }
            Space::User(owner, _) if kind(owner) == DomainKind::Host && guest => Mode::Backend,
            Space::Kernel(owner) if owner == charged_to => Mode::Kernel,
            Space::User(owner, _) if owner == charged_to => Mode::User,
            other => panic!("{other:?} charged to {charged_to:?}"),
        };
        assert_eq!(sample.mode, expected, "{frame:?}");
        assert_eq!(in_kernel_half, matches!(frame.space, Space::Kernel(_)), "{frame:?}");
        if sample.mode == Mode::User
            && let Some(program) = program_of(address)
        {
            let name = &tables.domain(charged_to).name;
            let name = if is_anonymous(name) { "beta" } else { name };
            assert_eq!(name, program, "at {address:#x}");
            in_programs += 1;
        }
    }
    figures::figure("samples in programs, each its own domain's", in_programs);
    assert!(in_programs > 10_000, "{in_programs}");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn guests_are_split_into_hypervisor_kernel_user_and_backend() {
    let report = loads().report("loads.xsr");
    for domain in report.domains().filter(|domain| domain.kind == "kvm") {
        let of_mode = |mode: &str| domain.modes[mode] as f64 / domain.weight as f64;
        for mode in ["hypervisor", "kernel", "user", "backend"] {
            figures::share(format_args!("{}, {mode}", domain.name), of_mode(mode));
        }
        assert!(of_mode("hypervisor") > 0.0, "{}: exits take time", domain.name);
        let (busiest, least) = if domain.name == "alpha" { ("user", 0.8) } else { ("kernel", 0.5) };
        assert!(of_mode(busiest) > least, "{}: {busiest} is {}", domain.name, of_mode(busiest));
        let kvm = domain.functions.iter().any(|function| {
            function.mode == "hypervisor"
                && function.module.as_deref().is_some_and(|name| name.starts_with("kvm"))
        });
        assert!(kvm, "{}: no function of KVM's is among its hypervisor's", domain.name);
    }
    let batch =
        report.domain("host").processes.iter().find(|process| process.name.as_deref() == Some("batch"));
    let batch = batch.expect("the host's own program");
    assert_eq!(batch.container.as_deref(), Some("/batch"));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn programs_that_live_for_a_moment_have_their_names() {
    loads().step("short-lived").ended(143);
    let observed = loads().observed("short.xsr");
    let fresh: Vec<_> =
        observed.samples.iter().filter(|sample| observed.process_name(sample) == Some("fresh")).collect();
    let lives: std::collections::BTreeSet<_> = fresh.iter().map(|sample| sample.process).collect();
    let named = fresh.iter().filter(|sample| observed.function(sample).is_some()).count();
    figures::figure("short lives that were seen", format_args!("{} of 20", lives.len()));
    figures::figure("their samples that have names", format_args!("{named} of {}", fresh.len()));
    assert!(lives.len() >= 19, "{} lives", lives.len());
    assert!(named as f64 >= 0.99 * fresh.len() as f64, "{named} of {}", fresh.len());
}
