//! A flame graph as one HTML file that needs nothing else: to search, to zoom, to filter by domain and mode; and, with a
//! baseline, to see what changed.

use std::collections::HashMap;

use analysis::{EventReport, Report, Stack, Visible};
use profile::Mode;
use serde_json::{Value, json};

use crate::{
    label,
    picture::{PictureError, counted, taken_how},
};

/// The page; its placeholder takes the data.
const PAGE: &str = include_str!("page.html");
const PLACEHOLDER: &str = "{{data}}";

/// Parts of less than this share are put together: nobody can see them, and they would make the file as large as the
/// recording.
const MIN_SHARE: f64 = 0.0002;

/// What such parts are called.
const SMALL: &str = "…";

/// A frame with the weights that end in it.
#[derive(Debug, Default)]
struct Node {
    /// Self weight, and in the baseline.
    own: [f64; 2],
    children: HashMap<(String, Option<Mode>), Node>,
}

impl Node {
    fn child(&mut self, name: String, mode: Option<Mode>) -> &mut Self {
        self.children.entry((name, mode)).or_default()
    }

    fn total(&self) -> [f64; 2] {
        self.children.values().fold(self.own, |[own, base], child| {
            let [child_own, child_base] = child.total();
            [own + child_own, base + child_base]
        })
    }

    /// Puts what is too small to be seen into one child.
    fn prune(&mut self, least: f64) {
        let (mut kept, mut small) = (HashMap::new(), HashMap::<Option<Mode>, Node>::new());
        for ((name, mode), mut child) in std::mem::take(&mut self.children) {
            let [own, base] = child.total();
            if own.max(base) >= least {
                child.prune(least);
                kept.insert((name, mode), child);
            } else {
                let sum = small.entry(mode).or_default();
                sum.own = [sum.own[0] + own, sum.own[1] + base];
            }
        }
        kept.extend(small.into_iter().map(|(mode, node)| ((SMALL.to_owned(), mode), node)));
        self.children = kept;
    }

    /// Appends its rows: depth, name, mode, own weight, baseline's; children in the order of their names.
    fn rows(&self, depth: usize, names: &mut Names, rows: &mut Vec<Value>) {
        let mut children: Vec<_> = self.children.iter().collect();
        children.sort_by(|((a, _), _), ((b, _), _)| a.cmp(b));
        for ((name, mode), child) in children {
            let mode =
                mode.map_or(-1, |mode| Mode::ALL.iter().position(|&m| m == mode).map_or(-1, |i| i as i64));
            rows.push(json!([depth, names.number(name), mode, child.own[0].round(), child.own[1].round()]));
            child.rows(depth + 1, names, rows);
        }
    }
}

#[derive(Default)]
struct Names {
    all: Vec<String>,
    number_of: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, name: &str) -> usize {
        if let Some(&known) = self.number_of.get(name) {
            return known;
        }
        self.all.push(name.to_owned());
        self.number_of.insert(name.to_owned(), self.all.len() - 1);
        self.all.len() - 1
    }
}

/// Draws an event, which is one of `report`'s, from its stacks; with those of a baseline, coloured by what changed. The
/// baseline is scaled to weigh as much.
pub fn html(
    report: &Report,
    event: &EventReport,
    stacks: impl IntoIterator<Item = Stack>,
    baseline: Option<(&EventReport, &mut dyn Iterator<Item = Stack>)>,
) -> Result<String, PictureError> {
    let of = || "all domains".to_owned();
    let mut root = Node::default();
    let total = event.weight as f64;
    if event.weight == 0 {
        return Err(PictureError::NoSamples { of: of() });
    }
    add(&mut root, event, stacks, |node, weight| node.own[0] += weight);
    let differs = baseline.is_some();
    if let Some((base, stacks)) = baseline {
        if base.weight == 0 {
            return Err(PictureError::NoSamples { of: "the baseline".to_owned() });
        }
        let scale = total / base.weight as f64;
        add(&mut root, base, stacks, |node, weight| node.own[1] += weight * scale);
    }
    root.prune(total * MIN_SHARE);
    let mut names = Names::default();
    let mut rows = Vec::new();
    root.rows(0, &mut names, &mut rows);
    let host = Visible(&report.host.hostname).to_string();
    let data = json!({
        "title": format!("{host}: {}", Visible(&event.name)),
        "subtitle": format!("{}: {} {}", taken_how(report, event), event.samples, counted(report, event)),
        "unit": Visible(&event.unit).to_string(),
        "modes": Mode::ALL.map(Mode::as_str),
        "differs": differs,
        "names": names.all,
        "rows": rows,
    });
    // In a script, only these could end it.
    let data = data
        .to_string()
        .replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    Ok(PAGE.replace(PLACEHOLDER, &data))
}

fn add(
    root: &mut Node,
    event: &EventReport,
    stacks: impl IntoIterator<Item = Stack>,
    enter: impl Fn(&mut Node, f64),
) {
    let labels = label::domain_labels(&event.domains);
    for stack in stacks {
        let mut node = root.child(labels[stack.domain].clone(), None);
        for layer in &stack.layers {
            node = node.child(Visible(&layer.name).to_string(), Some(layer.mode));
        }
        enter(node, stack.weight as f64);
    }
}
