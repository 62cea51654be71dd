//! Instructions that a machine's CPUs execute, counted by a plugin inside of QEMU.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cache::Cache;
use crate::files;

/// Where the plugin counts, in QEMU's folder: for each CPU a line of the cache, with these numbers in front.
const COUNTS: &str = "executed.bin";
const LINE: usize = 64;

/// How many instructions a CPU has executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Executed {
    /// At addresses of Xen's code, livepatches' included.
    pub hypervisor: u64,
    /// In all.
    pub all: u64,
}

impl Executed {
    pub(crate) fn since(self, before: Executed) -> Executed {
        Executed { hypervisor: self.hypervisor - before.hypervisor, all: self.all - before.all }
    }
}

/// The plugin, compiled.
pub(crate) fn plugin(cache: &Cache) -> Result<PathBuf> {
    files::plugin(&Path::new(env!("CARGO_MANIFEST_DIR")).join("plugin/executed.c"), cache)
}

/// What QEMU's option `-plugin` is told.
pub(crate) fn argument(plugin: &str, cpus: u32) -> String {
    format!("file={plugin},counts={COUNTS},cpus={cpus}")
}

/// What each CPU of the QEMU that runs in this folder has executed so far.
pub(crate) fn read(folder: &Path) -> Result<Vec<Executed>> {
    let bytes = fs::read(folder.join(COUNTS)).context("QEMU's plugin does not count")?;
    let number = |line: &[u8], at: usize| {
        u64::from_ne_bytes(line[at..at + 8].try_into().expect("eight bytes of a line"))
    };
    let of = |line: &[u8]| Executed { hypervisor: number(line, 0), all: number(line, 8) };
    Ok(bytes.chunks_exact(LINE).map(of).collect())
}
