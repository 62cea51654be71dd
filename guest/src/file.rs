//! What an ELF file's bytes are read from: a guest's page cache, or memory in which it lies as a whole.

use crate::{budget::Exhausted, error::GuestError};

/// Why bytes of a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The guest has not got that page in memory.
    #[error("the guest does not have the page at {0:#x} of the file in memory")]
    NotResident(u64),
    /// The file is shorter.
    #[error("the file ends before {0:#x}")]
    PastEnd(u64),
    /// The guest's own records of the file could not be read.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

impl From<Exhausted> for FileError {
    fn from(exhausted: Exhausted) -> Self {
        Self::Guest(exhausted.into())
    }
}

/// The bytes of a file, some of which may be missing.
pub trait FileBytes {
    /// The file's size in bytes.
    fn size(&self) -> u64;

    /// Fills `bytes` from `offset` on; all of it, or the error says what is missing.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FileError>;

    /// Tells what will be read next, so that it can be got together.
    fn announce(&self, _offset: u64, _length: u64) {}
}

impl FileBytes for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.len());
        bytes.copy_from_slice(self.get(start..end).ok_or(FileError::PastEnd(offset))?);
        Ok(())
    }
}
