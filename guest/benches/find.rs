//! Finding a kernel with 150 thousand symbols, beside copying and searching the same bytes in the same run.
//!
//! `find` is all of it: page tables, the copy of the kernel's constants, the search for its tables, the symbols, and the
//! type information.

#[path = "../tests/looks/synthetic/mod.rs"]
#[expect(dead_code, unused_imports, reason = "only the kernel is looked at here")]
mod synthetic;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use guest::{Frames, GuestMemory, GuestPhysical, Kernel, Levels, Limits, Look};
use synthetic::{Layout, Linux, Release, Shape};

const SYMBOLS: u64 = 150_000;

fn find(c: &mut Criterion) {
    let shape = Shape { functions: SYMBOLS, levels: Levels::Four, frames: Frames::Guest, ..Shape::PLAIN };
    let linux = Linux::new(Shape { release: Release::New, layout: Layout::OffsetsLast, ..shape });
    let find = || Kernel::find(&Look::new(&linux.ram, Limits::default()), linux.cr3).unwrap();
    assert!(find().symbols().len() as u64 > SYMBOLS);
    let mut copy = vec![0; linux.ram.size() as usize];

    let mut group = c.benchmark_group("find-150k");
    group.sample_size(20).throughput(Throughput::Elements(SYMBOLS));
    group.bench_function("Kernel::find", |b| b.iter(find));
    group.bench_function("copy", |b| b.iter(|| linux.ram.read(GuestPhysical(0), black_box(&mut copy))));
    linux.ram.read(GuestPhysical(0), &mut copy).unwrap();
    group.bench_function("search", |b| {
        b.iter(|| memchr::memmem::find_iter(black_box(&copy), "0\x001\x002\x003\x004").count());
    });
    group.finish();
}

criterion_group!(benches, find);
criterion_main!(benches);
