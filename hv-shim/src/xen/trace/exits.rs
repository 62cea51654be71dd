//! What it costs that guests are left: by vCPU, reason and place, from leaving a guest until it is entered again.

use std::collections::HashMap;

use profile::ExitCost;

use super::{
    clocks::Seen,
    reasons::Reason,
    records::{Runstate, Told, Vcpu},
};

/// More places than anybody looks at; what exceeds them has no place.
const MOST_ROWS: usize = 16_384;

/// Who left, why, and where; nowhere where that is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaving {
    pub(super) vcpu: Vcpu,
    pub(super) reason: Reason,
    pub(super) at: Option<u64>,
}

/// Exits on their way, and what they cost since this was asked last. Costs are in cycles.
#[derive(Default)]
pub(super) struct Exits {
    /// Which vCPU each CPU runs.
    current: HashMap<u32, Vcpu>,
    /// Who has left and was not entered again: since when, and what for.
    out: HashMap<Vcpu, (u64, Leaving)>,
    rows: HashMap<Leaving, ExitCost>,
    /// How many are left out, because records of them, or of who ran, are missing.
    pub(super) nobodys: u64,
}

impl Exits {
    /// Takes what a CPU tells.
    pub(super) fn told(&mut self, at: u64, cpu: u32, told: &Told) {
        match *told {
            Told::Changed { vcpu, new: Runstate::Running, .. } | Told::Continues(vcpu) => {
                self.current.insert(cpu, vcpu);
            }
            Told::Changed { .. } => {}
            Told::Lost { .. } => {
                self.current.remove(&cpu);
                // Whoever was out may have been entered meanwhile.
                self.nobodys += self.out.len() as u64;
                self.out.clear();
            }
            Told::Left { reason, at: place } => {
                let Some(&vcpu) = self.current.get(&cpu).filter(|vcpu| vcpu.is_guests()) else {
                    self.nobodys += 1;
                    return;
                };
                let leaving = Leaving { vcpu, reason, at: place };
                match reason.is_exit() {
                    true => drop(self.out.insert(vcpu, (at, leaving))),
                    // Nothing tells when a paravirtualized guest goes on.
                    false => self.count(leaving, 0),
                }
            }
            Told::Enters => {
                let vcpu = self.current.get(&cpu);
                if let Some((since, leaving)) = vcpu.and_then(|vcpu| self.out.remove(vcpu)) {
                    self.count(leaving, at.saturating_sub(since));
                }
            }
        }
    }

    /// Takes what Xen says of a vCPU for a CPU of which nothing else is known.
    pub(super) fn seen(&mut self, vcpu: Vcpu, seen: &Seen) {
        if seen.state == Runstate::Running {
            self.current.entry(seen.cpu).or_insert(vcpu);
        }
    }

    fn count(&mut self, mut leaving: Leaving, cycles: u64) {
        if self.rows.len() >= MOST_ROWS && !self.rows.contains_key(&leaving) {
            leaving.at = None;
        }
        let cost = ExitCost { count: 1, total_ns: cycles, longest_ns: cycles };
        self.rows.entry(leaving).or_default().add(cost);
    }

    /// What exits have cost since this was asked last.
    pub(super) fn take(&mut self, ns_per_cycle: f64) -> impl Iterator<Item = (Leaving, ExitCost)> + '_ {
        let ns = move |cycles: u64| (cycles as f64 * ns_per_cycle) as u64;
        self.rows.drain().map(move |(leaving, cost)| {
            let cost =
                ExitCost { total_ns: ns(cost.total_ns), longest_ns: ns(cost.longest_ns), count: cost.count };
            (leaving, cost)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Vcpu = Vcpu { domain: 1, index: 0 };
    const OTHER: Vcpu = Vcpu { domain: 2, index: 3 };
    const HLT: Reason = Reason::Svm(0x78);
    const IO: Reason = Reason::Svm(0x7b);

    fn runs(vcpu: Vcpu) -> Told {
        Told::Changed { vcpu, old: Runstate::Runnable, new: Runstate::Running }
    }

    fn left(reason: Reason, at: u64) -> Told {
        Told::Left { reason, at: Some(at) }
    }

    fn rows(exits: &mut Exits) -> Vec<(Vcpu, Reason, Option<u64>, u64, u64, u64)> {
        let mut rows: Vec<_> = exits
            .take(0.5)
            .map(|(leaving, cost)| {
                (leaving.vcpu, leaving.reason, leaving.at, cost.count, cost.total_ns, cost.longest_ns)
            })
            .collect();
        rows.sort_by_key(|&(vcpu, .., total, _)| (vcpu, total));
        rows
    }

    #[test]
    fn an_exit_lasts_until_the_guest_is_entered_wherever_that_is() {
        let mut exits = Exits::default();
        let mut told = |at, cpu, told| exits.told(at, cpu, &told);
        told(100, 0, runs(ONE));
        told(200, 0, left(IO, 0x1000));
        told(300, 0, Told::Enters);
        told(400, 0, left(IO, 0x1000));
        told(440, 0, Told::Enters);
        // It waits for something, and another runs meanwhile.
        told(500, 0, left(HLT, 0x2000));
        told(510, 0, runs(OTHER));
        told(600, 0, left(HLT, 0x3000));
        told(900, 1, runs(ONE));
        told(910, 1, Told::Enters);
        told(920, 0, Told::Enters);
        let expected = [
            (ONE, IO, Some(0x1000), 2, 70, 50),
            (ONE, HLT, Some(0x2000), 1, 205, 205),
            (OTHER, HLT, Some(0x3000), 1, 160, 160),
        ];
        assert_eq!(rows(&mut exits), expected);
        assert!(rows(&mut exits).is_empty(), "told once");
    }

    #[test]
    fn what_is_missing_is_no_exit() {
        let mut exits = Exits::default();
        // Nobody knows who runs.
        exits.told(100, 0, &left(HLT, 1));
        exits.told(110, 0, &Told::Enters);
        exits.told(120, 0, &Told::Continues(ONE));
        exits.told(130, 0, &left(HLT, 2));
        exits.told(140, 0, &Told::Lost { count: 7, since: 135 });
        exits.told(150, 0, &Told::Enters);
        // The idle vCPU of a CPU is no guest.
        exits.told(160, 0, &runs(Vcpu { domain: 0x7fff, index: 0 }));
        exits.told(170, 0, &left(HLT, 3));
        assert!(rows(&mut exits).is_empty());
        assert_eq!(exits.nobodys, 3);
    }

    #[test]
    fn paravirtualized_guests_ways_to_xen_are_counted() {
        let mut exits = Exits::default();
        exits.told(100, 0, &runs(ONE));
        for _ in 0..3 {
            exits.told(110, 0, &Told::Left { reason: Reason::PvHypercall(23), at: None });
        }
        assert_eq!(rows(&mut exits), [(ONE, Reason::PvHypercall(23), None, 3, 0, 0)]);
    }

    #[test]
    fn places_are_bounded() {
        let mut exits = Exits::default();
        exits.told(0, 0, &runs(ONE));
        for place in 0..MOST_ROWS as u64 + 10 {
            exits.told(1, 0, &left(IO, place));
            exits.told(2, 0, &Told::Enters);
        }
        let rows = rows(&mut exits);
        assert_eq!(rows.len(), MOST_ROWS + 1);
        assert!(rows.contains(&(ONE, IO, None, 10, 5, 0)), "{:?}", rows.last());
    }
}
