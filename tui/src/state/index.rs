//! What was sampled, each thing once, with its weight in the window: a tree from the event over domains and processes
//! down to call chains, and the functions in it.
//!
//! A sample touches the nodes of its own chain and nothing else, when it comes and when it goes.

use analysis::{Function, frames_with_modes};
use profile::{ChainId, DomainId, EventId, Mode, ProcessId, Sample, recording::Tables};

use super::rows::{RowId, Rows};

/// Quick, and keyed at random: guests choose what is interned.
type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

macro_rules! handle {
    ($(#[$doc:meta])* $visible:vis $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visible struct $name(pub(crate) u32);

        impl $name {
            fn of(index: usize) -> Self {
                Self(u32::try_from(index).expect("memory ends before four thousand million things are interned"))
            }

            pub(crate) fn at(self) -> usize {
                self.0 as usize
            }
        }
    };
}
pub(crate) use handle;

handle! {
    /// All that samples of one kind have in common.
    pub(crate) PlaceId
}
handle! {
    /// A node of the tree.
    pub NodeId
}
handle! {
    /// A function of a row.
    pub FunctionId
}
handle! {
    /// A process of a row, or what a row did that is no process of its own.
    pub GroupId
}

/// What makes samples the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) event: EventId,
    pub(crate) charged_to: Option<DomainId>,
    pub(crate) process: Option<ProcessId>,
    pub(crate) mode: Mode,
    pub(crate) chain: ChainId,
}

impl Key {
    pub(crate) fn of(sample: &Sample) -> Self {
        let &Sample { event, charged_to, process, mode, chain, .. } = sample;
        Self { event, charged_to, process, mode, chain }
    }
}

/// What a row is divided into below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// A process of the domain.
    Process(ProcessId),
    /// Where none is known: what was done in this mode.
    Mode(Mode),
}

/// A function of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowFunction {
    /// Whose.
    pub row: RowId,
    /// Which.
    pub function: Function,
}

/// Weights in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Of all modes.
    pub weight: u64,
    /// Samples.
    pub samples: u64,
    /// By mode, in the order of [`Mode::ALL`].
    pub modes: [u64; 4],
}

#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) key: Key,
    pub(crate) row: RowId,
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    pub(crate) function: FunctionId,
    pub(crate) weight: u64,
    pub(crate) samples: u64,
    /// In the window before.
    pub(crate) before: u64,
}

/// A layer of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Layer {
    Root,
    Row(RowId),
    Group(GroupId),
    Function(FunctionId),
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) layer: Layer,
    pub(crate) parent: NodeId,
    pub(crate) group: Option<GroupId>,
    pub(crate) own: u64,
    pub(crate) total: u64,
    pub(crate) children: Vec<NodeId>,
    pub(crate) places: Vec<PlaceId>,
}

#[derive(Debug)]
pub(crate) struct GroupSums {
    pub(crate) row: RowId,
    pub(crate) group: Group,
    pub(crate) sums: Sums,
}

/// A function with its weights in the scope that is shown.
#[derive(Debug)]
pub(crate) struct FunctionSums {
    pub(crate) key: RowFunction,
    /// One of its frames, by which it is called.
    pub(crate) chain: ChainId,
    pub(crate) own: u64,
    pub(crate) total: u64,
    pub(crate) samples: u64,
    pub(crate) before: u64,
    pub(crate) nodes: Vec<NodeId>,
    /// When it was counted last: in a chain that has it twice it counts once.
    stamp: u64,
}

/// What of the tree is shown in the list of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Machine,
    /// A row.
    Row(RowId),
    /// A process of a row.
    Group(RowId, Group),
}

/// Which of the two windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    Shown,
    Before,
}

/// Whether something comes or goes. Sums wrap, so that what goes takes off exactly what came, whatever a file claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Plus,
    Minus,
}

impl Sign {
    pub(crate) fn apply(self, sum: &mut u64, weight: u64) {
        *sum = match self {
            Self::Plus => sum.wrapping_add(weight),
            Self::Minus => sum.wrapping_sub(weight),
        };
    }

    pub(crate) fn sums(self, sums: &mut Sums, mode: Mode, weight: u64, samples: u64) {
        self.apply(&mut sums.weight, weight);
        self.apply(&mut sums.samples, samples);
        self.apply(&mut sums.modes[mode as usize], weight);
    }
}

#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) places: Vec<Place>,
    place_ids: HashMap<Key, PlaceId>,
    pub(crate) nodes: Vec<Node>,
    node_ids: HashMap<(NodeId, Layer), NodeId>,
    pub(crate) functions: Vec<FunctionSums>,
    function_ids: HashMap<RowFunction, FunctionId>,
    pub(crate) groups: Vec<GroupSums>,
    group_ids: HashMap<(RowId, Group), GroupId>,
    scope: Scope,
    /// What is in scope, in the window and in the one before.
    pub(crate) in_scope: Sums,
    pub(crate) before: u64,
    stamp: u64,
}

impl Index {
    pub(crate) const ROOT: NodeId = NodeId(0);

    pub(crate) fn new(scope: Scope) -> Self {
        let root = Node {
            layer: Layer::Root,
            parent: Self::ROOT,
            group: None,
            own: 0,
            total: 0,
            children: Vec::new(),
            places: Vec::new(),
        };
        Self {
            places: Vec::new(),
            place_ids: HashMap::default(),
            nodes: vec![root],
            node_ids: HashMap::default(),
            functions: Vec::new(),
            function_ids: HashMap::default(),
            groups: Vec::new(),
            group_ids: HashMap::default(),
            scope,
            in_scope: Sums::default(),
            before: 0,
            stamp: 0,
        }
    }

    pub(crate) fn scope(&self) -> Scope {
        self.scope
    }

    /// Shows the functions of another scope.
    pub(crate) fn set_scope(&mut self, scope: Scope) {
        self.scope = scope;
        (self.in_scope, self.before) = (Sums::default(), 0);
        for function in &mut self.functions {
            (function.own, function.total, function.samples, function.before) = (0, 0, 0, 0);
        }
        for at in 0..self.places.len() {
            let Place { weight, samples, before, .. } = self.places[at];
            if weight != 0 || samples != 0 {
                self.count_functions(at, weight, samples, Sign::Plus);
            }
            if before != 0 {
                self.count_before(at, before, Sign::Plus);
            }
        }
    }

    /// The place of samples like these.
    pub(crate) fn place(&mut self, key: Key, rows: &Rows, tables: &Tables) -> PlaceId {
        if let Some(&id) = self.place_ids.get(&key) {
            return id;
        }
        let row = rows.of(key.charged_to);
        // A process of another domain that works on this one's behalf is its backend, whichever it is.
        let own = key.process.filter(|&id| key.charged_to == Some(tables.process(id).domain));
        let group = self.group(row, own.map_or(Group::Mode(key.mode), Group::Process));
        let above = self.node(Self::ROOT, Layer::Row(row), None);
        let mut node = self.node(above, Layer::Group(group), Some(group));
        let mut links: Vec<(ChainId, Function)> = Vec::new();
        let mut link = Some(key.chain);
        for (frame, mode) in frames_with_modes(tables, key.chain, key.charged_to, key.mode) {
            let chain = link.expect("a chain has a link for each of its frames");
            links.push((chain, Function::of(frame, mode)));
            link = tables.chain(chain).caller;
        }
        let mut innermost = None;
        for &(chain, function) in links.iter().rev() {
            let id = self.function(RowFunction { row, function }, chain);
            node = self.node(node, Layer::Function(id), Some(group));
            innermost = Some(id);
        }
        let id = PlaceId::of(self.places.len());
        self.nodes[node.at()].places.push(id);
        self.places.push(Place {
            key,
            row,
            group,
            node,
            function: innermost.expect("a chain has at least one frame"),
            weight: 0,
            samples: 0,
            before: 0,
        });
        self.place_ids.insert(key, id);
        id
    }

    fn group(&mut self, row: RowId, group: Group) -> GroupId {
        let next = GroupId::of(self.groups.len());
        let id = *self.group_ids.entry((row, group)).or_insert(next);
        if id == next {
            self.groups.push(GroupSums { row, group, sums: Sums::default() });
        }
        id
    }

    fn function(&mut self, key: RowFunction, chain: ChainId) -> FunctionId {
        let next = FunctionId::of(self.functions.len());
        let id = *self.function_ids.entry(key).or_insert(next);
        if id == next {
            self.functions.push(FunctionSums {
                key,
                chain,
                own: 0,
                total: 0,
                samples: 0,
                before: 0,
                nodes: Vec::new(),
                stamp: 0,
            });
        }
        id
    }

    fn node(&mut self, parent: NodeId, layer: Layer, group: Option<GroupId>) -> NodeId {
        let next = NodeId::of(self.nodes.len());
        let id = *self.node_ids.entry((parent, layer)).or_insert(next);
        if id == next {
            let (children, places) = (Vec::new(), Vec::new());
            self.nodes.push(Node { layer, parent, group, own: 0, total: 0, children, places });
            self.nodes[parent.at()].children.push(id);
            if let Layer::Function(function) = layer {
                self.functions[function.at()].nodes.push(id);
            }
        }
        id
    }

    /// Lets samples of a place come or go.
    pub(crate) fn count(&mut self, id: PlaceId, weight: u64, zone: Zone, sign: Sign) {
        match zone {
            Zone::Shown => {
                let place = &mut self.places[id.at()];
                sign.apply(&mut place.weight, weight);
                sign.apply(&mut place.samples, 1);
                let (mut node, group, mode) = (place.node, place.group, place.key.mode);
                sign.sums(&mut self.groups[group.at()].sums, mode, weight, 1);
                sign.apply(&mut self.nodes[node.at()].own, weight);
                loop {
                    let Node { total, parent, .. } = &mut self.nodes[node.at()];
                    sign.apply(total, weight);
                    if node == Self::ROOT {
                        break;
                    }
                    node = *parent;
                }
                self.count_functions(id.at(), weight, 1, sign);
            }
            Zone::Before => {
                sign.apply(&mut self.places[id.at()].before, weight);
                self.count_before(id.at(), weight, sign);
            }
        }
    }

    fn is_in_scope(&self, place: &Place) -> bool {
        match self.scope {
            Scope::Machine => true,
            Scope::Row(row) => place.row == row,
            Scope::Group(row, group) => place.row == row && self.groups[place.group.at()].group == group,
        }
    }

    fn count_functions(&mut self, place: usize, weight: u64, samples: u64, sign: Sign) {
        let place = &self.places[place];
        if !self.is_in_scope(place) {
            return;
        }
        sign.sums(&mut self.in_scope, place.key.mode, weight, samples);
        self.stamp += 1;
        let innermost = &mut self.functions[place.function.at()];
        sign.apply(&mut innermost.own, weight);
        sign.apply(&mut innermost.samples, samples);
        let mut node = &self.nodes[place.node.at()];
        while let Layer::Function(id) = node.layer {
            let function = &mut self.functions[id.at()];
            if function.stamp != self.stamp {
                function.stamp = self.stamp;
                sign.apply(&mut function.total, weight);
            }
            node = &self.nodes[node.parent.at()];
        }
    }

    fn count_before(&mut self, place: usize, weight: u64, sign: Sign) {
        let place = &self.places[place];
        if self.is_in_scope(place) {
            sign.apply(&mut self.functions[place.function.at()].before, weight);
            sign.apply(&mut self.before, weight);
        }
    }

    /// The node whose children are what a scope is made of.
    pub(crate) fn root_of(&self, scope: Scope) -> Option<NodeId> {
        let row = |row| self.node_ids.get(&(Self::ROOT, Layer::Row(row))).copied();
        match scope {
            Scope::Machine => Some(Self::ROOT),
            Scope::Row(id) => row(id),
            Scope::Group(id, group) => {
                let group = *self.group_ids.get(&(id, group))?;
                self.node_ids.get(&(row(id)?, Layer::Group(group))).copied()
            }
        }
    }

    pub(crate) fn function_id(&self, key: RowFunction) -> Option<FunctionId> {
        self.function_ids.get(&key).copied()
    }

    /// Whether a node is one of the scope's.
    pub(crate) fn node_is_in_scope(&self, node: &Node) -> bool {
        let Some(group) = node.group.map(|id| &self.groups[id.at()]) else { return false };
        match self.scope {
            Scope::Machine => true,
            Scope::Row(row) => group.row == row,
            Scope::Group(row, wanted) => group.row == row && group.group == wanted,
        }
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        /// What a vector of handles costs beside its owner, most having one or two.
        const LIST: usize = 16;
        let places = self.places.len() * (size_of::<Place>() + size_of::<(Key, PlaceId)>() + LIST);
        let nodes = self.nodes.len() * (size_of::<Node>() + size_of::<(NodeId, Layer, NodeId)>() + 2 * LIST);
        let function = size_of::<FunctionSums>() + size_of::<(RowFunction, FunctionId)>() + LIST;
        places + nodes + self.functions.len() * function + self.groups.len() * size_of::<GroupSums>()
    }
}
