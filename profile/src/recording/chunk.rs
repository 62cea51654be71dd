//! Chunks: the framing that tells whole data from torn and damaged data.

use std::{
    fmt,
    io::{self, Read},
};

use super::{Damage, RecordingError};

/// The first bytes of every recording; then comes the version, a digit.
const MAGIC: [u8; 7] = *b"XENOSCP";

/// The version that is written, and the last that is read. There was no release with version 1.
pub(super) const VERSION: u8 = b'2';

/// No payload is longer, packed or not, so that a damaged length cannot make a reader ask for all memory.
pub(super) const MAX_PAYLOAD: u32 = 16 << 20;

/// A payload is packed if this bit is set in the second byte of its chunk's head.
const PACKED: u8 = 1;

/// What packs payloads: of zstd's levels the one after which files hardly become smaller.
const LEVEL: i32 = 3;

/// Shorter payloads are not worth packing.
const MIN_PACKED: usize = 128;

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
    Entries,
    Stacks,
    VcpuTimes,
    Exits,
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
            6 => Self::Entries,
            7 => Self::Stacks,
            8 => Self::VcpuTimes,
            9 => Self::Exits,
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
            Self::Entries => 6,
            Self::Stacks => 7,
            Self::VcpuTimes => 8,
            Self::Exits => 9,
            Self::Other(other) => other,
        }
    }
}

/// Puts chunks together.
pub(super) struct Packer(zstd::bulk::Compressor<'static>);

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packer")
    }
}

impl Packer {
    pub(super) fn new() -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        // The chunk has a checksum, and says how long the payload is.
        compressor.include_checksum(false)?;
        compressor.include_contentsize(false)?;
        Ok(Self(compressor))
    }

    /// Appends a chunk to `out`; a payload that no reader would take is an error.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).ok().filter(|&length| length <= MAX_PAYLOAD);
        let length = length.ok_or_else(|| {
            let text = format!("{} bytes do not fit into one chunk", payload.len());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        if payload.len() >= MIN_PACKED {
            let mut packed = length.to_le_bytes().to_vec();
            packed.extend(self.0.compress(payload)?);
            if packed.len() < payload.len() {
                frame(out, kind, PACKED, &packed);
                return Ok(());
            }
        }
        frame(out, kind, 0, payload);
        Ok(())
    }
}

fn frame(out: &mut Vec<u8>, kind: Kind, flags: u8, payload: &[u8]) {
    let mut covered = [0; COVERED];
    covered[0] = kind.to_byte();
    covered[1] = flags;
    covered[4..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&covered);
    out.extend_from_slice(&checksum(&covered, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// What every file begins with.
pub(super) fn magic() -> Vec<u8> {
    [&MAGIC[..], &[VERSION]].concat()
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
    /// Bytes that are not those that were written; nothing behind them can be read.
    Damaged(Damage),
}

/// Reads one chunk after the other, holding one at a time.
#[derive(Debug)]
pub(super) struct ChunkReader<R> {
    input: R,
    file: String,
    at: u64,
    next_at: u64,
    payload: Vec<u8>,
    unpacked: Vec<u8>,
}

impl<R: Read> ChunkReader<R> {
    /// Checks the magic.
    pub(super) fn new(input: R, file: String) -> Result<Self, RecordingError> {
        let mut reader = Self { input, file, at: 0, next_at: 0, payload: Vec::new(), unpacked: Vec::new() };
        let mut start = [0; MAGIC.len() + 1];
        let length = reader.fill(&mut start)?;
        let file = reader.file.clone();
        let (magic, version) = start.split_at(MAGIC.len());
        if length < start.len() && MAGIC.starts_with(&start[..length.min(MAGIC.len())]) {
            return Err(RecordingError::NoHeader { file });
        }
        match version[0] {
            _ if magic != MAGIC => Err(RecordingError::NotARecording { file }),
            VERSION => Ok(reader),
            found => Err(RecordingError::OtherVersion { file, found: char::from(found) }),
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
            return Ok(Next::Damaged(Damage::Oversized(length)));
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
                _ => Ok(Next::Damaged(Damage::Checksum)),
            };
        }
        match covered[1] {
            0 => {}
            PACKED => {
                if self.unpack().is_none() {
                    return Ok(Next::Damaged(Damage::Packing));
                }
            }
            _ => return Ok(Next::Damaged(Damage::Packing)),
        }
        Ok(Next::Chunk(Kind::from_byte(covered[0])))
    }

    fn unpack(&mut self) -> Option<()> {
        let (length, packed) = self.payload.split_first_chunk()?;
        let length = Some(u32::from_le_bytes(*length)).filter(|&length| length <= MAX_PAYLOAD)? as usize;
        self.unpacked.clear();
        self.unpacked.resize(length, 0);
        let unpacked = zstd::bulk::decompress_to_buffer(packed, &mut self.unpacked);
        if unpacked.ok()? != length {
            return None;
        }
        std::mem::swap(&mut self.payload, &mut self.unpacked);
        Some(())
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
