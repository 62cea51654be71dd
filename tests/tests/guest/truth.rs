//! What the guests wrote down of themselves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A guest's own words.
pub(crate) struct Truth {
    folder: PathBuf,
    /// The lines of `/proc/kallsyms`.
    pub(crate) symbols: Vec<Line>,
    /// The names in `/proc/modules`.
    pub(crate) modules: Vec<String>,
    pub(crate) release: String,
}

/// A line of `/proc/kallsyms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) address: u64,
    pub(crate) kind: char,
    pub(crate) name: String,
    /// Empty for the kernel itself.
    pub(crate) module: String,
}

impl Truth {
    pub(crate) fn read(folder: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let symbols = text("kallsyms").lines().map(|line| Line::parse(line).expect(line)).collect();
        let modules =
            text("modules").lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
        let release = text("release").trim_end().to_owned();
        Self { folder: folder.to_owned(), symbols, modules, release }
    }

    /// The names of a process's threads by their numbers; none for a process that has ended since.
    pub(crate) fn threads(&self, pid: u32) -> BTreeMap<u32, String> {
        let entries = fs::read_dir(self.folder.join(format!("processes/{pid}/task")));
        let thread = |path: PathBuf| {
            let tid = path.file_name()?.to_str()?.parse().ok()?;
            let name = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
            Some((tid, name.strip_suffix('\n')?.to_owned()))
        };
        entries.into_iter().flatten().filter_map(|entry| thread(entry.ok()?.path())).collect()
    }

    /// The lines of a process's `maps`.
    pub(crate) fn maps(&self, pid: u32) -> Vec<String> {
        let bytes = fs::read(self.folder.join(format!("processes/{pid}/maps"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }

    /// The path of a process's control group.
    pub(crate) fn cgroup(&self, pid: u32) -> Option<String> {
        let text = fs::read_to_string(self.folder.join(format!("processes/{pid}/cgroup"))).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
    }
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (address, rest) = line.split_once(' ')?;
        let (kind, rest) = rest.split_once(' ')?;
        let (name, module) = rest.split_once('\t').unwrap_or((rest, "[]"));
        Some(Self {
            address: u64::from_str_radix(address, 16).ok()?,
            kind: kind.parse().ok()?,
            name: name.to_owned(),
            module: module.strip_prefix('[')?.strip_suffix(']')?.to_owned(),
        })
    }
}
