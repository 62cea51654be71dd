//! The recording: an append-only file of checksummed, compressed chunks, readable up to its last whole chunk.
//!
//! `docs/recording.md` describes the file and what is promised of it. Here, `chunk` frames and packs; `columns` lays
//! tables of numbers out so that they pack well; `entries`, `samples` and `exits` are such tables, whose rows are stored as they
//! differ from what those before let expect; all else is [postcard](https://postcard.jamesmunns.com/wire-format)'s encoding
//! of the types in this crate.
//!
//! Whatever is referred to by number, domains and processes included, was introduced before; so a prefix of whole chunks
//! can always be resolved.

mod chunk;
mod columns;
mod copy;
mod entries;
mod error;
mod exits;
mod header;
mod kept;
mod reader;
mod samples;
mod tables;
mod writer;

pub use copy::{Copier, Selection, SourceCode, SourceFrame};
pub use error::{Damage, RecordingError};
pub use exits::Exits;
pub use header::{End, EndReason, Entry, Fact, Header, Host, Lane, Mark, Move, Note, Place, PlaceId};
pub use reader::{Completeness, Recorded, Recording, Told};
pub use samples::Samples;
pub use tables::{MAX_DEPTH, Tables};
pub use writer::Writer;
