//! What a hypervisor has only one of, and which of our processes uses it.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
};

use crate::ShimError;

/// Something that one recording at a time can have.
pub(super) struct Single {
    /// Locked by whoever uses it. What it says it says of a use that was begun and not ended.
    path: &'static str,
    name: &'static str,
}

pub(super) const XENOPROF: Single = Single { path: "/run/xenoscope-xenoprof", name: "xenoprof" };
pub(super) const TRACE_BUFFERS: Single = Single { path: "/run/xenoscope-trace", name: "Xen's trace buffers" };

impl Single {
    /// What a process that has died while it used it had said; none where all have ended well, or one is at it.
    pub(super) fn left_over(&self) -> Option<String> {
        let file = File::open(self.path).ok()?;
        file.try_lock_shared().ok()?;
        // The lock goes with the file, at the end.
        fs::read_to_string(self.path).ok().filter(|said| !said.is_empty())
    }

    /// Takes it, and says what whoever comes after a sudden death must know.
    pub(super) fn claim(&self, said: &str) -> Result<Claim, ShimError> {
        let Self { path, name } = self;
        let io = |error| ShimError::Io { what: format!("claiming {name} by {path}"), error };
        let mut file = File::options().create(true).truncate(false).write(true).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{name}: in use by another recording: stop that one first");
                return Err(ShimError::Request(text));
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).map_err(io)?;
        writeln!(file, "process {}{said}", std::process::id()).map_err(io)?;
        Ok(Claim(file))
    }
}

/// The right to use it. Dropped once nothing of the use is left in the hypervisor.
pub(super) struct Claim(File);

impl Drop for Claim {
    fn drop(&mut self) {
        // Kept otherwise, it has the next recording end what is not there.
        let _ = self.0.set_len(0);
    }
}
