//! The counters' logic on a model of every generation.

mod life;
mod model;
mod multiplexed;
mod programming;
mod trusted;

use abi::pmu::{EventConfig, MODES, Unusable};
use sampler::pmu::{Counters, Due, Event, Moment, Nmi, Plan, Pmu, Unit};

use crate::model::Cpu;

/// An event at a fixed period, in all modes.
fn config(selector: u64, period: u64) -> EventConfig {
    EventConfig { selector, period, interval_ns: 0, modes: MODES }
}

fn plan(cpu: &Cpu, events: &[EventConfig], leave: Counters) -> Result<Plan, Unusable> {
    let events: Vec<Event> = events.iter().map(|config| Event::of(config).unwrap()).collect();
    Plan::new(Pmu::probe(cpu).unwrap(), &events, leave, false)
}

fn at(now: u64) -> Moment {
    Moment { now, awake: now, shortest: 0 }
}

/// A CPU with the unit that samples it.
struct Sampled {
    cpu: Cpu,
    plan: Plan,
    unit: Unit,
    now: u64,
    taken: Vec<Due>,
}

impl Sampled {
    fn running(cpu: Cpu, events: &[EventConfig]) -> Self {
        let plan = plan(&cpu, events, 0).unwrap();
        let mut unit = Unit::new(&plan, 5);
        unit.run(&plan, &cpu, at(1_000));
        Self { cpu, plan, unit, now: 1_000, taken: Vec::new() }
    }

    /// What an NMI comes to.
    fn nmi(&mut self) -> Nmi {
        self.cpu.nmi.set(false);
        let taken = &mut self.taken;
        self.unit.interrupt(&self.plan, &self.cpu, at(self.now), |due| taken.extend(due))
    }

    /// Some time passes with some work in it; NMIs are served at once.
    fn work(&mut self, ns: u64, work: &[model::Work]) {
        self.now += ns;
        for &work in work {
            self.cpu.work(work);
            while self.cpu.nmi.get() {
                self.nmi();
            }
        }
    }

    fn weight(&self, event: u16) -> u64 {
        self.taken.iter().filter(|due| due.event == event).map(|due| due.weight).sum()
    }
}
