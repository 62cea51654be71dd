//! What debug information has added to a recording stays in its exports: files, lines and inlined functions.

use std::{collections::BTreeMap, io::Read};

use analysis::Aggregate;
use flate2::read::GzDecoder;
use formats::{Processes, Stretch, write_firefox, write_pprof, write_script, write_speedscope};
use profile::{
    Chain, CodeAddress, Domain, DomainId, DomainKind, Event, EventId, Frame, ImageOffset, Mode, Origin,
    PhysCpu, Process, ProcessId, Sample, Source, SourceLine, Space, Time,
    recording::{End, EndReason, Header, Host, Recording, Writer},
};
use prost::Message;
use serde_json::{Value, json};

/// Innermost first: function, line of `work.c`, whether it was inlined.
type Frames = [(&'static str, Option<u32>, bool)];

/// `inner` was inlined into `middle`, that into `outer`, which `main` called; of `main` no line is known.
const DEEP: &Frames =
    &[("inner", Some(2), true), ("middle", Some(5), true), ("outer", Some(8), false), ("main", None, false)];
/// Another line of the same functions.
const LATER: &Frames = &[("outer", Some(9), false), ("main", None, false)];

fn recording() -> Vec<u8> {
    let header = Header {
        tool: "xenoscope".to_owned(),
        started_unix_ns: 0,
        started: Time(0),
        host: Host {
            hypervisor: "KVM".to_owned(),
            build_id: None,
            kernel: "6.1.0".to_owned(),
            hostname: "lab".to_owned(),
            cpus: 1,
        },
        events: vec![Event {
            name: "cpu-clock".to_owned(),
            unit: "ns".to_owned(),
            source: Source::CpuClock,
            rate_hz: 100.0,
        }],
        command: None,
        options: BTreeMap::new(),
    };
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    let (domain, process, from) = (DomainId(0), ProcessId(0), Time(0));
    let (name, kind) = ("web".to_owned(), DomainKind::Kvm);
    writer.domain(Domain { id: domain, number: 7, name, uuid: None, kind, vcpus: 1, from });
    let name = Some("server".to_owned());
    writer.process(Process { id: process, domain, pid: Some(9), root: None, name, container: None, from });
    for (sequence, frames) in [DEEP, LATER, DEEP].into_iter().enumerate() {
        let mut caller = None;
        for (depth, &(function, line, inlined)) in frames.iter().enumerate().rev() {
            let file = writer.name("work.c");
            let address = 0x1000 + u64::from(line.unwrap_or(0)) * u64::from(!inlined);
            let frame = Frame {
                space: Space::User(domain, process),
                address: match depth {
                    0 => CodeAddress::InstructionPointer(address),
                    _ => CodeAddress::ReturnAddress(address),
                },
                function: Some(writer.name(function)),
                module: Some(writer.name("server")),
                offset: ImageOffset(4),
                origin: Origin { linked: None, line: line.map(|line| SourceLine { file, line }), inlined },
            };
            let frame = writer.frame(frame);
            caller = Some(writer.chain(Chain { caller, frame }));
        }
        writer.sample(Sample {
            time: Time(sequence as u64 * 10_000_000),
            cpu: PhysCpu(0),
            vcpu: None,
            charged_to: Some(domain),
            process: Some(process),
            mode: Mode::User,
            event: EventId(0),
            weight: 10_000_000,
            sequence: sequence as u64,
            chain: caller.unwrap(),
        });
    }
    writer.finish(End { time: Time(30_000_000), reason: EndReason::Duration }).unwrap()
}

fn read(bytes: &[u8]) -> Recording<&[u8]> {
    Recording::read(bytes).unwrap()
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut unpacked).unwrap();
    unpacked
}

/// What `profile.proto` has of lines.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Locations>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Locations {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

#[test]
fn pprof_has_inlined_functions_as_lines_of_one_location() {
    let bytes = recording();
    let aggregate = Aggregate::of(read(&bytes)).unwrap();
    let mut packed = Vec::new();
    write_pprof(&Stretch::of(&aggregate, EventId(0)), Processes::Label, &mut packed).unwrap();
    let profile = Profile::decode(&unpacked(&packed)[..]).unwrap();
    let text = |index: i64| profile.string_table[index as usize].as_str();
    let lines = |location: u64| {
        let location = profile.location.iter().find(|known| known.id == location).unwrap();
        let line = |line: &Line| {
            let function = profile.function.iter().find(|known| known.id == line.function_id).unwrap();
            (text(function.name), text(function.filename), line.line)
        };
        location.line.iter().map(line).collect::<Vec<_>>()
    };
    let mut stacks: Vec<(i64, Vec<_>)> = profile
        .sample
        .iter()
        .map(|sample| (sample.value[0], sample.location_id.iter().map(|id| lines(*id)).collect()))
        .collect();
    stacks.sort();
    let main = vec![("main", "server", 0)];
    let deep = vec![("inner", "work.c", 2), ("middle", "work.c", 5), ("outer", "work.c", 8)];
    let later = vec![("outer", "work.c", 9)];
    assert_eq!(stacks, [(1, vec![later, main.clone()]), (2, vec![deep, main])]);
    // A function is one, whatever the line.
    assert_eq!(profile.function.iter().filter(|function| text(function.name) == "outer").count(), 1);
}

#[test]
fn speedscope_has_files_and_lines() {
    let bytes = recording();
    let mut json = Vec::new();
    write_speedscope(&Aggregate::of(read(&bytes)).unwrap(), EventId(0), &mut json).unwrap();
    let file: Value = serde_json::from_slice(&json).unwrap();
    let frames = file["shared"]["frames"].as_array().unwrap();
    let inner = json!({"name": "inner", "file": "work.c", "line": 2});
    let main = json!({"name": "main", "file": "server"});
    assert!(frames.contains(&inner) && frames.contains(&main), "{frames:?}");
    let outer = frames.iter().filter(|frame| frame["name"] == "outer");
    assert_eq!(outer.map(|frame| frame["line"].as_u64().unwrap()).sum::<u64>(), 8 + 9);
}

#[test]
fn firefox_has_files_and_lines_and_how_deep_functions_were_inlined() {
    let bytes = recording();
    let mut packed = Vec::new();
    write_firefox(read(&bytes), EventId(0), &mut packed).unwrap();
    let profile: Value = serde_json::from_slice(&unpacked(&packed)).unwrap();
    let thread = &profile["threads"][0];
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let text = |value: &Value| thread["stringArray"][number(value)].as_str().unwrap();
    let mut frames = Vec::new();
    let mut next = &thread["samples"]["stack"][0];
    while !next.is_null() {
        let frame = number(&thread["stackTable"]["frame"][number(next)]);
        let function = number(&thread["frameTable"]["func"][frame]);
        let name = text(&thread["funcTable"]["name"][function]);
        let file = thread["funcTable"]["fileName"].get(function).filter(|file| !file.is_null()).map(text);
        let line = thread["frameTable"]["line"][frame].as_u64();
        frames.push((name, file, line, number(&thread["frameTable"]["inlineDepth"][frame])));
        next = &thread["stackTable"]["prefix"][number(next)];
    }
    let expected = [
        ("inner (server)", Some("work.c"), Some(2), 2),
        ("middle (server)", Some("work.c"), Some(5), 1),
        ("outer (server)", Some("work.c"), Some(8), 0),
        ("main (server)", None, None, 0),
    ];
    assert_eq!(frames, expected);
    assert_eq!(thread["funcTable"]["length"], 4, "a function is one, whatever the line");
}

#[test]
fn scripts_have_lines_as_perf_prints_them() {
    let mut text = Vec::new();
    write_script(read(&recording()), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let first = text.split("\n\n").next().unwrap();
    let expected = "\
web/server 9 [000] 0.000000:   10000000 cpu-clock: 
\t            1000 inner+0x4 (inlined)
  work.c:2
\t            1000 middle+0x4 (inlined)
  work.c:5
\t            1008 outer+0x4 (server)
  work.c:8
\t            1000 main+0x4 (server)";
    assert_eq!(first, expected);
}
