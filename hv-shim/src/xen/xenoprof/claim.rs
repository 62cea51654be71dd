//! Who uses xenoprof: one session is all that a hypervisor has.

use std::{
    fs::{File, TryLockError},
    io::Write,
};

use crate::ShimError;

/// Locked by whoever uses xenoprof. What it says it says of a session that was begun and not ended.
const CLAIM: &str = "/run/xenoscope-xenoprof";

/// Whether a session was left behind: by a process that has died.
pub(in crate::xen) fn is_left_over() -> bool {
    File::open(CLAIM).is_ok_and(|file| {
        file.try_lock_shared().is_ok() && file.metadata().is_ok_and(|metadata| metadata.len() > 0)
    })
}

/// The right to use xenoprof. Dropped once nothing of it is left in the hypervisor.
pub(super) struct Claim(File);

impl Claim {
    pub(super) fn make() -> Result<Self, ShimError> {
        let io = |error| ShimError::Io { what: format!("claiming xenoprof by {CLAIM}"), error };
        let mut file = File::options().create(true).truncate(false).write(true).open(CLAIM).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ShimError::Request(
                    "xenoprof is in use by another recording: stop that one first".into(),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        writeln!(file, "process {}", std::process::id()).map_err(io)?;
        Ok(Self(file))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Kept otherwise, it has the next recording end what is not there.
        let _ = self.0.set_len(0);
    }
}
