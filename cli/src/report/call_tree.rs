//! Call trees as text.

use std::io::{self, Write};

use analysis::{CallTree, DomainReport, EventReport, Node, Visible};
use anstyle::Style;

use super::text::{color, measure, percent, share};

/// A name is not moved further to the right than this, however deep it is.
const MOST_INDENTED: usize = 60;

/// Writes a tree of a domain, without the branches that have less than so many percent of the domain's weight.
pub(super) fn write(
    out: &mut impl Write,
    event: &EventReport,
    domain: &DomainReport,
    tree: &CallTree,
    min_percent: f64,
) -> io::Result<()> {
    let (name, unit) = (Visible(&domain.name), measure(event));
    writeln!(out, "{name}: {} in percent of the domain's {unit}", Visible(&event.name))?;
    let bold = Style::new().bold();
    writeln!(out, "  {bold}{:>6}  {:>6}{bold:#}", "TOTAL", "SELF")?;
    let is_shown = |node: &Node| share(node.total, domain.weight) * 100.0 >= min_percent;
    // What is still to be written, next one last.
    let mut rest: Vec<(usize, &Node)> = Vec::new();
    let push = |rest: &mut Vec<_>, depth, node| {
        let begin = rest.len();
        rest.extend(tree.children(node).filter(|child| is_shown(child)).map(|child| (depth, child)));
        rest[begin..].reverse();
    };
    push(&mut rest, 0, tree.root());
    while let Some((depth, node)) = rest.pop() {
        let of_domain = |weight| percent(share(weight, domain.weight));
        let (total, own) = (of_domain(node.total), of_domain(node.self_weight));
        let style = node.mode.map_or(Style::new(), color);
        let indent = depth.min(MOST_INDENTED);
        writeln!(out, "  {total:>6}  {own:>6}  {:indent$}{style}{}{style:#}", "", Visible(&node.name))?;
        push(&mut rest, depth + 1, node);
    }
    writeln!(out)
}
