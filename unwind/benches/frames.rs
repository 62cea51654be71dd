//! Frames in a second, by this crate and by framehop alone.
//!
//! The program whose stack is walked is this bench itself. Its stack is made up: each word is the address of some place in
//! its code, so that wherever a frame ends, the next one begins. Places whose frames are told by a frame pointer are left
//! out: there would be none.

use std::{fs, hint::black_box, ops::Range};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use framehop::{
    ExplicitModuleSectionInfo, Module, Unwinder,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};
use object::{Object, ObjectSection};
use profile::{Registers, StackPiece, Stretch};
use unwind::{Code, FrameTable, Image, Part, Parts, Process, Stacks};

const STACK: u64 = 0x7000_0000_0000;
const WORDS: usize = 1024;
const PLACES: usize = 500;

struct Own {
    image: Image,
    text: Range<u64>,
}

impl Process for Own {
    fn code_at(&mut self, address: u64) -> Option<Code<'_>> {
        self.text.contains(&address).then_some(Code::Image(&self.image, address))
    }
}

fn stack(words: impl Iterator<Item = u64>) -> Stretch {
    let bytes = words.take(WORDS).flat_map(u64::to_le_bytes).collect();
    let registers = Registers { sp: STACK, ..Registers::default() };
    Stretch::Copied { registers, stacks: vec![StackPiece { address: STACK, bytes }] }
}

fn walk(own: &mut Own, ip: u64, stretch: &Stretch) -> usize {
    let registers = Registers { ip, sp: STACK, ..Registers::default() };
    unwind::walk(own, &registers, &Stacks::of([stretch])).frames.len()
}

fn frames(criterion: &mut Criterion) {
    let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = |name: &str| {
        let section = file.section_by_name(name).unwrap();
        Part { address: section.address(), bytes: section.data().unwrap().to_vec() }
    };
    let [text, header, eh_frame] = [".text", ".eh_frame_hdr", ".eh_frame"].map(section);
    let range = |part: &Part| part.address..part.address + part.bytes.len() as u64;

    let parts =
        Parts { eh_frame_header: Some(header.clone()), eh_frame: Some(eh_frame.clone()), ..Parts::default() };
    let mut own = Own { image: Image::new(FrameTable::read(&parts)), text: range(&text) };
    let mut random = 1_u64;
    let mut next = |below: usize| {
        // Knuth's generator: the same places in each run of the same program.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut places = Vec::new();
    while places.len() < PLACES {
        let place = text.address + next(text.bytes.len()) as u64;
        // One of small frames leads far.
        if walk(&mut own, place, &stack(std::iter::repeat(place))) > 40 {
            places.push(place);
        }
    }
    let stretch = stack(std::iter::repeat_with(|| places[next(PLACES)]));
    let count = walk(&mut own, places[0], &stretch);

    let mut framehop = UnwinderX86_64::new();
    let info = ExplicitModuleSectionInfo {
        text_svma: Some(range(&text)),
        eh_frame_svma: Some(range(&eh_frame)),
        eh_frame: Some(eh_frame.bytes),
        eh_frame_hdr_svma: Some(range(&header)),
        eh_frame_hdr: Some(header.bytes),
        ..ExplicitModuleSectionInfo::default()
    };
    framehop.add_module(Module::new("own".into(), range(&text), 0, info));
    let mut cache = CacheX86_64::<_>::new();
    let stacks = Stacks::of([&stretch]);
    let mut by_framehop = |ip| {
        let registers = UnwindRegsX86_64::new(ip, STACK, 0);
        let mut read = |address| stacks.word(address).ok_or(());
        let mut frames = framehop.iter_frames(ip, registers, &mut cache, &mut read);
        let mut count = 0;
        while let Ok(Some(_)) = frames.next() {
            count += 1;
        }
        count
    };
    assert_eq!(by_framehop(places[0]), count, "both find the same frames");

    let mut group = criterion.benchmark_group("frames");
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("unwind", |bencher| bencher.iter(|| black_box(walk(&mut own, places[0], &stretch))));
    group.bench_function("framehop", |bencher| bencher.iter(|| black_box(by_framehop(places[0]))));
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
