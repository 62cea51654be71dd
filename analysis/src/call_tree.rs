//! Call trees: the chains of an event put together where they begin alike, from their roots or from a function upwards.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
};

use profile::{EventId, Mode};

use crate::{Aggregate, Layer};

/// A tree of weighted layers. Its root stands for all that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallTree {
    nodes: Vec<Node>,
}

/// A place in a [`CallTree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is called: untrusted text. Empty at the root.
    pub name: String,
    /// In which mode it ran; none at the root.
    pub mode: Option<Mode>,
    /// The weight that ends here.
    pub self_weight: u64,
    /// The weight that comes by here.
    pub total: u64,
    children: Vec<usize>,
}

impl CallTree {
    /// The root.
    pub fn root(&self) -> &Node {
        &self.nodes[0]
    }

    /// What is one layer further in, heaviest first.
    pub fn children(&self, node: &Node) -> impl Iterator<Item = &Node> {
        node.children.iter().map(|&child| &self.nodes[child])
    }

    fn of(paths: impl Iterator<Item = (Vec<Layer>, u64)>) -> Self {
        let node = |name, mode| Node { name, mode, self_weight: 0, total: 0, children: Vec::new() };
        let mut nodes = vec![node(String::new(), None)];
        let mut known: HashMap<(usize, String, Mode), usize> = HashMap::new();
        for (path, weight) in paths {
            let mut at = 0;
            nodes[at].total = nodes[at].total.saturating_add(weight);
            for Layer { name, mode } in path {
                let parent = at;
                at = match known.entry((parent, name, mode)) {
                    Entry::Occupied(entry) => *entry.get(),
                    Entry::Vacant(entry) => {
                        nodes.push(node(entry.key().1.clone(), Some(mode)));
                        let child = nodes.len() - 1;
                        nodes[parent].children.push(child);
                        *entry.insert(child)
                    }
                };
                nodes[at].total = nodes[at].total.saturating_add(weight);
            }
            nodes[at].self_weight = nodes[at].self_weight.saturating_add(weight);
        }
        for parent in 0..nodes.len() {
            let mut children = std::mem::take(&mut nodes[parent].children);
            children.sort_by_key(|&child| (Reverse(nodes[child].total), nodes[child].name.clone()));
            nodes[parent].children = children;
        }
        Self { nodes }
    }
}

impl Aggregate {
    /// What calls what, from the processes of a row inwards; rows are those of
    /// [`EventReport::domains`](crate::EventReport::domains).
    pub fn call_tree(&self, event: EventId, row: usize) -> CallTree {
        let stacks = self.stacks(event).filter(|stack| stack.domain == row);
        CallTree::of(stacks.map(|stack| (stack.layers, stack.weight)))
    }

    /// What calls a function, from itself outwards. Of a chain that has it twice, the inner one counts.
    pub fn callers(&self, event: EventId, row: usize, function: &str) -> CallTree {
        let stacks = self.stacks(event).filter(|stack| stack.domain == row);
        CallTree::of(stacks.filter_map(|mut stack| {
            let at = stack.layers.iter().rposition(|layer| layer.name == function)?;
            stack.layers.truncate(at + 1);
            stack.layers.reverse();
            Some((stack.layers, stack.weight))
        }))
    }
}
