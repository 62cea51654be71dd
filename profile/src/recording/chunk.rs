//! Chunks: the framing that tells whole data from torn and damaged data.

use std::io::{self, Read};

use super::{Damage, RecordingError};

/// The first bytes of every recording.
pub(super) const MAGIC: [u8; 8] = *b"XENOSCP1";

/// No payload is longer, so that a damaged length cannot make a reader ask for all memory.
pub(super) const MAX_PAYLOAD: u32 = 16 << 20;

const HEAD: usize = 12;
/// The part of the head that the checksum covers.
const COVERED: usize = 8;

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header,
    Facts,
    Samples,
    Snapshot,
    End,
    /// Something that a later version adds.
    Other(u8),
}

impl Kind {
    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Header,
            2 => Self::Facts,
            3 => Self::Samples,
            4 => Self::Snapshot,
            5 => Self::End,
            other => Self::Other(other),
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Facts => 2,
            Self::Samples => 3,
            Self::Snapshot => 4,
            Self::End => 5,
            Self::Other(other) => other,
        }
    }
}

/// Appends a chunk to `out`; a payload that no reader would take is an error.
pub(super) fn append(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let length =
        u32::try_from(payload.len()).ok().filter(|&length| length <= MAX_PAYLOAD).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes do not fit into one chunk", payload.len()),
            )
        })?;
    let mut covered = [0; COVERED];
    covered[0] = kind.to_byte();
    covered[4..].copy_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&covered);
    out.extend_from_slice(&checksum(&covered, payload).to_le_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

fn checksum(covered: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(covered);
    hasher.update(payload);
    hasher.finalize()
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole chunk; its payload is in [`ChunkReader::payload`].
    Chunk(Kind),
    /// The end of the file, on the boundary of a chunk.
    EndOfFile,
    /// The beginning of a chunk that was never finished.
    Torn,
}

/// Reads one chunk after the other, holding one at a time.
#[derive(Debug)]
pub(super) struct ChunkReader<R> {
    input: R,
    file: String,
    at: u64,
    next_at: u64,
    payload: Vec<u8>,
}

impl<R: Read> ChunkReader<R> {
    /// Checks the magic.
    pub(super) fn new(input: R, file: String) -> Result<Self, RecordingError> {
        let mut reader = Self { input, file, at: 0, next_at: 0, payload: Vec::new() };
        let mut magic = [0; MAGIC.len()];
        let length = reader.fill(&mut magic)?;
        let file = || reader.file.clone();
        match magic {
            MAGIC => Ok(reader),
            _ if length < MAGIC.len() && MAGIC.starts_with(&magic[..length]) => {
                Err(RecordingError::NoHeader { file: file() })
            }
            _ => Err(RecordingError::NotARecording { file: file() }),
        }
    }

    /// Reads the next chunk.
    pub(super) fn next(&mut self) -> Result<Next, RecordingError> {
        self.at = self.next_at;
        let mut head = [0; HEAD];
        match self.fill(&mut head)? {
            0 => return Ok(Next::EndOfFile),
            HEAD if head != [0; HEAD] => {}
            _ => return Ok(Next::Torn),
        }
        let (covered, sum) = head.split_at(COVERED);
        let length = u32::from_le_bytes([covered[4], covered[5], covered[6], covered[7]]);
        if length > MAX_PAYLOAD {
            return Err(self.damaged(Damage::Oversized(length)));
        }
        // Memory grows with the bytes that are there, not with those that the head promises.
        self.payload.clear();
        let read = self.input.by_ref().take(length.into()).read_to_end(&mut self.payload);
        self.next_at += self.payload.len() as u64;
        read.map_err(|error| self.unreadable(error))?;
        if self.payload.len() < length as usize {
            return Ok(Next::Torn);
        }
        if checksum(covered, &self.payload).to_le_bytes() != sum {
            // The last chunk may have been on its way to the disk when the machine stopped.
            return match self.fill(&mut [0])? {
                0 => Ok(Next::Torn),
                _ => Err(self.damaged(Damage::Checksum)),
            };
        }
        Ok(Next::Chunk(Kind::from_byte(covered[0])))
    }

    /// The payload of the chunk that was read last.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Where the chunk that was read last starts.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The error for a file that ends before its header does.
    pub(super) fn no_header(&self) -> RecordingError {
        RecordingError::NoHeader { file: self.file.clone() }
    }

    /// The error for a chunk, read last, that is not what it should be.
    pub(super) fn damaged(&self, damage: Damage) -> RecordingError {
        RecordingError::Damaged { file: self.file.clone(), at: self.at, damage }
    }

    fn unreadable(&self, source: io::Error) -> RecordingError {
        RecordingError::Read { file: self.file.clone(), at: self.next_at, source }
    }

    /// Reads as much of `buffer` as the file still has.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, RecordingError> {
        let mut length = 0;
        while length < buffer.len() {
            match self.input.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(read) => {
                    length += read;
                    self.next_at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        Ok(length)
    }
}
