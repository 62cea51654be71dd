//! The file that a recording goes to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// A file that is known to be writable, and keeps what it held until something is written: a recording that never
/// begins must not cost an older one.
pub(crate) struct Output {
    file: File,
    path: PathBuf,
    /// It was made for this recording.
    new: bool,
    written: bool,
}

impl Output {
    /// Opens it, for its owner alone: addresses and names of tenants are nobody else's business.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let new = !path.exists();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("{} can't be written", path.display()))?;
        Ok(Self { file, path: path.to_owned(), new, written: false })
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
