//! Whether chains are the one that there is, for the programs that call by paths (`tests/programs/paths.*`).

use std::collections::BTreeMap;

use profile::{ChainId, recording::Tables};

/// A function of such a program: the `level`th above the leaf of the path of so many functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    depth: usize,
    level: usize,
}

impl Step {
    /// By the name, as each language's tools print it.
    fn of(function: &str) -> Option<Self> {
        let numbers = match function.split_once("Path<") {
            Some((_, rest)) => rest.split_once('>')?.0.split_once(", ")?,
            None => {
                let (_, rest) = function.rsplit_once("path")?;
                rest.split_once('_')?
            }
        };
        Some(Self { depth: numbers.0.parse().ok()?, level: numbers.1.parse().ok()? })
    }

    /// Whether `self` is what calls `callee`.
    fn calls(self, callee: Self) -> bool {
        self == Self { level: callee.level + 1, ..callee }
    }
}

/// What is known of the chains of one program.
#[derive(Debug, Default)]
pub struct Paths {
    /// Samples that were taken somewhere on a path.
    pub samples: usize,
    /// Those of them whose chain is the true one, from the path to the program's outermost function.
    pub right: usize,
    /// Those that name a caller that the program does not have.
    pub wrong: usize,
    /// How often the others ended like this.
    pub broken: BTreeMap<String, usize>,
    /// What was right, by the length of the path.
    pub depths: BTreeMap<usize, usize>,
}

impl Paths {
    /// Adds a chain, whose outermost function is to be `outermost`, called by `main`'s callers.
    pub fn add(&mut self, chain: ChainId, tables: &Tables, outermost: &str) {
        let names: Vec<&str> = tables
            .frames(chain)
            .map(|frame| frame.function.map_or("[unknown]", |name| tables.name(name)))
            .collect();
        let Some(first) = names.iter().position(|name| Step::of(name).is_some()) else { return };
        self.samples += 1;
        let mut step = Step::of(names[first]).expect("just found");
        let mut rest = names[first + 1..].iter();
        while step.level + 1 < step.depth {
            match rest.next() {
                Some(name) if Step::of(name).is_some_and(|next| next.calls(step)) => step.level += 1,
                Some(name) if name.starts_with('[') => {
                    return *self.broken.entry((*name).into()).or_default() += 1;
                }
                other => {
                    self.wrong += 1;
                    println!("{other:?} as the caller of {step:?} in {names:?}");
                    return;
                }
            }
        }
        let main = rest.next().copied().unwrap_or("[nothing]");
        let is_main = main == "main" || main.ends_with("::main") || main.ends_with(".main");
        match (is_main, names.last()) {
            (true, Some(&last)) if last == outermost => {
                self.right += 1;
                *self.depths.entry(step.depth).or_default() += 1;
            }
            (_, last) => {
                let last = last.copied().unwrap_or_default();
                *self.broken.entry(format!("{main} … {last}")).or_default() += 1;
            }
        }
    }

    /// The part of the samples whose chain is the true one.
    pub fn share(&self) -> f64 {
        self.right as f64 / self.samples.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_by_their_names() {
        let step = Some(Step { depth: 40, level: 7 });
        for name in ["path40_7", "paths::path40_7", "main.path40_7", "Path<40, 7>::run(long)"] {
            assert_eq!(Step::of(name), step, "{name}");
        }
        assert_eq!(Step::of("main"), None);
        assert_eq!(Step::of("path_7"), None);
    }
}
