//! The files that a scenario puts into a domain: copied from this machine, or compiled for it.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cache::Cache;
use crate::command;
use crate::libraries;
use crate::tree::Tree;

/// A file of a scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct FileEntry {
    source: Source,
    to: String,
}

#[derive(Debug, Clone)]
enum Source {
    /// A file, or a folder with all that is in it.
    Copied { from: PathBuf },
    /// A program.
    Compiled { program: PathBuf, flags: Vec<String>, linked: Linked, strip: bool },
}

/// A file as the scenario writes it down.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    from: Option<PathBuf>,
    cc: Option<PathBuf>,
    #[serde(default)]
    cflags: Vec<String>,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    strip: bool,
    to: String,
}

impl TryFrom<Written> for FileEntry {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { from, cc, cflags, shared, strip, to } = written;
        if !to.starts_with('/') {
            return Err(format!("`to`: {to:?} is not an absolute path"));
        }
        let linked = if shared { Linked::Shared } else { Linked::Static };
        let source = match (from, cc) {
            (Some(from), None) if cflags.is_empty() && !shared && !strip => Source::Copied { from },
            (Some(_), None) => return Err("`cflags`, `shared` and `strip` go with `cc`".to_owned()),
            (None, Some(program)) if shared && extension(&program) == "go" => {
                return Err("programs in Go are linked statically".to_owned());
            }
            (None, Some(program)) => Source::Compiled { program, flags: cflags, linked, strip },
            _ => return Err("a file has either `from` or `cc`".to_owned()),
        };
        Ok(FileEntry { source, to })
    }
}

/// A C program of the lab's own.
pub(crate) fn program_entry(program: &str, flags: &[&str], to: &str) -> FileEntry {
    let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    let source = Source::Compiled { program: program.into(), flags, linked: Linked::Static, strip: false };
    FileEntry { source, to: to.to_owned() }
}

/// Adds the files to a tree; their paths on this machine start from `folder`.
pub(crate) fn add_to(tree: &mut Tree, entries: &[FileEntry], folder: &Path, cache: &Cache) -> Result<()> {
    for entry in entries {
        match &entry.source {
            Source::Copied { from } => copy(tree, &folder.join(from), &entry.to)?,
            Source::Compiled { program, flags, linked, strip } => {
                let mut binary = compile(&folder.join(program), *linked, flags, cache)?;
                if *strip {
                    binary = stripped(&binary)?;
                }
                tree.file(&entry.to, 0o755, fs::read(&binary)?);
                if *linked == Linked::Shared {
                    // Those of the machine that it was linked on.
                    let on_this_machine = |places: &[&str]| {
                        places.iter().map(|place| Path::new("/").join(place)).find(|place| place.exists())
                    };
                    libraries::add_to(tree, on_this_machine, &[binary])?;
                }
            }
        }
    }
    Ok(())
}

fn copy(tree: &mut Tree, from: &Path, to: &str) -> Result<()> {
    let about = || format!("cannot read {}", from.display());
    let metadata = fs::metadata(from).with_context(about)?;
    if !metadata.is_dir() {
        tree.file(to, metadata.permissions().mode(), fs::read(from).with_context(about)?);
        return Ok(());
    }
    tree.folder(to);
    for entry in fs::read_dir(from).with_context(about)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("a name in {} is not UTF-8", from.display()))?;
        copy(tree, &entry.path(), &format!("{}/{name}", to.trim_end_matches('/')))?;
    }
    Ok(())
}

/// Compiles a program as the lab does for the domains that it runs in, and gives its file.
pub fn compiled(program: &Path, flags: &[&str]) -> Result<PathBuf> {
    let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
    compile(program, Linked::Static, &flags, &Cache::open()?)
}

/// Compiles a plugin of QEMU's.
pub(crate) fn plugin(source: &Path, cache: &Cache) -> Result<PathBuf> {
    compile(source, Linked::Plugin, &[], cache)
}

/// What a compiler is to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Linked {
    /// A program that runs in any domain.
    Static,
    /// A program that lies anywhere, with shared libraries.
    Shared,
    /// What a program in C loads.
    Plugin,
}

fn extension(program: &Path) -> &str {
    program.extension().and_then(OsStr::to_str).unwrap_or_default()
}

/// Compiles a program once for each source and set of flags.
fn compile(program: &Path, linked: Linked, flags: &[String], cache: &Cache) -> Result<PathBuf> {
    let source = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let mut hasher = DefaultHasher::new();
    (&source, linked, flags).hash(&mut hasher);
    let name = program.file_stem().unwrap_or_default().to_string_lossy();
    let binary = cache.folder("programs")?.join(format!("{name}-{:016x}", hasher.finish()));
    if binary.exists() {
        return Ok(binary);
    }
    // Under another name first: a compiler that is interrupted must not leave half a program in the cache.
    let unfinished = binary.with_extension("new");
    let (mut compiler, mends) = match extension(program) {
        "cc" => (cpp(linked), "apt-get install g++"),
        "rs" => (rust(linked), "rustup toolchain install stable"),
        "go" => (go(cache)?, "apt-get install golang-go"),
        _ => (c(linked), "apt-get install gcc libc6-dev"),
    };
    compiler.args(flags).arg("-o").arg(&unfinished).arg(program);
    let done = command::output(&mut compiler, mends)?;
    if !done.status.success() {
        bail!(
            "{} cannot compile {}:\n{}",
            compiler.get_program().display(),
            program.display(),
            String::from_utf8_lossy(&done.stderr).trim_end()
        );
    }
    fs::rename(&unfinished, &binary)?;
    Ok(binary)
}

/// The same program, with the same build id, without its symbols.
fn stripped(binary: &Path) -> Result<PathBuf> {
    let stripped = binary.with_extension("stripped");
    if !stripped.exists() {
        let unfinished = binary.with_extension("new");
        let mut strip = Command::new("strip");
        command::stdout(strip.arg("-o").arg(&unfinished).arg(binary), "apt-get install binutils")?;
        fs::rename(&unfinished, &stripped)?;
    }
    Ok(stripped)
}

fn c(linked: Linked) -> Command {
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O2", "-g", "-Wall"]);
    cc.args(match linked {
        Linked::Static => &["-static", "-fno-pie", "-no-pie"][..],
        Linked::Shared => &["-fPIE", "-pie"],
        Linked::Plugin => &["-shared", "-fPIC", "-fvisibility=hidden"],
    });
    cc.args(["-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer"]);
    cc
}

fn cpp(linked: Linked) -> Command {
    let mut cpp = Command::new("c++");
    cpp.args(["-std=c++17", "-O2", "-Wall"]);
    cpp.args(if linked == Linked::Static { &["-static"][..] } else { &["-fPIE", "-pie"] });
    cpp
}

/// What it brings along of debugging information is large.
fn rust(linked: Linked) -> Command {
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "-O", "-Cstrip=debuginfo"]);
    if linked == Linked::Static {
        rustc.arg("-Ctarget-feature=+crt-static");
    }
    rustc
}

fn go(cache: &Cache) -> Result<Command> {
    let mut go = Command::new("go");
    go.args(["build", "-ldflags=-w"]).env("CGO_ENABLED", "0").env("GOCACHE", cache.folder("go")?);
    Ok(go)
}
