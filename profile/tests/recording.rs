//! Recordings written, read back, cut and damaged.

use std::{collections::BTreeMap, io};

use profile::{
    AddressSpaceRoot, Chain, ChainId, CodeAddress, CpuAccount, Domain, DomainId, DomainKind, DomainTime,
    Event, EventId, ExitCost, Frame, ImageOffset, KeptStacks, LossCause, Mode, Origin, PhysCpu, Process,
    ProcessId, Registers, Sample, Snapshot, Source, Space, StackPiece, Stretch, Time, Uuid, VcpuId, VcpuTime,
    VcpuTimes,
    recording::{
        Completeness, Damage, End, EndReason, Header, Host, MAX_DEPTH, Mark, Note, Place, Recorded,
        Recording, RecordingError, Told, Writer,
    },
};
use proptest::prelude::*;

const GUEST: DomainId = DomainId(3);
const PROCESS: ProcessId = ProcessId(0);
const END: End = End { time: Time(9_000), reason: EndReason::CommandEnded(7) };

fn header() -> Header {
    Header {
        tool: "xenoscope 0.1.0".to_owned(),
        started_unix_ns: 1_700_000_000_000_000_000,
        started: Time(1_000),
        host: Host {
            hypervisor: "Xen 4.17.7".to_owned(),
            build_id: Some("c0ffee".to_owned()),
            kernel: "6.1.0-25-amd64".to_owned(),
            hostname: "lab".to_owned(),
            cpus: 2,
        },
        events: vec![Event {
            name: "cpu-clock".to_owned(),
            unit: "ns".to_owned(),
            source: Source::Timer,
            rate_hz: 99.0,
        }],
        command: Some(vec!["sleep".to_owned(), "1".to_owned()]),
        options: BTreeMap::from([("rate".to_owned(), "99".to_owned())]),
    }
}

fn guest() -> Domain {
    Domain {
        id: GUEST,
        number: 12,
        name: "web".to_owned(),
        uuid: Some(Uuid([7; 16])),
        kind: DomainKind::Pvh,
        vcpus: 2,
        from: Time(1_100),
    }
}

fn process() -> Process {
    Process {
        id: PROCESS,
        domain: GUEST,
        pid: Some(77),
        root: Some(AddressSpaceRoot(0x7000)),
        name: Some("nginx".to_owned()),
        container: None,
        from: Time(1_150),
    }
}

fn frame<W: io::Write>(writer: &mut Writer<W>, function: Option<&str>, address: u64) -> Frame {
    Frame {
        space: Space::User(GUEST, PROCESS),
        address: CodeAddress::InstructionPointer(address),
        function: function.map(|name| writer.name(name)),
        module: Some(writer.name("nginx")),
        offset: ImageOffset(0x10),
        origin: Origin::default(),
    }
}

fn sample(sequence: u64, chain: ChainId) -> Sample {
    Sample {
        time: Time(1_000 + sequence),
        cpu: PhysCpu((sequence % 2) as u32),
        vcpu: Some(VcpuId { domain: GUEST, index: 1 }),
        charged_to: Some(GUEST),
        process: Some(PROCESS),
        mode: Mode::User,
        event: EventId(0),
        weight: 10_101_010,
        sequence,
        chain,
    }
}

fn snapshot() -> Snapshot {
    let account = CpuAccount {
        taken: 5,
        written: 4,
        lost: BTreeMap::from([(LossCause::RingFull, 1)]),
        ..CpuAccount::default()
    };
    Snapshot {
        time: Time(5_000),
        unix_ns: 1_700_000_000_000_004_000,
        cpus: vec![(PhysCpu(0), account)],
        idle_ns: 77,
        domains: vec![DomainTime { domain: GUEST, cpu_ns: 5_555 }],
    }
}

/// A recording of `flushes` times ten samples with two chains, the second one below the first.
fn file(flushes: u64) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    writer.domain(guest());
    writer.process(process());
    writer.note(Note { time: Time(1_200), text: "web: no kernel symbols".to_owned() });
    for flush in 0..flushes {
        for sequence in flush * 10..(flush + 1) * 10 {
            let outer = frame(&mut writer, Some("main"), 0x40_1000);
            let outer = writer.frame(outer);
            let outer = writer.chain(Chain { caller: None, frame: outer });
            let inner = frame(&mut writer, None, 0x40_2000 + sequence % 3);
            let inner = writer.frame(inner);
            let inner = writer.chain(Chain { caller: Some(outer), frame: inner });
            writer.sample(sample(sequence, inner));
        }
        writer.snapshot(snapshot());
        writer.flush().unwrap();
    }
    writer.domain_gone(GUEST, Time(8_000));
    writer.finish(END).unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Sample>, Recorded), RecordingError> {
    let mut samples = Vec::new();
    let recorded = Recording::read(bytes)?.for_each_sample(|sample, tables| {
        // Whatever the file, its samples resolve.
        tables.frames(sample.chain).for_each(|frame| {
            let _ = frame.function.map(|name| tables.name(name));
        });
        samples.push(sample.clone());
    })?;
    Ok((samples, recorded))
}

fn damage(bytes: &[u8]) -> (u64, Damage) {
    match read(bytes).unwrap().1.completeness {
        Completeness::Damaged { at_byte, damage } => (at_byte, damage),
        other => panic!("{other:?}"),
    }
}

/// Where the chunks start, by a reading of the format of its own.
fn chunks(bytes: &[u8]) -> Vec<usize> {
    let mut at = 8;
    let mut starts = Vec::new();
    while at < bytes.len() {
        starts.push(at);
        at += 12 + u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    }
    starts
}

#[test]
fn what_was_written_is_read_back() {
    let bytes = file(3);
    assert_eq!(Recording::read(&*bytes).unwrap().header(), &header());

    let (samples, recorded) = read(&bytes).unwrap();
    assert_eq!(samples.len(), 30);
    assert_eq!(samples[17], sample(17, samples[17].chain));
    assert_eq!(recorded.header, header());
    assert_eq!(recorded.snapshot, Some(snapshot()));
    assert_eq!(recorded.notes, [Note { time: Time(1_200), text: "web: no kernel symbols".to_owned() }]);
    assert_eq!(recorded.completeness, Completeness::Whole(END));
    assert_eq!(recorded.until, END.time);
    assert_eq!(recorded.tables.domain(GUEST), &guest());
    assert_eq!(recorded.tables.gone(GUEST), Some(Time(8_000)));

    let frames: Vec<&Frame> = recorded.tables.frames(samples[17].chain).collect();
    assert_eq!(frames.len(), 2);
    assert_eq!((frames[0].address.raw(), frames[0].function), (0x40_2002, None));
    assert_eq!(frames[1].function.map(|name| recorded.tables.name(name)), Some("main"));
}

#[test]
fn everything_is_introduced_once() {
    let (once, thrice) = (file(1), file(3));
    let of_kind = |kind| chunks(&thrice).iter().filter(|&&at| thrice[at] == kind).count();
    assert_eq!(of_kind(2), 2, "the first flush introduces everything, and the end has the domain's death");
    assert_eq!(of_kind(6), 1);
    assert!(thrice.len() < 3 * once.len());
}

#[test]
fn a_full_buffer_is_written_without_being_asked() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    writer.domain(guest());
    writer.process(process());
    let code = frame(&mut writer, Some("main"), 1);
    let code = writer.frame(code);
    let chain = writer.chain(Chain { caller: None, frame: code });
    for sequence in 0..200_000 {
        writer.sample(sample(sequence, chain));
    }
    let bytes = writer.finish(END).unwrap();
    assert!(chunks(&bytes).len() > 4);
    assert_eq!(read(&bytes).unwrap().0.len(), 200_000);
}

#[test]
fn endless_recursion_keeps_its_inner_end() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    writer.domain(guest());
    writer.process(process());
    let mut caller = None;
    for address in 0..2_000 {
        let code = frame(&mut writer, Some("recurse"), address);
        let code = writer.frame(code);
        caller = Some(writer.chain(Chain { caller, frame: code }));
    }
    writer.sample(sample(0, caller.unwrap()));
    let (samples, recorded) = read(&writer.finish(END).unwrap()).unwrap();
    let addresses: Vec<u64> =
        recorded.tables.frames(samples[0].chain).map(|frame| frame.address.raw()).collect();
    assert_eq!(addresses[..3], [1_999, 1_998, 1_997]);
    assert_eq!(addresses.len(), 2_000 - usize::from(MAX_DEPTH));
}

#[test]
fn names_are_cut_between_characters() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    writer.domain(guest());
    writer.process(process());
    let long = "ä".repeat(5_000);
    let code = frame(&mut writer, Some(&long), 1);
    let code = writer.frame(code);
    let chain = writer.chain(Chain { caller: None, frame: code });
    writer.sample(sample(0, chain));
    let (_, recorded) = read(&writer.finish(END).unwrap()).unwrap();
    let name = recorded.tables.frames(chain).next().unwrap().function.unwrap();
    assert_eq!(recorded.tables.name(name), "ä".repeat(2_048));
}

#[test]
fn other_files_are_told_apart() {
    assert!(matches!(read(b"\x7fELF, say"), Err(RecordingError::NotARecording { .. })));
    assert!(matches!(read(b""), Err(RecordingError::NoHeader { .. })));
    assert!(matches!(read(b"XENO"), Err(RecordingError::NoHeader { .. })));
    assert!(matches!(read(b"XENOSCP2\x01"), Err(RecordingError::NoHeader { .. })));
    assert!(matches!(read(b"XENOSCP1\x01"), Err(RecordingError::OtherVersion { found: '1', .. })));
    let error = Recording::open("/nowhere/at all.xsr").unwrap_err();
    assert_eq!(error.to_string(), "could not open /nowhere/at all.xsr");
}

#[test]
fn damage_is_told_by_place_except_at_the_end() {
    let bytes = file(2);
    let starts = chunks(&bytes);

    let mut broken = bytes.clone();
    broken[starts[2] + 20] ^= 1;
    assert_eq!(damage(&broken), (starts[2] as u64, Damage::Checksum));

    let mut broken = bytes.clone();
    broken[starts[2] + 7] = 0xff;
    assert!(matches!(damage(&broken), (_, Damage::Oversized(_))));

    let mut torn = bytes.clone();
    *torn.last_mut().unwrap() ^= 1;
    let (samples, recorded) = read(&torn).unwrap();
    assert_eq!(samples.len(), 20);
    assert_eq!(recorded.completeness, Completeness::Torn { at_byte: *starts.last().unwrap() as u64 });

    let mut zeros = bytes[..starts[4]].to_vec();
    zeros.resize(zeros.len() + 4096, 0);
    assert_eq!(read(&zeros).unwrap().1.completeness, Completeness::Torn { at_byte: starts[4] as u64 });
}

#[test]
fn numbers_that_were_not_introduced_are_damage() {
    // One row of six columns: of lane 0, at place 5, all else 0.
    let stray = [1, 6, 0, 1, 6, 0, 0, 0, 0];
    assert_eq!(damage(&with_last_chunk(3, &stray)).1, Damage::Unknown { what: "place", id: 5 });
    let stray = [1, 6, 1, 9, 0, 0, 0, 0, 0];
    assert_eq!(damage(&with_last_chunk(3, &stray)).1, Damage::Unknown { what: "lane", id: 9 });

    let domains = vec![DomainTime { domain: DomainId(4), cpu_ns: 1 }];
    let stray = postcard::to_stdvec(&Snapshot { domains, ..snapshot() }).unwrap();
    assert_eq!(damage(&with_last_chunk(4, &stray)).1, Damage::Unknown { what: "domain", id: 4 });
    let mut times = times(1);
    times.vcpus[0].vcpu.domain = DomainId(4);
    let stray = postcard::to_stdvec(&times).unwrap();
    assert_eq!(damage(&with_last_chunk(8, &stray)).1, Damage::Unknown { what: "domain", id: 4 });

    // One row of six columns: at place 6, for the reason of this name.
    let stray = [1, 6, 1, 6, 0, 0, 0, 0, 0];
    assert_eq!(damage(&with_last_chunk(9, &stray)).1, Damage::Unknown { what: "place", id: 6 });
    let stray = [1, 6, 0, 1, 99, 0, 0, 0, 0];
    assert_eq!(damage(&with_last_chunk(9, &stray)).1, Damage::Unknown { what: "name", id: 99 });
}

#[test]
fn what_later_versions_add_is_skipped() {
    for (kind, payload) in [(77, &b"what may come"[..]), (2, b"\x03\x63ab")] {
        let (samples, recorded) = read(&with_last_chunk(kind, payload)).unwrap();
        assert_eq!(samples.len(), 10);
        assert!(matches!(recorded.completeness, Completeness::Torn { .. }));
    }
}

/// The second file needs nothing of the first, and its books begin where those of the first end.
#[test]
fn a_recording_goes_on_in_another_file() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    writer.domain(guest());
    writer.domain(Domain { id: DomainId(4), ..guest() });
    writer.domain_gone(DomainId(4), Time(2));
    writer.process(process());
    let chains: Vec<ChainId> = [("main", 1), ("idle", 2), ("work", 3)]
        .into_iter()
        .map(|(name, address)| {
            let code = frame(&mut writer, Some(name), address);
            let frame = writer.frame(code);
            writer.chain(Chain { caller: None, frame })
        })
        .collect();
    writer.sample(sample(0, chains[0]));
    writer.sample(sample(1, chains[2]));
    writer.mark(Mark { time: Time(1_500), name: "warm".to_owned() });
    writer.snapshot(snapshot());
    writer.vcpu_times(times(100));
    let hlt = writer.name("hlt");
    writer.exits(Time(2_000), place(chains[1]), hlt, ExitCost { count: 1, total_ns: 7, longest_ns: 7 });
    let first = writer.continue_in(Vec::new(), Time(6_000), 77).unwrap();
    assert!(writer.written() > 0);
    writer.sample(sample(2, chains[2]));
    let mut books = snapshot();
    books.idle_ns += 5;
    books.cpus[0].1.written += 1;
    books.cpus[0].1.taken += 1;
    // A domain that the second file does not know.
    books.domains.push(DomainTime { domain: DomainId(4), cpu_ns: 9 });
    writer.snapshot(books);
    writer.vcpu_times(times(130));
    writer.exits(Time(7_000), place(chains[2]), hlt, ExitCost { count: 2, total_ns: 9, longest_ns: 6 });
    writer.exits(Time(8_000), place(chains[2]), hlt, ExitCost { count: 3, total_ns: 9, longest_ns: 8 });
    let second = writer.finish(END).unwrap();

    let (samples, recorded) = read(&first).unwrap();
    assert_eq!(samples.len(), 2);
    assert_eq!(recorded.marks, [Mark { time: Time(1_500), name: "warm".to_owned() }]);
    let end = End { time: Time(6_000), reason: EndReason::Continued };
    assert_eq!(recorded.completeness, Completeness::Whole(end));
    assert_eq!(recorded.snapshot, Some(snapshot()));

    let (samples, recorded) = read(&second).unwrap();
    assert_eq!(samples, [Sample { chain: ChainId(0), ..sample(2, chains[2]) }]);
    assert_eq!((recorded.header.started, recorded.header.started_unix_ns), (Time(6_000), 77));
    let innermost = recorded.tables.frames(ChainId(0)).next().unwrap();
    assert_eq!(recorded.tables.name(innermost.function.unwrap()), "work");
    assert_eq!(recorded.tables.process(PROCESS), &process());
    assert_eq!(recorded.tables.domains().collect::<Vec<_>>(), [&guest()]);
    let books = recorded.snapshot.unwrap();
    let account = &books.cpus[0].1;
    assert_eq!((books.idle_ns, account.written, account.taken, account.lost_total()), (5, 1, 1, 0));
    assert_eq!(books.domains, [DomainTime { domain: GUEST, cpu_ns: 0 }]);
    let times = recorded.vcpu_times.unwrap();
    assert_eq!(
        times.vcpus.iter().map(|time| (time.running_ns, time.waiting_ns)).collect::<Vec<_>>(),
        [(30, 0)]
    );
    let exits: Vec<_> = recorded.exits.iter().collect();
    let [((at, reason), cost)] = exits[..] else { panic!("{exits:?}") };
    assert_eq!(recorded.tables.place(*at), place(ChainId(0)));
    assert_eq!(recorded.tables.name(*reason), "hlt");
    assert_eq!(*cost, ExitCost { count: 5, total_ns: 18, longest_ns: 8 });
}

fn place(chain: ChainId) -> Place {
    Place { charged_to: Some(GUEST), process: Some(PROCESS), mode: Mode::User, chain }
}

fn times(running_ns: u64) -> VcpuTimes {
    let time = |domain, running_ns| VcpuTime {
        vcpu: VcpuId { domain, index: 0 },
        running_ns,
        waiting_ns: 3,
        blocked_ns: 0,
    };
    VcpuTimes { time: Time(1_900), vcpus: vec![time(GUEST, running_ns), time(DomainId(4), 5)] }
}

#[test]
fn what_nobody_refers_to_is_not_written() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    writer.domain(guest());
    writer.process(process());
    frame(&mut writer, Some("never_sampled"), 1);
    let (_, recorded) = read(&writer.finish(END).unwrap()).unwrap();
    assert_eq!(recorded.tables.places(), []);
    assert_eq!(recorded.tables.domain(GUEST), &guest());
}

/// A recording that ends with this chunk, correctly framed, instead of its end.
fn with_last_chunk(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = file(1);
    bytes.truncate(*chunks(&bytes).last().unwrap());
    let mut head = vec![kind, 0, 0, 0];
    head.extend((payload.len() as u32).to_le_bytes());
    let sum = crc32fast::hash(&[&*head, payload].concat());
    bytes.extend(head);
    bytes.extend(sum.to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// A disk with room for so many bytes.
struct SmallDisk(usize);

impl io::Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.0.min(bytes.len());
        self.0 -= room;
        if room == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(room) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn after_a_failed_write_nothing_is_written() {
    let header_only = Writer::new(Vec::new(), &header()).unwrap().written();
    let mut writer = Writer::new(SmallDisk(header_only as usize + 40), &header()).unwrap();
    writer.domain(guest());
    writer.process(process());
    writer.note(Note { time: Time(1), text: "x".repeat(1 << 20) });
    writer.note(Note { time: Time(2), text: "short".to_owned() });
    for _ in 0..2 {
        let error = writer.flush().unwrap_err();
        assert!(matches!(error, RecordingError::Write(cause) if cause.kind() == io::ErrorKind::StorageFull));
    }
    assert!(writer.finish(END).is_err());
}

proptest! {
    #[test]
    fn a_cut_file_reads_as_a_prefix(cut in 0usize..2_000) {
        let bytes = file(4);
        let whole = read(&bytes).unwrap().0;
        let cut = cut.min(bytes.len());
        match read(&bytes[..cut]) {
            Ok((samples, recorded)) => {
                prop_assert_eq!(&samples[..], &whole[..samples.len()]);
                prop_assert_eq!(recorded.completeness == Completeness::Whole(END), cut == bytes.len());
            }
            Err(RecordingError::NoHeader { .. }) => prop_assert!(cut < chunks(&bytes)[1]),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
    }

    #[test]
    fn a_corrupt_byte_never_panics(at in 0usize..2_000, flip in 1u8..=255) {
        let mut bytes = file(4);
        let whole = read(&bytes).unwrap().0;
        let at = at % bytes.len();
        bytes[at] ^= flip;
        // What the magic, the version or the header say is not to be had without them.
        if let Ok((samples, _)) = read(&bytes) {
            prop_assert_eq!(&samples[..], &whole[..samples.len()]);
        }
    }

    #[test]
    fn hostile_payloads_never_panic(kind in 2u8..10, payload in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = read(&with_last_chunk(kind, &payload));
    }
}

fn kept(sequence: u64, space: Space) -> KeptStacks {
    let registers = Registers { ip: 0x40_1234, sp: 0x7fff_0000, ..Registers::default() };
    let piece = StackPiece { address: 0x7ffe_ff80, bytes: vec![sequence as u8; 8192] };
    let copied = Stretch::Copied { registers, stacks: vec![piece] };
    KeptStacks { cpu: PhysCpu(1), sequence, stretches: vec![(space, copied)] }
}

#[test]
fn stacks_are_kept_and_read_back() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    writer.domain(guest());
    writer.process(process());
    // More than are held back.
    let all: Vec<KeptStacks> =
        (0..1000).map(|sequence| kept(sequence, Space::User(GUEST, PROCESS))).collect();
    all.iter().for_each(|kept| writer.stacks(kept));
    let file = writer.finish(END).unwrap();

    let mut recording = Recording::read(&file[..]).unwrap();
    let mut recorded = Recorded::new(recording.header().clone());
    let mut read = Vec::new();
    loop {
        let told = recording.read_next().unwrap();
        let is_last = told.is_last();
        if let Told::Stacks(kept) = &told {
            read.extend(kept.iter().cloned());
        }
        recorded.take(told, |_, _| {}).unwrap();
        if is_last {
            break;
        }
    }
    assert!(read == all);
    assert_eq!(recorded.kept_stacks, 1000);
    assert_eq!(recorded.tables.process(PROCESS), &process());
}
