//! One run: what each subject weighed in one recording.

use std::collections::BTreeMap;

use profile::{EventId, Mode, Source, recording::Completeness};

use crate::{Aggregate, DomainReport, FunctionReport, report::share};

use super::{
    glob,
    subject::{Subject, stable_name},
};

/// Which names of domains mean the same: the first pattern that fits gives the name to compare by.
pub type Aliases = Vec<(String, String)>;

/// What one recording says of one event.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the caller calls it.
    pub label: String,
    /// Where it was made: host's name, hypervisor, number of CPUs.
    pub host: (String, String, u32),
    /// The kernel of dom0 or of the host.
    pub kernel: String,
    /// What was sampled: name, unit, source.
    pub event: (String, String, Source),
    /// Samples in it.
    pub samples: u64,
    /// The part of the samples that was lost, as far as it is known.
    pub lost: Option<f64>,
    /// Whether it was finished.
    pub whole: bool,
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Busy weight, of which shares are.
    pub busy: u64,
    /// What each subject weighed.
    pub weights: BTreeMap<Subject, u64>,
}

impl Run {
    /// Takes an event of a recording; none if the recording has no such event.
    pub fn of(aggregate: &Aggregate, event: Option<&str>, aliases: &Aliases, label: &str) -> Option<Self> {
        let report = aggregate.report();
        let place = match event {
            Some(name) => report.events.iter().position(|event| event.name == name)?,
            None => 0,
        };
        let event = report.events.get(place)?;
        let lost = event.lost.values().fold(0, |sum: u64, &count| sum.saturating_add(count));
        let mut run = Self {
            label: label.to_owned(),
            host: (report.host.hostname.clone(), report.host.hypervisor.clone(), report.host.cpus),
            kernel: report.host.kernel.clone(),
            event: (event.name.clone(), event.unit.clone(), event.source),
            samples: event.samples,
            lost: event.taken.map(|taken| share(lost, taken)),
            whole: matches!(aggregate.recorded.completeness, Completeness::Whole(_)),
            seconds: report.duration_s,
            busy: event.weight,
            weights: BTreeMap::new(),
        };
        run.add(Subject::Hypervisor, event.modes.hypervisor);
        for domain in &event.domains {
            run.add_domain(domain, aliases);
        }
        run.add_totals(aggregate, EventId(place as u16), &event.domains, aliases);
        Some(run)
    }

    fn add(&mut self, subject: Subject, weight: u64) {
        let sum = self.weights.entry(subject).or_default();
        *sum = sum.saturating_add(weight);
    }

    fn add_domain(&mut self, report: &DomainReport, aliases: &Aliases) {
        let domain = alias(&report.name, aliases);
        self.add(Subject::Domain { domain: domain.clone() }, report.weight);
        for mode in Mode::ALL {
            self.add(Subject::Mode { domain: domain.clone(), mode }, report.modes.get(mode));
        }
        for process in &report.processes {
            if let Some(name) = &process.name {
                let subject = Subject::Process { domain: domain.clone(), process: name.clone() };
                self.add(subject, process.weight);
            }
        }
        for function in report.functions.iter().filter(|function| function.self_weight > 0) {
            self.add(subject(&domain, function), function.self_weight);
        }
    }

    /// The weights of functions with what they call. Several functions of a report can be one here, and in a chain with
    /// two of them it counts once: so chains are gone through again.
    fn add_totals(
        &mut self,
        aggregate: &Aggregate,
        event: EventId,
        domains: &[DomainReport],
        aliases: &Aliases,
    ) {
        let names: Vec<String> = domains.iter().map(|domain| alias(&domain.name, aliases)).collect();
        for stack in aggregate.stacks(event) {
            // The outermost layer is the process.
            let mut subjects: Vec<Subject> = stack
                .layers
                .iter()
                .skip(1)
                .map(|layer| Subject::Function {
                    domain: names[stack.domain].clone(),
                    mode: layer.mode,
                    module: None,
                    name: comparable(&layer.name, None).to_owned(),
                    total: true,
                })
                .collect();
            subjects.sort_unstable();
            subjects.dedup();
            subjects.into_iter().for_each(|subject| self.add(subject, stack.weight));
        }
    }
}

fn subject(domain: &str, function: &FunctionReport) -> Subject {
    Subject::Function {
        domain: domain.to_owned(),
        mode: function.mode,
        module: function.module.clone(),
        name: comparable(&function.name, function.module.as_deref()).to_owned(),
        total: false,
    }
}

/// What a function is compared by. One that is only located is its module: offsets change with every build.
fn comparable<'a>(name: &'a str, module: Option<&str>) -> &'a str {
    match name.rsplit_once("+0x") {
        Some((front, offset))
            if module.is_none_or(|module| module == front)
                && offset.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            front
        }
        _ => stable_name(name),
    }
}

fn alias(name: &str, aliases: &Aliases) -> String {
    let fitting = aliases.iter().find(|(pattern, _)| glob(pattern, name));
    fitting.map_or(name, |(_, alias)| alias).to_owned()
}
