//! What of the state is shown: rows, processes, functions, callers, addresses, and the tree for flames.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use analysis::{frame_name, process_label};
use profile::{
    Domain, DomainId, DomainKind, EventId, Frame, Mode, Process, ProcessId, Source, Space, Time,
    recording::Header,
};

use super::{
    FunctionId, Group, GroupId, Log, NodeId, Rates, RowFunction, RowId, Scope, State, Sums,
    history::SLICE_NS,
    index::{self, Index, Layer, Place},
};

/// A row as it is shown.
#[derive(Clone, Debug)]
pub struct RowView<'a> {
    /// Which.
    pub id: RowId,
    /// Untrusted text.
    pub name: &'a str,
    /// The hypervisor's number for it.
    pub number: Option<u32>,
    /// How it is virtualized.
    pub kind: DomainKind,
    /// Whether it is there now.
    pub alive: bool,
    /// In the window.
    pub sums: Sums,
    /// Its part of the busy weight of the last two seconds of the window.
    pub now: f64,
    /// Its part of the busy weight of the window.
    pub share: f64,
    /// How many CPUs' worth of time it has, by the hypervisor's account.
    pub cpus: Option<f64>,
    /// The part of its vCPUs' time in which they waited for a CPU, in the last seconds.
    pub waiting: Option<f64>,
}

/// A function as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionView {
    /// Which, until places are dropped.
    pub id: FunctionId,
    /// Which, for good.
    pub key: RowFunction,
    /// The weight of what was interrupted in it.
    pub own: u64,
    /// The weight of the chains that it is in.
    pub total: u64,
    /// Samples that were interrupted in it.
    pub samples: u64,
    /// Its own weight in the window before.
    pub before: u64,
}

/// Where a function's code is.
#[derive(Clone, Copy, Debug)]
pub struct CodeCopy<'a> {
    /// Whose address space.
    pub space: Space,
    /// Where its offset 0 is there.
    pub base: u64,
    /// Whose code it is; none for a hypervisor that is no domain.
    pub domain: Option<&'a Domain>,
    /// A process in whose page tables it is.
    pub process: Option<&'a Process>,
}

/// A neighbour of a function in call chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The function; none for the outer end of the chains.
    pub function: Option<FunctionId>,
    /// The weight of the chains in which they are neighbours.
    pub weight: u64,
}

/// How much memory the state takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Samples that are kept, bounded by [`Limits::bytes`].
    pub samples: usize,
    /// The tree over them: it grows with distinct call chains in what is kept.
    pub index: usize,
    /// What the recording has introduced so far: it grows with distinct names, frames and chains.
    pub tables: usize,
}

impl State {
    /// Changes whenever something else would be shown.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Changes whenever [`FunctionId`]s, [`GroupId`]s and [`NodeId`]s get another meaning.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How the recording was made.
    pub fn header(&self) -> &Header {
        &self.recorded.header
    }

    /// The event that is shown.
    pub fn event(&self) -> EventId {
        self.event
    }

    /// How the event that is shown was sampled.
    pub fn source(&self) -> Option<Source> {
        self.recorded.header.events.get(usize::from(self.event.0)).map(|event| event.source)
    }

    /// The length of the window, in seconds.
    pub fn window_s(&self) -> u64 {
        self.window
    }

    /// How far behind the newest second the window ends, if it is frozen.
    pub fn frozen_s(&self) -> Option<u64> {
        self.frozen.map(|_| self.history.newest() + 1 - self.shown.end)
    }

    /// How many seconds can be looked back.
    pub fn history_s(&self) -> u64 {
        let range = self.history.range();
        range.end - range.start
    }

    /// Nanoseconds since sampling began, up to the end of what was told.
    pub fn elapsed_ns(&self) -> u64 {
        self.recorded.until.0.saturating_sub(self.started())
    }

    /// How many seconds of what was told have no samples yet, because those wait for their names.
    pub fn behind_s(&self) -> u64 {
        self.recorded.until.0.saturating_sub(self.present.0) / 1_000_000_000
    }

    /// When something was, in seconds since sampling began.
    pub fn since_start(&self, time: Time) -> f64 {
        time.0.saturating_sub(self.started()) as f64 / 1e9
    }

    /// The seconds that the window really covers: fewer than it is long in the beginning.
    pub fn covered_s(&self) -> f64 {
        let told = self.present.0.saturating_sub(self.started());
        let end = (self.shown.end * SLICE_NS).min(told);
        end.saturating_sub(self.shown.start * SLICE_NS) as f64 / 1e9
    }

    /// What the status line says.
    pub fn rates(&self) -> Rates {
        self.books.rates()
    }

    /// What happened.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What is in the window.
    pub fn busy(&self) -> u64 {
        self.index.nodes[Index::ROOT.at()].total
    }

    /// What of it is in scope.
    pub fn in_scope(&self) -> Sums {
        self.index.in_scope
    }

    /// What was in scope in the window before.
    pub fn in_scope_before(&self) -> u64 {
        self.index.before
    }

    /// What functions are shown of.
    pub fn scope(&self) -> Scope {
        self.index.scope()
    }

    /// The rows, those of dead domains as long as they are in the window.
    pub fn rows(&self) -> impl Iterator<Item = RowView<'_>> {
        self.rows.iter().filter(|(_, row)| row.alive || row.sums.samples > 0).map(|(id, _)| self.row(id))
    }

    /// A row.
    pub fn row(&self, id: RowId) -> RowView<'_> {
        let row = self.rows.row(id);
        let domain = row.domain.map(|id| self.recorded.tables.domain(id));
        let recent = self.shown.end.saturating_sub(2).max(self.shown.start)..self.shown.end;
        let (now, of) = recent.map(|number| self.history.slice(number)).fold((0, 0), |(now, of), slice| {
            (slice.of_row(id.at()).wrapping_add(now), slice.total.wrapping_add(of))
        });
        RowView {
            id,
            name: domain.map_or("hypervisor", |domain| &domain.name),
            number: domain.map(|domain| domain.number),
            kind: domain.map_or(DomainKind::Hypervisor, |domain| domain.kind),
            alive: row.alive,
            sums: row.sums,
            now: part(now, of),
            share: part(row.sums.weight, self.busy()),
            cpus: row.domain.and_then(|id| self.books.cpus_used(id)),
            waiting: row.domain.and_then(|id| self.books.waiting(id)),
        }
    }

    /// Whether it is known for how long vCPUs wait for a CPU.
    pub fn knows_waits(&self) -> bool {
        self.books.knows_waits()
    }

    /// A row's part of each of the last `seconds` seconds up to the end of the window, the oldest first; none where
    /// nothing is known of a second.
    pub fn sparkline(&self, id: RowId, seconds: u64) -> impl Iterator<Item = Option<f64>> {
        let (kept, end) = (self.history.range(), self.shown.end);
        (0..seconds).rev().map(move |back| {
            let number = end.checked_sub(back + 1).filter(|number| kept.contains(number))?;
            let slice = self.history.slice(number);
            Some(part(slice.of_row(id.at()), slice.total))
        })
    }

    /// The processes of a row, or of all; and where none is known, what was done in which mode.
    pub fn groups(&self, of: Option<RowId>) -> impl Iterator<Item = (GroupId, RowId, Group, Sums)> {
        let groups =
            self.index.groups.iter().zip(0..).filter(move |(group, _)| of.is_none_or(|row| row == group.row));
        groups
            .filter(|(group, _)| group.sums.samples > 0)
            .map(|(group, id)| (GroupId(id), group.row, group.group, group.sums))
    }

    /// What a group is called, and its control group: untrusted texts.
    pub fn group_name(&self, group: Group) -> (String, Option<&str>) {
        match group {
            Group::Process(id) => {
                let process = self.recorded.tables.process(id);
                (process_label(process), process.container.as_deref())
            }
            Group::Mode(mode) => (format!("[{mode}]"), None),
        }
    }

    /// A group's process.
    pub fn process(&self, group: Group) -> Option<&Process> {
        match group {
            Group::Process(id) => Some(self.recorded.tables.process(id)),
            Group::Mode(_) => None,
        }
    }

    /// The functions in scope.
    pub fn functions(&self) -> impl Iterator<Item = FunctionView> {
        let functions = self.index.functions.iter().zip(0..);
        functions
            .filter(|(function, _)| function.total != 0 || function.before != 0)
            .map(|(_, id)| self.function(FunctionId(id)))
    }

    /// How many functions there are, in scope or not.
    pub fn function_count(&self) -> usize {
        self.index.functions.len()
    }

    /// A function.
    pub fn function(&self, id: FunctionId) -> FunctionView {
        let &index::FunctionSums { key, own, total, samples, before, .. } = &self.index.functions[id.at()];
        FunctionView { id, key, own, total, samples, before }
    }

    /// Finds a function.
    pub fn find_function(&self, key: RowFunction) -> Option<FunctionId> {
        self.index.function_id(key)
    }

    /// A function's name and module: untrusted texts.
    pub fn function_name(&self, id: FunctionId) -> (String, Option<&str>) {
        let frame = self.frame(id);
        let tables = &self.recorded.tables;
        (frame_name(frame, tables), frame.module.map(|module| tables.name(module)))
    }

    /// One of a function's frames.
    pub fn frame(&self, id: FunctionId) -> &Frame {
        let tables = &self.recorded.tables;
        tables.frame(tables.chain(self.index.functions[id.at()].chain).frame)
    }

    /// Whether a text is in a function's name or module.
    pub fn function_matches(&self, id: FunctionId, text: &str) -> bool {
        let (frame, tables) = (self.frame(id), &self.recorded.tables);
        match (frame.function, frame.module) {
            (None, None) => "[unknown]".contains(text),
            (function, module) => {
                function.into_iter().chain(module).any(|name| tables.name(name).contains(text))
                    || (function.is_none() && frame_name(frame, tables).contains(text))
            }
        }
    }

    /// The functions that called a function and those that it called, heaviest first, in scope.
    pub fn neighbours(&self, id: FunctionId) -> (Vec<Neighbour>, Vec<Neighbour>) {
        let mut callers: HashMap<Option<FunctionId>, u64> = Default::default();
        let mut callees = callers.clone();
        let add = |map: &mut HashMap<_, u64>, layer, weight: u64| {
            let function = match layer {
                Layer::Function(function) => Some(function),
                _ => None,
            };
            let sum = map.entry(function).or_default();
            *sum = sum.wrapping_add(weight);
        };
        let nodes = self.index.functions[id.at()].nodes.iter().map(|&node| &self.index.nodes[node.at()]);
        for node in nodes.filter(|node| self.index.node_is_in_scope(node)) {
            // Of a recursion only the outermost call has been called by somebody else.
            if !self.is_within(node, id) {
                add(&mut callers, self.index.nodes[node.parent.at()].layer, node.total);
            }
            for &child in &node.children {
                let child = &self.index.nodes[child.at()];
                add(&mut callees, child.layer, child.total);
            }
        }
        [callers, callees].map(heaviest_first).into()
    }

    fn is_within(&self, node: &index::Node, id: FunctionId) -> bool {
        let mut above = &self.index.nodes[node.parent.at()];
        while let Layer::Function(function) = above.layer {
            if function == id {
                return true;
            }
            above = &self.index.nodes[above.parent.at()];
        }
        false
    }

    /// The offsets at which a function was interrupted, with their weights, in scope. Where it has a name they are from its
    /// beginning, else from that of its module; where it lies differs from process to process.
    pub fn offsets(&self, id: FunctionId) -> BTreeMap<u64, u64> {
        let mut offsets = BTreeMap::new();
        for place in self.places(id).filter(|place| place.weight != 0) {
            let sum: &mut u64 = offsets.entry(self.innermost(place).offset.0).or_default();
            *sum = sum.wrapping_add(place.weight);
        }
        offsets
    }

    fn places(&self, id: FunctionId) -> impl Iterator<Item = &Place> {
        let nodes = self.index.functions[id.at()].nodes.iter().map(|&node| &self.index.nodes[node.at()]);
        let nodes = nodes.filter(|node| self.index.node_is_in_scope(node));
        nodes.flat_map(|node| node.places.iter().map(|place| &self.index.places[place.at()]))
    }

    fn innermost(&self, place: &Place) -> &Frame {
        let tables = &self.recorded.tables;
        tables.frame(tables.chain(place.key.chain).frame)
    }

    /// Where a function's code may be read: heaviest first, in which address space, and where its offset 0 is there.
    pub fn copies(&self, id: FunctionId) -> Vec<CodeCopy<'_>> {
        let tables = &self.recorded.tables;
        let mut weights: HashMap<(Space, u64, Option<ProcessId>), u64> = HashMap::new();
        for place in self.places(id) {
            let frame = self.innermost(place);
            let base = frame.address.raw().wrapping_sub(frame.offset.0);
            let process = match frame.space {
                Space::User(_, process) => Some(process),
                // Any process of a domain has its kernel in its page tables.
                Space::Kernel(domain) => self.process_of(place, domain),
                Space::Hypervisor => None,
            };
            let sum = weights.entry((frame.space, base, process)).or_default();
            *sum = sum.wrapping_add(place.weight);
        }
        let mut copies: Vec<_> = weights.into_iter().collect();
        copies.sort_by_key(|((space, base, process), weight)| (Reverse(*weight), *space, *base, *process));
        let copy = |((space, base, process), _): ((Space, u64, Option<ProcessId>), u64)| CodeCopy {
            space,
            base,
            domain: match space {
                Space::Hypervisor => None,
                Space::Kernel(domain) | Space::User(domain, _) => Some(tables.domain(domain)),
            },
            process: process.map(|process| tables.process(process)),
        };
        copies.into_iter().map(copy).collect()
    }

    /// The process that was current, or else any other of the domain's.
    fn process_of(&self, place: &Place, domain: DomainId) -> Option<ProcessId> {
        let others = || {
            let mut processes = self.recorded.tables.processes();
            processes.find(|process| process.domain == domain && process.root.is_some()).map(|other| other.id)
        };
        place.key.process.filter(|&id| self.recorded.tables.process(id).domain == domain).or_else(others)
    }

    /// How much memory this takes.
    pub fn memory(&self) -> Memory {
        Memory {
            samples: self.history.bytes(),
            index: self.index.bytes() + self.rows.bytes(),
            tables: self.recorded.tables.bytes(),
        }
    }

    /// How many samples are kept.
    pub fn samples(&self) -> usize {
        self.history.samples()
    }
}

/// The tree that is shown as flames.
impl State {
    /// The node that a scope's children hang from.
    pub fn root(&self, scope: Scope) -> Option<NodeId> {
        self.index.root_of(scope)
    }

    /// A node's weight in the window.
    pub fn weight(&self, node: NodeId) -> u64 {
        self.index.nodes[node.at()].total
    }

    /// What is called by a node, heaviest first.
    pub fn children(&self, node: NodeId) -> Vec<NodeId> {
        let nodes = &self.index.nodes;
        let mut children: Vec<NodeId> =
            nodes[node.at()].children.iter().copied().filter(|child| nodes[child.at()].total > 0).collect();
        children.sort_by_key(|child| (Reverse(nodes[child.at()].total), *child));
        children
    }

    /// A node's parent; none for the outermost.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        (node != Index::ROOT).then(|| self.index.nodes[node.at()].parent)
    }

    /// What a node is called, and in which mode it ran, if that is one: untrusted text.
    pub fn node_name(&self, node: NodeId) -> (String, Option<Mode>) {
        match self.index.nodes[node.at()].layer {
            Layer::Root => ("all".to_owned(), None),
            Layer::Row(row) => (self.row(row).name.to_owned(), None),
            Layer::Group(group) => (self.group_name(self.index.groups[group.at()].group).0, None),
            Layer::Function(function) => {
                let mode = self.index.functions[function.at()].key.function.mode;
                (self.function_name(function).0, Some(mode))
            }
        }
    }
}

fn heaviest_first(map: HashMap<Option<FunctionId>, u64>) -> Vec<Neighbour> {
    let neighbours = map.into_iter().filter(|(_, weight)| *weight > 0);
    let mut neighbours: Vec<Neighbour> =
        neighbours.map(|(function, weight)| Neighbour { function, weight }).collect();
    neighbours.sort_by_key(|neighbour| (Reverse(neighbour.weight), neighbour.function));
    neighbours
}

/// The fraction that `part` is of `whole`; of nothing it is none.
pub(crate) fn part(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
