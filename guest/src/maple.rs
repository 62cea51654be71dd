//! Maple trees, which hold the mappings of a process since Linux 6.1 (include/linux/maple_tree.h).

use profile::GuestVirtual;

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError},
    look::Space,
    words::u64_at,
};

const NODE: usize = 256;
const MAX_DEPTH: u32 = 16;
/// Below this, what looks like a pointer to a node is a value.
const LOWEST_NODE: u64 = 4096;
/// The kinds of nodes (`enum maple_type`).
const LEAF: u64 = 1;
const RANGES: u64 = 2;
const RANGES_WITH_GAPS: u64 = 3;

/// Where nodes have their pivots and slots.
#[derive(Debug)]
pub(crate) struct MapleLayout {
    ranges: NodeLayout,
    with_gaps: NodeLayout,
}

#[derive(Debug)]
struct NodeLayout {
    pivots: usize,
    slots: usize,
    slot_count: usize,
}

impl MapleLayout {
    pub(crate) fn of(btf: &Btf) -> Result<Self, LayoutError> {
        Ok(Self {
            ranges: NodeLayout::of(btf, "maple_range_64")?,
            with_gaps: NodeLayout::of(btf, "maple_arange_64")?,
        })
    }
}

impl NodeLayout {
    fn of(btf: &Btf, kind: &'static str) -> Result<Self, LayoutError> {
        let array = |member| {
            let (offset, count) = (btf.offset(kind, member)?, btf.elements(kind, member)?);
            if count > 0 && offset.saturating_add(8_u64.saturating_mul(count)) <= NODE as u64 {
                Ok((offset as usize, count as usize))
            } else {
                Err(LayoutError::DamagedBtf("a node of maple trees is larger than it can be"))
            }
        };
        let ((pivots, pivot_count), (slots, slot_count)) = (array("pivot")?, array("slot")?);
        // One slot more than there are pivots between them.
        Ok(Self { pivots, slots, slot_count: slot_count.min(pivot_count + 1) })
    }
}

/// All entries of a tree in the order of their indices; `root` is its `ma_root`.
pub(crate) fn entries(
    space: &Space<'_>,
    layout: &MapleLayout,
    root: u64,
    max: usize,
) -> Result<Vec<GuestVirtual>, GuestError> {
    let mut walk = Walk { space, layout, entries: Vec::new(), max };
    if is_node(root) {
        walk.node(root, 0, u64::MAX, 0)?;
    } else if root != 0 {
        walk.entries.push(GuestVirtual(root));
    }
    Ok(walk.entries)
}

/// An inner slot, and the root, that points to a node has bit 1 set and bit 0 clear.
fn is_node(entry: u64) -> bool {
    entry & 3 == 2 && entry > LOWEST_NODE
}

struct Walk<'a> {
    space: &'a Space<'a>,
    layout: &'a MapleLayout,
    entries: Vec<GuestVirtual>,
    max: usize,
}

impl Walk<'_> {
    /// Walks a node that has the indices from `low` to `high`, both included. Each level has some that the one above
    /// gave it and no others, so that there are never more leaves than indices told apart.
    fn node(&mut self, encoded: u64, low: u64, high: u64, depth: u32) -> Result<(), GuestError> {
        let space = self.space;
        if depth > MAX_DEPTH {
            return Err(space.damaged("a tree is too deep"));
        }
        let address = encoded & !(NODE as u64 - 1);
        let kind = encoded >> 3 & 0xf;
        let layout = match kind {
            LEAF | RANGES => &self.layout.ranges,
            RANGES_WITH_GAPS => &self.layout.with_gaps,
            _ => return Err(space.damaged("a tree has a node of a kind that is not known")),
        };
        let mut node = [0; NODE];
        space.read(GuestVirtual(address), &mut node)?;
        let word = |at: usize| u64_at(&node, at).unwrap_or(0);
        if word(0) == address {
            // Its own parent: how nodes are marked that are no part of the tree any more.
            return Err(space.damaged("a tree was changed meanwhile"));
        }
        let mut start = low;
        for index in 0..layout.slot_count {
            let pivot = if index + 1 < layout.slot_count { word(layout.pivots + 8 * index) } else { high };
            // A pivot of zero, but for the first, says that the rest of the node is not used.
            let end = if pivot == 0 && index > 0 { high } else { pivot };
            if end < start || end > high {
                return Err(space.damaged("the ranges of a tree are out of order"));
            }
            let slot = word(layout.slots + 8 * index);
            if kind == LEAF {
                self.entry(slot)?;
            } else if slot & 3 == 0 && slot & 4 != 0 && slot > LOWEST_NODE {
                self.node(slot, start, end, depth + 1)?;
            }
            if end == high {
                break;
            }
            start = end + 1;
        }
        Ok(())
    }

    fn entry(&mut self, slot: u64) -> Result<(), GuestError> {
        // What is not aligned is a value of the tree's own.
        if slot == 0 || slot & 3 != 0 {
            return Ok(());
        }
        if self.entries.len() == self.max {
            return Err(self.space.damaged("there are too many"));
        }
        self.space.budget().memory(8)?;
        self.entries.push(GuestVirtual(slot));
        Ok(())
    }
}
