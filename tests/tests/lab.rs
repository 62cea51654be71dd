//! Does the lab itself do what it says? Boots real hosts: `cargo xtask test` runs these.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{
    Options, Outcome, Scenario,
    evidence::{complaints::of_a_host, host::run_again},
};

/// Runs a scenario of this crate into a folder of its own.
fn run(scenario: Scenario, name: &str) -> (anyhow::Result<Outcome>, PathBuf) {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let options = Options { out: out.clone(), ..Options::default() };
    let ended = |outcome: &anyhow::Result<_>| of_a_host(outcome.as_ref().err()?, &out.join("console"));
    (run_again(name, &scenario, &options, ended), out)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_scenario_is_understood() {
    let scenarios = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")).unwrap();
    for scenario in scenarios {
        Scenario::load(&scenario.unwrap().path()).unwrap();
    }
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn a_host_runs_its_guests_and_steps_and_gives_files_back() {
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/smoke.toml");
    let (outcome, out) = run(Scenario::load(&scenario).unwrap(), "smoke");
    let outcome = outcome.unwrap();
    outcome.check().unwrap();

    let domains = text(&out.join("steps/00-domains.out"));
    for name in ["Domain-0", "alpha", "beta"] {
        assert!(domains.lines().any(|line| line.starts_with(name)), "{name} is not in\n{domains}");
    }
    assert!(text(&out.join("console/xen.log")).contains("Xen version 4.17"));
    assert!(text(&out.join("console/dom0.log")).contains("Linux version"));

    let sums = text(&out.join("steps/02-files.out"));
    let sum = |file: &str| sums.lines().find_map(|line| line.strip_suffix(file)).map(str::trim).expect(file);
    let random = Command::new("md5sum").arg(out.join("random.bin")).output().unwrap().stdout;
    assert!(String::from_utf8(random).unwrap().starts_with(sum("/out/random.bin")));

    // The symbols that the lab has of a kernel are those of the kernels that run, in a guest of either kind.
    for console in ["alpha.log", "beta.log"] {
        let said = text(&out.join("console").join(console));
        assert!(said.contains(sum("/guests/alpha/kallsyms")), "{console} has other symbols");
    }
    assert!(text(&out.join("console/beta.log")).contains("/dev/xvda on / type ext4"));
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn a_kvm_host_runs_its_guests_each_in_a_vmm() {
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/kvm_smoke.toml");
    let (outcome, out) = run(Scenario::load(&scenario).unwrap(), "kvm_smoke");
    outcome.unwrap().check().unwrap();

    let host = text(&out.join("steps/00-host.out"));
    for mounted in ["/sys/kernel/tracing", "/sys/kernel/debug", "/sys/fs/bpf", "/sys/fs/cgroup"] {
        assert!(host.contains(&format!(" on {mounted} ")), "{mounted} is not in\n{host}");
    }
    assert!(host.contains("\nperf version 6.1"), "{host}");
    assert!(text(&out.join("console/host.log")).contains("Linux version 6.1"));

    let vmms = text(&out.join("steps/02-vmms.out"));
    for guest in ["alpha", "beta"] {
        assert!(vmms.contains(&format!("file {guest}: kvm-vcpu:0\n")), "{vmms}");
        let said = text(&out.join(format!("console/{guest}.log")));
        assert!(said.contains("Hypervisor detected: KVM"), "{said}");
    }
    assert!(vmms.contains("thread alpha: CPU 0/KVM: 1\n"), "{vmms}");
    // Nothing tells what the anonymous guest's threads do.
    let beta: Vec<&str> = vmms.lines().filter(|line| line.starts_with("thread beta: ")).collect();
    assert!(beta.len() > 1 && beta.iter().all(|line| *line == "thread beta: qemu-system-x86: 0"), "{vmms}");

    // A list of symbols holds for a kernel that is told not to move, and for no other.
    let (alpha, beta) = (text(&out.join("console/alpha.log")), text(&out.join("console/beta.log")));
    let sum = vmms.lines().find_map(|line| line.strip_suffix("/guests/alpha/kallsyms")).unwrap();
    assert!(alpha.contains(sum.trim()), "alpha has other symbols");
    assert!(
        beta.contains(" _text") && !beta.contains("ffffffff81000000 T _text"),
        "beta's kernel has not moved"
    );
    assert!(beta.contains("/dev/vda on / type ext4"));

    let load = text(&out.join("steps/03-load.out"));
    let used = |guest: &str| {
        let line = load.lines().find_map(|line| line.strip_prefix(guest)).expect(guest);
        line.trim().parse::<u64>().unwrap()
    };
    assert!(used("alpha") > 5 * used("beta"), "{load}");
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn a_step_that_takes_too_long_ends_the_run_and_loses_nothing() {
    let scenario = r#"
        [hypervisor]
        kind = "xen"
        release = "bookworm"
        [[step]]
        name = "fails"
        run = "false; echo not reached"
        on_failure = "continue"
        [[step]]
        name = "hangs"
        run = "echo some words | tee /out/words; sleep 1000"
        timeout_s = 3
        [[step]]
        name = "never"
        run = "true"
        [collect]
        files = ["/out/*"]
    "#;
    let (outcome, out) = run(Scenario::parse(scenario, PathBuf::new()).unwrap(), "hangs");
    let error = format!("{:#}", outcome.unwrap_err());
    assert!(error.contains("step \"hangs\" was stopped"), "{error}");
    assert_eq!(text(&out.join("steps/00-fails.out")), "");
    assert_eq!(text(&out.join("steps/01-hangs.out")), "some words\n");
    assert_eq!(text(&out.join("words")), "some words\n");
    assert!(!out.join("steps/02-never.out").exists());
    let steps = text(&out.join("steps.json"));
    assert!(steps.contains("\"hangs\"") && !steps.contains("\"never\""), "{steps}");
}
