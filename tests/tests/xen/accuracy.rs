//! Are the shares right, of domains and of functions?

use std::collections::BTreeMap;

use crate::{
    bootstrap::{self, Block},
    figures,
    host::{Booted, Host, host},
    observed::Observed,
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
    for guest in ["alpha", "gamma"] {
        for (function, truth) in [("hot", 0.7), ("warm", 0.2), ("cool", 0.1)] {
            let blocks = blocks(&observed, guest, function);
            let (share, error) = (bootstrap::share(&blocks), bootstrap::standard_error(&blocks));
            figures::figure(
                format_args!("{guest}_{function}"),
                format_args!("{:.2} ± {:.2} % of {:.0} %", share * 100.0, error * 100.0, truth * 100.0),
            );
            assert!(
                (share - truth).abs() < 4.0 * error,
                "{guest}_{function}: {share} ± {error}, not {truth}"
            );
        }
    }
}

/// What a function has of its guest's three, by time.
fn blocks(observed: &Observed, guest: &str, function: &str) -> Vec<Block> {
    let all = ["hot", "warm", "cool"].map(|function| format!("{guest}_{function}"));
    let wanted = format!("{guest}_{function}");
    let mut blocks: BTreeMap<u64, Block> = BTreeMap::new();
    for sample in observed.samples_of(observed.domain(guest)) {
        let Some(name) = observed.function(sample).filter(|name| all.iter().any(|known| known == name))
        else {
            continue;
        };
        let block = blocks.entry(observed.since_start(sample) / BLOCK_NS).or_default();
        block.whole += sample.weight as f64;
        if name == wanted {
            block.part += sample.weight as f64;
        }
    }
    blocks.into_values().collect()
}
