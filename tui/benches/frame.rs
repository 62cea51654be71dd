//! What a frame costs, and what a sample costs, beside each other: with 1,000 domains and 100,000 functions in the window,
//! and with ten and a thousand.

use std::{collections::BTreeMap, hint::black_box};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use profile::{
    Chain, CodeAddress, Domain, DomainId, DomainKind, Event, EventId, Frame, ImageOffset, Mode, Origin,
    PhysCpu, Sample, Source, Space, Time, VcpuId,
    recording::{End, EndReason, Header, Host, Recording, Told, Writer},
};
use ratatui::{
    buffer::Buffer,
    crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyModifiers},
    layout::Rect,
};
use tui::{Colors, Limits, Screen, State, Theme, draw, handle};

const THEME: Theme = Theme { colors: Colors::True, light: false, ascii: false };

/// A recording of ten seconds in which every function of every domain was hit twice, with eight callers each.
fn recording(domains: u32, functions: u32) -> Vec<u8> {
    let header = Header {
        tool: String::new(),
        started_unix_ns: 0,
        started: Time(0),
        host: Host {
            hypervisor: "Xen".into(),
            build_id: None,
            kernel: String::new(),
            hostname: "bench".into(),
            cpus: 64,
        },
        events: vec![Event {
            name: "cpu-clock".into(),
            unit: "ns".into(),
            source: Source::Timer,
            rate_hz: 1000.0,
        }],
        command: None,
        options: BTreeMap::new(),
    };
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    let samples = u64::from(functions) * 2;
    for id in 0..domains {
        let name = format!("guest-{id:04}");
        let (id, number) = (DomainId(id), id);
        let from = Time(0);
        writer.domain(Domain { id, number, name, uuid: None, kind: DomainKind::Pvh, vcpus: 2, from });
    }
    for at in 0..samples {
        let which = (at % u64::from(functions)) as u32;
        let domain = DomainId(which % domains);
        let space = Space::Kernel(domain);
        let module = Some(writer.name("vmlinux"));
        let mut caller = None;
        for depth in 0..9 {
            let name = if depth == 8 {
                format!("function_{which}")
            } else {
                format!("caller_{}", which % (depth + 2))
            };
            let function = Some(writer.name(&name));
            let address = CodeAddress::InstructionPointer(u64::from(which) * 64 + u64::from(depth));
            let frame = writer.frame(Frame {
                space,
                address,
                function,
                module,
                offset: ImageOffset(0),
                origin: Origin::default(),
            });
            caller = Some(writer.chain(Chain { caller, frame }));
        }
        writer.sample(Sample {
            time: Time(at * 10_000_000_000 / samples),
            cpu: PhysCpu(which % 64),
            vcpu: Some(VcpuId { domain, index: 0 }),
            charged_to: Some(domain),
            process: None,
            mode: Mode::Kernel,
            event: EventId(0),
            weight: 1_000_000 + u64::from(which * 7919 % functions),
            sequence: at,
            chain: caller.unwrap(),
        });
    }
    writer.finish(End { time: Time(9_999_999_999), reason: EndReason::Duration }).unwrap()
}

fn told(recording: &[u8]) -> (State, Vec<Told>) {
    let mut reader = Recording::read(recording).unwrap();
    let state = State::new(reader.header().clone(), Limits::default(), 10);
    let mut told = Vec::new();
    while told.last().is_none_or(|told: &Told| !told.is_last()) {
        told.push(reader.read_next().unwrap());
    }
    (state, told)
}

fn benches(criterion: &mut Criterion) {
    for (domains, functions) in [(10, 1_000), (1_000, 100_000)] {
        let size = format!("{domains} domains, {functions} functions");
        let recording = recording(domains, functions);
        let (mut state, all) = told(&recording);
        all.iter().for_each(|told| state.take(told.clone()).unwrap());
        let memory = state.memory();
        println!("{size}: {} samples, {memory:?}", state.samples());

        let mut group = criterion.benchmark_group("frame of 200x60");
        for (view, keys) in [("domains", ""), ("functions", "3"), ("callers", "3\n"), ("flame", "6")] {
            let mut buffer = Buffer::empty(Rect { x: 0, y: 0, width: 200, height: 60 });
            let mut screen = Screen::new("LIVE");
            for key in keys.chars() {
                draw(Some(&mut state), &mut screen, THEME, &mut buffer);
                let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
                handle(&Input::Key(KeyEvent::new(code, KeyModifiers::NONE)), Some(&mut state), &mut screen);
            }
            group.bench_function(BenchmarkId::new(view, &size), |bencher| {
                bencher.iter(|| {
                    buffer.reset();
                    draw(Some(&mut state), &mut screen, THEME, black_box(&mut buffer));
                });
            });
        }
        group.finish();

        let mut group = criterion.benchmark_group("samples taken in");
        group.throughput(Throughput::Elements(u64::from(functions) * 2));
        group.sample_size(10);
        group.bench_function(&size, |bencher| {
            bencher.iter_batched(
                || told(&recording),
                |(mut state, all)| {
                    all.into_iter().for_each(|told| state.take(told).unwrap());
                    state
                },
                criterion::BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

criterion_group!(frames, benches);
criterion_main!(frames);
