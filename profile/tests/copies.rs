//! Recordings merged, cut and redacted.

use std::collections::BTreeMap;

use profile::{
    Chain, CodeAddress, CpuAccount, Domain, DomainId, DomainKind, DomainTime, Event, EventId, ExitCost,
    Frame, ImageOffset, Linked, Mode, Origin, PhysCpu, Process, ProcessId, Sample, Snapshot, Source, Space,
    Time, VcpuId, VcpuTime, VcpuTimes,
    recording::{
        Copier, End, EndReason, Header, Host, Mark, Place, Recorded, Recording, Selection, SourceCode,
        SourceFrame, Writer,
    },
};

const END: Time = Time(10_000);

fn header(started: u64) -> Header {
    Header {
        tool: "xenoscope 0.1.0".to_owned(),
        started_unix_ns: 1_700_000_000_000_000_000 + started,
        started: Time(started),
        host: Host {
            hypervisor: "KVM".to_owned(),
            build_id: None,
            kernel: "6.1.0".to_owned(),
            hostname: "lab".to_owned(),
            cpus: 2,
        },
        events: vec![Event {
            name: "cpu-clock".to_owned(),
            unit: "ns".to_owned(),
            source: Source::CpuClock,
            rate_hz: 99.0,
        }],
        command: None,
        options: BTreeMap::new(),
    }
}

/// A hundred samples of two domains by turns, in functions of their own, ten nanoseconds apart; half way a mark.
fn file(started: u64) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header(started)).unwrap();
    let domains = [(7, "web"), (9, "db")].map(|(id, name)| {
        let (id, from) = (DomainId(id), Time(0));
        let (number, name, kind) = (id.0, name.to_owned(), DomainKind::Kvm);
        writer.domain(Domain { id, number, name, uuid: None, kind, vcpus: 1, from });
        let name = Some(format!("{number}d"));
        let process = ProcessId(id.0 + 1);
        let (pid, root, container) = (Some(1), None, Some("/secret".to_owned()));
        writer.process(Process { id: process, domain: id, pid, root, name, container, from });
        (id, process)
    });
    for sequence in 0..100 {
        let (domain, process) = domains[sequence as usize % 2];
        let linked = Linked { build_id: writer.name("abcd"), address: 0x400 + sequence % 4 };
        let frame = Frame {
            space: Space::User(domain, process),
            address: CodeAddress::InstructionPointer(0x1000 + sequence % 4),
            function: Some(writer.name(&format!("function_{}", sequence % 4))),
            module: Some(writer.name("server")),
            offset: ImageOffset(1),
            origin: Origin { linked: Some(linked), ..Origin::default() },
        };
        let frame = writer.frame(frame);
        let chain = writer.chain(Chain { caller: None, frame });
        writer.sample(Sample {
            time: Time(started + sequence * 10),
            cpu: PhysCpu(0),
            vcpu: None,
            charged_to: Some(domain),
            process: Some(process),
            mode: Mode::User,
            event: EventId(0),
            weight: 5,
            sequence,
            chain,
        });
    }
    let reason = writer.name("hlt");
    for (at, (domain, process)) in [(150, domains[0]), (600, domains[1])] {
        let frame = Frame {
            space: Space::Kernel(domain),
            address: CodeAddress::InstructionPointer(0x9000),
            function: Some(writer.name("default_idle")),
            module: None,
            offset: ImageOffset(3),
            origin: Origin::default(),
        };
        let frame = writer.frame(frame);
        let chain = writer.chain(Chain { caller: None, frame });
        let place = Place { charged_to: Some(domain), process: Some(process), mode: Mode::Kernel, chain };
        let cost = ExitCost { count: 2, total_ns: at, longest_ns: at - 1 };
        writer.exits(Time(started + at), place, reason, cost);
    }
    writer.vcpu_times(VcpuTimes {
        time: Time(started + 1_000),
        vcpus: vec![VcpuTime {
            vcpu: VcpuId { domain: DomainId(9), index: 1 },
            running_ns: 10,
            waiting_ns: 20,
            blocked_ns: 30,
        }],
    });
    writer.mark(Mark { time: Time(started + 500), name: "second half".to_owned() });
    let account = CpuAccount { taken: 100, written: 100, ..CpuAccount::default() };
    writer.snapshot(Snapshot {
        time: Time(started + 1_000),
        unix_ns: 0,
        cpus: vec![(PhysCpu(0), account)],
        idle_ns: 3,
        domains: vec![DomainTime { domain: DomainId(7), cpu_ns: 50 }],
    });
    writer.finish(End { time: END, reason: EndReason::Duration }).unwrap()
}

fn read(bytes: &[u8]) -> (Vec<Sample>, Recorded) {
    let mut samples = Vec::new();
    let recorded = Recording::read(bytes).unwrap();
    let recorded = recorded.for_each_sample(|sample, _| samples.push(sample.clone())).unwrap();
    (samples, recorded)
}

fn copy(inputs: &[(&[u8], u64)], selection: &Selection<'_>) -> (Vec<Sample>, Recorded) {
    let mut copier = Copier::new(Writer::new(Vec::new(), &header(0)).unwrap());
    for &(input, shift) in inputs {
        let recorded = copier.copy(Recording::read(input).unwrap(), selection, shift).unwrap();
        copier.add_books(&recorded, shift);
    }
    read(&copier.finish(End { time: END, reason: EndReason::Duration }).unwrap())
}

fn function<'a>(recorded: &'a Recorded, sample: &Sample) -> &'a str {
    let innermost = recorded.tables.frames(sample.chain).next().unwrap();
    recorded.tables.name(innermost.function.unwrap())
}

/// What exits cost, by domain and reason.
fn exits(recorded: &Recorded) -> Vec<(&str, &str, ExitCost)> {
    let named = |((place, reason), cost): (&(_, _), &ExitCost)| {
        let domain = recorded.tables.place(*place).charged_to.unwrap();
        (&*recorded.tables.domain(domain).name, recorded.tables.name(*reason), *cost)
    };
    recorded.exits.iter().map(named).collect()
}

#[test]
fn a_copy_says_what_the_original_says() {
    let original = file(0);
    let (copied, copy) = copy(&[(&original, 0)], &Selection::default());
    let (samples, recorded) = read(&original);
    assert_eq!(copied.len(), samples.len());
    for (one, other) in copied.iter().zip(&samples) {
        assert_eq!((one.time, one.weight, one.sequence), (other.time, other.weight, other.sequence));
        assert_eq!(function(&copy, one), function(&recorded, other));
        let name = |recorded: &Recorded, sample: &Sample| {
            recorded.tables.domain(sample.charged_to.unwrap()).name.clone()
        };
        assert_eq!(name(&copy, one), name(&recorded, other));
    }
    assert_eq!(copy.marks, recorded.marks);
    assert_eq!(exits(&copy), exits(&recorded));
    assert_eq!(exits(&copy).len(), 2);
    assert_eq!(copy.vcpu_times.unwrap().time, recorded.vcpu_times.unwrap().time);
    assert_eq!(copy.snapshot.unwrap().cpus, recorded.snapshot.unwrap().cpus);
}

/// Knows of two functions at one address, and of a line at another.
struct Known;

impl SourceCode for Known {
    fn frames(&self, build_id: &str, address: u64) -> Vec<SourceFrame> {
        assert_eq!(build_id, "abcd");
        let frame = |function: &str, line| SourceFrame {
            function: Some(function.to_owned()),
            file: Some("server.c".to_owned()),
            line,
        };
        match address {
            0x401 => vec![frame("inner", 10), frame("middle", 20), frame("not the symbol", 30)],
            0x402 => vec![frame("function_2", 40)],
            _ => Vec::new(),
        }
    }
}

#[test]
fn inlined_functions_and_lines_are_added_once() {
    let original = file(0);
    let selection = Selection { source: Some(&Known), ..Selection::default() };
    let (_, once) = copy(&[(&original, 0)], &selection);
    let enriched = {
        let mut copier = Copier::new(Writer::new(Vec::new(), &header(0)).unwrap());
        copier.copy(Recording::read(&original[..]).unwrap(), &selection, 0).unwrap();
        copier.finish(End { time: END, reason: EndReason::Duration }).unwrap()
    };
    let (samples, twice) = copy(&[(&enriched, 0)], &selection);
    assert_eq!(twice.tables.all_frames(), once.tables.all_frames());
    for sample in &samples {
        let tables = &twice.tables;
        let frames: Vec<_> = tables
            .frames(sample.chain)
            .map(|frame| {
                let line = frame.origin.line.map(|line| (tables.name(line.file), line.line));
                (tables.name(frame.function.unwrap()), line, frame.origin.inlined)
            })
            .collect();
        let expected: &[_] = match sample.sequence % 4 {
            1 => &[
                ("inner", Some(("server.c", 10)), true),
                ("middle", Some(("server.c", 20)), true),
                ("function_1", Some(("server.c", 30)), false),
            ],
            2 => &[("function_2", Some(("server.c", 40)), false)],
            0 => &[("function_0", None, false)],
            _ => &[("function_3", None, false)],
        };
        assert_eq!(frames, expected);
    }
}

/// What both have is there once; sequence numbers go on, and books are added up.
#[test]
fn recordings_become_one() {
    let (first, second) = (file(0), file(2_000));
    let (samples, recorded) = copy(&[(&first, 0), (&second, 0)], &Selection::default());
    assert_eq!(samples.len(), 200);
    assert!(samples.iter().zip(0..).all(|(sample, sequence)| sample.sequence == sequence));
    assert_eq!(recorded.tables.domains().count(), 2);
    // Four of samples, two of exits.
    assert_eq!(recorded.tables.places().len(), 6);
    assert_eq!(recorded.marks.len(), 2);
    let books = recorded.snapshot.unwrap();
    assert_eq!((books.cpus[0].1.taken, books.idle_ns, books.domains[0].cpu_ns), (200, 6, 100));
    let [time] = recorded.vcpu_times.unwrap().vcpus[..] else { panic!("two files' times are of one vCPU") };
    assert_eq!((time.running_ns, time.waiting_ns, time.blocked_ns), (20, 40, 60));
    assert_eq!(recorded.tables.domain(time.vcpu.domain).name, "db");
}

#[test]
fn a_stretch_and_a_domain_are_cut_out() {
    let original = file(0);
    let web = |domain: &Domain| domain.name == "web";
    let stretches = [(Time(100), Time(200)), (Time(500), Time(510))];
    let selection = Selection { stretches: &stretches, domains: Some(&web), ..Selection::default() };
    let (samples, recorded) = copy(&[(&original, 0)], &selection);
    let times: Vec<u64> = samples.iter().map(|sample| sample.time.0).collect();
    assert_eq!(times, [100, 120, 140, 160, 180, 500]);
    assert_eq!(recorded.tables.domains().map(|domain| &*domain.name).collect::<Vec<_>>(), ["web"]);
    assert_eq!(recorded.marks.len(), 1);
    assert_eq!(exits(&recorded), [("web", "hlt", ExitCost { count: 2, total_ns: 150, longest_ns: 149 })]);
}

#[test]
fn redacted_names_are_nowhere_in_the_file() {
    let original = file(0);
    let web = |domain: &Domain| domain.name == "web";
    let selection = Selection { redacted: Some(&web), ..Selection::default() };
    let (samples, recorded) = copy(&[(&original, 0)], &selection);
    let said = |sample: &Sample| {
        let frame = recorded.tables.frames(sample.chain).next().unwrap();
        let process = recorded.tables.process(sample.process.unwrap());
        (
            function(&recorded, sample).to_owned(),
            frame.module.map(|name| recorded.tables.name(name).to_owned()).unwrap(),
            frame.address.raw(),
            process.name.clone().unwrap(),
            process.container.clone().unwrap(),
        )
    };
    for sample in &samples {
        let (function, module, address, process, container) = said(sample);
        let is_web = recorded.tables.domain(sample.charged_to.unwrap()).name == "web";
        assert_eq!(function.starts_with("function "), is_web, "{function}");
        assert_eq!(module == "server", !is_web, "{module}");
        assert_eq!(address == 0, is_web);
        assert_eq!(process == "9d", !is_web);
        assert_eq!(container == "/secret", !is_web);
    }
    // The same name becomes the same, different ones differ.
    assert_eq!(said(&samples[0]), said(&samples[4]));
    assert_ne!(said(&samples[0]).0, said(&samples[2]).0);
}
