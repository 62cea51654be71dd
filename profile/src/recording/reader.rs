//! Reading a recording.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use serde::Deserialize;

use crate::{Sample, Snapshot, Time};

use super::{
    Damage, End, Fact, Header, Note, RecordingError, Tables,
    chunk::{ChunkReader, Kind, Next},
};

/// A recording whose header has been read, and whose samples wait to be.
#[derive(Debug)]
pub struct Recording<R> {
    header: Header,
    chunks: ChunkReader<R>,
}

impl Recording<BufReader<File>> {
    /// Opens a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let name = path.as_ref().display().to_string();
        match File::open(path) {
            Ok(file) => Self::named(BufReader::new(file), name),
            Err(source) => Err(RecordingError::Open { file: name, source }),
        }
    }
}

impl<R: Read> Recording<R> {
    /// Reads from something that is not a named file.
    pub fn read(input: R) -> Result<Self, RecordingError> {
        Self::named(input, "the recording".to_owned())
    }

    fn named(input: R, name: String) -> Result<Self, RecordingError> {
        let mut chunks = ChunkReader::new(input, name)?;
        match chunks.next()? {
            Next::Chunk(Kind::Header) => {}
            Next::Chunk(_) => return Err(chunks.damaged(Damage::MisplacedHeader)),
            Next::EndOfFile | Next::Torn => return Err(chunks.no_header()),
        }
        let header = decode("the header", &mut chunks.payload()).map_err(|damage| chunks.damaged(damage))?;
        Ok(Self { header, chunks })
    }

    /// How the recording was made.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Shows every sample in the order of the file, and returns the rest of what the recording says.
    ///
    /// One chunk is held in memory at a time, and the tables, which grow with what was introduced so far.
    pub fn for_each_sample(
        mut self,
        mut visit: impl FnMut(&Sample, &Tables),
    ) -> Result<Recorded, RecordingError> {
        let mut recorded = Recorded {
            until: self.header.started,
            header: self.header,
            tables: Tables::default(),
            notes: Vec::new(),
            snapshot: None,
            completeness: Completeness::Torn { at_byte: 0 },
        };
        recorded.completeness = loop {
            let kind = match self.chunks.next()? {
                Next::Chunk(kind) => kind,
                Next::EndOfFile | Next::Torn => break Completeness::Torn { at_byte: self.chunks.at() },
            };
            match recorded.take_chunk(kind, self.chunks.payload(), &mut visit) {
                Ok(None) => {}
                Ok(Some(end)) => break Completeness::Whole(end),
                Err(damage) => return Err(self.chunks.damaged(damage)),
            }
        };
        Ok(recorded)
    }
}

/// What a recording says besides its samples, once it has been read through.
#[derive(Debug)]
pub struct Recorded {
    /// How it was made.
    pub header: Header,
    /// What the numbers in its samples stand for.
    pub tables: Tables,
    /// What its reader must be told.
    pub notes: Vec<Note>,
    /// The last books.
    pub snapshot: Option<Snapshot>,
    /// The moment up to which it tells of the machine.
    pub until: Time,
    /// Whether it was finished.
    pub completeness: Completeness,
}

/// Whether a recording was finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It was, like this.
    Whole(End),
    /// The writer was killed, or the file was cut: what lies before this byte is all there is.
    Torn {
        /// The length of the part that was read.
        at_byte: u64,
    },
}

impl Recorded {
    /// Takes in one chunk; returns the end if it is that.
    fn take_chunk(
        &mut self,
        kind: Kind,
        mut payload: &[u8],
        visit: &mut impl FnMut(&Sample, &Tables),
    ) -> Result<Option<End>, Damage> {
        match kind {
            Kind::Header => return Err(Damage::MisplacedHeader),
            Kind::Facts => {
                while !payload.is_empty() {
                    match decode("a fact", &mut payload)? {
                        Fact::Note(note) => self.notes.push(note),
                        fact => self.tables.learn(fact)?,
                    }
                }
            }
            Kind::Samples => {
                while !payload.is_empty() {
                    let sample = decode("a sample", &mut payload)?;
                    self.tables.check_sample(&sample, self.header.events.len())?;
                    self.until = self.until.max(sample.time);
                    visit(&sample, &self.tables);
                }
            }
            Kind::Snapshot => {
                let snapshot: Snapshot = decode("a snapshot", &mut payload)?;
                self.tables.check_times(&snapshot.domains)?;
                self.until = self.until.max(snapshot.time);
                self.snapshot = Some(snapshot);
            }
            Kind::End => {
                let end: End = decode("the end", &mut payload)?;
                self.until = end.time;
                return Ok(Some(end));
            }
            Kind::Other(_) => {}
        }
        Ok(None)
    }
}

/// Decodes one value from the front of `bytes`.
fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &mut &'a [u8]) -> Result<T, Damage> {
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|cause| Damage::Undecodable { what, cause })?;
    *bytes = rest;
    Ok(value)
}
