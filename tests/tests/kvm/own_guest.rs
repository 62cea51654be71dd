//! A guest on this machine's own KVM, where it has one.

use profile::{Mode, Space};

use crate::{
    figures,
    recorder::Recorder,
    tiny_guest::{Rounds, TinyGuest},
};

/// Of a vCPU's time, guest and host together.
const SHARE_TOLERANCE: f64 = 0.02;

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn a_guests_code_is_told_by_domain_and_mode() {
    let Some(recorder) = Recorder::new() else { return };
    let Some(guest) = TinyGuest::start(10, Rounds { user: 20_000_000, kernel: 10_000 }) else { return };
    let output = recorder.record(&["-F", "1000", "--duration", "7"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let observed = recorder.observed();
    observed.assert_balanced();
    let tables = &observed.recorded.tables;
    let domain =
        tables.domains().find(|domain| domain.number == guest.process).expect("the guest was found").id;
    let (mut outside, mut inside, mut by_mode) = (Vec::new(), 0, [0; 4]);
    for sample in observed.samples_of(domain) {
        by_mode[sample.mode as usize] += sample.weight;
        let address = observed.frame(sample).address.raw();
        let own = match observed.frame(sample).space {
            Space::Kernel(owner) if owner == domain => guest.kernel_loop.contains(&address),
            Space::User(owner, _) if owner == domain => guest.user_loop.contains(&address),
            // The host's kernel and the monitor's process.
            _ => {
                assert!(matches!(sample.mode, Mode::Hypervisor | Mode::Backend), "{sample:?}");
                continue;
            }
        };
        inside += 1;
        if !own {
            outside.push(address);
        }
    }
    let [hypervisor, kernel, user, backend] = by_mode.map(|weight| weight as f64 / 1e9);
    let truth = guest.end();
    figures::figure("samples in the guest's own code", inside);
    figures::figure("of these, not in the loop of their mode", outside.len());
    figures::figure(
        "seconds as hypervisor, kernel, user, backend",
        format_args!("{hypervisor:.2}, {kernel:.2}, {user:.2}, {backend:.2}"),
    );
    figures::figure("turns", truth.turns);
    assert!(inside > 50, "{inside} samples");
    // Changes of mode take a handful of instructions, at addresses of their own.
    assert!(outside.len() as f64 <= 0.05 * f64::from(inside), "{outside:x?}");
    let report = recorder.report();
    for shares in report.shares() {
        let shown = format_args!("{:.1}/{:.1} %", 100.0 * shares.sampled, 100.0 * shares.accounted);
        figures::figure(format!("{}, sampled/accounted", shares.domain), shown);
        let off = (shares.sampled - shares.accounted).abs();
        assert!(
            off < SHARE_TOLERANCE,
            "{}: {} sampled, {} accounted",
            shares.domain,
            shares.sampled,
            shares.accounted
        );
    }
}

/// QEMU's `microvm` has no virtual CPUs to add: this monitor asks KVM itself for one.
#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn a_vcpu_that_is_added_while_it_is_recorded_is_seen() {
    let Some(recorder) = Recorder::new() else { return };
    let rounds = Rounds { user: 20_000_000, kernel: 10_000 };
    let Some(guest) = TinyGuest::start_and_add(9, rounds, 3) else { return };
    let output = recorder.record(&["-F", "1000", "--duration", "7"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let observed = recorder.observed();
    observed.assert_balanced();
    let mut domains = observed.recorded.tables.domains().filter(|domain| domain.number == guest.process);
    let domain = domains.next().expect("the guest was found");
    assert_eq!((domain.vcpus, domains.count()), (2, 0), "it is the same guest, with one more");
    let of_vcpu = |index: u32| {
        let samples = observed.samples_of(domain.id);
        samples.filter(move |sample| sample.vcpu.is_some_and(|vcpu| vcpu.index == index)).collect::<Vec<_>>()
    };
    let (first, second) = (of_vcpu(0), of_vcpu(1));
    let seen = format_args!("{}, {}", first.len(), second.len());
    figures::figure("samples of the vCPU that was there and of the one that came", seen);
    assert!(second.len() > 20, "{}", second.len());
    let starts = [&first, &second].map(|samples| samples.iter().map(|sample| sample.time).min().unwrap());
    assert!(starts[1].0 - starts[0].0 > 1_000_000_000, "{starts:?}");
}
