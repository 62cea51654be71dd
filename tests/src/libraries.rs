//! Finds the shared libraries that programs need, in the packages of the programs' own release or on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use object::LittleEndian;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::FileHeader;

use crate::tree::Tree;

/// The programs' loader, which is found by its path and not by a search.
pub(crate) const LOADER: &str = "ld-linux-x86-64.so.2";

/// Loaded by glibc itself when a thread is cancelled, so that no program names it as needed.
const UNWINDER: &str = "libgcc_s.so.1";

/// The libraries that `programs` need, directly or through one another, by name; the loader included. `find` has the
/// first of several paths, without leading slash, that there is.
pub(crate) fn needed(
    find: impl Fn(&[&str]) -> Option<PathBuf>,
    programs: &[PathBuf],
) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut wanted = vec![LOADER.to_owned(), UNWINDER.to_owned()];
    for program in programs {
        wanted.extend(
            needed_by(&fs::read(program)?).with_context(|| format!("cannot read {}", program.display()))?,
        );
    }
    while let Some(name) = wanted.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let folders =
            ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"];
        let places = folders.map(|folder| format!("{folder}/{name}"));
        let path = find(&places.each_ref().map(String::as_str))
            .with_context(|| format!("there is no library {name}"))?;
        wanted
            .extend(needed_by(&fs::read(&path)?).with_context(|| format!("cannot read {}", path.display()))?);
        found.insert(name, path);
    }
    Ok(found)
}

/// Puts the libraries that `programs` need into a tree, where their loader looks for them; `find` as above.
pub(crate) fn add_to(
    tree: &mut Tree,
    find: impl Fn(&[&str]) -> Option<PathBuf>,
    programs: &[PathBuf],
) -> Result<()> {
    for (name, path) in needed(find, programs)? {
        let folder = if name == LOADER { "/lib64" } else { "/lib/x86_64-linux-gnu" };
        tree.file(&format!("{folder}/{name}"), 0o755, fs::read(path)?);
    }
    Ok(())
}

/// The names of the libraries that an ELF file asks for; none when it is a script.
fn needed_by(file: &[u8]) -> Result<Vec<String>> {
    if !file.starts_with(b"\x7fELF") {
        return Ok(Vec::new());
    }
    let header = FileHeader64::<LittleEndian>::parse(file)?;
    let sections = header.sections(LittleEndian, file)?;
    let table = sections.dynamic_table(LittleEndian, file)?;
    let needed = table.iter().filter(|entry| entry.tag == DT_NEEDED);
    needed.map(|entry| Ok(String::from_utf8_lossy(table.string(entry)?).into_owned())).collect()
}
