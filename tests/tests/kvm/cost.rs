//! What does watching cost, beside `perf record -a` at the same rate on the same machine?

use std::collections::BTreeMap;

use crate::{accuracy::without_guests, figures};

/// Of several turns, each figure's sum.
#[derive(Default)]
struct Used {
    own_s: f64,
    machine_s: f64,
    samples: f64,
    bytes: f64,
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_recorder_uses_at_most_half_of_what_perf_does() {
    let step = without_guests().step("cost").ended(0);
    let mut used: BTreeMap<(&str, &str), Used> = BTreeMap::new();
    for line in step.stdout.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let &[machine, name, user, system, busy, samples, bytes] = &*words else { panic!("{line:?}") };
        let number = |word: &str| word.parse::<f64>().unwrap();
        let sums = used.entry((machine, name)).or_default();
        sums.own_s += number(user) + number(system);
        sums.machine_s += number(busy) / 100.0;
        sums.samples += number(samples);
        sums.bytes += number(bytes);
    }
    for name in ["perf", "xenoscope"] {
        let Used { own_s, samples, bytes, .. } = used[&("busy", name)];
        figures::figure(
            format_args!("{name}, seconds of its own in two turns of 8 s"),
            format_args!("{own_s:.2}"),
        );
        figures::figure(
            format_args!("{name}, samples, and bytes a sample"),
            format_args!("{samples}, {:.0}", bytes / samples.max(1.0)),
        );
        let beyond = used[&("idle", name)].machine_s - used[&("idle", "nothing")].machine_s;
        figures::figure(
            format_args!("{name}, seconds of an idle machine's two CPUs in two turns of 6 s"),
            format_args!("{beyond:.2}"),
        );
    }
    let [perf, own] = ["perf", "xenoscope"].map(|name| used[&("busy", name)].own_s);
    assert!(own <= perf / 2.0, "{own} s against perf's {perf} s");
}
