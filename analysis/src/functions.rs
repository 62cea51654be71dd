//! Functions: how much of a domain's weight each was interrupted in, and had in its call chains.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use profile::{ChainId, DomainId, Frame, ImageOffset, Mode, NameId, Space, recording::Tables};

use crate::{
    report::{FunctionReport, share},
    rows::Row,
};

/// What makes two frames of one domain the same function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// In which mode it ran.
    pub mode: Mode,
    /// The image that it lies in.
    pub module: Option<NameId>,
    within: Within,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Within {
    Named(NameId),
    Located(ImageOffset),
    Unknown,
}

impl Function {
    /// The function of a frame that ran in `mode`.
    pub fn of(frame: &Frame, mode: Mode) -> Self {
        let within = match frame {
            Frame { function: Some(name), .. } => Within::Named(*name),
            Frame { module: Some(_), offset, .. } => Within::Located(*offset),
            _ => Within::Unknown,
        };
        Self { mode, module: frame.module, within }
    }
}

/// What a frame is called: its function, or `module+0xoffset` if it is only located, or `[unknown]`. Where offsets
/// mean nothing (memory with no file behind it) they are 0.
pub fn name(frame: &Frame, tables: &Tables) -> String {
    match (frame.function, frame.module) {
        (Some(function), _) => tables.name(function).to_owned(),
        (None, Some(module)) if frame.offset.0 == 0 => tables.name(module).to_owned(),
        (None, Some(module)) => format!("{}+{}", tables.name(module), frame.offset),
        (None, None) => "[unknown]".to_owned(),
    }
}

/// The frames of a sample's chain, innermost first, each with the mode it ran in.
pub fn frames_with_modes(
    tables: &Tables,
    chain: ChainId,
    charged_to: Option<DomainId>,
    sampled: Mode,
) -> impl Iterator<Item = (&Frame, Mode)> {
    let innermost = tables.frame(tables.chain(chain).frame).space;
    tables.frames(chain).map(move |frame| {
        let mode = match frame.space {
            // The sampler said what mode this was: host code under a guest is backend to some and hypervisor to KVM.
            space if space == innermost => sampled,
            Space::Hypervisor => Mode::Hypervisor,
            Space::Kernel(domain) if charged_to == Some(domain) => Mode::Kernel,
            Space::User(domain, _) if charged_to == Some(domain) => Mode::User,
            Space::Kernel(_) | Space::User(..) => Mode::Backend,
        };
        (frame, mode)
    })
}

/// The functions of a row, most self weight first. In a chain that has a function twice it counts once.
pub(crate) fn functions(row: &Row, tables: &Tables) -> Vec<FunctionReport> {
    struct Weights<'a> {
        frame: &'a Frame,
        own: u64,
        total: u64,
    }
    let mut weights: HashMap<Function, Weights<'_>> = HashMap::new();
    let mut in_chain = HashSet::new();
    for (place, tally) in &row.places {
        in_chain.clear();
        let frames = frames_with_modes(tables, place.chain, place.charged_to, place.mode);
        for (depth, (frame, mode)) in frames.enumerate() {
            let function = Function::of(frame, mode);
            let sums = weights.entry(function).or_insert(Weights { frame, own: 0, total: 0 });
            if depth == 0 {
                sums.own = sums.own.saturating_add(tally.weight);
            }
            if in_chain.insert(function) {
                sums.total = sums.total.saturating_add(tally.weight);
            }
        }
    }
    let mut functions: Vec<FunctionReport> = weights
        .into_iter()
        .map(|(function, Weights { frame, own, total })| FunctionReport {
            name: name(frame, tables),
            module: function.module.map(|module| tables.name(module).to_owned()),
            mode: function.mode,
            self_weight: own,
            self_share: share(own, row.total.weight),
            total,
        })
        .collect();
    functions.sort_unstable_by(|a, b| {
        let key = |f: &FunctionReport| (Reverse(f.self_weight), Reverse(f.total), f.mode);
        key(a).cmp(&key(b)).then_with(|| (&a.name, &a.module).cmp(&(&b.name, &b.module)))
    });
    functions
}
