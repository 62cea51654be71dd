//! What can go wrong with a recording, and where.

use std::{io, sync::Arc};

/// A recording could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file could not be opened.
    #[error("could not open {file}")]
    Open {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file could not be read.
    #[error("could not read {file} at byte {at}")]
    Read {
        /// The file.
        file: String,
        /// Where reading stopped.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{file} is not a recording: it does not start with \"XENOSCP\"")]
    NotARecording {
        /// The file.
        file: String,
    },
    /// The file is of a version that this program does not read.
    #[error(
        "{file} is a recording of version {found}, and this program reads version 2: read it with the program that \
         made it, or a newer one"
    )]
    OtherVersion {
        /// The file.
        file: String,
        /// Its version.
        found: char,
    },
    /// The file ends before it says anything.
    #[error("{file} is cut before the end of its header: it holds no samples")]
    NoHeader {
        /// The file.
        file: String,
    },
    /// The file does not even say how it was made.
    #[error("{file} is damaged at byte {at}: {damage}")]
    Damaged {
        /// The file.
        file: String,
        /// Where the chunk in question starts.
        at: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The recording could not be written. What was written before is whole; nothing is written after.
    #[error("could not write the recording")]
    Write(#[source] Arc<io::Error>),
}

/// What is wrong with a chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Its bytes are not those that were written.
    #[error("the checksum does not match")]
    Checksum,
    /// It claims to be longer than any chunk may be.
    #[error("a chunk claims to have {0} bytes")]
    Oversized(u32),
    /// What its payload was packed from is not to be had.
    #[error("a chunk cannot be unpacked")]
    Packing,
    /// A table in it is none.
    #[error("a table of numbers cannot be decoded: {0}")]
    Columns(&'static str),
    /// Its payload is not an encoding of what its kind says.
    #[error("{what} cannot be decoded ({cause})")]
    Undecodable {
        /// What was expected.
        what: &'static str,
        /// The decoder's reason.
        cause: postcard::Error,
    },
    /// It refers to something that no earlier fact introduced.
    #[error("{what} {id} is referred to but was not introduced")]
    Unknown {
        /// The kind of thing.
        what: &'static str,
        /// Its number.
        id: u32,
    },
    /// A call chain is longer than any writer makes it.
    #[error("a call chain is deeper than {0} frames")]
    TooDeep(u16),
    /// The header is not the first chunk, or not the only one.
    #[error("the header is not in its place")]
    MisplacedHeader,
}
