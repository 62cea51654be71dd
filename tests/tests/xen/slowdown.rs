//! What does a guest get done while it is sampled?

use crate::{
    figures,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();

fn slowed() -> &'static Host {
    host(&BOOTED, "slowdown")
}

/// Turns per second of time and per second of CPU.
#[derive(Clone, Copy, Default)]
struct Turns {
    turns: f64,
    wall_s: f64,
    cpu_s: f64,
}

/// What a guest got done while it was sampled, compared with what it got done just before and after: figures, which no
/// limit is set to. The emulator makes readings and interrupts far dearer than a processor does.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_what_a_guest_gets_done_while_it_is_sampled_is_shown() {
    let step = slowed().step("stretches").ended(0).left_nothing_loaded();
    let console = slowed().text("console/delta.log");
    let lines: Vec<[f64; 3]> = console.lines().filter_map(turns).collect();
    let mut stretches: Vec<(&str, &str, Turns)> = Vec::new();
    for line in step.stdout.lines() {
        let Some(["stretch", source, hz, before, after]) =
            line.split(' ').collect::<Vec<_>>().first_chunk::<5>().copied()
        else {
            continue;
        };
        // The line that began before the stretch is not of it.
        let (from, to): (usize, usize) = (before.parse().unwrap(), after.parse().unwrap());
        let mut all = Turns::default();
        for [turns, wall_ns, cpu_ns] in lines.get(from + 1..to).unwrap_or_default() {
            all.turns += turns;
            all.wall_s += wall_ns / 1e9;
            all.cpu_s += cpu_ns / 1e9;
        }
        stretches.push((source, hz, all));
    }
    // Every other one is without sampling.
    assert_eq!(stretches.len(), 2 * 9 + 1);
    for around in stretches.windows(3).step_by(2) {
        let [("none", _, before), (source, hz, with), ("none", _, after)] = around else {
            panic!("{source} is not between two without", source = around[1].0)
        };
        assert!(with.turns > 0.0, "{source} at {hz} Hz: the guest stood still");
        let ratio = |per: fn(&Turns) -> f64| {
            let without = (before.turns + after.turns) / (per(before) + per(after));
            with.turns / per(with) / without
        };
        figures::figure(
            format_args!("turns of a guest by {source} at {hz} Hz, of those without"),
            format_args!(
                "{:.3} per second, {:.3} per second of CPU",
                ratio(|turns| turns.wall_s),
                ratio(|turns| turns.cpu_s)
            ),
        );
    }
}

/// The numbers of `turns: N in N ns wall, N ns cpu`.
fn turns(line: &str) -> Option<[f64; 3]> {
    let (_, numbers) = line.split_once("turns: ")?;
    let mut numbers = numbers.split(' ').filter_map(|word| word.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}
