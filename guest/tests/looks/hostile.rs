//! Guests that were forged: nothing panics, and nothing costs more than it may.

use std::collections::BTreeSet;

use guest::{Exhausted, Frames, GuestError, Kernel, KernelError, Levels, Limits, Look, ReadError};

use crate::{
    explore::{Found, explore},
    synthetic::{Layout, Linux, Release, Shape},
};

const LIMITS: Limits = Limits { work: 4 << 20, memory: 256 << 20, time: None };
/// Corrupted guests of each shape.
const GUESTS: u32 = 2000;

/// Numbers that are the same in each run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Looks at everything, from nothing or from a kernel that was found before; and checks that all reads were paid for.
fn look_at(linux: &Linux, kernel: Option<&Kernel>) -> (Found, u64) {
    let look = Look::new(&linux.ram, LIMITS);
    linux.ram.reads.set(0);
    let found = match kernel {
        Some(kernel) => explore(&look, kernel),
        None => Kernel::find(&look, linux.cr3).map(|kernel| explore(&look, &kernel)).unwrap_or_default(),
    };
    let work = LIMITS.work - look.budget().work_left();
    let reads = linux.ram.reads.get();
    assert!(reads <= work, "{reads} reads for {work} units of work");
    (found, work)
}

/// Corrupts what is looked at, thousands of times, each time in other ways.
fn corrupt(shape: Shape) {
    let mut linux = Linux::new(shape);
    let (clean, usual) = look_at(&linux, None);
    let expected = Found {
        code: 2,
        tasks: 5,
        groups: 4,
        mappings: 2 * linux.areas.len(),
        functions: 11,
        ..clean.clone()
    };
    assert_eq!(clean, expected);
    let frames: Vec<u64> = linux.ram.touched();
    let known = Kernel::find(&Look::new(&linux.ram, LIMITS), linux.cr3).unwrap();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut different, mut most) = (0, 0);
    for guest in 0..GUESTS {
        let mut before = Vec::new();
        for _ in 0..=numbers.below(if guest % 4 == 0 { 40 } else { 400 }) {
            let frame = frames[numbers.below(frames.len() as u64) as usize];
            let at = frame * 4096 + numbers.below(512) * 8;
            let other = frames[numbers.below(frames.len() as u64) as usize] * 4096 + numbers.below(4096);
            let old = linux.ram.u64(at);
            let new = match numbers.below(9) {
                0 => 0,
                1 => u64::MAX,
                2 => numbers.next(),
                3 => linux.pointer(at),
                4 => linux.pointer(other),
                5 => old ^ 1 << numbers.below(64),
                6 => old.wrapping_add(numbers.below(64)),
                7 => linux.ram.real(other & !4095) | 0x67,
                _ => linux.ram.u64(other & !7),
            };
            before.push((at, old));
            linux.ram.write(at, &new.to_le_bytes());
        }
        let (found, work) = look_at(&linux, (guest % 4 != 0).then_some(&known));
        different += u32::from(found != clean);
        most = most.max(work);
        for (at, old) in before.into_iter().rev() {
            linux.ram.write(at, &old.to_le_bytes());
        }
    }
    println!("{shape:?}: {different} of {GUESTS} differ; work usual {usual}, most {most}");
    assert!(different > GUESTS / 4, "what was corrupted was not looked at");
    assert_eq!(look_at(&linux, None).0, clean);
}

#[test]
fn corrupted_guests_of_new_kernels_do_no_harm() {
    corrupt(Shape::PLAIN);
}

#[test]
fn corrupted_guests_of_old_kernels_do_no_harm() {
    corrupt(Shape {
        release: Release::Old,
        layout: Layout::OffsetsFirst,
        levels: Levels::Five,
        isolated: false,
        ..Shape::PLAIN
    });
}

#[test]
fn corrupted_pv_guests_do_no_harm() {
    corrupt(Shape { frames: Frames::Machine, layout: Layout::Sequences, isolated: false, ..Shape::PLAIN });
}

#[test]
fn tables_that_contain_themselves_end() {
    let mut linux = Linux::new(Shape::PLAIN);
    // Every entry of a table leads to the table itself, so that every address is mapped.
    let root = 0x3f_f000_u64;
    for entry in 0..512 {
        linux.ram.write(root + entry * 8, &(root | 0x67).to_le_bytes());
    }
    let look = Look::new(&linux.ram, LIMITS);
    // More is mapped there than any kernel has, and so none of it is copied.
    assert_eq!(Kernel::find(&look, root).unwrap_err(), KernelError::NotLinux(root));
    assert!(look.budget().work_left() > LIMITS.work / 2);
}

#[test]
fn lists_and_trees_that_contain_themselves_end() {
    for release in [Release::Old, Release::New] {
        let mut linux = Linux::new(Shape { release, ..Shape::PLAIN });
        let kernel = Kernel::find(&Look::new(&linux.ram, LIMITS), linux.cr3).unwrap();
        // Every word that points into the objects leads to one and the same of them.
        let objects: BTreeSet<u64> = linux.ram.touched().into_iter().filter(|frame| *frame < 512).collect();
        for target in objects.iter().map(|frame| frame * 4096 + 0x10) {
            let mut forged = linux.ram.clone();
            for at in objects.iter().flat_map(|frame| (frame * 4096..(frame + 1) * 4096).step_by(8)) {
                if linux.ram.u64(at).wrapping_sub(linux.pointer(0)) < linux.ram.size() {
                    forged.write(at, &linux.pointer(target).to_le_bytes());
                }
            }
            std::mem::swap(&mut forged, &mut linux.ram);
            look_at(&linux, Some(&kernel));
            std::mem::swap(&mut forged, &mut linux.ram);
        }
    }
}

#[test]
fn structures_that_contain_themselves_end() {
    let mut linux = Linux::new(Shape::PLAIN);
    let (place, length) = linux.types();
    // task_struct has as many members as there is room for, each without a name and a task_struct.
    let strings = b"\0task_struct\0";
    let members = (length - 24 - 12 - strings.len()) / 12;
    let types = 12 + 12 * members;
    let mut words = vec![0x0001_eb9f, 24, 0, types as u32, types as u32, strings.len() as u32];
    words.extend([1, 4 << 24 | members as u32, 8]);
    words.extend([0, 1, 0].repeat(members));
    let mut forged: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    forged.extend(strings);
    linux.ram.write(place as u64, &forged);
    let look = Look::new(&linux.ram, LIMITS);
    let kernel = Kernel::find(&look, linux.cr3).unwrap();
    let error = kernel.tasks(&look).unwrap_err();
    assert_eq!(error.to_string(), "this kernel has no task_struct.tasks");
}

#[test]
fn a_flood_of_tables_ends() {
    let mut linux = Linux::new(Shape { functions: 100_000, ..Shape::PLAIN });
    let (place, length) = linux.tables();
    let (mut tokens, mut index) = (Vec::new(), Vec::new());
    for token in 0..256_u32 {
        index.extend((tokens.len() as u16).to_le_bytes());
        match char::from_u32(token).filter(char::is_ascii_digit) {
            Some(digit) => tokens.push(digit as u8),
            None => tokens.extend(b"ab"),
        }
        tokens.push(0);
    }
    tokens.resize(tokens.len().next_multiple_of(8), 0);
    tokens.extend(index);
    // Half of the room is full of what could be markers, the rest of what could be tokens.
    let markers: Vec<u8> =
        [20_000, 0].into_iter().chain((1..80).map(|index| index * 4096)).flat_map(u32::to_le_bytes).collect();
    let half = length / 2;
    let flood = markers.into_iter().cycle().take(half).chain(tokens.into_iter().cycle().take(half));
    linux.ram.write(place as u64, &flood.collect::<Vec<u8>>());
    let look = Look::new(&linux.ram, LIMITS);
    let error = Kernel::find(&look, linux.cr3).unwrap_err();
    assert_eq!(error, KernelError::Read(ReadError::Exhausted(Exhausted::Work)));
}

#[test]
fn a_budget_that_is_spent_ends_the_look() {
    let linux = Linux::new(Shape::PLAIN);
    let mut ends = BTreeSet::new();
    for work in (0..12).map(|power| 1 << (2 * power)) {
        let look = Look::new(&linux.ram, Limits { work, ..LIMITS });
        ends.insert(match Kernel::find(&look, linux.cr3) {
            Ok(kernel) => match kernel.tasks(&look) {
                Ok(_) => "found",
                Err(GuestError::Exhausted(Exhausted::Work)) => "exhausted later",
                Err(error) => panic!("{error}"),
            },
            Err(KernelError::Read(ReadError::Exhausted(Exhausted::Work))) => "exhausted",
            Err(error) => panic!("{error}"),
        });
    }
    assert!(ends.contains("found") && ends.contains("exhausted"), "{ends:?}");
    let look = Look::new(&linux.ram, Limits { memory: 1 << 18, ..LIMITS });
    let error = Kernel::find(&look, linux.cr3).unwrap_err();
    assert_eq!(error, KernelError::Read(ReadError::Exhausted(Exhausted::Memory)));
}
