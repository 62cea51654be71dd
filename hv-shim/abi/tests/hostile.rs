//! What either side can do to the other: nothing but lose samples.
#![cfg(not(loom))]

use std::{array, mem::offset_of};

use abi::{
    AtomicU64, Ordering, PAGE_SIZE,
    control::{ControlPage, LeasePage},
    record::{DOMAIN_IDLE, Guest, MAX_WORDS, Mode, SAMPLE_WORDS, Sample},
    ring::{Consumer, ConsumerPage, Loss, Producer, RingHeader},
};
use proptest::{collection::vec, prelude::*};

const SIZE: usize = 64;

fn sample() -> impl Strategy<Value = Sample> {
    let who = (0..3u8, 0..4u8, any::<u16>(), any::<u16>(), any::<u16>(), any::<u8>());
    (who, any::<[u64; 6]>()).prop_map(|((mode, guest, domain, vcpu, event, source), words)| Sample {
        mode: [Mode::Hypervisor, Mode::Kernel, Mode::User][usize::from(mode)],
        domain,
        vcpu,
        sequence: words[0],
        time: words[1],
        weight: words[2],
        instruction_pointer: words[3],
        stack_pointer: words[4],
        root: words[5],
        event,
        source,
        guest: [Guest::None, Guest::Pv, Guest::Svm, Guest::Vmx][usize::from(guest)],
    })
}

proptest! {
    #[test]
    fn a_sample_reads_back_as_written(sample in sample()) {
        prop_assert_eq!(Sample::decode(&sample.encode()), Ok(sample));
    }

    #[test]
    fn senseless_records_are_refused_or_read(words in vec(any::<u64>(), 0..2 * SAMPLE_WORDS)) {
        if let Ok(sample) = Sample::decode(&words) {
            prop_assert_eq!(&sample.encode()[1..7], &words[1..7]);
        }
    }

    /// The producer's memory as dom0 might find it: any head, any words.
    #[test]
    fn a_hostile_ring_is_read_within_its_bounds(head in 0..3 * SIZE as u64, words in vec(0..90u64, SIZE)) {
        let (header, page) = (RingHeader::default(), ConsumerPage::default());
        header.head.0.store(head, Ordering::Relaxed);
        let data: Vec<AtomicU64> = words.into_iter().map(AtomicU64::new).collect();
        let (mut consumer, mut handed_out) = (Consumer::new(SIZE), 0);
        let drained = consumer.drain(&data[..], &header, &page, |words| {
            assert!((1..=MAX_WORDS).contains(&words.len()));
            handed_out += words.len() as u64;
        });
        prop_assert!(handed_out <= SIZE as u64);
        if drained.is_ok() {
            prop_assert_eq!(handed_out, head);
        }
    }

    /// dom0 writes any tail at any time: samples are lost, the books balance, no word is written elsewhere.
    #[test]
    fn a_hostile_consumer_loses_samples_and_no_more(tails in vec(prop_oneof![any::<u64>(), 0..600u64], 1..80)) {
        let (header, page) = (RingHeader::default(), ConsumerPage::default());
        let data: Vec<AtomicU64> = (0..SIZE).map(|_| AtomicU64::new(0)).collect();
        let producer = Producer::new(SIZE);
        for (i, &tail) in tails.iter().enumerate() {
            page.tail.store(tail, Ordering::Relaxed);
            let mut taking = producer.begin(1, &header, &page).unwrap();
            prop_assert_eq!(taking.sequence(), i as u64);
            taking.write(&[SAMPLE_WORDS as u64; SAMPLE_WORDS], &data[..]);
            taking.end();
        }
        let counts = &header.counts.0;
        let lost = |loss: Loss| counts.lost[loss as usize].load(Ordering::Relaxed);
        prop_assert_eq!(counts.taken(), tails.len() as u64);
        let written = counts.written.load(Ordering::Relaxed);
        prop_assert_eq!(written + lost(Loss::Full) + lost(Loss::Damaged), tails.len() as u64);
        prop_assert_eq!(header.head.0.load(Ordering::Relaxed), written * SAMPLE_WORDS as u64);
    }

    /// Records of any length, around the circle's end many times over: what arrives is what was written, in order.
    #[test]
    fn records_survive_the_circles_end(
        lengths in vec(prop_oneof![Just(SAMPLE_WORDS as u64), 1..=SIZE as u64], 1..200),
        together in 1..4usize,
        every in 1..4usize,
    ) {
        let (header, page) = (RingHeader::default(), ConsumerPage::default());
        let data: Vec<AtomicU64> = (0..SIZE).map(|_| AtomicU64::new(0)).collect();
        let (producer, mut consumer) = (Producer::new(SIZE), Consumer::new(SIZE));
        let mut arrived = Vec::new();
        for (i, lengths) in lengths.chunks(together).enumerate() {
            let mut taking = producer.begin(lengths.len() as u64, &header, &page).unwrap();
            for &length in lengths {
                let sequence = taking.sequence();
                let word = |place: u64| if place == 0 { length | sequence << 32 } else { sequence };
                if length == SAMPLE_WORDS as u64 {
                    let words: [u64; SAMPLE_WORDS] = array::from_fn(|place| word(place as u64));
                    taking.write(&words, &data[..]);
                } else if let Some(mut room) = taking.open(length as usize, &data[..]) {
                    (0..length).for_each(|place| room.push(word(place)));
                    taking.close(room);
                } else {
                    taking.lose(Loss::Full);
                }
            }
            taking.end();
            if i % every == 0 {
                consumer.drain(&data[..], &header, &page, |words| {
                    assert!(words[1..].iter().all(|&word| word == words[0] >> 32), "a record of two");
                    arrived.push(words[0] >> 32);
                }).unwrap();
            }
        }
        consumer.drain(&data[..], &header, &page, |words| arrived.push(words[0] >> 32)).unwrap();
        prop_assert!(arrived.is_sorted_by(|a, b| a < b));
        let lost = header.counts.0.lost[Loss::Full as usize].load(Ordering::Relaxed);
        prop_assert_eq!(arrived.len() as u64 + lost, lengths.len() as u64);
        prop_assert_eq!(header.counts.0.taken(), lengths.len() as u64);
        prop_assert_eq!(header.counts.0.written.load(Ordering::Relaxed), arrived.len() as u64);
    }
}

#[test]
fn each_sides_positions_have_cache_lines_of_their_own() {
    const LINE: usize = 128;
    let places = [
        offset_of!(RingHeader, cpu),
        offset_of!(RingHeader, head),
        offset_of!(RingHeader, watermark),
        offset_of!(RingHeader, counts),
    ];
    assert_eq!(places, [0, LINE, 2 * LINE, 3 * LINE]);
    assert!(size_of::<RingHeader>() <= PAGE_SIZE && size_of::<ControlPage>() <= PAGE_SIZE);
    assert!(size_of::<LeasePage>() <= PAGE_SIZE && size_of::<ConsumerPage>() <= PAGE_SIZE);
    assert_eq!(DOMAIN_IDLE, 0x7fff);
}
