//! More events than counters: what is scaled up must come to what really happened.

use abi::pmu::EventConfig;

use crate::{
    Sampled, at, config,
    model::{Cpu, Kind, kernel},
    plan,
};

const CODES: [u64; 8] = [0x76, 0xc1, 0x7d, 0x7e, 0xc2, 0xc3, 0xd0, 0xd1];

/// How much happens at once, in microseconds.
const STEP_US: u64 = 10;

/// How many events of each code happen in a microsecond: steady ones, ones in phases of some milliseconds, rare ones.
fn load(us: u64) -> [u64; 8] {
    let phase = us / 7_300 % 3;
    let burst = us % 50_000 < 10_000;
    [
        3_000,
        2_000 + 1_500 * phase,
        40,
        if burst { 25 } else { 1 },
        400,
        if phase == 1 { 30 } else { 5 },
        900 - 300 * phase,
        700,
    ]
}

#[test]
fn scaled_counts_are_within_two_percent_of_the_truth() {
    for kind in [Kind::Legacy, Kind::AmdV2, Kind::Intel(1), Kind::Intel(3), Kind::Intel(5)] {
        let events: Vec<EventConfig> = CODES
            .iter()
            .map(|&code| EventConfig { interval_ns: 1_000_000, ..config(code, 10_000) })
            .collect();
        let mut sampled = Sampled::running(Cpu::new(kind), &events);
        let mut truth = [0; 8];
        let (mut next, mut state) = (4_000, 9u64);
        for us in (0..10_000_000).step_by(STEP_US as usize) {
            let happened = load(us);
            let work: [_; 8] = std::array::from_fn(|event| kernel(CODES[event], STEP_US * happened[event]));
            sampled.work(STEP_US * 1_000, &work);
            truth.iter_mut().zip(happened).for_each(|(sum, count)| *sum += STEP_US * count);
            if us >= next {
                sampled.unit.tick(&sampled.plan, &sampled.cpu, at(sampled.now));
                // Every four milliseconds, give or take a fifth.
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                next = us + 3_200 + (state >> 33) % 1_601;
            }
        }
        for (event, truth) in truth.into_iter().enumerate() {
            let ratio = sampled.weight(event as u16) as f64 / truth as f64;
            assert!((ratio - 1.0).abs() < 0.02, "{kind:?}, event {event}: {ratio:.4} of the truth");
            let samples = sampled.taken.iter().filter(|due| due.event == event as u16).count();
            // The rate that was asked for; in bursts it is hit less well.
            let is_steady = [0, 4, 7].contains(&event);
            assert!(!is_steady || samples.abs_diff(10_000) < 1_000, "{kind:?}, event {event}: {samples}");
        }
    }
}

#[test]
fn every_event_gets_its_turn_and_rooms_left_are_shared_out() {
    let cpu = Cpu::new(Kind::Legacy);
    let events = |count: usize| CODES[..count].iter().map(|&code| config(code, 100_000)).collect::<Vec<_>>();
    let scales = |count: usize| {
        let plan = plan(&cpu, &events(count), 0).unwrap();
        (plan.slices(), (0..count as u8).map(|event| plan.scale(event)).collect::<Vec<_>>())
    };
    assert_eq!(scales(4), (1, vec![(1, 1); 4]));
    // Five events on four counters in two slices: eight rooms.
    assert_eq!(scales(5), (2, vec![(2, 2), (2, 2), (2, 2), (2, 1), (2, 1)]));
    assert_eq!(scales(8), (2, vec![(2, 1); 8]));
}

#[test]
fn a_fixed_counter_keeps_its_event_out_of_the_turns() {
    let cpu = Cpu::new(Kind::Intel(3));
    let codes = [0xc0, 0x3c, 0x7d, 0x7e, 0xc2];
    let events = codes.map(|code| config(code, 100_000));
    let plan = plan(&cpu, &events, 0).unwrap();
    // Two general counters for three events.
    let scales: Vec<_> = (0..5).map(|event| plan.scale(event)).collect();
    assert_eq!(scales, [(2, 2), (2, 2), (2, 2), (2, 1), (2, 1)]);
}
