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

    /// Reads what the recording tells next; [`Told::End`] or [`Told::Cut`] is the last.
    ///
    /// Nothing of it is checked against what was told before: [`Recorded::take`] does that. Where the input waits for
    /// what is still being written, so does this.
    pub fn read_next(&mut self) -> Result<Told, RecordingError> {
        let kind = match self.chunks.next()? {
            Next::Chunk(kind) => kind,
            Next::EndOfFile | Next::Torn => return Ok(Told::Cut { at_byte: self.chunks.at() }),
        };
        Told::decode(kind, self.chunks.payload()).map_err(|damage| self.chunks.damaged(damage))
    }

    /// Shows every sample in the order of the file, and returns the rest of what the recording says.
    ///
    /// One chunk is held in memory at a time, and the tables, which grow with what was introduced so far.
    pub fn for_each_sample(
        mut self,
        mut visit: impl FnMut(&Sample, &Tables),
    ) -> Result<Recorded, RecordingError> {
        let mut recorded = Recorded::new(self.header.clone());
        loop {
            let told = self.read_next()?;
            let is_last = told.is_last();
            recorded.take(told, &mut visit).map_err(|damage| self.chunks.damaged(damage))?;
            if is_last {
                return Ok(recorded);
            }
        }
    }
}

/// A piece of what a recording tells, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// What later samples refer to.
    Facts(Vec<Fact>),
    /// Samples.
    Samples(Vec<Sample>),
    /// The books, replacing those before.
    Snapshot(Snapshot),
    /// The recording was finished: nothing follows.
    End(End),
    /// The writer was killed, or the file was cut: nothing follows.
    Cut {
        /// The length of the part that was read.
        at_byte: u64,
    },
    /// Something that a later version adds.
    Other,
}

impl Told {
    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::End(_) | Self::Cut { .. })
    }

    fn decode(kind: Kind, mut payload: &[u8]) -> Result<Self, Damage> {
        Ok(match kind {
            Kind::Header => return Err(Damage::MisplacedHeader),
            Kind::Facts => Self::Facts(decode_all("a fact", payload)?),
            Kind::Samples => Self::Samples(decode_all("a sample", payload)?),
            Kind::Snapshot => Self::Snapshot(decode("a snapshot", &mut payload)?),
            Kind::End => Self::End(decode("the end", &mut payload)?),
            Kind::Other(_) => Self::Other,
        })
    }
}

/// What a recording has said besides its samples, up to where it has been read.
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

impl Recorded {
    /// Nothing but how a recording was made.
    pub fn new(header: Header) -> Self {
        Self {
            until: header.started,
            header,
            tables: Tables::default(),
            notes: Vec::new(),
            snapshot: None,
            completeness: Completeness::Torn { at_byte: 0 },
        }
    }

    /// Takes in what the recording told next, and shows its samples. All that it refers to must have been told before.
    pub fn take(&mut self, told: Told, mut visit: impl FnMut(&Sample, &Tables)) -> Result<(), Damage> {
        match told {
            Told::Facts(facts) => {
                for fact in facts {
                    match fact {
                        Fact::Note(note) => self.notes.push(note),
                        fact => self.tables.learn(fact)?,
                    }
                }
            }
            Told::Samples(samples) => {
                for sample in &samples {
                    self.tables.check_sample(sample, self.header.events.len())?;
                    self.until = self.until.max(sample.time);
                    visit(sample, &self.tables);
                }
            }
            Told::Snapshot(snapshot) => {
                self.tables.check_times(&snapshot.domains)?;
                self.until = self.until.max(snapshot.time);
                self.snapshot = Some(snapshot);
            }
            Told::End(end) => {
                self.until = end.time;
                self.completeness = Completeness::Whole(end);
            }
            Told::Cut { at_byte } => self.completeness = Completeness::Torn { at_byte },
            Told::Other => {}
        }
        Ok(())
    }
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

/// Decodes values up to the end of `bytes`.
fn decode_all<T: for<'a> Deserialize<'a>>(what: &'static str, mut bytes: &[u8]) -> Result<Vec<T>, Damage> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(decode(what, &mut bytes)?);
    }
    Ok(values)
}

/// Decodes one value from the front of `bytes`.
fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &mut &'a [u8]) -> Result<T, Damage> {
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|cause| Damage::Undecodable { what, cause })?;
    *bytes = rest;
    Ok(value)
}
