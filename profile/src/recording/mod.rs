//! The recording: an append-only file of checksummed chunks, readable up to its last whole chunk.
//!
//! ```text
//! file  = magic "XENOSCP1" chunk*
//! chunk = kind u8 · 0 u8 · 0 u16 · length u32 · CRC-32 of the eight bytes before it and of the payload u32
//!         · payload (length bytes, at most 16 MiB)
//! ```
//! All integers are little-endian; payloads are [postcard](https://postcard.jamesmunns.com/wire-format) encodings of
//! the types in this crate. A reader skips kinds that it does not know.
//!
//! | kind | chunk | payload |
//! |---|---|---|
//! | 1 | header | one [`Header`]; the first chunk, and there only |
//! | 2 | facts | one [`Fact`] after the other |
//! | 3 | samples | one [`Sample`](crate::Sample) after the other |
//! | 4 | snapshot | one [`Snapshot`](crate::Snapshot), replacing the one before it |
//! | 5 | end | one [`End`]; what follows it is not read |
//!
//! Names, frames and chains are numbered from 0 in the order in which facts introduce them. Whatever is referred to,
//! domains and processes included, was introduced by an earlier fact; so a prefix of whole chunks can always be resolved.
//! Kind 0 is never written: a file system that loses power may leave zeros where the next chunk was to be.

mod chunk;
mod error;
mod header;
mod reader;
mod tables;
mod writer;

pub use error::{Damage, RecordingError};
pub use header::{End, EndReason, Fact, Header, Host, Note};
pub use reader::{Completeness, Recorded, Recording, Told};
pub use tables::{MAX_DEPTH, Tables};
pub use writer::Writer;
