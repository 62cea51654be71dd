//! What a sample costs to write and to read, in time and in bytes, beside plainer ways to store the same.

use std::{collections::BTreeMap, hint::black_box, io::Write};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use profile::{
    Chain, ChainId, CodeAddress, Domain, DomainId, DomainKind, Event, EventId, Frame, ImageOffset, Mode,
    Origin, PhysCpu, Process, ProcessId, Sample, Source, Space, Time, VcpuId,
    recording::{End, EndReason, Header, Host, Recording, Writer},
};

const SAMPLES: u64 = 100_000;
const FUNCTIONS: u64 = 4_000;
const DOMAIN: DomainId = DomainId(1);

fn header() -> Header {
    let text = String::new;
    Header {
        tool: text(),
        started_unix_ns: 0,
        started: Time(0),
        host: Host { hypervisor: text(), build_id: None, kernel: text(), hostname: text(), cpus: 4 },
        events: vec![Event { name: text(), unit: "ns".into(), source: Source::Timer, rate_hz: 1000.0 }],
        command: None,
        options: BTreeMap::new(),
    }
}

/// Repeatable noise (xorshift64).
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Four busy CPUs, periods of ±20 %, four hundred functions that make up most of the time.
fn samples(chains: &[ChainId]) -> Vec<Sample> {
    let mut noise = Noise(88_172_645_463_325_252);
    let mut clocks = [0; 4];
    (0..SAMPLES)
        .map(|index| {
            let cpu = (index % 4) as usize;
            let weight = 800_000 + noise.below(400_000);
            clocks[cpu] += weight + noise.below(200);
            let among = if noise.below(10) < 8 { FUNCTIONS / 10 } else { FUNCTIONS };
            Sample {
                time: Time(clocks[cpu]),
                cpu: PhysCpu(cpu as u32),
                vcpu: Some(VcpuId { domain: DOMAIN, index: cpu as u32 }),
                charged_to: Some(DOMAIN),
                process: Some(ProcessId(1)),
                mode: Mode::User,
                event: EventId(0),
                weight,
                sequence: index / 4,
                chain: chains[noise.below(among) as usize],
            }
        })
        .collect()
}

fn writer() -> (Writer<Vec<u8>>, Vec<ChainId>) {
    let mut writer = Writer::new(Vec::new(), &header()).expect("memory takes all");
    let (from, uuid) = (Time(0), None);
    let (name, kind) = ("guest".to_owned(), DomainKind::Pvh);
    writer.domain(Domain { id: DOMAIN, number: 1, name, uuid, kind, vcpus: 4, from });
    let (pid, root, name, container) = (None, None, None, None);
    writer.process(Process { id: ProcessId(1), domain: DOMAIN, pid, root, name, container, from });
    let module = Some(writer.name("server"));
    let chains = (0..FUNCTIONS)
        .map(|index| {
            let function = Some(writer.name(&format!("module::function_{index}")));
            let address = CodeAddress::InstructionPointer(0x40_0000 + index * 77);
            let space = Space::User(DOMAIN, ProcessId(1));
            let frame = writer.frame(Frame {
                space,
                address,
                function,
                module,
                offset: ImageOffset(9),
                origin: Origin::default(),
            });
            writer.chain(Chain { caller: None, frame })
        })
        .collect();
    (writer, chains)
}

fn finish(writer: Writer<Vec<u8>>) -> Vec<u8> {
    writer.finish(End { time: Time(u64::MAX), reason: EndReason::Duration }).expect("memory takes all")
}

/// The size of a record of perf's ring with address, thread, time, CPU and period (perf_event_open(2)).
fn as_perf_does(sample: &Sample) -> [u64; 6] {
    let cpu = sample.cpu.0.into();
    [9 | 48 << 48, sample.chain.0.into(), 1 | 1 << 32, sample.time.0, cpu, sample.weight]
}

fn benches(criterion: &mut Criterion) {
    let (_, chains) = writer();
    let samples = samples(&chains);
    let recording = {
        let (mut writer, _) = writer();
        samples.iter().for_each(|sample| writer.sample(sample.clone()));
        finish(writer)
    };
    let rows: Vec<u8> =
        samples.iter().flat_map(|sample| postcard::to_stdvec(sample).expect("memory takes all")).collect();
    let perf: Vec<u8> = samples.iter().flat_map(as_perf_does).flat_map(u64::to_le_bytes).collect();
    let packed = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).expect("memory takes all").len();
    for (what, bytes) in [
        ("recording", recording.len()),
        ("postcard", rows.len()),
        ("postcard, zstd", packed(&rows)),
        ("perf's records", perf.len()),
        ("perf's records, zstd", packed(&perf)),
    ] {
        println!("{what:<22} {:6.2} bytes a sample", bytes as f64 / SAMPLES as f64);
    }

    let mut write = criterion.benchmark_group("write");
    write.throughput(Throughput::Elements(SAMPLES));
    write.bench_function("recording", |bencher| {
        let ready = || (writer().0, samples.clone());
        bencher.iter_batched(
            ready,
            |(mut writer, samples)| {
                samples.into_iter().for_each(|sample| writer.sample(sample));
                finish(writer)
            },
            BatchSize::LargeInput,
        );
    });
    write.bench_function("postcard, zstd", |bencher| {
        bencher.iter(|| {
            let mut out = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("memory takes all");
            for sample in &samples {
                let row = postcard::to_stdvec(sample).expect("memory takes all");
                out.write_all(&row).expect("memory takes all");
            }
            black_box(out.finish())
        });
    });
    write.bench_function("perf's records, zstd", |bencher| {
        bencher.iter(|| {
            let mut out = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("memory takes all");
            for sample in &samples {
                for word in as_perf_does(sample) {
                    out.write_all(&word.to_le_bytes()).expect("memory takes all");
                }
            }
            black_box(out.finish())
        });
    });
    write.finish();

    let mut read = criterion.benchmark_group("read");
    read.throughput(Throughput::Elements(SAMPLES));
    read.bench_function("recording", |bencher| {
        bencher.iter(|| {
            let mut weight = 0u64;
            let recording = Recording::read(&*recording).expect("it is one");
            let read =
                recording.for_all_samples(|samples, _| weight += samples.weights().iter().sum::<u64>());
            black_box((read.expect("memory does not fail"), weight))
        });
    });
    read.bench_function("postcard", |bencher| {
        bencher.iter(|| {
            let (mut rest, mut weight) = (&*rows, 0u64);
            while !rest.is_empty() {
                let (sample, after) = postcard::take_from_bytes::<Sample>(rest).expect("it is one");
                (rest, weight) = (after, weight + sample.weight);
            }
            black_box(weight)
        });
    });
    read.finish();
}

criterion_group!(recording, benches);
criterion_main!(recording);
