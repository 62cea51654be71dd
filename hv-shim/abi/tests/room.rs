//! A record that is written piece by piece.
#![cfg(not(loom))]

use abi::{
    AtomicU64, Ordering,
    record::Mode,
    ring::{Consumer, ConsumerPage, Producer, RingHeader},
    section::{Kind, Section, header as section_header, sections},
};

/// A room's words reach the ring as one record, and nothing of it is seen before.
#[test]
fn a_record_is_written_piece_by_piece_around_the_rings_end() {
    const SIZE: usize = 32;
    let data: Vec<AtomicU64> = (0..SIZE).map(|_| AtomicU64::new(0)).collect();
    let (header, page) = (RingHeader::default(), ConsumerPage::default());
    let producer = Producer::new(SIZE);
    let mut consumer = Consumer::new(SIZE);
    for turn in 0..10u64 {
        let mut taking = producer.begin(1, &header, &page).unwrap();
        let mut room = taking.open(20, &data[..]).unwrap();
        (0..8).for_each(|word| room.push(if word == 0 { 1 << 16 } else { turn }));
        let section = room.length();
        room.push(0);
        room.push(turn);
        room.copy(&[7u64; 100], |to, from| {
            to.iter().zip(from).for_each(|(to, word)| to.store(*word, Ordering::Relaxed));
        });
        assert_eq!(room.left(), 0);
        room.push(99);
        room.shorten(15);
        room.set(section, section_header(7, Kind::Stack, Mode::User));
        assert_eq!(header.counts.0.written.load(Ordering::Relaxed), turn);
        taking.close(room);
        taking.end();
        let mut seen = 0;
        let each = |words: &[u64]| {
            seen += 1;
            assert_eq!((words.len(), words[7]), (15, turn));
            let Some(Section::Stack { address, words: stack, .. }) = sections(words).next() else { panic!() };
            assert_eq!((address, stack), (turn, &[7u64; 5][..]));
        };
        consumer.drain(&data[..], &header, &page, each).unwrap();
        assert_eq!(seen, 1);
    }
    let taking = producer.begin(1, &header, &page).unwrap();
    assert!(taking.open(33, &data[..]).is_none(), "more than there is");
}
