//! What a record costs each side of the ring, beside a plain copy of it and beside `rtrb`, a ring between threads of
//! one process.
//!
//! All of it in one thread, a whole ring at a time: no side ever waits for the other's cache lines.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use abi::{
    AtomicU64, Ordering, PAGE_WORDS,
    record::{Guest, Mode, SAMPLE_WORDS, SOURCE_TIMER, Sample},
    ring::{Consumer, ConsumerPage, Loss, Producer, RingHeader},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Data pages: what a recording uses unless told otherwise.
const PAGES: usize = 64;
const WORDS: usize = PAGES * PAGE_WORDS;
const RECORDS: usize = WORDS / SAMPLE_WORDS;

type Record = [u64; SAMPLE_WORDS];

/// One way to bring records from here to there.
trait Way {
    /// Puts [`RECORDS`] records in.
    fn fill(&mut self, record: &Record);
    /// Takes them all out again.
    fn drain(&mut self);
}

/// The least that there is to do: one copy in, one copy out.
struct Copy(Vec<u64>);

impl Way for Copy {
    fn fill(&mut self, record: &Record) {
        for place in self.0.chunks_exact_mut(SAMPLE_WORDS) {
            place.copy_from_slice(black_box::<&Record>(record));
        }
    }

    fn drain(&mut self) {
        let mut record = [0; SAMPLE_WORDS];
        for place in self.0.chunks_exact(SAMPLE_WORDS) {
            record.copy_from_slice(place);
            black_box(&record);
        }
    }
}

/// The same as the hypervisor can do it, word by word: its interrupt handlers have no vector registers.
struct CopyWords(Vec<AtomicU64>);

impl Way for CopyWords {
    fn fill(&mut self, record: &Record) {
        for place in self.0.chunks_exact(SAMPLE_WORDS) {
            for (to, &word) in place.iter().zip(black_box(record)) {
                to.store(word, Ordering::Relaxed);
            }
        }
    }

    fn drain(&mut self) {
        let mut record = [0; SAMPLE_WORDS];
        for place in self.0.chunks_exact(SAMPLE_WORDS) {
            for (word, from) in record.iter_mut().zip(place) {
                *word = from.load(Ordering::Relaxed);
            }
            black_box(&record);
        }
    }
}

struct Xenoscope {
    header: RingHeader,
    page: ConsumerPage,
    data: Vec<AtomicU64>,
    producer: Producer,
    consumer: Consumer,
}

impl Way for Xenoscope {
    fn fill(&mut self, record: &Record) {
        for _ in 0..RECORDS {
            let Some(mut taking) = self.producer.begin(1, &self.header, &self.page) else { panic!("nested") };
            taking.write(black_box::<&Record>(record), &*self.data);
            taking.end();
        }
    }

    fn drain(&mut self) {
        let drained = self.consumer.drain(&*self.data, &self.header, &self.page, |record| {
            black_box(record);
        });
        assert!(drained.is_ok());
        let full = &self.header.counts.0.lost[Loss::Full as usize];
        assert_eq!(full.load(Ordering::Relaxed), 0, "a record that is dropped costs less");
    }
}

/// A ring of records.
struct Rtrb(rtrb::Producer<Record>, rtrb::Consumer<Record>);

impl Way for Rtrb {
    fn fill(&mut self, record: &Record) {
        for _ in 0..RECORDS {
            let _ = self.0.push(*black_box(record));
        }
    }

    fn drain(&mut self) {
        while let Ok(record) = self.1.pop() {
            black_box(&record);
        }
    }
}

/// A ring of words, so that records may differ in length as ours do.
struct RtrbWords(rtrb::Producer<u64>, rtrb::Consumer<u64>);

impl Way for RtrbWords {
    fn fill(&mut self, record: &Record) {
        for _ in 0..RECORDS {
            let _ = self.0.push_entire_slice(black_box::<&Record>(record));
        }
    }

    fn drain(&mut self) {
        let mut record = [0; SAMPLE_WORDS];
        while self.1.pop_entire_slice(&mut record).is_ok() {
            black_box(&record);
        }
    }
}

fn ways() -> [(&'static str, Box<dyn Way>); 5] {
    let (records, words) = (rtrb::RingBuffer::new(RECORDS), rtrb::RingBuffer::new(WORDS));
    let xenoscope = Xenoscope {
        header: RingHeader::default(),
        page: ConsumerPage::default(),
        data: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
        producer: Producer::new(WORDS),
        consumer: Consumer::new(WORDS),
    };
    [
        ("plain copy", Box::new(Copy(vec![0; WORDS]))),
        ("plain copy, by words", Box::new(CopyWords((0..WORDS).map(|_| AtomicU64::new(0)).collect()))),
        ("xenoscope", Box::new(xenoscope)),
        ("rtrb, records", Box::new(Rtrb(records.0, records.1))),
        ("rtrb, words", Box::new(RtrbWords(words.0, words.1))),
    ]
}

fn record() -> Record {
    Sample {
        mode: Mode::User,
        domain: 3,
        vcpu: 1,
        sequence: 77,
        time: 1 << 40,
        weight: 1_000_000,
        instruction_pointer: 0x0040_1000,
        stack_pointer: 0x7fff_0000,
        root: 0x1234_5000,
        event: 0,
        source: SOURCE_TIMER,
        guest: Guest::Pv,
    }
    .encode()
}

/// Adds up what `timed` takes, `rounds` times, and not what `untimed` takes after it.
fn time<W: ?Sized>(rounds: u64, way: &mut W, untimed: impl Fn(&mut W), timed: impl Fn(&mut W)) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        untimed(way);
        let begun = Instant::now();
        timed(way);
        spent += begun.elapsed();
    }
    spent
}

fn ring(criterion: &mut Criterion) {
    let record = record();
    for (name, fills) in [("produce", true), ("consume", false)] {
        let mut group = criterion.benchmark_group(name);
        let (elements, bytes) = (RECORDS as u64, (WORDS * 8) as u64);
        group.throughput(Throughput::ElementsAndBytes { elements, bytes });
        for (name, mut way) in ways() {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|rounds| {
                    if fills {
                        time(rounds, &mut *way, Way::drain, |way| way.fill(&record))
                    } else {
                        time(rounds, &mut *way, |way| way.fill(&record), Way::drain)
                    }
                });
            });
        }
    }
}

criterion_group!(benches, ring);
criterion_main!(benches);
