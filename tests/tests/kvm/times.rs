//! What vCPUs do with their time, and what they leave their guests for: by the host's own account, and by programs that know.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs,
    process::Command,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use profile::{DomainId, ExitCost, Mode, VcpuTime};

use crate::{
    figures,
    host::{Booted, Host, host},
    observed::Observed,
    recorder::{Load, Recorder, signal},
    tiny_guest::{Rounds, TinyGuest},
};

/// What is waited for comes, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

fn vcpu_time(observed: &Observed, domain: DomainId) -> VcpuTime {
    let times = observed.recorded.vcpu_times.as_ref().expect("times are told without being asked for");
    let mut of_domain = times.vcpus.iter().filter(|time| time.vcpu.domain == domain);
    let only = *of_domain.next().expect("the domain's vCPU");
    assert!(of_domain.next().is_none(), "it has one");
    only
}

/// Seconds since this machine was booted.
fn uptime() -> f64 {
    fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap()
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// A vCPU of a guest that was born while it was recorded ran and waited exactly as long as the scheduler says, and what it
/// did makes up its life, which was between so many seconds long when it was looked at last.
fn assert_accounted(observed: &Observed, domain: DomainId, [running, waiting]: [u64; 2], life: [f64; 2]) {
    let time = vcpu_time(observed, domain);
    let name = &observed.recorded.tables.domain(domain).name;
    figures::figure(
        format_args!("{name}: ran and waited, recorded, by the host, s"),
        format_args!(
            "{:.3} and {:.3}, {:.3} and {:.3}",
            seconds(time.running_ns),
            seconds(time.waiting_ns),
            seconds(running),
            seconds(waiting)
        ),
    );
    assert_eq!((time.running_ns, time.waiting_ns), (running, waiting));
    let lived = seconds(time.running_ns + time.waiting_ns + time.blocked_ns);
    let [shortest, longest] = life;
    figures::figure(
        format_args!("{name}: ran, waited or was blocked, of its life, s"),
        format_args!("{lived:.2} of {shortest:.2} to {longest:.2}"),
    );
    // Births are told in hundredths of a second.
    assert!((shortest - 0.02..=longest + 0.02).contains(&lived), "{lived} s");
}

/// The words behind the first ones of a line of a step's output.
fn words<T: FromStr<Err: Debug>>(host: &Host, step: &str, first: &str) -> Vec<T> {
    let output = host.step(step).ended(0).stdout;
    let line = output.lines().find_map(|line| line.strip_prefix(first));
    let line = line.unwrap_or_else(|| panic!("no {first} in\n{output}"));
    line.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

static BOOTED: Booted = Booted::new();

/// The host whose guests' times are known.
fn times() -> &'static Host {
    host(&BOOTED, "kvm_times")
}

/// The monitor of the guest that is born meanwhile stands still when the host is asked, and when the recorder looks last.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_vcpus_time_is_what_the_scheduler_accounts_to_its_thread() {
    let observed = times().observed("times.xsr");
    let accounted = words(times(), "record", "beta ran and waited: ");
    let life = words(times(), "record", "beta lived: ");
    assert_accounted(&observed, observed.domain("beta"), [accounted[0], accounted[1]], [life[0], life[1]]);
}

/// The same on this machine, where programs compete with the guest.
#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn a_vcpu_that_competes_with_programs_waits_as_long_as_the_scheduler_says() {
    let Some(recorder) = Recorder::new() else { return };
    let _loads = [(); 4].map(|()| Load::start("hot.c", &["-DNAME=local"]));
    let mut process = recorder.start(&["-F", "100"]);
    let deadline = Instant::now() + PATIENCE;
    while fs::metadata(recorder.file()).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline, "the recording does not begin");
        thread::sleep(Duration::from_millis(50));
    }
    let guest = TinyGuest::start(100, Rounds { user: 1_000_000, kernel: 1_000 });
    let Some(guest) = guest else {
        signal(&process, "INT");
        process.wait().unwrap();
        return;
    };
    thread::sleep(Duration::from_secs(3));
    let stopped = Command::new("kill").args(["-s", "STOP", &guest.process.to_string()]).status();
    assert!(stopped.unwrap().success());
    let task = format!("/proc/{}/task/{}", guest.process, guest.vcpu_thread);
    while !fs::read_to_string(format!("{task}/status")).unwrap().contains("\nState:\tT") {
        assert!(Instant::now() < deadline, "the guest does not stop");
        thread::sleep(Duration::from_millis(50));
    }
    let schedstat = fs::read_to_string(format!("{task}/schedstat")).unwrap();
    let times: Vec<u64> = schedstat.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let since = uptime();
    signal(&process, "INT");
    assert!(process.wait().unwrap().success());
    let until = uptime();
    let stat = fs::read_to_string(format!("{task}/stat")).unwrap();
    let born: f64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    let observed = recorder.observed();
    let mut domains = observed.recorded.tables.domains();
    let domain = domains.find(|domain| domain.number == guest.process).expect("the guest was found").id;
    let life = [since, until].map(|now| now - born / 100.0);
    assert_accounted(&observed, domain, [times[0], times[1]], life);
}

/// A guest that shares its CPU with a program of the host's: what it calls stolen is what it waited by the host's account, and
/// by the recording.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn waiting_is_what_the_guest_calls_stolen() {
    let observed = times().observed("times.xsr");
    let alpha = vcpu_time(&observed, observed.domain("alpha"));
    let all = alpha.running_ns + alpha.waiting_ns + alpha.blocked_ns;
    let recorded = alpha.waiting_ns as f64 / all as f64;
    // Before and after, RUN_NS WAITED_NS TURNS stolen TICKS UPTIME_S.
    let output = times().step("record").ended(0).stdout;
    let readings: Vec<[f64; 4]> = output
        .lines()
        .filter_map(|line| {
            let words: Vec<f64> =
                line.strip_prefix("alpha: ")?.split(' ').filter_map(|word| word.parse().ok()).collect();
            let &[ran, waited, _, ticks, uptime] = &*words else { panic!("{line}") };
            Some([ran / 1e9, waited / 1e9, ticks / 100.0, uptime])
        })
        .collect();
    let [before, after] = readings[..] else { panic!("two readings\n{output}") };
    let [_, waited, stolen, up] = [0, 1, 2, 3].map(|at| after[at] - before[at]);
    figures::figure("alpha waited, by the host, s", format_args!("{waited:.3}"));
    figures::figure("alpha was stolen, by its own account, s", format_args!("{stolen:.3}"));
    figures::share("alpha waited for a CPU, recorded", recorded);
    figures::share("alpha was stolen of its time, by its own account", stolen / up);
    let lived = seconds(observed.recorded.until.0 - observed.recorded.header.started.0);
    figures::figure(
        "alpha's vCPU ran, waited or was blocked, s",
        format_args!("{:.2} of {lived:.2}", seconds(all)),
    );
    assert!((seconds(all) / lived - 1.0).abs() < 0.05);
    assert!(waited > 0.2 * up, "they share a CPU");
    // The two are asked one after the other, and the recording began and ended at other moments.
    assert!((waited - stolen).abs() < 0.03 * waited, "{waited} s waited, {stolen} s stolen");
    assert!((recorded - stolen / up).abs() < 0.05, "{recorded} recorded, {} stolen", stolen / up);
}

/// The guest's program has left it a known number of times from each of two functions, by one instruction each.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn exits_are_counted_at_the_functions_that_caused_them() {
    let observed = times().observed("times.xsr");
    let (recorded, beta) = (&observed.recorded, observed.domain("beta"));
    let (mut all, mut by_reason, mut by_place) = (0, BTreeMap::new(), BTreeMap::new());
    for (&(place, reason), cost) in &recorded.exits {
        let place = recorded.tables.place(place);
        if place.charged_to != Some(beta) {
            continue;
        }
        all += cost.count;
        let reason = recorded.tables.name(reason);
        by_reason.entry(reason).or_insert_with(ExitCost::default).add(*cost);
        let frame = recorded.tables.frame(recorded.tables.chain(place.chain).frame);
        if place.mode == Mode::User {
            let function = frame.function.map(|name| recorded.tables.name(name));
            let counts = by_place.entry((reason, frame.address.raw())).or_insert_with(BTreeMap::new);
            *counts.entry(function).or_insert(0) += cost.count;
        }
    }
    for (reason, cost) in &by_reason {
        figures::figure(
            format_args!("beta left for {reason}"),
            format_args!(
                "{} times, {:.1} µs each",
                cost.count,
                cost.total_ns as f64 / 1e3 / cost.count as f64
            ),
        );
    }
    for (reason, function, count) in [("cpuid", "ask", 20_000_u64), ("io", "put", 2_000)] {
        let places = by_place.iter().filter(|((of, _), _)| *of == reason);
        let sum = |(_, counts): &(_, &BTreeMap<_, u64>)| counts.values().sum::<u64>();
        let most = places.max_by_key(sum).expect("it did so");
        let named = most.1.get(&Some(function)).copied().unwrap_or(0);
        figures::figure(
            format_args!("beta left for {reason} at one instruction"),
            format_args!("{} times, named {function}: {named}", sum(&most)),
        );
        assert_eq!(sum(&most), count, "{most:x?}");
        // It began before its kernel was known. Nothing has another name.
        assert!(2 * named >= count, "{most:x?}");
        assert!(most.1.keys().flatten().all(|name| *name == function), "{most:x?}");
    }
    // What reaches the monitor takes longer than what the kernel answers, and what waits for work longer than both.
    let each = |reason| by_reason[reason].total_ns / by_reason[reason].count;
    assert!(each("io") > each("cpuid") && each("hlt") > each("io"));
    let left = words::<u64>(times(), "record", "beta left: ")[0];
    figures::figure("beta's exits, counted and by KVM's own count", format_args!("{all} and {left}"));
    // The last one was not over.
    assert!(all <= left && left - all <= left / 100, "{all} of {left}");
    let report = times().report("times.xsr");
    assert!(!report.notes_say("are not in the recording"), "{:?}", report.notes);
    let exits = &report.domain("beta").exits;
    assert_eq!(exits.iter().map(|exit| exit.count).sum::<u64>(), all);
    // What is told of a guest after its end is still its own.
    assert!(report.domains().all(|domain| !domain.name.starts_with("domain-")));
}

static LEAVING: Booted = Booted::new();

/// How many exits a second a guest has that does nothing else, without and with `--exits`.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test --long"]
fn long_what_counting_exits_costs() {
    let output = host(&LEAVING, "kvm_exits").step("cost").ended(0).stdout;
    println!("{output}");
    let rate = |name: &str| {
        let lines = output.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let sums = lines.fold([0.0; 2], |[exits, seconds], line| {
            let mut words = line.split(' ').map(|word| word.parse::<f64>().unwrap());
            [exits + words.next().unwrap(), seconds + words.next().unwrap()]
        });
        sums[0] / sums[1]
    };
    let (without, with) = (rate("without"), rate("with"));
    figures::figure(
        "exits a second, not counted and counted",
        format_args!(
            "{without:.0} and {with:.0}: {:.1} µs and {:.1} µs each, {:.1} % fewer",
            1e6 / without,
            1e6 / with,
            100.0 * (1.0 - with / without)
        ),
    );
    assert!(with > 0.3 * without, "{with} exits a second instead of {without}");
}
