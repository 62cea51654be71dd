//! The files that recordings go to.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{self, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
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
    place: Place,
}

/// Where a recording goes now: into one file of a series after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place(Arc<Mutex<PathBuf>>);

impl Place {
    fn set(&self, path: &Path) {
        // Who asks may be in another folder.
        let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = path;
    }

    /// The file.
    pub(crate) fn get(&self) -> PathBuf {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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

/// The file that goes on where one of a series ends; none if its name is not one of a series.
pub(crate) fn next_of_series(path: &Path) -> Option<PathBuf> {
    let name = path.file_stem()?.to_str()?;
    let (base, index) = name.rsplit_once('-')?;
    let index = index.parse::<u32>().ok()?.checked_add(1)?;
    let base = path.with_file_name(format!("{base}.{}", path.extension()?.to_str()?));
    Some(Rotation { base, index, kept: 1 }.path(index))
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
        Self::open_file(&path, max_bytes, rotation, Place::default())
            .with_context(|| format!("{} can't be written", path.display()))
    }

    fn open_file(
        path: &Path,
        max_bytes: Option<u64>,
        rotation: Option<Rotation>,
        place: Place,
    ) -> io::Result<Self> {
        let new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        place.set(path);
        Ok(Self { file, path: path.to_owned(), new, written: false, max_bytes, rotation, place })
    }

    /// Where it is, and where those are that follow it.
    pub(crate) fn place(&self) -> Place {
        self.place.clone()
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
        let path = rotation.path(rotation.index);
        Self::open_file(&path, self.max_bytes, Some(rotation), self.place()).map(Some)
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
        assert_eq!(output.place().get(), folder.path().join("x-00004.xsr"));
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["x-00003.xsr", "x-00004.xsr"]);
        assert_eq!(
            next_of_series(&folder.path().join("x.y-00003.xsr")),
            Some(folder.path().join("x.y-00004.xsr"))
        );
        assert_eq!(next_of_series(&path), None);
        assert!(Output::open(&path).unwrap().next().unwrap().is_none());
    }
}
