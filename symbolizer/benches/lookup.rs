//! Building a kernel's table and asking it, beside an ordered map of the standard library in the same run.

use std::{collections::BTreeMap, fmt::Write, hint::black_box};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use symbolizer::SymbolTable;

const LINES: u64 = 150_000;
const BASE: u64 = 0xffff_ffff_8100_0000;
/// The mean of real kernels.
const FUNCTION_SIZE: u64 = 160;
const ADDRESSES: usize = 10_000;

/// A list as long as that of a distribution's kernel, with names as long as its names.
fn kallsyms() -> String {
    let mut text = String::new();
    for line in 0..LINES {
        let address = BASE + line * FUNCTION_SIZE;
        writeln!(text, "{address:x} t some_subsystem_function_{line}").unwrap();
    }
    text
}

/// The shortest thing that answers the same question: no sizes, no choice among names, no modules.
fn ordered_map(text: &str) -> BTreeMap<u64, String> {
    let parse = |line: &str| {
        let mut fields = line.split(' ');
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        Some((address, fields.nth(1)?.to_owned()))
    };
    text.lines().filter_map(parse).collect()
}

/// Addresses of code in no order (xorshift: the same in each run).
fn random_addresses() -> Vec<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        BASE + state % (LINES * FUNCTION_SIZE)
    };
    (0..ADDRESSES).map(|_| next()).collect()
}

fn build(c: &mut Criterion) {
    let text = kallsyms();
    let mut group = c.benchmark_group("build");
    group.sample_size(20).throughput(Throughput::Elements(LINES));
    let input = || text.as_str();
    group.bench_function("SymbolTable", |b| {
        b.iter_batched(input, |text| SymbolTable::from_kallsyms(text.as_bytes()), BatchSize::PerIteration);
    });
    group.bench_function("BTreeMap", |b| b.iter_batched(input, ordered_map, BatchSize::PerIteration));
    group.finish();
}

fn lookup(c: &mut Criterion) {
    let text = kallsyms();
    let table = SymbolTable::from_kallsyms(text.as_bytes()).unwrap();
    let map = ordered_map(&text);
    let random = random_addresses();
    // A profile's hot spots: few addresses, often.
    let repeated: Vec<u64> = random.iter().copied().take(20).cycle().take(ADDRESSES).collect();
    for (name, addresses) in [("lookup-random", random), ("lookup-repeated", repeated)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(addresses.len() as u64));
        group.bench_function("SymbolTable", |b| {
            b.iter(|| {
                addresses
                    .iter()
                    .filter_map(|&a| table.lookup(black_box(a)))
                    .map(|s| s.name.len())
                    .sum::<usize>()
            });
        });
        group.bench_function("BTreeMap", |b| {
            b.iter(|| {
                let name = |&a| map.range(..=black_box(a)).next_back().map(|(_, name)| name.len());
                addresses.iter().filter_map(name).sum::<usize>()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, build, lookup);
criterion_main!(benches);
