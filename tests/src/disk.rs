//! Disk images with a guest's root file system.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::tree::Tree;

/// The size of an image, of which only what is used takes space on this machine.
const BYTES: u64 = 256 << 20;

/// Makes an ext4 image with a tree's files. Nobody has to be root for that.
pub(crate) fn make_ext4(tree: &Tree, image: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xenoscope-lab-").tempdir()?;
    tree.write_folder(folder.path())?;
    File::create(image)?.set_len(BYTES)?;
    // Debian keeps it where only root's path leads.
    let mut mke2fs = Command::new("/sbin/mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d"]).arg(folder.path()).arg(image);
    command::stdout(&mut mke2fs, "apt-get install e2fsprogs").context("cannot make a disk image")?;
    Ok(())
}
