//! A CPU that a guest's vCPU runs on: Xen's words by address, and the machine's memory.

use std::{cell::RefCell, collections::HashMap};

use abi::{
    AtomicU64,
    record::{Guest, MAX_WORDS, Mode, SAMPLE_WORDS, Sample},
    ring::{Consumer, ConsumerPage, Producer, RingHeader},
};
use sampler::{
    Machine as _,
    capture::{Interrupted, Wanted, capture},
    probe::{CodeRange, DIRECT_MAP, Layout, Svm},
};

use super::model::{GUEST, Machine};

pub(crate) const STACK_TOP: u64 = 0xffff_8300_0008_0000;
pub(crate) const FRAME: u64 = STACK_TOP - 248;
pub(crate) const VCPU: u64 = 0xffff_8300_0000_5000;
pub(crate) const VMCB: u64 = DIRECT_MAP.start + 0x9_0000;
pub(crate) const TEXT: u64 = 0xffff_82d0_4020_0000;
pub(crate) const ROOT: u64 = 0x10;

/// A CPU: Xen's words by address, and the machine's memory.
pub(crate) struct Cpu {
    pub(crate) words: RefCell<HashMap<u64, u64>>,
    pub(crate) memory: Machine,
    pub(crate) loaded_vcpu: u64,
}

impl sampler::Machine for Cpu {
    fn read(&self, address: u64) -> u64 {
        self.words.borrow().get(&address).copied().unwrap_or(0)
    }

    fn cr3(&self) -> u64 {
        ROOT << 12
    }

    fn vmread(&self, _: u64) -> Option<u64> {
        None
    }

    fn direct_map(&self, machine: u64) -> Option<u64> {
        Some(DIRECT_MAP.start + machine)
    }
}

fn layout() -> Layout {
    Layout {
        vcpu_domain: 0x10,
        current_below_top: 0x38,
        frame_below_top: 248,
        vcpu_flags: Some(0x380),
        svm: Some(Svm { stgi: TEXT + 0x100, vcpu_vmcb: 0x5c0 }),
        code: [CodeRange { start: TEXT, end: TEXT + 0x1000 }, CodeRange::default()],
        ..Layout::default()
    }
}

impl Cpu {
    /// A vCPU of a paravirtualized guest that is in its kernel or not.
    pub(crate) fn new(in_kernel: bool) -> Self {
        let mut memory = Machine::default();
        memory.add(ROOT, GUEST);
        let cpu = Self { words: RefCell::default(), memory, loaded_vcpu: VCPU };
        cpu.word(STACK_TOP - 0x38, VCPU);
        cpu.word(VCPU + 0x10, GUEST.0);
        cpu.word(VCPU + 0x380, u64::from(in_kernel));
        cpu
    }

    pub(crate) fn word(&self, address: u64, value: u64) {
        self.words.borrow_mut().insert(address, value);
    }

    pub(crate) fn registers(&self, ip: u64, sp: u64, bp: u64) {
        (0..15).for_each(|number| self.word(FRAME + number * 8, 0x100 + number));
        self.word(FRAME + 32, bp);
        self.word(FRAME + 128, ip);
        self.word(FRAME + 152, sp);
    }

    /// Maps a page of which each word is its address.
    pub(crate) fn page(&mut self, address: u64, frame: u64, flags: u64) {
        self.memory.add(frame, GUEST);
        self.memory.map(ROOT, address, frame, flags, GUEST);
        (0..512).for_each(|place| self.memory.set(frame, place, address + 8 * place as u64));
    }

    pub(crate) fn captured(&self, mode: Mode, guest: Guest, wanted: Wanted) -> Vec<u64> {
        self.captured_from(FRAME, mode, guest, wanted)
    }

    pub(crate) fn captured_from(&self, regs: u64, mode: Mode, guest: Guest, wanted: Wanted) -> Vec<u64> {
        const SIZE: usize = 16 << 10;
        let data: Vec<AtomicU64> = (0..SIZE).map(|_| AtomicU64::new(0)).collect();
        let (header, page) = (RingHeader::default(), ConsumerPage::default());
        let producer = Producer::new(SIZE);
        let mut taking = producer.begin(1, &header, &page).unwrap();
        let sequence = taking.sequence();
        let sample = Sample {
            mode,
            domain: 3,
            vcpu: 0,
            sequence,
            time: 1,
            weight: 1,
            instruction_pointer: self.read(regs + 128),
            stack_pointer: self.read(regs + 152),
            root: ROOT << 12,
            event: 0,
            source: 1,
            guest,
        };
        assert!(wanted.record_words() <= MAX_WORDS);
        let mut room = taking.open(wanted.record_words(), &data[..]).unwrap();
        sample.encode().into_iter().for_each(|word| room.push(word));
        let interrupted = Interrupted {
            machine: self,
            layout: &layout(),
            stack_top: STACK_TOP,
            regs,
            loaded_vcpu: self.loaded_vcpu,
        };
        capture(&interrupted, &self.memory, &sample, wanted, &mut room);
        taking.close(room);
        taking.end();
        let mut record = Vec::new();
        Consumer::new(SIZE).drain(&data[..], &header, &page, |words| record = words.to_vec()).unwrap();
        assert_eq!(Sample::decode(&record).unwrap(), sample);
        assert_whole(&record);
        record
    }
}

/// Fails unless the sections fill the record.
fn assert_whole(record: &[u64]) {
    let mut at = SAMPLE_WORDS;
    while at < record.len() {
        let words = (record[at] & 0xffff) as usize;
        assert!(words > 1, "an empty section at {at}");
        at += words;
    }
    assert_eq!(at, record.len());
}
