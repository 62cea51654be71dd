//! What does it cost the hypervisor to copy stacks with the samples? Counted in instructions, as in `cost`, and in bytes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    figures,
    host::{Booted, Host, host, xenoscope},
};

static BOOTED: Booted = Booted::new();

fn costs() -> &'static Host {
    host(&BOOTED, "chains_cost")
}

/// How long each step takes that is counted, by the clock of the machine, which counts instructions.
const STEP_S: f64 = 6.0;

/// What the record of a sample without stacks takes, and what stands in front of registers and of each stack
/// (`hv-shim/abi`).
const SAMPLE_BYTES: usize = 64;
const REGISTERS_BYTES: usize = 152;
const STACK_BYTES: usize = 16;

/// Instructions a second in Xen.
fn rate(step: &str) -> f64 {
    costs().executed_in_xen(step) as f64 / STEP_S
}

/// Instructions for each sample of a recording, all that is done besides included.
fn of_a_sample(recording: &str, off: f64) -> f64 {
    let observed = costs().observed(&format!("{recording}.xsr"));
    observed.assert_balanced();
    let taken: u64 = observed.accounts().iter().map(|(_, account)| account.taken).sum();
    let first = observed.samples.first().expect("there are samples");
    let last = observed.samples.last().expect("there are samples");
    let seconds = (last.time.0 - first.time.0) as f64 / 1e9;
    (rate(recording) - off) / (taken as f64 / seconds)
}

/// Bytes of ring that each sample of a guest's process took.
fn bytes(recording: &str) -> f64 {
    let file = costs().path(format!("{recording}.xsr"));
    let output = xenoscope(&["export", "--to", "stacks", "-i", file.to_str().unwrap(), "-o", "-"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut sizes = BTreeMap::<usize, usize>::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let [stretch] = &line["stretches"].as_array().unwrap()[..] else { continue };
        if stretch["space"] != "user" {
            continue;
        }
        let stacks = stretch["stacks"].as_array().unwrap().iter();
        let stacks = stacks.map(|piece| STACK_BYTES + piece["bytes"].as_str().unwrap().len() / 2);
        *sizes.entry(SAMPLE_BYTES + REGISTERS_BYTES + stacks.sum::<usize>()).or_default() += 1;
    }
    let samples: usize = sizes.values().sum();
    assert!(samples > 1000, "{recording}: {samples} samples of processes");
    sizes.iter().map(|(size, count)| size * count).sum::<usize>() as f64 / samples as f64
}

/// What other processes do is in it, those of dom0 among them: the guest has some nine tenths of the CPU.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_stacks_cost_a_few_thousand_instructions_a_sample() {
    for guest in ["alpha", "gamma"] {
        let off = rate(&format!("{guest}-off"));
        let [addresses, stacks] =
            ["addresses", "stacks"].map(|what| of_a_sample(&format!("{guest}-{what}"), off));
        figures::figure(
            format_args!(
                "{guest}: instructions in Xen for a sample, without and with stacks; bytes of ring with them"
            ),
            format_args!("{addresses:.0}, {stacks:.0}; {:.0}", bytes(&format!("{guest}-stacks"))),
        );
        assert!(stacks - addresses < 6000.0, "{guest}: stacks cost {:.0} instructions", stacks - addresses);
    }
}
