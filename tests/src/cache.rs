//! Where packages, images and symbol files are kept from one run to the next.

use std::env;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The lab's folder below `$XDG_CACHE_HOME` or `~/.cache`. It may be deleted at any time between runs.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    /// Held locked: of two labs started together, the second one waits and then finds the cache filled.
    _lock: File,
}

impl Cache {
    /// Opens the cache, waiting while another lab fills it.
    pub(crate) fn open() -> Result<Cache> {
        let base = match env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
                .join(".cache"),
        };
        let root = base.join("xenoscope-lab");
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let lock = File::create(root.join("lock"))?;
        lock.lock()?;
        Ok(Cache { root, _lock: lock })
    }

    /// A folder in the cache.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}
