//! The container around compressed data (xz), as far as `.gnu_debugdata` uses it: blocks of LZMA2 and nothing else.
//!
//! The format is <https://tukaani.org/xz/xz-file-format.txt>. Checksums are not checked: what a guest forges fits its
//! checksum, too. Its sizes are bounded before anything is allocated.

use std::{io::Read, ops::Range};

use lzma_rust2::Lzma2Reader;

use super::{ElfError, tables};
use crate::{budget::Budget, file::FileBytes};

const MAGIC: &[u8] = b"\xfd7zXZ\0";
const STREAM_HEADER: usize = 12;
const MAX_COMPRESSED: u64 = 16 << 20;
const MAX_CONTENT: usize = 64 << 20;
/// What `xz -9` takes.
const MAX_DICTIONARY: u32 = 64 << 20;
const LZMA2: u8 = 0x21;
const CHUNK: usize = 64 << 10;

/// Decompresses a piece of a file, all of which must be there.
pub(crate) fn decompress(
    file: &(impl FileBytes + ?Sized),
    budget: &Budget,
    range: Range<u64>,
) -> Result<Vec<u8>, ElfError> {
    let length = range.end - range.start;
    if length > MAX_COMPRESSED {
        return Err(ElfError::Damaged("its compressed symbols are larger than any"));
    }
    let compressed = tables::whole(file, budget, "its compressed symbols", range.start, length)?;
    let (header, mut rest) = compressed
        .split_at_checked(STREAM_HEADER)
        .filter(|(header, _)| header.starts_with(MAGIC))
        .ok_or(ElfError::Damaged("its compressed symbols are not in the format of xz"))?;
    // None, CRC-32, CRC-64, SHA-256; the others are reserved, with these sizes (2.1.1.2).
    let check = match header[7] & 0xf {
        0 => 0,
        kind => 4 << ((kind - 1) / 3),
    };
    let mut content = Vec::new();
    // A size of zero is no block but the index.
    while let Some(&size) = rest.first().filter(|&&size| size != 0) {
        let header_length = (usize::from(size) + 1) * 4;
        let (header, data) = rest.split_at_checked(header_length).ok_or(CUT_OFF)?;
        let left = block(data, dictionary(header)?, budget, &mut content)?;
        let used = (data.len() - left.len()).next_multiple_of(4) + check;
        rest = data.get(used..).ok_or(CUT_OFF)?;
    }
    Ok(content)
}

const CUT_OFF: ElfError = ElfError::Damaged("its compressed symbols are cut off");

/// The size of the dictionary, from a block's header (3.1) with one filter.
fn dictionary(header: &[u8]) -> Result<u32, ElfError> {
    let flags = *header.get(1).ok_or(CUT_OFF)?;
    if flags & 0x3f != 0 {
        return Err(ElfError::Damaged("its compressed symbols are filtered as none are"));
    }
    let mut at = 2;
    // Both sizes are optional; what they say is found out anyway.
    for present in [0x40, 0x80] {
        if flags & present != 0 {
            let length = header[at..].iter().take(9).position(|byte| byte & 0x80 == 0).ok_or(CUT_OFF)?;
            at += length + 1;
        }
    }
    let Some(&[filter, 1, bits]) = header.get(at..at + 3) else { return Err(CUT_OFF) };
    if filter != LZMA2 || bits > 40 {
        return Err(ElfError::Damaged("its compressed symbols are compressed as none are"));
    }
    // 2 or 3 times a power of two (5.3.1); 40 stands for 4 GiB less one.
    let size = if bits == 40 { u32::MAX } else { (2 | u32::from(bits & 1)) << (bits / 2 + 11) };
    if size > MAX_DICTIONARY {
        return Err(ElfError::Damaged("its compressed symbols need more memory than any"));
    }
    Ok(size)
}

/// Decompresses a block, and gives what follows it.
fn block<'a>(
    mut data: &'a [u8],
    dictionary: u32,
    budget: &Budget,
    content: &mut Vec<u8>,
) -> Result<&'a [u8], ElfError> {
    budget.memory(dictionary.into())?;
    let mut reader = Lzma2Reader::new(&mut data, dictionary, None);
    loop {
        budget.memory(CHUNK as u64)?;
        // Some 20 ns a byte, which is more than looking at it takes.
        budget.scan(16 * CHUNK as u64)?;
        let before = content.len();
        if before + CHUNK > MAX_CONTENT {
            return Err(ElfError::Damaged("its compressed symbols are larger than any"));
        }
        content.resize(before + CHUNK, 0);
        let length = match reader.read(&mut content[before..]) {
            Ok(length) => length,
            Err(_) => return Err(ElfError::Damaged("its compressed symbols can't be decompressed")),
        };
        content.truncate(before + length);
        if length == 0 {
            return Ok(data);
        }
    }
}
