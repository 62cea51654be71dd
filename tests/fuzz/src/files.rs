//! Files that others wrote: recordings, perf's, rules.

use std::io::{self, Cursor};

use analysis::{Aggregate, gate::Rules};
use profile::recording::Recording;

/// Reads a recording, and makes of it what reports are made of.
pub fn recording(input: &[u8]) {
    if let Ok(recording) = Recording::read(input)
        && let Ok(aggregate) = Aggregate::of(recording)
    {
        let report = aggregate.report();
        let weights = report.events.iter().map(|event| event.weight);
        let samples: u64 = report.events.iter().map(|event| event.samples).sum();
        assert!(samples > 0 || weights.sum::<u64>() == 0, "weight without samples");
        let drawn: u64 = aggregate.exit_stacks().fold(0, |sum, stack| sum.saturating_add(stack.weight));
        assert!(drawn == 0 || report.exits().is_some(), "exits that take time are no event");
    }
}

/// The same behind a true header, in chunks with true checksums: the first byte of each says its kind and the second how long
/// it is, so that what is fuzzed is what chunks hold.
pub fn chunks(input: &[u8]) {
    let mut file = header();
    let mut rest = input;
    while let [kind, length, after @ ..] = rest {
        let (payload, after) = after.split_at(usize::from(*length).min(after.len()));
        let mut head = vec![kind % 10, 0, 0, 0];
        head.extend((payload.len() as u32).to_le_bytes());
        let sum = crc32fast::hash(&[&*head, payload].concat());
        file.extend(head);
        file.extend(sum.to_le_bytes());
        file.extend(payload);
        rest = after;
    }
    recording(&file);
}

/// The first bytes of a recording of one event: all but its end.
pub fn header() -> Vec<u8> {
    use profile::{
        Event, Source, Time,
        recording::{Header, Host, Writer},
    };
    let text = String::new;
    let header = Header {
        tool: text(),
        started_unix_ns: 0,
        started: Time(0),
        host: Host { hypervisor: text(), build_id: None, kernel: text(), hostname: text(), cpus: 1 },
        events: vec![Event { name: text(), unit: "ns".into(), source: Source::Timer, rate_hz: 99.0 }],
        command: None,
        options: Default::default(),
    };
    let mut file = Vec::new();
    Writer::new(&mut file, &header).expect("memory takes all").flush().expect("memory takes all");
    file
}

/// Takes a perf.data in.
pub fn perf_data(input: &[u8]) {
    let nothing = |_| None;
    let _ = formats::import_perf(Cursor::new(input), &nothing, &nothing, io::sink());
}

/// Reads rules.
pub fn rules(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = Rules::parse(text);
    }
}
