//! Sums that are kept up while samples come and go are those that counting anew would give.

use std::collections::BTreeMap;

use analysis::Aggregate;
use profile::{
    DomainKind, EventId, Mode, Space, Time,
    recording::{Recording, Told},
};
use tui::{Group, Kind, Limits, Scope, State};

use crate::machine::{Machine, SECOND, STARTED, Where, at, state, told, usual};

/// All that is shown, by name.
fn sums(state: &State) -> BTreeMap<String, Vec<u64>> {
    let rows = state.rows().map(|row| (format!("row {}", row.name), vec![row.sums.weight, row.sums.samples]));
    let rows = rows.filter(|(_, sums)| sums[1] > 0);
    let functions = state.functions().map(|function| {
        let (name, _) = state.function_name(function.id);
        let row = state.row(function.key.row).name;
        let key = format!("function {row} {name} {:?}", function.key.function.mode);
        (key, vec![function.own, function.total, function.samples, function.before])
    });
    let groups = state
        .groups(None)
        .map(|(_, row, group, sums)| (format!("group {row:?} {group:?}"), sums.modes.to_vec()));
    let flames = state.root(state.scope()).map(|root| ("flames".to_owned(), vec![state.weight(root)]));
    rows.chain(functions).chain(groups).chain(flames).collect()
}

/// A machine whose functions come and go: 400 new ones each second.
fn changing(seconds: u64) -> Vec<u8> {
    let mut machine = Machine::with_events(&["one", "two"]);
    let domain = machine.domain(1, 1, "alpha", DomainKind::Pv, at(1));
    let process = machine.process(0, domain, 1, "init");
    for second in 0..seconds {
        for step in 0..400u64 {
            let inner = format!("f{}", second * 400 + step);
            let outer = format!("g{}", step % 7);
            let (space, process, mode) = match step % 3 {
                0 => (Space::Kernel(domain), None, Mode::Kernel),
                _ => (Space::User(domain, process), Some(process), Mode::User),
            };
            // The same function twice in some chains.
            let chain = machine.chain(space, "m", &[(&inner, 1), (&outer, 2), (&outer, 3), ("main", 4)]);
            let place = Where { domain: Some(domain), process, mode, chain };
            machine.sample_of(at(second * 1000 + step * 2), place, EventId((step % 2) as u16), step + 1);
        }
        machine.snapshot(at(second * 1000 + 900), 0, &[]);
    }
    machine.finish(at(seconds * 1000))
}

#[test]
fn moving_is_as_counting_anew() {
    let recording = changing(60);
    let (mut moved, all) = told(&recording);
    let alpha = |state: &State| state.rows().find(|row| row.name == "alpha").unwrap().id;
    let moves: [fn(&mut State); 8] = [
        |state| state.set_window(3),
        |state| state.set_window(20),
        |state| state.look(-5),
        |state| state.freeze(false),
        |state| state.set_event(EventId(1)),
        |state| state.look(3),
        |state| state.set_event(EventId(0)),
        |state| state.freeze(false),
    ];
    for (at, told) in all.iter().enumerate() {
        moved.take(told.clone()).unwrap();
        if at > 3 && at % 5 == 0 {
            moves[at / 5 % moves.len()](&mut moved);
            let scope = match at % 3 {
                0 => Scope::Machine,
                1 => Scope::Row(alpha(&moved)),
                _ => Scope::Group(alpha(&moved), Group::Mode(Mode::Kernel)),
            };
            moved.set_scope(scope);
        }
    }
    moved.freeze(false);
    moved.set_window(7);
    moved.set_event(EventId(1));
    for scope in
        [Scope::Machine, Scope::Row(alpha(&moved)), Scope::Group(alpha(&moved), Group::Mode(Mode::Kernel))]
    {
        let (mut fresh, all) = told(&recording);
        fresh.set_scope(scope);
        fresh.set_window(7);
        fresh.set_event(EventId(1));
        all.into_iter().for_each(|told| fresh.take(told).unwrap());
        moved.set_scope(scope);
        assert_eq!(sums(&moved), sums(&fresh), "{scope:?}");
        assert!(moved.in_scope().samples > 0 && moved.in_scope_before() > 0);
    }
}

/// What nobody can look back at any more is dropped.
#[test]
fn memory_is_bounded_by_what_is_kept() {
    let limits = Limits { slices: 20, bytes: 1 << 20 };
    let recording = changing(120);
    let mut reader = Recording::read(&recording[..]).unwrap();
    let mut state = State::new(reader.header().clone(), limits, 10);
    let mut most = 0;
    loop {
        let told = reader.read_next().unwrap();
        let is_last = told.is_last();
        state.take(told).unwrap();
        assert!(state.memory().samples <= limits.bytes + (64 << 10));
        most = most.max(state.function_count());
        if is_last {
            break;
        }
    }
    assert_eq!((state.history_s(), state.samples()), (20, 19 * 400));
    // 48,000 functions came and went.
    assert!(most < 25_000, "{most}");
    assert!(state.function_count() < 25_000);
}

#[test]
fn shares_are_those_of_the_report() {
    let recording = usual(0);
    let report = Aggregate::of(Recording::read(&recording[..]).unwrap()).unwrap().report();
    let mut state = state(&recording);
    state.set_window(600);
    for domain in &report.events[0].domains {
        let row = state.rows().find(|row| row.name == domain.name).unwrap();
        assert_eq!((row.sums.weight, row.sums.samples), (domain.weight, domain.samples), "{}", domain.name);
        assert_eq!(row.sums.modes, Mode::ALL.map(|mode| domain.modes.get(mode)), "{}", domain.name);
        state.set_scope(Scope::Row(row.id));
        for function in &domain.functions {
            let found = state.functions().find(|found| {
                state.function_name(found.id).0 == function.name && found.key.function.mode == function.mode
            });
            let found = found.unwrap();
            assert_eq!((found.own, found.total), (function.self_weight, function.total), "{}", function.name);
        }
    }
}

/// A window that is written and read again is the window.
#[test]
fn a_written_window_is_a_recording() {
    let mut state = state(&usual(0));
    state.set_window(5);
    state.look(-3);
    let written = state.export().unwrap();
    let report = Aggregate::of(Recording::read(&written[..]).unwrap()).unwrap().report();
    assert_eq!(report.events[0].weight, state.busy());
    assert_eq!(report.events[0].samples, 500);
    for domain in &report.events[0].domains {
        let row = state.rows().find(|row| row.name == domain.name).map_or(0, |row| row.sums.weight);
        assert_eq!(row, domain.weight, "{}", domain.name);
    }
    let alpha = report.events[0].domains.iter().find(|domain| domain.name == "alpha").unwrap();
    let main = alpha.functions.iter().find(|function| function.name == "main").unwrap();
    assert_eq!(main.total, 5 * 48 * 1_000_000);
}

#[test]
fn what_happens_is_told() {
    let state = state(&usual(250));
    let told: Vec<(Kind, &str)> =
        state.log().newest_first().map(|entry| (entry.kind, entry.text.as_str())).collect();
    let kinds: Vec<Kind> = told.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::End, Kind::Loss, Kind::Rebooted, Kind::Died, Kind::Note], "{told:?}");
    assert_eq!(told[1].1, "250 samples were lost: ring-full 250");
    assert!(told[2].1.starts_with("beta (number 5"), "{told:?}");
    let beta: Vec<u32> = state.rows().filter(|row| row.name == "beta").filter_map(|row| row.number).collect();
    assert_eq!(beta, [5], "both boots are one row");
}

/// A guest that goes on in another place was neither born nor did it die.
#[test]
fn a_move_is_told_as_one() {
    let mut machine = Machine::new();
    let old = machine.domain(1, 3, "alpha", DomainKind::Pv, at(1));
    machine.moved(old, 3, 2, (at(2000), at(3500)));
    let new = machine.domain(2, 7, "alpha", DomainKind::Pv, at(3500));
    machine.gone(old, at(4000));
    let state = state(&machine.finish(at(5000)));
    let told: Vec<(Kind, &str)> =
        state.log().newest_first().map(|entry| (entry.kind, entry.text.as_str())).collect();
    let text = "alpha (number 7, pv, 1 vCPUs) goes on here: it was number 3, and ran nowhere for 1.5 s";
    assert!(matches!(told[..], [(Kind::End, _), (Kind::Moved, moved)] if moved == text), "{told:?}");
    assert!(state.rows().any(|row| row.number == Some(7)), "{new:?} is there");
}

/// While samples wait for their names, the window stays where samples are; when none is left, it goes on.
#[test]
fn the_window_waits_for_samples() {
    let mut machine = Machine::new();
    let domain = machine.domain(1, 1, "alpha", DomainKind::Pv, at(1));
    let chain = machine.chain(Space::Kernel(domain), "m", &[("f", 1)]);
    let place = Where { domain: Some(domain), process: None, mode: Mode::Kernel, chain };
    machine.sample(at(100), place);
    for second in 1..8 {
        machine.samples_wait(at(200));
        machine.snapshot(at(1000 * second), 0, &[]);
    }
    machine.sample(at(1500), place);
    machine.sample(at(6000), place);
    machine.snapshot(at(8000), 0, &[]);
    let recording = machine.finish(at(20_000));
    let (mut state, all) = told(&recording);
    state.set_window(2);
    let mut seen = Vec::new();
    for told in all {
        state.take(told).unwrap();
        seen.push((state.elapsed_ns() / SECOND, state.behind_s(), state.busy() > 0));
    }
    assert!(seen.contains(&(7, 6, true)), "{seen:?}");
    assert!(seen.contains(&(8, 0, false)) && seen.ends_with(&[(20, 0, false)]), "{seen:?}");
    let leaps = state.log().newest_first().filter(|entry| entry.kind == Kind::Clock).count();
    assert_eq!(leaps, 0, "what waited is not another clock's");
}

/// Clocks leap when machines are suspended, restored or hostile.
#[test]
fn leaps_of_the_clock_are_told_and_survived() {
    let mut machine = Machine::new();
    let domain = machine.domain(1, 1, "alpha", DomainKind::Pv, at(1));
    let chain = machine.chain(Space::Kernel(domain), "m", &[("f", 1)]);
    let place = Where { domain: Some(domain), process: None, mode: Mode::Kernel, chain };
    let times = [at(100), at(1200), Time(STARTED + 5000 * SECOND), at(300), Time(0), Time(u64::MAX), at(1)];
    for time in times {
        machine.sample(time, place);
        machine.flush();
    }
    let mut state = state(&machine.finish(at(2000)));
    let leaps = state.log().newest_first().filter(|entry| entry.kind == Kind::Clock).count();
    assert!(leaps >= 2, "{:?}", state.log());
    state.set_window(600);
    state.look(-100);
    state.freeze(false);
    assert!(state.rows().any(|row| row.sums.samples > 0));
}

/// A file may claim what it likes.
#[test]
fn what_refers_to_nothing_is_refused() {
    let (mut state, all) = told(&usual(0));
    let samples = all.into_iter().find(|told| matches!(told, Told::Samples(_))).unwrap();
    assert!(state.take(samples).is_err());
    assert_eq!(state.busy(), 0);
}
