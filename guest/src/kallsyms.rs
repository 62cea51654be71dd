//! A kernel's own table of symbols (kallsyms), found by its shape alone and decoded.
//!
//! Comes in: a piece of the kernel's constants. Goes out: every symbol with its address. What is looked for, in the order
//! in which it is found:
//!
//! * the *token table*: 256 strings, of which that for the byte of each digit is the digit itself, so that
//!   `0␀1␀2␀…9␀` tells its place; behind it the *token index* says where each string begins;
//! * the *markers* before it: where each 256th name begins, counted from the first;
//! * the *names* before those, and before them their number: each is a length and as many bytes, each byte a token;
//! * the *offsets* of the symbols and the address that they count from: before the number up to Linux 6.3, behind the
//!   token index since.
//!
//! Nothing is believed that all of it does not bear out: each marker must be met by decoding, and the symbol
//! `linux_banner` must lie where the banner is. Written by scripts/kallsyms.c of Linux; markers and number are words of 8
//! bytes up to 4.19, and of 4 since; lengths above 127 take two bytes since 6.1.

use memchr::{memchr, memmem};

use crate::{
    budget::{Budget, Exhausted},
    kernel_image::{Banner, IMAGES, Piece},
    symbols::SymbolList,
    words::{u32_at, u64_at},
};

const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
/// How many places that look like a token table are tried.
const MAX_HITS: usize = 4096;
const MAX_TOKEN: usize = 1024;
/// The distance between the markers and the token table: up to 3 bytes a symbol lie between them (Linux 6.2 and 6.3).
const MAX_BETWEEN: usize = 4 << 20;
const MAX_SYMBOLS: usize = 1 << 20;
/// A real kernel has more, and for fewer the search would take chance for shape.
const MIN_MARKERS: usize = 16;
/// What 256 names can take: from 2 to 512 bytes each.
const BLOCK: std::ops::RangeInclusive<u64> = 512..=131_072;
/// The kernel's own limit is 128 bytes up to 6.0, and 512 since.
const MAX_NAME: usize = 512;
const MAX_TEXT: usize = 64 << 20;

/// Finds the table in a piece of the image; `banners` are the places where the kernel says what it is.
pub(crate) fn find(
    piece: &Piece,
    banners: &[Banner],
    budget: &Budget,
) -> Result<Option<SymbolList>, Exhausted> {
    let bytes = &piece.bytes;
    budget.scan(bytes.len() as u64)?;
    for digits in memmem::find_iter(bytes, DIGITS).take(MAX_HITS) {
        budget.work(64)?;
        let Some(tokens) = Tokens::around(bytes, digits) else { continue };
        let search = Search { bytes, tokens: &tokens, banners, budget };
        if let Some(symbols) = search.run()? {
            return Ok(Some(symbols));
        }
    }
    Ok(None)
}

/// The strings that bytes of compressed names stand for.
struct Tokens {
    start: usize,
    /// Kernels have no characters in names but those of ASCII; and what is not text must not be kept as such.
    strings: Vec<String>,
    /// Behind the index.
    end: usize,
}

impl Tokens {
    /// Recognizes the table and its index around the tokens of the digits.
    fn around(bytes: &[u8], digits: usize) -> Option<Self> {
        let mut end = digits;
        for _ in usize::from(b'0')..256 {
            let rest = &bytes[end..];
            end += 1 + memchr(0, &rest[..rest.len().min(MAX_TOKEN)])?;
        }
        // Kernels align the index to 8 bytes, or to 4; larger ones are what linkers do.
        [8, 4, 2, 16, 32, 64]
            .into_iter()
            .find_map(|align| Self::with_index(bytes, digits, end.next_multiple_of(align)))
    }

    fn with_index(bytes: &[u8], digits: usize, index: usize) -> Option<Self> {
        let end = index + 512;
        let entries = bytes.get(index..end)?.as_chunks::<2>().0;
        let begins: Vec<usize> = entries.iter().map(|&entry| u16::from_le_bytes(entry).into()).collect();
        let start = digits.checked_sub(begins[usize::from(b'0')])?;
        if begins[0] != 0 || begins.windows(2).any(|pair| pair[0] >= pair[1]) {
            return None;
        }
        let string = |&begin: &usize| {
            let at = start + begin;
            // Each token but the first follows the end of another.
            if begin > 0 && *bytes.get(at - 1)? != 0 {
                return None;
            }
            let rest = bytes.get(at..index)?;
            Some(ascii(&rest[..memchr(0, rest)?]))
        };
        let strings = begins.iter().map(string).collect::<Option<_>>()?;
        Some(Self { start, strings, end })
    }
}

struct Search<'a> {
    bytes: &'a [u8],
    tokens: &'a Tokens,
    banners: &'a [Banner],
    budget: &'a Budget,
}

/// The words of a table, of 4 or of 8 bytes.
#[derive(Clone, Copy)]
enum Word {
    Four,
    Eight,
}

impl Word {
    fn size(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    fn read(self, bytes: &[u8], at: usize) -> Option<u64> {
        match self {
            Self::Four => u32_at(bytes, at).map(u64::from),
            Self::Eight => u64_at(bytes, at),
        }
    }
}

/// Where names lie, as decoding has borne out.
struct Names {
    /// Where their number stands.
    number_at: usize,
    /// Of each name where its bytes begin, and how many they are.
    names: Vec<(u32, u16)>,
}

impl Search<'_> {
    fn run(&self) -> Result<Option<SymbolList>, Exhausted> {
        let lowest = self.tokens.start.saturating_sub(MAX_BETWEEN);
        let mut at = self.tokens.start & !3;
        while at >= lowest + 4 {
            at -= 4;
            if at.is_multiple_of(256) {
                self.budget.work(1)?;
            }
            if u32_at(self.bytes, at) != Some(0) {
                continue;
            }
            for word in [Word::Four, Word::Eight] {
                if let Some(names) = self.names_before_markers(at, word)?
                    && let Some(symbols) = self.symbols(&names)?
                {
                    return Ok(Some(symbols));
                }
            }
        }
        Ok(None)
    }

    /// Takes the words at `at` for markers, and looks for the names that they fit.
    fn names_before_markers(&self, at: usize, word: Word) -> Result<Option<Names>, Exhausted> {
        let read = |index: usize| word.read(self.bytes, at + index * word.size());
        let mut markers = vec![0];
        while let Some(marker) = read(markers.len())
            && let Some(step) = marker.checked_sub(*markers.last().expect("it begins with one"))
            && BLOCK.contains(&step)
            && markers.len() <= MAX_SYMBOLS / 256
        {
            markers.push(marker);
        }
        if markers.len() < MIN_MARKERS || read(0) != Some(0) {
            return Ok(None);
        }
        self.budget.work(1 + markers.len() as u64 / 8)?;
        // What follows the markers may happen to go on as they do.
        for surplus in 0..3 {
            let markers = &markers[..markers.len() - surplus];
            if let Some(names) = self.names_for(markers, at)? {
                return Ok(Some(names));
            }
        }
        Ok(None)
    }

    /// Looks for names that end where the markers are, at `end`, and for their number before them.
    fn names_for(&self, markers: &[u64], end: usize) -> Result<Option<Names>, Exhausted> {
        let last = *markers.last().expect("there are several") as usize;
        let Some(highest) = end.checked_sub(last) else { return Ok(None) };
        let lowest = highest.saturating_sub(*BLOCK.end() as usize).max(8);
        for start in (lowest.next_multiple_of(4)..=highest & !3).rev().step_by(4) {
            if start.is_multiple_of(256) {
                self.budget.work(1)?;
            }
            // The number is padded to 8 bytes, or is 8 bytes.
            for number_at in [start - 8, start - 4] {
                let Some(number) = u32_at(self.bytes, number_at).map(|number| number as usize) else {
                    continue;
                };
                if number > MAX_SYMBOLS || number.div_ceil(256) != markers.len() {
                    continue;
                }
                self.budget.work(64)?;
                for long_lengths in [true, false] {
                    if let Some(names) = self.decode(start, number, markers, end, long_lengths)? {
                        return Ok(Some(Names { number_at, names }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Walks along the lengths of all names. Every marker must be met, and nothing but padding be left before `end`.
    fn decode(
        &self,
        start: usize,
        number: usize,
        markers: &[u64],
        end: usize,
        long_lengths: bool,
    ) -> Result<Option<Vec<(u32, u16)>>, Exhausted> {
        let mut at = start;
        let mut names = Vec::new();
        for index in 0..number {
            if index.is_multiple_of(256) {
                if markers[index / 256] != (at - start) as u64 {
                    return Ok(None);
                }
                self.budget.work(2)?;
                self.budget.memory(256 * 8)?;
                names.reserve(256);
            }
            let mut length = usize::from(self.bytes[at]);
            at += 1;
            if long_lengths && length & 0x80 != 0 {
                length = length & 0x7f | usize::from(self.bytes[at]) << 7;
                at += 1;
            }
            if length == 0 || at + length > end {
                return Ok(None);
            }
            names.push((at as u32, length as u16));
            at += length;
            if at >= end && index + 1 < number {
                return Ok(None);
            }
        }
        Ok((end - at < 64).then_some(names))
    }

    /// Finds the addresses that go with the names, and puts all together.
    fn symbols(&self, names: &Names) -> Result<Option<SymbolList>, Exhausted> {
        let number = names.names.len();
        let Some(mut symbols) = self.expand(names)? else { return Ok(None) };
        let Some(banner) = symbols.iter().position(|symbol| symbol.name == "linux_banner") else {
            return Ok(None);
        };
        for (offsets, base_at) in self.places_of_offsets(names.number_at, number) {
            let Some(base) = u64_at(self.bytes, base_at).filter(|base| IMAGES.contains(base)) else {
                continue;
            };
            let Some(offsets) = self.bytes.get(offsets..offsets + 4 * number) else { continue };
            let offsets = offsets.as_chunks::<4>().0;
            for meaning in [Meaning::AbsolutePerCpu, Meaning::Relative] {
                let address = |offset: [u8; 4]| meaning.address(base, i32::from_le_bytes(offset));
                let banner = address(offsets[banner]);
                if self.banners.iter().any(|place| place.address == banner) {
                    symbols.set_addresses(offsets.iter().map(|&offset| address(offset)));
                    return Ok(Some(symbols));
                }
            }
        }
        Ok(None)
    }

    /// Where the offsets and the address that they count from may be.
    fn places_of_offsets(&self, number_at: usize, number: usize) -> Vec<(usize, usize)> {
        let aligned = (4 * number).next_multiple_of(8);
        let behind = self.tokens.end.next_multiple_of(8);
        let before = [8, 16].into_iter().filter_map(|distance| {
            let base_at = number_at.checked_sub(distance)?;
            Some((base_at.checked_sub(aligned)?, base_at))
        });
        // Without padding to 8 bytes, too: the tables were aligned to 4 where words have 4 bytes.
        let after = [(behind, behind + aligned), (self.tokens.end, self.tokens.end + aligned)];
        before.chain(after).collect()
    }

    /// Replaces the bytes of all names by their tokens: the letter of the symbol's kind, and its name.
    fn expand(&self, names: &Names) -> Result<Option<SymbolList>, Exhausted> {
        let number = names.names.len();
        self.budget.memory(SymbolList::bytes(number, 0))?;
        // They take about twice as much as tokens do.
        let compressed: usize = names.names.iter().map(|&(_, length)| usize::from(length)).sum();
        let mut symbols = SymbolList::with_capacity(number, 2 * compressed);
        let mut charged = 0;
        for &(at, length) in &names.names {
            let bytes = &self.bytes[at as usize..at as usize + usize::from(length)];
            let mut tokens = bytes.iter().map(|&byte| &*self.tokens.strings[usize::from(byte)]);
            if tokens.clone().map(str::len).sum::<usize>() > MAX_NAME {
                return Ok(None);
            }
            let first = tokens.find(|token| !token.is_empty());
            let (kind, name) = first.map_or((b'?', ""), |token| (token.as_bytes()[0], &token[1..]));
            symbols.push_parts(kind, std::iter::once(name).chain(tokens));
            if symbols.text_len() >= charged {
                if symbols.text_len() > MAX_TEXT {
                    return Ok(None);
                }
                self.budget.memory(1 << 16)?;
                self.budget.scan(1 << 16)?;
                charged = symbols.text_len() + (1 << 16);
            }
        }
        Ok(Some(symbols))
    }
}

fn ascii(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| if byte.is_ascii() { char::from(byte) } else { '?' }).collect()
}

/// What an offset of a symbol is counted from.
#[derive(Clone, Copy)]
enum Meaning {
    /// Not negative: an address itself (a per-CPU variable's); negative: one's complement of the way from the base.
    AbsolutePerCpu,
    /// The way from the base, never negative: x86-64 since 6.15.
    Relative,
}

impl Meaning {
    fn address(self, base: u64, offset: i32) -> u64 {
        match self {
            Self::AbsolutePerCpu if offset >= 0 => offset as u64,
            Self::AbsolutePerCpu => base.wrapping_sub(1).wrapping_sub(i64::from(offset) as u64),
            Self::Relative => base.wrapping_add(u64::from(offset as u32)),
        }
    }
}
