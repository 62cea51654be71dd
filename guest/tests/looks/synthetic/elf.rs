//! An ELF file with every table of functions that there can be.

const PAGE: usize = 4096;
/// Where it is linked to lie.
pub(crate) const ADDRESS: u64 = 0x40_0000;
const CODE: usize = 0x20 * PAGE;
const SYMBOLS: usize = 0x42 * PAGE;
const BUILD_ID: [u8; 4] = *b"made";

/// What is in which table: dynamic, full and compressed.
pub(crate) const DYNAMIC: [&str; 3] = ["exported", "also_exported", "third"];
pub(crate) const FULL: [&str; 3] = ["main", "helper", "exported"];
pub(crate) const COMPRESSED: [&str; 2] = ["from_debugdata", "another"];

/// A file of so many bytes, of which headers and the dynamic part lie at the beginning, and sections at the end.
pub(crate) fn file(size: usize) -> Vec<u8> {
    assemble(size, &xz(&inner()))
}

/// The same with other bytes in the place of the compressed table.
pub(crate) fn with_debugdata(debugdata: &[u8]) -> Vec<u8> {
    assemble(70 * PAGE, debugdata)
}

fn assemble(size: usize, debugdata: &[u8]) -> Vec<u8> {
    let mut file = vec![0; size];
    for (at, byte) in (0..).zip(&mut file) {
        *byte = (at / PAGE) as u8;
    }
    let (symbols, strings) = table(&DYNAMIC);
    let dynamic: Vec<u8> = [
        (5_u64, ADDRESS + 0x800), // DT_STRTAB
        (6, ADDRESS + 0x600),     // DT_SYMTAB
        (10, strings.len() as u64),
        (0x6fff_fef5, ADDRESS + 0x500), // DT_GNU_HASH
        (0, 0),
    ]
    .iter()
    .flat_map(|&(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat())
    .collect();
    // One bucket, one word of the filter; the chain begins with the first symbol that is not empty.
    let hash = [&words(&[1, 1, 1, 6])[..], &[0; 8], &words(&[1]), &words(&[2, 4, 7])].concat();
    let note = [&words(&[4, BUILD_ID.len() as u32, 3])[..], b"GNU\0", &BUILD_ID].concat();
    let segments = [
        (1, 5, 0, size, ADDRESS),
        (2, 6, 0x400, dynamic.len(), ADDRESS + 0x400),
        (4, 4, 0x300, note.len(), ADDRESS + 0x300),
    ];
    let (full, full_strings) = table(&FULL);
    let names = b"\0.symtab\0.strtab\0.gnu_debugdata\0.names\0";
    let places = [SYMBOLS, SYMBOLS + 0x400, SYMBOLS + 0x800, SYMBOLS + 0x2000];
    let sections = [
        (0, 0, 0, 0, 0),
        (1, 2, places[0], full.len(), 2),
        (9, 3, places[1], full_strings.len(), 0),
        (17, 1, places[2], debugdata.len(), 0),
        (32, 3, places[3], names.len(), 0),
    ];
    let sections_at = size - sections.len() * 64;
    let parts: [(usize, &[u8]); 11] = [
        (0, &header(&segments, sections_at, sections.len(), 4)),
        (64, &program_headers(&segments)),
        (0x300, &note),
        (0x400, &dynamic),
        (0x500, &hash),
        (0x600, &symbols),
        (0x800, &strings),
        (places[0], &full),
        (places[1], &full_strings),
        (places[2], debugdata),
        (places[3], names),
    ];
    for (at, bytes) in parts {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    file[sections_at..].copy_from_slice(&section_headers(&sections));
    file
}

/// The file within: nothing but symbols.
fn inner() -> Vec<u8> {
    let (symbols, strings) = table(&COMPRESSED);
    let segments = [(1, 5, 0, 0, ADDRESS)];
    let (symbols_at, strings_at) = (0x100, 0x100 + symbols.len());
    let sections_at = strings_at + strings.len();
    let sections =
        [(0, 0, 0, 0, 0), (0, 2, symbols_at, symbols.len(), 2), (0, 3, strings_at, strings.len(), 0)];
    let mut file = header(&segments, sections_at, sections.len(), 0);
    file.extend(program_headers(&segments));
    file.resize(symbols_at, 0);
    [file, symbols, strings, section_headers(&sections)].concat()
}

/// A container of one block, in which nothing is really compressed.
fn xz(content: &[u8]) -> Vec<u8> {
    let mut out = b"\xfd7zXZ\0\0\x01\0\0\0\0".to_vec();
    out.extend([2, 0, 0x21, 1, 8, 0, 0, 0, 0, 0, 0, 0]);
    let start = out.len();
    for (index, chunk) in content.chunks(0x1000).enumerate() {
        out.push(if index == 0 { 1 } else { 2 });
        out.extend((chunk.len() as u16 - 1).to_be_bytes());
        out.extend(chunk);
    }
    out.push(0);
    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    // The checksum, and the index, which is not looked at.
    out.extend([0; 8]);
    out
}

type Segment = (u32, u32, usize, usize, u64);
type Section = (u32, u32, usize, usize, u32);

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn table(names: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let (mut symbols, mut strings) = (vec![0; 24], vec![0]);
    for (index, name) in (0..).zip(names) {
        symbols.extend((strings.len() as u32).to_le_bytes());
        // A global function of the first section.
        symbols.extend([0x12, 0, 1, 0]);
        symbols.extend((ADDRESS + CODE as u64 + index * 0x100).to_le_bytes());
        symbols.extend(0x80_u64.to_le_bytes());
        strings.extend(name.bytes().chain([0]));
    }
    (symbols, strings)
}

fn header(segments: &[Segment], sections_at: usize, sections: usize, names: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    header.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [ADDRESS, 64, sections_at as u64] {
        header.extend(word.to_le_bytes());
    }
    header.extend([0; 4]);
    for half in [64, 56, segments.len() as u16, 64, sections as u16, names] {
        header.extend(half.to_le_bytes());
    }
    header
}

fn program_headers(segments: &[Segment]) -> Vec<u8> {
    let mut out = Vec::new();
    for &(kind, flags, offset, size, address) in segments {
        out.extend(words(&[kind, flags]));
        // The inner file has nothing of what it describes.
        let memory = if size == 0 { 0x10_0000 } else { size as u64 };
        for word in [offset as u64, address, address, size as u64, memory, 4096] {
            out.extend(word.to_le_bytes());
        }
    }
    out
}

fn section_headers(sections: &[Section]) -> Vec<u8> {
    let mut out = Vec::new();
    for &(name, kind, offset, size, link) in sections {
        out.extend(words(&[name, kind]));
        for word in [0, 0, offset as u64, size as u64] {
            out.extend(u64::to_le_bytes(word));
        }
        out.extend(words(&[link, 0]));
        out.extend([0; 16]);
    }
    out
}
