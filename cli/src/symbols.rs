//! `xenoscope symbols`: files with symbols that guests do not have in memory.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};
use symbolizer::SymbolStore;

/// Keep symbols of programs that guests run
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope symbols add server.debug                 what was stripped off a program
  xenoscope symbols add build/target/release         all programs and libraries in a folder
  xenoscope symbols add nginx-dbgsym_1.22.1_amd64.deb

A guest has in memory what it runs, and not always what that is called: a program that was only executed lacks its full
symbol table. `xenoscope record` then looks for a file of the same build here. Files are told by their build ids alone,
whatever they are called; `xenoscope domains --verbose` shows which builds a guest runs.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Keep copies of files, by their build ids
    Add {
        /// ELF files, folders with such, or packages of Debian
        #[arg(required = true, value_name = "FILE|DIR|.deb")]
        files: Vec<PathBuf>,
    },
}

/// What became of the files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    kept: usize,
    without_id: usize,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Action::Add { files } = args.command;
    let store = SymbolStore::of_user();
    let mut count = Count::default();
    for file in &files {
        add(&store, file, &mut count)?;
    }
    let Count { kept, without_id } = count;
    eprintln!("xenoscope: {kept} files kept in {}", store.folder().display());
    if without_id > 0 {
        eprintln!("xenoscope: {without_id} ELF files have no build id (`ld --build-id`) and were left out");
    }
    if kept == 0 {
        bail!("none of these files can serve: they are no ELF files, or have no build ids");
    }
    Ok(ExitCode::SUCCESS)
}

fn add(store: &SymbolStore, path: &Path, count: &mut Count) -> anyhow::Result<()> {
    let of = || path.display().to_string();
    let metadata = fs::metadata(path).with_context(of)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).with_context(of)? {
            let entry = entry.with_context(of)?;
            // A link may lead anywhere; what it leads to is found where it is.
            if !entry.file_type().with_context(of)?.is_symlink() {
                add(store, &entry.path(), count)?;
            }
        }
    } else if metadata.is_file() && path.extension().is_some_and(|extension| extension == "deb") {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let unpacked = Command::new("dpkg-deb").arg("--extract").arg(path).arg(folder.path()).status();
        if !unpacked.context("packages are unpacked by dpkg-deb")?.success() {
            bail!("dpkg-deb can't unpack {}", path.display());
        }
        add(store, folder.path(), count)?;
    } else if metadata.is_file() {
        let mut file = File::open(path).with_context(of)?;
        match symbolizer::build_id(&file) {
            Some(Some(id)) => {
                store.put(&id, &mut file).with_context(|| format!("could not keep {}", path.display()))?;
                count.kept += 1;
            }
            Some(None) => count.without_id += 1,
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn folders_are_searched_and_links_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let program = env::current_exe().unwrap();
        let (files, store) = (folder.path().join("files"), SymbolStore::at(folder.path().join("store")));
        fs::create_dir_all(files.join("deep/down")).unwrap();
        fs::copy(&program, files.join("deep/down/program")).unwrap();
        let size = fs::metadata(&program).unwrap().len();
        fs::write(files.join("text"), "no ELF file").unwrap();
        symlink(&files, files.join("deep/loop")).unwrap();
        let mut count = Count::default();
        add(&store, &files, &mut count).unwrap();
        let id = symbolizer::build_id(&File::open(&program).unwrap()).unwrap();
        assert_eq!(count, Count { kept: usize::from(id.is_some()), without_id: usize::from(id.is_none()) });
        let folders = fs::read_dir(store.folder()).into_iter().flatten();
        let kept = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        let sizes: Vec<u64> = kept.map(|file| file.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes, vec![size; count.kept], "the whole of it");
    }
}
