//! What a frame costs, and what a sample costs, beside each other: with 1,000 domains and 100,000 functions in the window,
//! and with ten and a thousand.

mod crowd;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use profile::recording::{Recording, Told};
use ratatui::{
    buffer::Buffer,
    crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyModifiers},
    layout::Rect,
};
use tui::{Colors, Limits, Screen, State, Theme, draw, handle};

const THEME: Theme = Theme { colors: Colors::True, light: false, ascii: false };

fn told(recording: &[u8]) -> (State, Vec<Told>) {
    let mut reader = Recording::read(recording).unwrap();
    let state = State::new(reader.header().clone(), Limits::default(), 10);
    let mut told = Vec::new();
    while told.last().is_none_or(|told: &Told| !told.is_last()) {
        told.push(reader.read_next().unwrap());
    }
    (state, told)
}

fn benches(criterion: &mut Criterion) {
    for (domains, functions) in [(10, 1_000), (1_000, 100_000)] {
        let size = format!("{domains} domains, {functions} functions");
        let recording = crowd::write(Vec::new(), domains, functions, 10);
        let (mut state, all) = told(&recording);
        all.iter().for_each(|told| state.take(told.clone()).unwrap());
        let memory = state.memory();
        println!("{size}: {} samples, {memory:?}", state.samples());

        let mut group = criterion.benchmark_group("frame of 200x60");
        for (view, keys) in [("domains", ""), ("functions", "3"), ("callers", "3\n"), ("flame", "6")] {
            let mut buffer = Buffer::empty(Rect { x: 0, y: 0, width: 200, height: 60 });
            let mut screen = Screen::new("LIVE");
            for key in keys.chars() {
                draw(Some(&mut state), &mut screen, THEME, &mut buffer);
                let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
                handle(&Input::Key(KeyEvent::new(code, KeyModifiers::NONE)), Some(&mut state), &mut screen);
            }
            group.bench_function(BenchmarkId::new(view, &size), |bencher| {
                bencher.iter(|| {
                    buffer.reset();
                    draw(Some(&mut state), &mut screen, THEME, black_box(&mut buffer));
                });
            });
        }
        group.finish();

        let mut group = criterion.benchmark_group("samples taken in");
        group.throughput(Throughput::Elements(u64::from(functions) * 2));
        group.sample_size(10);
        group.bench_function(&size, |bencher| {
            bencher.iter_batched(
                || told(&recording),
                |(mut state, all)| {
                    all.into_iter().for_each(|told| state.take(told).unwrap());
                    state
                },
                criterion::BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

criterion_group!(frames, benches);
criterion_main!(frames);
