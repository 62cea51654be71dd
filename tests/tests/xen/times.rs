//! Is what vCPUs did with their time what Xen accounts to them, are exits where they belong, and does whoever else traces
//! stay in peace?

use crate::{
    figures,
    host::{Booted, Host, host},
    report::{Domain, Exit, Report},
};

static BOOTED: Booted = Booted::new();

fn traced() -> &'static Host {
    host(&BOOTED, "times")
}

/// One per cent of the time that is looked at.
const TOLERANCE: f64 = 0.01;

/// What Xen accounts to a guest's only vCPU, in seconds: running, waiting, blocked.
type Account = [f64; 3];

/// What Xen itself had told a guest, whenever its vCPU got a CPU anew: when that was, in seconds of Xen's time.
struct Told(Vec<(f64, Account)>);

impl Told {
    fn read(guest: &str) -> Self {
        let console = traced().text(format!("console/{guest}.log"));
        let line = |line: &str| {
            let words = line.trim().strip_prefix("runstate ")?.split(' ');
            let ns: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
            let [entered, running, waiting, blocked, _offline] = ns[..] else { return None };
            Some((entered as f64 / 1e9, [running, waiting, blocked].map(|ns| ns as f64 / 1e9)))
        };
        let told: Vec<_> = console.lines().filter_map(line).collect();
        assert!(told.is_sorted_by_key(|told| told.0), "{guest} tells of times in no order");
        Self(told)
    }

    /// What it had done by then: from when it got its CPU, it ran; what else it did before it was asked anew is spread
    /// evenly over the rest.
    fn at(&self, time: f64) -> Account {
        let next = self.0.partition_point(|told| told.0 <= time);
        let (before, after) = (&self.0[next - 1], &self.0[next]);
        let done: Account = std::array::from_fn(|state| after.1[state] - before.1[state]);
        let passed = time - before.0;
        let running = passed.min(done[0]);
        let rest = ((passed - running) / (done[1] + done[2]).max(1e-9)).min(1.0);
        let share = [running, done[1] * rest, done[2] * rest];
        std::array::from_fn(|state| before.1[state] + share[state])
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_vcpus_times_are_what_xen_tells_the_guests() {
    let step = traced().step("times").ended(0);
    assert!(step.stdout.contains("no buffers yet"), "{}", step.stdout);
    let observed = traced().observed("times.xsr");
    let times = observed.recorded.vcpu_times.as_ref().expect("vCPUs' times");
    // Who is blocked is woken by dom0 now and then, at a time of another CPU's: in the emulator these are milliseconds apart
    // (`xl debug-keys t`), and waiting and being blocked in Xen's own account with them.
    for (guest, tolerance) in [("alpha", TOLERANCE), ("gamma", TOLERANCE), ("delta", 2.0 * TOLERANCE)] {
        let domain = observed.domain(guest);
        let of_guest = times.vcpus.iter().filter(|time| time.vcpu.domain == domain);
        let [time] = of_guest.collect::<Vec<_>>()[..] else { panic!("{guest} has one vCPU") };
        let traced = [time.running_ns, time.waiting_ns, time.blocked_ns].map(|ns| ns as f64 / 1e9);
        let all: f64 = traced.iter().sum();
        // Samples have Xen's clock.
        let end = times.time.0 as f64 / 1e9;
        let told = Told::read(guest);
        let (from, to) = (told.at(end - all), told.at(end));
        for (state, name) in ["running", "waiting", "blocked"].into_iter().enumerate() {
            let (traced, truth) = (traced[state], to[state] - from[state]);
            figures::figure(
                format_args!("{guest} {name}, as traced and as Xen tells the guest"),
                format_args!("{traced:.3} s, {truth:.3} s of {all:.1} s"),
            );
            assert!((traced - truth).abs() < tolerance * all, "{guest} {name}: {traced} instead of {truth}");
        }
        assert!(all > 14.5, "{guest}: {all} s of 15 s are told");
    }
    // They wait for each other; one has nothing to do.
    let report = traced().report("times.xsr");
    let only = |guest: &str| &report.domain(guest).vcpus[0];
    assert!(only("alpha").waiting_s > 3.0 && only("gamma").waiting_s > 3.0);
    assert!(only("delta").blocked_s > 1.0);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_running_is_what_xen_accounts() {
    traced().step("times").ended(0);
    for file in ["times.xsr", "exits.xsr", "auto.xsr"] {
        let report = traced().report(file);
        for name in ["Domain-0", "alpha", "gamma", "delta"] {
            let [vcpu] = &report.domain(name).vcpus[..] else { panic!("{name} has one vCPU") };
            let accounted = report.domain(name).cpu_s.expect("accounts");
            figures::figure(
                format_args!("{file}: {name} running, as traced and as accounted"),
                format_args!("{:.3} s, {accounted:.3} s", vcpu.running_s),
            );
            // What they are apart are the moments at which Xen was asked, too.
            let off = (vcpu.running_s - accounted).abs();
            assert!(off < TOLERANCE * accounted.max(15.0), "{name}: {}, {accounted}", vcpu.running_s);
        }
        for note in report.notes.iter().filter(|note| note.text.contains("records")) {
            figures::figure(format_args!("{file}: a note on tracing"), &note.text);
        }
    }
}

fn exit<'a>(domain: &'a Domain, reason: &str) -> &'a Exit {
    let found = domain.exits.iter().find(|exit| exit.reason == reason);
    found.unwrap_or_else(|| {
        let all: Vec<_> = domain.exits.iter().map(|exit| &exit.reason).collect();
        panic!("{} has no exits for {reason}: {all:?}", domain.name)
    })
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_exits_are_told_by_reason_cost_and_function() {
    traced().step("times").ended(0);
    let report = traced().report("exits.xsr");
    let gamma = report.domain("gamma");
    for exit in gamma.exits.iter().chain(&report.domain("alpha").exits) {
        let functions = exit.functions.iter().take(2).map(|function| &*function.name).collect::<Vec<_>>();
        figures::figure(
            format_args!("exits for {}", exit.reason),
            format_args!("{} in {:.3} s, {}", exit.count, exit.total_s, functions.join(", ")),
        );
    }
    // A guest waits for its CPU, and has nothing to do, only while it is left.
    let vcpu = &gamma.vcpus[0];
    let out: f64 = gamma.exits.iter().map(|exit| exit.total_s).sum();
    let all = vcpu.running_s + vcpu.waiting_s + vcpu.blocked_s;
    figures::figure(
        "gamma left for, waiting and in all",
        format_args!("{out:.3} s, {:.3} s, {all:.3} s", vcpu.waiting_s),
    );
    assert!(out > 0.9 * (vcpu.waiting_s + vcpu.blocked_s) && out < all, "{out} s of {all} s");
    // Its program is interrupted, and its kernel programs the interrupt controller.
    let interrupts = exit(gamma, "interrupt");
    assert!(interrupts.functions.iter().any(|function| function.mode == "user"), "{interrupts:?}");
    let msr = exit(gamma, "msr");
    assert!(msr.functions.iter().all(|function| function.mode == "kernel"), "{msr:?}");
    let named = |function: &str| function.contains("msr") || function.contains("apic");
    let by_name: u64 =
        msr.functions.iter().filter(|function| named(&function.name)).map(|function| function.count).sum();
    assert!(by_name * 10 > msr.count * 9, "{msr:?}");
    // Of a paravirtualized guest, there are counts.
    let iret = exit(report.domain("alpha"), "hypercall-iret");
    assert!(iret.count > 100 && iret.total_s == 0.0, "{iret:?}");
}

/// 32 pages for each of two CPUs, and those that say where they are.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_xen_keeps_its_buffers_and_nothing_else() {
    let step = traced().step("times").ended(0);
    let pages: Vec<i64> =
        step.stdout.lines().filter_map(|line| line.strip_prefix("pages ")?.parse().ok()).collect();
    let [before, first, second] = pages[..] else { panic!("{}", step.stdout) };
    figures::figure("Xen's free pages before, and after two recordings", format_args!("{pages:?}"));
    // Loading the shim for the first time leaves a few of Xen's own.
    assert!((64..74).contains(&(before - first)), "{} pages were kept", before - first);
    assert_eq!(first, second);
}

fn has_times(report: &Report) -> bool {
    !report.domain("Domain-0").vcpus.is_empty()
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_nothing_is_traced_unasked_until_buffers_are_there() {
    traced().step("times").ended(0);
    let step = traced().step("times");
    assert!(!has_times(&traced().report("without.xsr")));
    let auto = traced().report("auto.xsr");
    assert!(has_times(&auto) && auto.domain("gamma").exits.is_empty(), "{:?}", auto.notes);
    assert_eq!(auto.event().source, "vcpu-poll");
    assert!(step.stdout.contains("buffers are there"), "{}", step.stdout);
    assert!(!step.stdout.contains("process "), "{}", step.stdout);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_whoever_else_traces_is_left_alone() {
    let step = traced().step("traced").ended(0);
    let beside = traced().report("beside.xsr");
    assert!(!has_times(&beside) && beside.notes_say("xentrace runs"), "{:?}", beside.notes);
    // One who begins in the middle takes over.
    let taken = traced().report("taken.xsr");
    assert!(taken.notes_say("somebody else has begun to read"), "{:?}", taken.notes);
    assert!(has_times(&taken), "until then");
    let later: u64 =
        step.stdout.split_once("later ").expect("a size").1.lines().next().unwrap().parse().unwrap();
    assert!(later > 1_000, "{later} bytes traced by the other");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_what_a_dead_session_left_traced_is_turned_off() {
    let step = traced().step("traced").ended(0);
    assert!(step.stdout.contains("left on by a recording that died"), "{}", step.stdout);
    let mended = traced().report("mended.xsr");
    assert!(mended.notes_say("had left Xen's tracing on") && has_times(&mended), "{:?}", mended.notes);
    assert!(!step.stdout.contains("process "), "{}", step.stdout);
}
