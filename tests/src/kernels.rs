//! Debian's kernels: the image, and modules in the order in which they can be loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use object::{Object, ObjectSection};

use crate::command;
use crate::packages::PackageSet;
use crate::tree::Tree;

/// A kernel in a set of packages.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` tells it.
    pub(crate) version: String,
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

/// A kernel module, uncompressed.
struct Module {
    name: String,
    content: Vec<u8>,
}

impl Kernel {
    /// The one kernel of the packages.
    pub(crate) fn find(packages: &PackageSet) -> Result<Kernel> {
        let images = packages.list("boot");
        let version = |path: &PathBuf| Some(path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned());
        let (version, image) = images
            .iter()
            .find_map(|path| Some((version(path)?, path.clone())))
            .context("the kernel's package has no /boot/vmlinuz-*")?;
        // Where /usr is merged, modules are below /usr/lib.
        let places = [format!("lib/modules/{version}/kernel"), format!("usr/lib/modules/{version}/kernel")];
        let modules = packages
            .find(&[&places[0], &places[1]])
            .with_context(|| format!("the packages have no modules for kernel {version}"))?;
        Ok(Kernel { version, image, modules })
    }

    /// The modules called `names`, each after those that it depends on. What is built in, or not known, is left out.
    fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut loaded = Vec::new();
        for name in names {
            self.load(name, &mut loaded)?;
        }
        Ok(loaded)
    }

    /// Puts modules into an initramfs, with the order in which its init loads them.
    pub(crate) fn add_modules(&self, tree: &mut Tree, names: &[&str]) -> Result<()> {
        let modules = self.modules(names)?;
        let order: String = modules.iter().map(|module| format!("{}\n", module.name)).collect();
        tree.file("/lab/modules/order", 0o644, order);
        for Module { name, content } in modules {
            tree.file(&format!("/lab/modules/{name}.ko"), 0o644, content);
        }
        Ok(())
    }

    fn load(&self, name: &str, loaded: &mut Vec<Module>) -> Result<()> {
        let name = name.replace('-', "_");
        if loaded.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let Some(path) = find_module(&self.modules, &name)? else { return Ok(()) };
        let content = match path.extension().is_some_and(|extension| extension == "xz") {
            true => command::stdout(Command::new("xz").arg("-dc").arg(&path), "apt-get install xz-utils")?,
            false => fs::read(&path)?,
        };
        for needed in depends(&content).with_context(|| format!("cannot read {}", path.display()))? {
            self.load(&needed, loaded)?;
        }
        loaded.push(Module { name, content });
        Ok(())
    }
}

/// Looks for `NAME.ko` or `NAME.ko.xz` below a folder, where `-` and `_` are the same.
fn find_module(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find_module(&path, name)? {
                return Ok(Some(found));
            }
        } else if let Some(file) = path.file_name().and_then(|file| file.to_str())
            && let Some((stem, "ko" | "ko.xz")) = file.split_once('.')
            && stem.replace('-', "_") == name
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// What a module says of the modules that it depends on.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let elf = object::File::parse(module)?;
    let section = elf.section_by_name(".modinfo").context("it has no .modinfo")?;
    Ok(depends_in(section.data()?))
}

fn depends_in(modinfo: &[u8]) -> Vec<String> {
    let lines = modinfo.split(|&byte| byte == 0).filter_map(|line| line.strip_prefix(b"depends="));
    let names = lines.flat_map(|list| list.split(|&byte| byte == b','));
    names.filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        assert_eq!(depends_in(b"license=GPL\0depends=netfs,9pnet\0name=9p\0"), ["netfs", "9pnet"]);
        assert!(depends_in(b"depends=\0").is_empty());
    }
}
