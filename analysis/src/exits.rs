//! VM exits: why vCPUs left a row's guests, what that cost, and which functions caused it.

use std::{cmp::Reverse, collections::HashMap};

use profile::{ExitCost, NameId, recording::Recorded};

use crate::{
    functions::{Function, name},
    report::{ExitFunctionReport, ExitReport, seconds},
    rows::Row,
};

/// What the exits for one reason cost, all of them and function by function.
#[derive(Default)]
struct Reason {
    all: ExitCost,
    functions: HashMap<Function, (String, ExitCost)>,
}

/// The reasons of a row, those that took longest first.
pub(crate) fn exits(row: &Row, recorded: &Recorded) -> Vec<ExitReport> {
    let tables = &recorded.tables;
    let mut reasons: HashMap<NameId, Reason> = HashMap::new();
    for (&(place, reason), &cost) in &recorded.exits {
        let place = tables.place(place);
        if !place.charged_to.is_some_and(|domain| row.boots.contains(&domain)) {
            continue;
        }
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
