//! A guest's registers, page tables and memory are what the input says; then its sample is taken.

#[path = "../../../hv-shim/sampler/tests/stacks/cpu.rs"]
#[allow(dead_code)]
mod cpu;
#[path = "../../../hv-shim/sampler/tests/stacks/model.rs"]
#[allow(dead_code)]
mod model;

use abi::{
    record::{Guest, Mode},
    section::{Section, sections},
};
use sampler::{capture::Wanted, walk::FRAME_WORDS};

use cpu::{Cpu, ROOT};
use model::{GUEST, GUEST_KERNEL, OTHER, PRESENT, USER};

/// What all of another domain's memory consists of.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;

/// The guest's frames; as many others are another domain's.
const FRAMES: u64 = 8;

const PROCESS: u64 = 0x7ffc_0000_0000;
const KERNEL: u64 = 0xffff_c900_0000_0000;

/// The first byte says in which mode the guest is and what is wanted, the next 24 its registers; each change after
/// them takes twelve bytes.
pub fn stacks(input: &[u8]) {
    let Some((&first, rest)) = input.split_first() else { return };
    let Some((registers, changes)) = rest.split_at_checked(24) else { return };
    let (registers, _) = registers.as_chunks::<8>();
    let [ip, sp, bp] = [0, 1, 2].map(|at| u64::from_le_bytes(registers[at]));
    let in_kernel = first & 1 == 1;
    let mut cpu = Cpu::new(in_kernel);
    // As a rule near to where memory is mapped.
    let base = if first & 2 == 0 { PROCESS } else { KERNEL };
    let near = |address: u64| if address >> 63 == 1 { address } else { base + address % (FRAMES << 12) };
    cpu.registers(ip, near(sp), near(bp));
    for frame in 0..FRAMES {
        cpu.page(PROCESS + (frame << 12), 0x100 + frame, PRESENT | USER);
        let flags = PRESENT | USER | GUEST_KERNEL;
        cpu.memory.map(ROOT, KERNEL + (frame << 12), 0x100 + frame, flags, GUEST);
        cpu.memory.add(0x200 + frame, OTHER);
        (0..FRAME_WORDS).for_each(|place| cpu.memory.set(0x200 + frame, place, SECRET));
    }
    // The tables are what `map` has made from 0x1_0000 on.
    let tables = cpu.memory.numbers().filter(|frame| *frame >= 0x1_0000 || *frame == ROOT);
    let frames: Vec<u64> = tables.chain(0x100..0x100 + FRAMES).collect();
    for change in changes.as_chunks::<12>().0 {
        let value = u64::from_le_bytes(*change[4..].first_chunk().expect("there are eight bytes"));
        let frame = frames[usize::from(change[0]) % frames.len()];
        let place = usize::from(u16::from_le_bytes([change[1], change[2]])) % FRAME_WORDS;
        let to = frames[(value % frames.len() as u64) as usize];
        let word = match change[3] % 8 {
            0 => value,
            1 => to << 12 | value >> 52 | PRESENT,
            2 => (0x200 + value % FRAMES) << 12 | PRESENT | USER,
            3 => PROCESS + value % (FRAMES << 12),
            4 => KERNEL + value % (FRAMES << 12),
            5 => [0x33, 0x2b, 0x10, 0x18][(value % 4) as usize],
            6 => 1 << (value % 64),
            _ => 0,
        };
        if word != SECRET {
            cpu.memory.set(frame, place, word);
        }
    }
    let mode = if in_kernel { Mode::Kernel } else { Mode::User };
    let wanted = if first & 4 == 0 { Wanted::Stacks(usize::from(first >> 3) * 64) } else { Wanted::Frames };
    let record = cpu.captured(mode, Guest::Pv, wanted);
    assert!(record.len() <= wanted.record_words());
    for section in sections(&record) {
        let (Section::Stack { words, .. } | Section::Frames { words, .. } | Section::Calls { words }) =
            section
        else {
            continue;
        };
        assert!(!words.contains(&SECRET), "another domain's memory");
    }
}
