//! Reports of a recording whose figures were worked out by hand.

mod machine;

use analysis::{DomainReport, EventReport, Modes, MoveReport, Named, Report, SelectError};
use machine::{DB, DOM0, Machine, WEB, WEB_AGAIN, WEB_UUID, account, aggregate, machine};
use profile::{
    AddressSpaceRoot, DomainId, DomainKind, EventId, LossCause, Mode, Process, ProcessId, Space, Time, Uuid,
    recording::{EndReason, Move, Note},
};

fn report() -> Report {
    let mut machine = machine();
    machine.books(
        account(12, 9, 1, 2),
        &[(WEB, 2_000_000_000), (WEB_AGAIN, 1_500_000_000), (DOM0, 1_000_000_000)],
    );
    machine.finish(EndReason::Duration).report()
}

fn only_event(report: &Report) -> &EventReport {
    let [event] = &report.events[..] else { panic!("one event was recorded") };
    event
}

fn row<'a>(report: &'a Report, name: &str) -> &'a DomainReport {
    let event = only_event(report);
    &event.domains[event.find_domain(name).unwrap()]
}

#[test]
fn the_machine_is_the_sum_of_its_domains() {
    let report = report();
    assert_eq!((report.schema, report.duration_s, report.complete), (1, 10.0, true));
    assert_eq!(report.notes, []);
    let event = only_event(&report);
    assert_eq!((event.samples, event.weight), (9, 200));
    assert_eq!(event.modes, Modes { hypervisor: 30, kernel: 80, user: 50, backend: 40 });
    let rows: Vec<_> =
        event.domains.iter().map(|row| (&*row.name, row.id, row.kind, row.weight, row.share)).collect();
    assert_eq!(
        rows,
        [
            ("web", Some(5), DomainKind::Pvh, 140, 0.7),
            ("Domain-0", Some(0), DomainKind::Dom0, 40, 0.2),
            ("hypervisor", None, DomainKind::Hypervisor, 20, 0.1),
            ("db", Some(2), DomainKind::Hvm, 0, 0.0),
        ]
    );
}

#[test]
fn every_sample_counts_once() {
    let report = report();
    let event = only_event(&report);
    assert_eq!(event.domains.iter().map(|row| row.samples).sum::<u64>(), event.samples);
    assert_eq!(event.domains.iter().map(|row| row.weight).sum::<u64>(), event.weight);
    for row in &event.domains {
        assert_eq!(
            Mode::ALL.iter().map(|&mode| row.modes.get(mode)).sum::<u64>(),
            row.weight,
            "{}",
            row.name
        );
        assert_eq!(
            row.functions.iter().map(|function| function.self_weight).sum::<u64>(),
            row.weight,
            "{}",
            row.name
        );
        assert_eq!(
            row.processes.iter().map(|process| process.weight).sum::<u64>(),
            row.modes.user,
            "{}",
            row.name
        );
    }
}

#[test]
fn a_rebooted_guest_is_one_row() {
    let report = report();
    let web = row(&report, "web");
    assert_eq!(web.uuid, Some(WEB_UUID.to_string()));
    assert_eq!((web.samples, web.cpu_s), (7, Some(3.5)));
    assert_eq!(web.modes, Modes { hypervisor: 10, kernel: 40, user: 50, backend: 40 });
    assert_eq!(web.named, Named { kernel: Some(1.0), user: Some(0.4) });
    let processes: Vec<_> =
        web.processes.iter().map(|p| (p.root.as_deref().unwrap(), p.samples, p.weight, p.share)).collect();
    assert_eq!(processes, [("0x1000", 2, 45, 0.225), ("0x2000", 1, 5, 0.025)]);
    // The books do not know db's time, and nobody accounts the hypervisor's.
    assert_eq!((row(&report, "db").cpu_s, row(&report, "hypervisor").cpu_s), (None, None));
    assert_eq!(row(&report, "db").named, Named { kernel: None, user: None });
}

/// A guest with a process is migrated: both are what they were, and for how long they ran nowhere is told.
#[test]
fn a_guest_that_was_moved_is_one_row_with_its_processes() {
    let mut machine = Machine::new();
    let (old, new) = (DomainId(0), DomainId(1));
    let (left, arrived) = (Time(104_000_000_000), Time(105_500_000_000));
    for (id, number) in [(old, 3), (new, 7)] {
        if id == new {
            machine.writer.domain_moved(Move { from: old, from_number: 3, to: new, left, arrived });
        }
        machine.domain(id, number, "web", DomainKind::Pv, Some(WEB_UUID));
        let process = ProcessId(id.0);
        machine.writer.process(Process {
            id: process,
            domain: id,
            pid: Some(77),
            root: Some(AddressSpaceRoot(0x1000 * u64::from(number))),
            name: Some("nginx".to_owned()),
            container: None,
            from: left,
        });
        machine.sample(
            Some(id),
            Mode::User,
            25,
            &[(Space::User(id, process), Some("nginx"), Some("main"), 0)],
        );
    }
    let report = machine.finish(EndReason::Duration).report();
    let web = row(&report, "web");
    assert_eq!((web.id, web.samples), (Some(7), 2));
    assert_eq!(web.moves, [MoveReport { from: 3, to: 7, left_s: 4.0, away_s: 1.5 }]);
    let processes: Vec<_> =
        web.processes.iter().map(|p| (p.root.as_deref(), p.samples, p.modes.user)).collect();
    assert_eq!(processes, [(Some("0x7000"), 2, 50)]);
    assert_eq!(report.notes[0].text, "web was moved: domain 3 went on as 7, and ran nowhere for 1.5 s");
}

#[test]
fn functions_count_once_a_chain() {
    let report = report();
    let functions: Vec<_> = row(&report, "web")
        .functions
        .iter()
        .map(|f| (&*f.name, f.module.as_deref(), f.mode, f.self_weight, f.total))
        .collect();
    assert_eq!(
        functions,
        [
            ("xenvif_rx", Some("vmlinux"), Mode::Backend, 40, 40),
            ("vfs_read", Some("vmlinux"), Mode::Kernel, 30, 40),
            ("libc.so.6+0x88", Some("libc.so.6"), Mode::User, 25, 25),
            ("main", Some("nginx"), Mode::User, 20, 45),
            ("do_syscall_64", Some("vmlinux"), Mode::Kernel, 10, 50),
            ("vmx_vmexit_handler", Some("xen"), Mode::Hypervisor, 10, 10),
            ("[unknown]", None, Mode::User, 5, 5),
        ]
    );
    assert_eq!(row(&report, "web").functions[0].self_share, 40.0 / 140.0);
}

#[test]
fn loss_is_said_by_cause() {
    let report = report();
    let event = only_event(&report);
    assert_eq!((event.taken, event.filtered), (Some(12), Some(1)));
    assert_eq!((event.idle_s, event.quiet_s), (Some(3.0), Some(0.5)));
    assert_eq!(event.lost.len(), LossCause::ALL.len());
    assert_eq!(event.lost[&LossCause::RingFull], 2);
    assert_eq!((event.cpus[0].written, event.cpus[0].lost[&LossCause::Nested]), (9, 0));
}

#[test]
fn what_is_doubtful_is_noted() {
    let mut machine = machine();
    machine.writer.note(Note { time: Time(102_500_000_000), text: "web: no symbols".to_owned() });
    machine.books(account(12, 10, 1, 0), &[]);
    let report = machine.finish(EndReason::HostError("the shim is gone".to_owned())).report();
    let notes: Vec<_> = report.notes.iter().map(|note| (note.at_s, &*note.text)).collect();
    assert_eq!(
        notes,
        [
            (2.5, "web: no symbols"),
            (10.0, "the recording ended early: the shim is gone"),
            (10.0, "the books of CPU 0 do not balance: 12 samples taken, 10 written, 1 filtered, 0 lost"),
            (10.0, "the books of CPU 0 have 10 samples written, the recording holds 9"),
            (10.0, "2 samples of CPU 0 are missing, its books know of 1"),
        ]
    );
}

#[test]
fn a_torn_recording_is_reported_as_such() {
    let mut machine = machine();
    machine.writer.flush().unwrap();
    let written = machine.writer.finish(end()).unwrap();
    let report = aggregate(&written[..written.len() - 1]).report();
    assert!(!report.complete);
    assert_eq!(report.duration_s, 1.0, "up to the last sample");
    let event = only_event(&report);
    assert_eq!((event.samples, event.taken, event.idle_s, event.lost.len()), (9, None, None, 0));
    assert!(report.notes[0].text.starts_with("the recording was not finished"), "{:?}", report.notes);
}

fn end() -> profile::recording::End {
    profile::recording::End { time: Time(110_000_000_000), reason: EndReason::Interrupted }
}

#[test]
fn the_hypervisor_has_a_row_in_an_empty_recording() {
    let report = Machine::new().finish(EndReason::Interrupted).report();
    let event = only_event(&report);
    assert_eq!(event.domains.len(), 1);
    assert_eq!((event.domains[0].kind, event.domains[0].share), (DomainKind::Hypervisor, 0.0));
    assert_eq!(report.notes[0].text, "the recording has no books: how many samples were lost is not known");
}

#[test]
fn weights_from_a_file_do_not_overflow() {
    let mut machine = Machine::new();
    let code = (Space::Hypervisor, Some("xen"), Some("idle"), 0);
    machine.sample(None, Mode::Hypervisor, u64::MAX, &[code]);
    machine.sample(None, Mode::Hypervisor, u64::MAX, &[code]);
    let report = machine.finish(EndReason::Duration).report();
    assert_eq!((only_event(&report).samples, only_event(&report).weight), (2, u64::MAX));
}

#[test]
fn domains_are_found_by_name_number_and_uuid() {
    let mut machine = machine();
    machine.domain(DomainId(7), 9, "twin", DomainKind::Pvh, Some(Uuid([1; 16])));
    machine.domain(DomainId(8), 10, "twin", DomainKind::Pvh, Some(Uuid([2; 16])));
    machine.domain(DomainId(9), 11, "2", DomainKind::Pvh, None);
    let report = machine.finish(EndReason::Duration).report();
    let event = only_event(&report);
    let id = |wanted: &str| event.find_domain(wanted).map(|row| event.domains[row].id);
    assert_eq!(id("db"), Ok(Some(2)));
    assert_eq!(id("2"), Ok(Some(11)), "a name comes before a number");
    assert_eq!(id("5"), Ok(Some(5)));
    assert_eq!(id("hypervisor"), Ok(None));
    assert_eq!(id(&WEB_UUID.to_string().to_uppercase()), Ok(Some(5)));
    assert!(matches!(id("twin"), Err(SelectError::Ambiguous { .. })));
    let unknown = id("mail").unwrap_err().to_string();
    assert!(
        unknown.starts_with("no domain \"mail\" in this recording; there are: web (5) abab"),
        "{unknown}"
    );
    assert!(unknown.contains("Domain-0 (0), hypervisor, "), "{unknown}");
}

#[test]
fn stacks_are_outermost_first() {
    let machine = machine().finish(EndReason::Duration);
    let mut stacks: Vec<String> = machine
        .stacks(EventId(0))
        .map(|stack| {
            let layers: Vec<String> =
                stack.layers.iter().map(|layer| format!("{}:{}", layer.name, layer.mode)).collect();
            format!("{} {} {}", stack.domain, layers.join(";"), stack.weight)
        })
        .collect();
    stacks.sort();
    assert_eq!(
        stacks,
        [
            "0 backend:backend;xenvif_rx:backend 40",
            "0 hypervisor:hypervisor;do_syscall_64:kernel;vmx_vmexit_handler:hypervisor 10",
            "0 kernel:kernel;do_syscall_64:kernel;vfs_read:kernel 30",
            "0 kernel:kernel;do_syscall_64:kernel;vfs_read:kernel;do_syscall_64:kernel 10",
            "0 process 0x1000:user;main:user 20",
            "0 process 0x1000:user;main:user;libc.so.6+0x88:user 25",
            "0 process 0x2000:user;[unknown]:user 5",
            "1 kernel:kernel;schedule:kernel 40",
            "2 hypervisor:hypervisor;csched2_tick:hypervisor 20",
        ]
    );
    assert_eq!(machine.stacks(EventId(1)).count(), 0);
}

/// Over both boots of `web`.
#[test]
fn times_and_exits_are_added_up_by_row() {
    let mut machine = machine();
    machine.times(&[(WEB, 0, [1_000, 500, 0]), (WEB_AGAIN, 0, [250, 0, 750]), (WEB_AGAIN, 1, [0, 0, 2_000])]);
    machine.exits(WEB, "ioread32", "io", [10, 900, 100]);
    machine.exits(WEB_AGAIN, "ioread32", "io", [5, 100, 40]);
    machine.exits(WEB_AGAIN, "iowrite16", "io", [1, 2_000, 2_000]);
    machine.exits(WEB_AGAIN, "default_idle", "hlt", [7, 70_000, 20_000]);
    machine.exits(DOM0, "default_idle", "hlt", [3, 30_000, 15_000]);
    let machine = machine.finish(EndReason::Duration);
    let report = machine.report();
    let web = row(&report, "web");
    let times: Vec<_> =
        web.vcpus.iter().map(|time| (time.vcpu, time.running_s, time.waiting_s, time.blocked_s)).collect();
    assert_eq!(times, [(0, 1.25, 0.5, 0.75), (1, 0.0, 0.0, 2.0)]);
    let exits: Vec<_> = web
        .exits
        .iter()
        .map(|exit| (&*exit.reason, exit.count, (exit.total_s * 1e6).round(), exit.longest_us))
        .collect();
    assert_eq!(exits, [("hlt", 7, 70_000.0, 20_000.0), ("io", 16, 3_000.0, 2_000.0)]);
    let functions: Vec<_> =
        web.exits[1].functions.iter().map(|f| (&*f.name, f.count, f.longest_us)).collect();
    assert_eq!(functions, [("iowrite16", 1, 2_000.0), ("ioread32", 15, 100.0)]);
    assert_eq!(row(&report, "db").exits, []);
    assert_eq!(row(&report, "hypervisor").vcpus, []);
    // What took long because nothing was to be done is no cost.
    let event = report.exits().unwrap();
    assert_eq!((event.samples, event.weight, event.modes.hypervisor), (16, 3_000_000, 3_000_000));
    let mut stacks: Vec<String> = machine
        .exit_stacks()
        .map(|stack| {
            let layers: Vec<&str> = stack.layers.iter().map(|layer| &*layer.name).collect();
            format!("{} {} {}", event.domains[stack.domain].name, layers.join(";"), stack.weight)
        })
        .collect();
    stacks.sort();
    assert_eq!(
        stacks,
        ["web kernel;ioread32;io 100000", "web kernel;ioread32;io 900000", "web kernel;iowrite16;io 2000000"]
    );
    assert!(self::report().exits().is_none());
}

#[test]
fn the_json_is_schema_1() {
    let mut machine = Machine::new();
    machine.domain(DB, 2, "d\u{1b}b", DomainKind::Hvm, None);
    machine.sample(Some(DB), Mode::Kernel, 8, &[(Space::Kernel(DB), Some("vmlinux"), Some("a"), 0)]);
    machine.books(account(2, 1, 0, 1), &[(DB, 4_000_000_000)]);
    machine.times(&[(DB, 0, [4_000, 1_000, 0])]);
    machine.exits(DB, "a", "hlt", [2, 3_000, 2_000]);
    let json = serde_json::to_string(&machine.finish(EndReason::Duration).report()).unwrap();
    let expected = concat!(
        r#"{"schema":1,"duration_s":10.0,"#,
        r#""host":{"hypervisor":"Xen 4.17.7","build_id":null,"kernel":"6.1.0","hostname":"lab","cpus":1},"#,
        r#""events":[{"name":"cpu-clock","unit":"ns","source":"timer","bias":"BIAS","rate_hz":99.0,"samples":1,"#,
        r#""weight":8,"idle_s":3.0,"filtered":0,"lost":{"ring-full":1,"nested":0,"ring-damaged":0,"unreadable":0,"masked":0},"#,
        r#""modes":{"hypervisor":0,"kernel":8,"user":0,"backend":0},"#,
        r#""domains":[{"id":2,"name":"d\u001bb","uuid":null,"kind":"hvm","samples":1,"weight":8,"share":1.0,"#,
        r#""modes":{"hypervisor":0,"kernel":8,"user":0,"backend":0},"named":{"kernel":1.0,"user":null},"#,
        r#""complete_chains":{},"functions":[{"name":"a","module":"vmlinux","mode":"kernel","self":8,"#,
        r#""self_share":1.0,"total":8}],"processes":[],"cpu_s":4.0,"#,
        r#""vcpus":[{"vcpu":0,"running_s":4.0,"waiting_s":1.0,"blocked_s":0.0}],"#,
        r#""exits":[{"reason":"hlt","count":2,"total_s":0.003,"longest_us":2000.0,"functions":[{"name":"a","#,
        r#""module":"vmlinux","mode":"kernel","count":2,"total_s":0.003,"longest_us":2000.0}]}],"moves":[]},"#,
        r#"{"id":null,"name":"hypervisor","uuid":null,"kind":"hypervisor","samples":0,"weight":0,"share":0.0,"#,
        r#""modes":{"hypervisor":0,"kernel":0,"user":0,"backend":0},"named":{"kernel":null,"user":null},"#,
        r#""complete_chains":{},"functions":[],"processes":[],"cpu_s":null,"vcpus":[],"exits":[],"moves":[]}],"#,
        r#""taken":2,"quiet_s":0.5,"masked_s":0.0,"foreign_nmis":0,"overhead":null,"cpus":[{"cpu":0,"taken":2,"written":1,"filtered":0,"#,
        r#""lost":{"ring-full":1,"nested":0,"ring-damaged":0,"unreadable":0,"masked":0}}]}],"complete":true,"notes":[]}"#,
    );
    assert_eq!(json, expected.replace("BIAS", profile::Source::Timer.bias()));
}
