//! The files that recordings go to.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use collector::Sink;

/// A file that is known to be writable, and keeps what it held until something is written: a recording that never
/// begins must not cost an older one.
pub(crate) struct Output {
    file: File,
    path: PathBuf,
    /// It was made for this recording.
    new: bool,
    written: bool,
    max_bytes: Option<u64>,
    rotation: Option<Rotation>,
}

/// Which file of a series one is.
#[derive(Clone, Debug)]
struct Rotation {
    base: PathBuf,
    index: u32,
    kept: u32,
}

impl Rotation {
    fn path(&self, index: u32) -> PathBuf {
        numbered(&self.base, &format!("{index:05}"))
    }
}

/// `name-NUMBER.xsr` for `name.xsr`.
pub(crate) fn numbered(path: &Path, number: &str) -> PathBuf {
    let mut name = path.file_stem().map_or_else(OsString::new, OsString::from);
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

impl Output {
    /// Opens it, for its owner alone: addresses and names of tenants are nobody else's business.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::limited(path, None, None)
    }

    /// Opens a file that may have so many bytes, with the last `kept` files of a series if there is to be one.
    pub(crate) fn limited(path: &Path, max_bytes: Option<u64>, kept: Option<u32>) -> anyhow::Result<Self> {
        let rotation = kept.map(|kept| Rotation { base: path.to_owned(), index: 1, kept });
        let path = rotation.as_ref().map_or_else(|| path.to_owned(), |rotation| rotation.path(1));
        Self::open_file(&path, max_bytes, rotation)
            .with_context(|| format!("{} can't be written", path.display()))
    }

    fn open_file(path: &Path, max_bytes: Option<u64>, rotation: Option<Rotation>) -> io::Result<Self> {
        let new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(Self { file, path: path.to_owned(), new, written: false, max_bytes, rotation })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Sink for Output {
    fn max_bytes(&self) -> Option<u64> {
        self.max_bytes
    }

    fn next(&mut self) -> io::Result<Option<Self>> {
        let Some(rotation) = &self.rotation else { return Ok(None) };
        let rotation = Rotation { index: rotation.index.saturating_add(1), ..rotation.clone() };
        if let Some(old) = rotation.index.checked_sub(rotation.kept).filter(|&old| old > 0) {
            match fs::remove_file(rotation.path(old)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Self::open_file(&rotation.path(rotation.index), self.max_bytes, Some(rotation)).map(Some)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.written {
            // Devices and pipes can't be cut, and need not be.
            if self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
            }
            self.written = true;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.new && !self.written {
            // Nothing was recorded: an empty file would only be in the way.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_files_of_a_series_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.xsr");
        let mut output = Output::limited(&path, Some(10), Some(2)).unwrap();
        for _ in 0..3 {
            output.write_all(b"x").unwrap();
            output = output.next().unwrap().unwrap();
        }
        output.write_all(b"x").unwrap();
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["x-00003.xsr", "x-00004.xsr"]);
        assert!(Output::open(&path).unwrap().next().unwrap().is_none());
    }
}
