//! Are the shares right, of domains and of functions?

use profile::Mode;

use crate::{
    bootstrap, figures,
    host::{Booted, Host, host},
    report::Report,
};

static BOOTED: Booted = Booted::new();

/// The host with known loads, for all who ask about it.
pub(crate) fn loads() -> &'static Host {
    host(&BOOTED, "accuracy")
}

/// Two percentage points.
const DOMAIN_TOLERANCE: f64 = 0.02;

/// Longer than anything that the loads or the emulator do as a whole.
const BLOCK_NS: u64 = 200_000_000;

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn domains_have_the_share_that_xen_accounts_to_them() {
    let report = loads().report("loads.xsr");
    assert_shares(&report);
    let samples = report.event().samples;
    figures::figure("samples in 25 s at 1 kHz on 2 CPUs", samples);
    assert!(samples > 20_000, "{samples} samples are not 20 s of them");
}

/// Fails where a domain's share of the samples is not that of the CPU time.
pub(crate) fn assert_shares(report: &Report) {
    for shares in report.shares() {
        let name = shares.domain;
        figures::share(format_args!("{name}, sampled"), shares.sampled);
        figures::share(format_args!("{name}, accounted by Xen"), shares.accounted);
        let off = (shares.sampled - shares.accounted).abs();
        assert!(
            off < DOMAIN_TOLERANCE,
            "{name}: {} of the samples, {} of the time",
            shares.sampled,
            shares.accounted
        );
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn functions_have_the_share_that_their_program_gives_them() {
    let observed = loads().observed("loads.xsr");
    for guest in ["alpha", "gamma", "eta"] {
        let all = ["hot", "warm", "cool"].map(|function| format!("{guest}_{function}"));
        for (function, truth) in all.iter().zip([0.7, 0.2, 0.1]) {
            let blocks = observed.blocks(observed.domain(guest), &all, function, BLOCK_NS);
            let (share, error) = (bootstrap::share(&blocks), bootstrap::standard_error(&blocks));
            figures::figure(
                function,
                format_args!("{:.2} ± {:.2} % of {:.0} %", share * 100.0, error * 100.0, truth * 100.0),
            );
            assert!((share - truth).abs() < 4.0 * error, "{function}: {share} ± {error}, not {truth}");
        }
    }
}

/// On AMD the frame at hand when a hardware guest is interrupted is that of its *previous* exit: samples taken from it
/// lie where the guest last left for Xen, in its kernel.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn hardware_guests_user_samples_lie_inside_of_their_programs_functions() {
    let observed = loads().observed("loads.xsr");
    for guest in ["gamma", "eta"] {
        let domain = observed.domain(guest);
        let user = || observed.samples_of(domain).filter(|sample| sample.mode == Mode::User);
        let inside = user().filter(|sample| {
            observed.function(sample).is_some_and(|name| name == "main" || name.starts_with(guest))
        });
        let (inside, all) = (inside.count(), user().count());
        figures::figure(
            format_args!("{guest}: user samples inside of its program's functions"),
            format_args!("{inside} of {all}"),
        );
        assert!(all > 500 && inside * 1000 >= all * 999, "{guest}: {inside} of {all}");
    }
}
