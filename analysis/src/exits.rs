//! VM exits: why vCPUs left a row's guests, what that cost, and which functions caused it.

use std::{cmp::Reverse, collections::HashMap};

use profile::{
    DomainId, EventId, ExitCost, Mode, NameId, Process, Source,
    recording::{Place, Recorded, Tables},
};

use crate::{
    aggregate::Aggregate,
    functions::{Function, name},
    processes::label,
    report::{EventReport, ExitFunctionReport, ExitReport, Modes, Report, seconds, share},
    rows::{Row, rows},
    stacks::{Layer, Stack},
};

/// Reasons for which a guest is left that has nothing to do: how long that takes says nothing of what exits cost.
const IDLE: [&str; 3] = ["hlt", "idle-hlt", "mwait"];

impl Report {
    /// The exits as an event whose weight is their time, for pictures; none where none were recorded. Exits in which
    /// the guest had nothing to do are left out. Its domains are those of the first event, in their order; nothing is said of
    /// functions.
    pub fn exits(&self) -> Option<EventReport> {
        let mut event = self.events.first()?.clone();
        let costs: Vec<(u64, u64)> = event
            .domains
            .iter()
            .map(|domain| {
                let busy = domain.exits.iter().filter(|exit| !IDLE.contains(&&*exit.reason));
                busy.fold((0, 0), |(count, ns): (u64, u64), exit| {
                    (count.saturating_add(exit.count), ns.saturating_add((exit.total_s * 1e9).round() as u64))
                })
            })
            .collect();
        event.weight = costs.iter().fold(0, |sum, (_, ns)| sum.saturating_add(*ns));
        event.samples = costs.iter().fold(0, |sum, (count, _)| sum.saturating_add(*count));
        if event.weight == 0 {
            return None;
        }
        for (domain, (count, ns)) in event.domains.iter_mut().zip(costs) {
            (domain.samples, domain.weight, domain.share) = (count, ns, share(ns, event.weight));
            domain.modes = Modes { hypervisor: ns, ..Modes::default() };
            domain.functions.clear();
            domain.processes.clear();
        }
        event.modes = Modes { hypervisor: event.weight, ..Modes::default() };
        (event.name, event.unit, event.rate_hz) = ("VM exits".to_owned(), "ns".to_owned(), 0.0);
        (event.source, event.bias) = (Source::ExitTrace, Source::ExitTrace.bias());
        // Nothing of the books of samples.
        event.lost.clear();
        (event.taken, event.filtered) = (Some(event.samples), Some(0));
        Some(event)
    }
}

impl Aggregate {
    /// The stacks of [`Report::exits`]: what guests were doing, and on top of it why they were left.
    pub fn exit_stacks(&self) -> impl Iterator<Item = Stack> {
        let tables = &self.recorded.tables;
        let rows = rows(self, EventId(0)).into_iter().enumerate();
        let all = rows.flat_map(|(domain, row)| {
            of_row(&row, &self.exits).map(|exits| (domain, exits)).collect::<Vec<_>>()
        });
        let busy = all.filter(|&(_, (_, reason, _))| !IDLE.contains(&tables.name(reason)));
        busy.map(|(domain, (place, reason, cost))| {
            let process = place.process.map(|id| tables.process(id));
            let own = |process: &&Process| place.charged_to == Some(process.domain);
            let process = process.filter(own).map_or_else(|| place.mode.to_string(), label);
            let layers = vec![
                Layer { name: process, mode: place.mode },
                Layer { name: name(tables.frame(tables.chain(place.chain).frame), tables), mode: place.mode },
                Layer { name: tables.name(reason).to_owned(), mode: Mode::Hypervisor },
            ];
            Stack { domain, layers, weight: cost.total_ns }
        })
    }
}

/// The exits of each domain: where it was left, why, and what that cost.
pub(crate) type ExitsByDomain = HashMap<DomainId, Vec<(Place, NameId, ExitCost)>>;

/// All exits of a recording; none that are nobody's.
pub(crate) fn by_domain(recorded: &Recorded) -> ExitsByDomain {
    let mut domains = ExitsByDomain::new();
    for (&(place, reason), &cost) in &recorded.exits {
        let place = recorded.tables.place(place);
        if let Some(domain) = place.charged_to {
            domains.entry(domain).or_default().push((place, reason, cost));
        }
    }
    domains
}

/// Those of all boots of a row.
fn of_row(row: &Row, exits: &ExitsByDomain) -> impl Iterator<Item = (Place, NameId, ExitCost)> {
    row.boots.iter().filter_map(|boot| exits.get(boot)).flatten().copied()
}

/// What the exits for one reason cost, all of them and function by function.
#[derive(Default)]
struct Reason {
    all: ExitCost,
    functions: HashMap<Function, (String, ExitCost)>,
}

/// The reasons of a row, those that took longest first.
pub(crate) fn reasons(row: &Row, exits: &ExitsByDomain, tables: &Tables) -> Vec<ExitReport> {
    let mut reasons: HashMap<NameId, Reason> = HashMap::new();
    for (place, reason, cost) in of_row(row, exits) {
        let frame = tables.frame(tables.chain(place.chain).frame);
        let reason = reasons.entry(reason).or_default();
        reason.all.add(cost);
        let function = reason.functions.entry(Function::of(frame, place.mode));
        function.or_insert_with(|| (name(frame, tables), ExitCost::default())).1.add(cost);
    }
    let mut exits: Vec<ExitReport> = reasons
        .into_iter()
        .map(|(reason, Reason { all, functions })| {
            let mut functions: Vec<ExitFunctionReport> = functions
                .into_iter()
                .map(|(function, (name, cost))| ExitFunctionReport {
                    name,
                    module: function.module.map(|module| tables.name(module).to_owned()),
                    mode: function.mode,
                    count: cost.count,
                    total_s: seconds(cost.total_ns),
                    longest_us: cost.longest_ns as f64 / 1e3,
                })
                .collect();
            functions.sort_by(|a, b| {
                b.total_s.total_cmp(&a.total_s).then_with(|| (&a.name, &a.module).cmp(&(&b.name, &b.module)))
            });
            ExitReport {
                reason: tables.name(reason).to_owned(),
                count: all.count,
                total_s: seconds(all.total_ns),
                longest_us: all.longest_ns as f64 / 1e3,
                functions,
            }
        })
        .collect();
    exits.sort_by(|a, b| {
        let key = |exit: &ExitReport| (Reverse(exit.count), exit.reason.clone());
        b.total_s.total_cmp(&a.total_s).then_with(|| key(a).cmp(&key(b)))
    });
    exits
}
