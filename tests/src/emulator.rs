//! Which QEMU plays a machine.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::libraries;
use crate::packages::{Package, PackageSet};
use crate::scenario::Release;

/// A file of each folder that QEMU is to find firmware in.
const FIRMWARE: [&str; 2] = ["usr/share/qemu/linuxboot_dma.bin", "usr/share/seabios/bios-256k.bin"];

/// A QEMU: its program, after what loads it and before what it is always told, and the packages that it is from.
#[derive(Debug)]
pub(crate) struct Emulator {
    pub(crate) program: Vec<OsString>,
    pub(crate) packages: Vec<Package>,
}

impl Emulator {
    /// The QEMU that is installed on this machine.
    pub(crate) fn installed() -> Emulator {
        Emulator { program: vec!["qemu-system-x86_64".into()], packages: Vec::new() }
    }

    /// That of Debian 13, loaded with the libraries of that release, links to which are put into `folder`.
    pub(crate) fn unpacked(cache: &Cache, folder: &Path) -> Result<Emulator> {
        let wanted = ["qemu-system-x86", "qemu-system-data", "seabios"].map(str::to_owned);
        let packages = PackageSet::fetch(cache, Release::Trixie, &wanted)?;
        let find = |path: &str| packages.find(&[path]).with_context(|| format!("no package has {path}"));
        let qemu = find("usr/bin/qemu-system-x86_64")?;
        let libraries = folder.join("libraries");
        fs::create_dir(&libraries)?;
        for (name, path) in libraries::needed(|places| packages.find(places), std::slice::from_ref(&qemu))? {
            symlink(path, libraries.join(name))?;
        }
        let mut program: Vec<OsString> = vec![
            libraries.join(libraries::LOADER).into(),
            "--library-path".into(),
            libraries.into(),
            qemu.into(),
        ];
        for file in FIRMWARE {
            let folder = find(file)?.parent().context("a file has a folder")?.to_owned();
            program.extend(["-L".into(), folder.into()]);
        }
        Ok(Emulator { program, packages: packages.packages })
    }
}
