//! A copy of what a kernel has mapped of itself: where it is, and its constants to search in.

use std::ops::Range;

use memchr::memmem;
use profile::GuestVirtual;

use crate::{
    error::{KernelError, ReadError},
    look::Look,
    page_tables::{Levels, PageTables, Run},
};

/// Where Linux maps its own image on x86-64, wherever KASLR puts it (Documentation/arch/x86/x86_64/mm.rst). One table of
/// the second-lowest level covers it.
pub(crate) const IMAGES: Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_c000_0000;
/// The largest kernels, with debugging aids built in, have some 100 MiB.
const MAX_IMAGE: u64 = 256 << 20;
/// What is read at once.
const CHUNK: usize = 256 << 10;
const PAGE: usize = 4096;
const BANNER: &[u8] = b"Linux version ";
const MAX_BANNER: usize = 512;
const MAX_BANNERS: usize = 64;

/// A part of the image that lies in one piece.
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A kernel's image, before anything of it is understood.
pub(crate) struct KernelImage {
    pub(crate) tables: PageTables,
    runs: Vec<Run>,
}

impl KernelImage {
    /// Finds the image by a CR3 of whatever context, under all that it can mean; the fullest first.
    ///
    /// The root may be that of a process under page-table isolation, which maps little of the kernel: its neighbour, the
    /// one with bit 12 clear, then maps all of it. How many levels there are is not in CR3.
    pub(crate) fn candidates(look: &Look<'_>, cr3: u64) -> Result<Vec<Self>, ReadError> {
        let mut found: Vec<Self> = Vec::new();
        for isolated in [true, false] {
            for levels in [Levels::Four, Levels::Five] {
                let cr3 = if isolated { cr3 & !(1 << 12) } else { cr3 };
                let tables = PageTables::of_cr3(cr3, levels);
                if found.iter().any(|other| other.tables == tables) {
                    continue;
                }
                let image = Self { tables, runs: tables.mapped(look, IMAGES)? };
                if (1..=MAX_IMAGE).contains(&image.mapped()) {
                    found.push(image);
                }
            }
        }
        found.sort_by_key(|image| std::cmp::Reverse(image.mapped()));
        Ok(found)
    }

    fn mapped(&self) -> u64 {
        self.runs.iter().map(|run| run.range.end - run.range.start).sum()
    }

    /// Copies the constants: what may be neither written nor executed. That is where the kernel keeps the names of its
    /// symbols, once it has booted so far as to protect them.
    pub(crate) fn constants(&self, look: &Look<'_>) -> Result<Vec<Piece>, ReadError> {
        let constant = self.runs.iter().filter(|run| !run.writable && !run.executable);
        pieces(look, self.tables, constant.map(|run| run.range.clone()))
    }

    /// Copies all of it.
    pub(crate) fn whole(&self, look: &Look<'_>) -> Result<Vec<Piece>, ReadError> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for run in &self.runs {
            match ranges.last_mut() {
                Some(last) if last.end == run.range.start => last.end = run.range.end,
                _ => ranges.push(run.range.clone()),
            }
        }
        pieces(look, self.tables, ranges.into_iter())
    }
}

impl Piece {
    /// The bytes of a range, if it lies in this piece.
    pub(crate) fn part(&self, range: &Range<u64>) -> Option<&[u8]> {
        let place = |address: u64| usize::try_from(address.checked_sub(self.start)?).ok();
        self.bytes.get(place(range.start)?..place(range.end)?)
    }
}

/// Copies ranges; where memory is missing, a range falls into two pieces.
fn pieces(
    look: &Look<'_>,
    tables: PageTables,
    ranges: impl Iterator<Item = Range<u64>>,
) -> Result<Vec<Piece>, ReadError> {
    let mut pieces: Vec<Piece> = Vec::new();
    for range in ranges {
        look.budget().memory(range.end - range.start)?;
        // All at once: memory that grows is copied, and that is zero which nobody wrote to.
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let length = bytes.len();
        let mut there: Vec<Range<usize>> = Vec::new();
        let mut copy = |part: Range<usize>| {
            let address = GuestVirtual(range.start + part.start as u64);
            match look.read_once(tables, address, &mut bytes[part.clone()]) {
                Ok(()) => add(&mut there, part),
                Err(exhausted @ ReadError::Exhausted(_)) => return Err(exhausted),
                Err(_) => return Ok(false),
            }
            Ok(true)
        };
        for at in (0..length).step_by(CHUNK) {
            let chunk = at..length.min(at + CHUNK);
            if copy(chunk.clone())? {
                continue;
            }
            // Something of it is missing.
            for at in chunk.clone().step_by(PAGE) {
                copy(at..chunk.end.min(at + PAGE))?;
            }
        }
        match &there[..] {
            [all] if all.len() == bytes.len() => pieces.push(Piece { start: range.start, bytes }),
            several => {
                look.budget().memory(range.end - range.start)?;
                pieces.extend(several.iter().map(|part| Piece {
                    start: range.start + part.start as u64,
                    bytes: bytes[part.clone()].to_vec(),
                }));
            }
        }
    }
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.bytes.len()));
    Ok(pieces)
}

/// Adds a range behind others, to the last of which it may be joined.
fn add(ranges: &mut Vec<Range<usize>>, range: Range<usize>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Where a kernel says what it is, and what it says there.
pub(crate) struct Banner {
    pub(crate) address: u64,
    /// A line without its end: untrusted text.
    pub(crate) text: String,
}

/// All that may be a kernel's banner: one that counts, and perhaps copies.
pub(crate) fn banners(look: &Look<'_>, pieces: &[Piece]) -> Result<Vec<Banner>, KernelError> {
    let mut found = Vec::new();
    for piece in pieces {
        look.budget().scan(piece.bytes.len() as u64)?;
        for offset in memmem::find_iter(&piece.bytes, BANNER).take(MAX_BANNERS) {
            let line = &piece.bytes[offset..];
            let line = &line[..line.len().min(MAX_BANNER)];
            let end = line.iter().position(|&byte| byte == b'\n' || byte == 0);
            let line = &line[..end.unwrap_or(line.len())];
            // The others are formats: `Linux version %s`.
            if line.get(BANNER.len()).is_some_and(u8::is_ascii_digit) {
                let text = String::from_utf8_lossy(line).into_owned();
                found.push(Banner { address: piece.start + offset as u64, text });
            }
        }
    }
    if found.is_empty() { Err(KernelError::NoBanner) } else { Ok(found) }
}
