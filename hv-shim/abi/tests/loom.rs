//! The ring's protocol under every interleaving of a producer and a consumer:
//! `RUSTFLAGS="--cfg loom" cargo test -p xenoscope-abi --release --test loom`.
//!
//! A `head` published or read without its ordering fails here. The orderings of `tail` keep the producer's stores
//! behind the consumer's loads, and loads that see the future are not in loom's model: those are argued in `ring.rs`.
#![cfg(loom)]

use abi::{
    AtomicU64, Ordering,
    ring::{Consumer, ConsumerPage, Loss, Producer, RingHeader},
};
use loom::{sync::Arc, thread};

/// Two records of two words: the third meets a full ring, or one that goes around.
const SIZE: usize = 4;
const RECORD: usize = 2;

/// A consumer takes a record of any size to its stack, which is larger than what loom's threads have by themselves.
const STACK: usize = 1 << 20;

struct Ring {
    header: RingHeader,
    consumer: ConsumerPage,
    data: Vec<AtomicU64>,
}

impl Ring {
    fn new() -> Self {
        let data = (0..SIZE).map(|_| AtomicU64::new(0)).collect();
        Self { header: RingHeader::default(), consumer: ConsumerPage::default(), data }
    }

    /// Takes so many samples of one moment; with `nested`, that is interrupted by another attempt.
    fn take(&self, producer: &Producer, samples: u64, nested: bool) {
        let mut taking = producer.begin(samples, &self.header, &self.consumer).expect("not nested");
        if nested {
            assert!(producer.begin(1, &self.header, &self.consumer).is_none());
        }
        for _ in 0..samples {
            let first = RECORD as u64 | taking.sequence() << 32;
            taking.write(&[first, !first], &self.data[..]);
        }
        taking.end();
    }

    fn drain(&self, consumer: &mut Consumer, arrived: &mut Vec<u64>) {
        let each = |words: &[u64]| {
            assert_eq!(words[1], !words[0], "a record that is not whole");
            arrived.push(words[0] >> 32);
        };
        consumer.drain(&self.data[..], &self.header, &self.consumer, each).expect("nothing is damaged");
    }
}

/// Produces three samples, of two moments, while they are drained; with `nested`, each moment is interrupted by another attempt.
fn run(nested: bool) {
    loom::model(move || {
        let ring = Arc::new(Ring::new());
        let producing = Arc::clone(&ring);
        let producer = thread::spawn(move || {
            let producer = Producer::new(SIZE);
            producing.take(&producer, 1, nested);
            producing.take(&producer, 2, nested);
        });
        let draining = Arc::clone(&ring);
        let drain = move || {
            let (mut consumer, mut arrived) = (Consumer::new(SIZE), Vec::new());
            draining.drain(&mut consumer, &mut arrived);
            producer.join().unwrap();
            draining.drain(&mut consumer, &mut arrived);
            arrived
        };
        let arrived = thread::Builder::new().stack_size(STACK).spawn(drain).unwrap().join().unwrap();

        assert!(arrived.is_sorted_by(|a, b| a < b), "{arrived:?}");
        let counts = &ring.header.counts.0;
        let lost: u64 = counts.lost.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        assert_eq!(counts.lost[Loss::Nested as usize].load(Ordering::Relaxed), if nested { 2 } else { 0 });
        assert_eq!(counts.taken(), arrived.len() as u64 + lost);
        assert_eq!(counts.written.load(Ordering::Relaxed), arrived.len() as u64);
        let most = if nested { 5 } else { 3 };
        assert!(arrived.iter().all(|&sequence| sequence < most), "{arrived:?}");
    });
}

#[test]
fn records_arrive_whole_in_order_and_counted() {
    run(false);
}

#[test]
fn nested_attempts_are_counted_and_spoil_nothing() {
    run(true);
}
