//! A guest that moves to another VMM while it is recorded; what the host does for a guest; recorders that may do little.

use std::collections::BTreeSet;

use profile::{DomainId, DomainKind, Mode, Sample, Space};

use crate::{
    figures,
    host::{Booted, Host, host, xenoscope},
    observed::{Observed, is_own},
};

static BOOTED: Booted = Booted::new();

fn moves() -> &'static Host {
    host(&BOOTED, "kvm_moves")
}

/// Numbers that a step printed behind a word.
fn told(step: &str, word: &str) -> Vec<u32> {
    let said = moves().step(step).ended(0).stdout;
    let line = said.lines().find_map(|line| line.strip_prefix(word));
    let line = line.unwrap_or_else(|| panic!("{step} does not tell of {word}:\n{said}"));
    line.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// The names of a sample's frames, innermost first.
fn chain<'a>(observed: &'a Observed, sample: &Sample) -> Vec<&'a str> {
    let tables = &observed.recorded.tables;
    let name = |frame: &profile::Frame| frame.function.map_or("?", |name| tables.name(name));
    tables.frames(sample.chain).map(name).collect()
}

/// The two stays of the guest that moves.
fn stays(observed: &Observed) -> [DomainId; 2] {
    let domains = observed.recorded.tables.domains().filter(|domain| domain.name == "alpha");
    let [before, after] = *told("move", "monitors") else { panic!("two monitors") };
    let found: Vec<_> = domains.map(|domain| (domain.number, domain.id)).collect();
    let [(first, from), (second, to)] = found[..] else { panic!("not two stays, but {found:?}") };
    assert_eq!((first, second), (before, after));
    [from, to]
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test --long"]
fn long_a_guest_that_moves_is_one_row_and_its_gap_is_told() {
    let observed = moves().observed("moves.xsr");
    observed.assert_balanced();
    let [from, to] = stays(&observed);
    let samples = |stay| observed.own_samples_of(stay).collect::<Vec<_>>();
    let (before, after) = (samples(from), samples(to));
    let (last, first) =
        (before.iter().map(|sample| sample.time).max(), after.iter().map(|sample| sample.time).min());
    let (last, first) = (last.expect("it ran before"), first.expect("it ran after"));
    figures::figure(
        "the guest's own samples before and after it moved",
        format_args!("{}, {}", before.len(), after.len()),
    );
    figures::figure(
        "ms between the last before and the first after",
        (first.0.saturating_sub(last.0)) / 1_000_000,
    );
    assert!(first > last, "it can't run in two places");
    assert!(before.len() > 200 && after.len() > 200);
    let report = moves().report("moves.xsr");
    let rows: Vec<_> = report.domains().filter(|domain| domain.name == "alpha").collect();
    let [row] = rows[..] else { panic!("{} rows", rows.len()) };
    let [moved] = &row.moves[..] else { panic!("{:?}", row.moves) };
    let [downtime] = *told("move", "downtime") else { panic!("one migration") };
    figures::figure("it was away for, ms, at the most", format_args!("{:.0}", moved.away_s * 1e3));
    figures::figure("it was away for, ms, as QEMU says", downtime);
    let between = (first.0 - last.0) as f64 / 1e9;
    assert!(moved.away_s <= between + 0.01, "{} of {between}", moved.away_s);
    assert!(moved.away_s * 1e3 > 0.8 * f64::from(downtime), "{} s", moved.away_s);
    assert_eq!(vec![moved.from, moved.to], told("move", "monitors"));
    assert_eq!(row.samples, (observed.samples_of(from).count() + observed.samples_of(to).count()) as u64);
    assert!(report.notes_say("alpha was moved"), "{:?}", report.notes);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test --long"]
fn long_names_and_chains_are_there_before_and_after_the_move() {
    let observed = moves().observed("moves.xsr");
    for (stay, when) in stays(&observed).into_iter().zip(["before", "after"]) {
        for mode in [Mode::User, Mode::Kernel] {
            // In the emulator, looking into a guest takes seconds, where it arrives too.
            let samples = observed.once_named(stay, mode);
            let all = samples.len();
            let named = samples.iter().filter(|sample| observed.function(sample).is_some()).count();
            let whole =
                samples.iter().filter(|sample| chain(&observed, sample).last() == Some(&"_start")).count();
            let shown = format_args!("{named} named, {whole} down to the process's beginning, of {all}");
            figures::figure(format_args!("alpha, {mode}, {when} the move"), shown);
            assert!(all > 50 && named as f64 >= 0.95 * all as f64, "{when}, {mode}: {named} of {all}");
            assert!(mode != Mode::User || whole as f64 >= 0.95 * all as f64, "{when}: {whole} of {all}");
        }
        let functions: BTreeSet<_> =
            observed.samples_of(stay).filter_map(|sample| observed.function(sample)).collect();
        assert!(["app_hot", "app_warm", "app_cool"].iter().all(|name| functions.contains(name)), "{when}");
        let processes: BTreeSet<_> =
            observed.samples_of(stay).filter_map(|sample| observed.process_name(sample)).collect();
        assert!(processes.contains("hot") && processes.contains("syscalls"), "{when}: {processes:?}");
    }
}

/// Nor is what waited in vain for the guest, or waits for it still, taken for a guest that runs.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test --long"]
fn long_a_migration_that_is_called_off_leaves_the_guest_what_it_was() {
    let observed = moves().observed("moves.xsr");
    let [nobody] = *told("move", "nobody") else { panic!("one monitor") };
    assert!(observed.recorded.tables.domains().all(|domain| domain.number != nobody));
    let [_, to] = stays(&observed);
    let domain = observed.recorded.tables.domain(to);
    let first = observed.samples_of(to).map(|sample| sample.time).min().unwrap();
    figures::figure(
        "ms from the first sample to the stay's beginning",
        domain.from.0 as i64 / 1_000_000 - first.0 as i64 / 1_000_000,
    );
    let early = observed.samples_of(to).take_while(|sample| !is_own(sample)).count();
    figures::figure("samples of the destination before the guest ran there", early);
    assert!(early <= 5, "{early}: what waits for a guest is no guest");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test --long"]
fn long_what_the_host_does_for_a_guest_is_its_backend() {
    moves().step("backend").ended(0);
    let observed = moves().observed("backend.xsr");
    observed.assert_balanced();
    let tables = &observed.recorded.tables;
    let report = moves().report("backend.xsr");
    let share = |name: &str| {
        let row = report.domain(name);
        let share = row.modes["backend"] as f64 / row.weight as f64;
        figures::share(format_args!("{name}, backend"), share);
        share
    };
    let (busy, idle) = (share("delta"), share("alpha"));
    assert!(
        busy > 0.1 && busy > 5.0 * idle,
        "a guest that hammers its disk: {busy}, one that does not: {idle}"
    );
    let delta = observed.domain("delta");
    let backend: Vec<_> = observed.samples_of(delta).filter(|sample| sample.mode == Mode::Backend).collect();
    let is_hosts = |sample: &&&Sample| match observed.frame(sample).space {
        Space::Kernel(owner) | Space::User(owner, _) => tables.domain(owner).kind == DomainKind::Host,
        Space::Hypervisor => false,
    };
    assert_eq!(backend.iter().filter(is_hosts).count(), backend.len());
    let in_kernel: Vec<_> =
        backend.iter().filter(|sample| matches!(observed.frame(sample).space, Space::Kernel(_))).collect();
    let named = in_kernel.iter().filter(|sample| observed.function(sample).is_some()).count();
    figures::figure(
        "its backend's samples in the host's kernel, named",
        format_args!("{named} of {}", in_kernel.len()),
    );
    assert!(named as f64 >= 0.98 * in_kernel.len() as f64);
    // Threads of the monitor that read the disk, and the kernel's own that serves the network.
    for caller in ["blkdev_read_iter", "vhost_worker"] {
        let below = backend.iter().filter(|sample| chain(&observed, sample).contains(&caller)).count();
        figures::figure(format_args!("its backend's samples below {caller}"), below);
        assert!(below > 10, "{caller}: {below}");
    }
    let process = |name: &str| {
        backend.iter().any(|sample| observed.process_name(sample).is_some_and(|own| own.starts_with(name)))
    };
    assert!(process("qemu-system-x86") && process("vhost-"));
    // The host's own row has none of it.
    let host = tables.domains().find(|domain| domain.kind == DomainKind::Host).unwrap().id;
    let strays =
        observed.samples_of(host).filter(|sample| chain(&observed, sample).contains(&"vhost_worker")).count();
    assert_eq!(strays, 0);
    for shares in report.shares() {
        figures::share(format_args!("{}, sampled", shares.domain), shares.sampled);
        figures::share(format_args!("{}, accounted by the host", shares.domain), shares.accounted);
        assert!((shares.sampled - shares.accounted).abs() < 0.03, "{}", shares.domain);
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test --long"]
fn long_recorders_that_may_do_little_say_so_or_end_with_one_error() {
    for step in ["without-bpf", "locked-down"] {
        moves().step(step).ended(0);
        let report = moves().report(&format!("{step}.xsr"));
        assert!(
            report.notes_say("of guests the addresses are sampled and nothing else"),
            "{:?}",
            report.notes
        );
        assert!(report.domain("alpha").samples > 0);
    }
    moves().step("little-memory").ended(0);
    let report = moves().report("little-memory.xsr");
    assert!(report.notes_say("may lock little memory"), "{:?}", report.notes);
    for (step, reason) in [("no-memory", "perf_event_mlock_kb"), ("few-files", "ulimit -n")] {
        let said = moves().step(step).ended(1).stderr;
        let errors: Vec<_> =
            said.lines().filter(|line| line.contains("error") || line.starts_with("xenoscope:")).collect();
        assert!(errors.len() == 1 && errors[0].contains(reason), "{step}: {said}");
    }
}

/// Who reads text is told of the move too.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test --long"]
fn long_reports_and_info_tell_of_the_move() {
    moves().step("move").ended(0);
    let path = moves().path("moves.xsr");
    for arguments in [&["report", "-i"][..], &["info", "-i"]] {
        let output = xenoscope(&[arguments, &[path.to_str().unwrap()]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{text}");
        assert!(output.status.success() && text.contains("alpha was moved"), "{text}");
    }
}
