//! Writes type information as Documentation/bpf/btf.rst of the kernel has it.

use super::structures::{Kind, Structure};

/// The value of `PG_uptodate`.
pub(crate) const UP_TO_DATE: u32 = 3;
const ENTRY: u32 = 12;

/// The types of all structures, with an enumeration of the flags of pages.
pub(crate) fn types(structures: &[Structure]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut types: Vec<u8> = Vec::new();
    let mut string = |text: &str| {
        if text.is_empty() {
            return 0;
        }
        let at = strings.len() as u32;
        strings.extend(text.bytes().chain([0]));
        at
    };
    let words =
        |out: &mut Vec<u8>, words: &[u32]| words.iter().for_each(|word| out.extend(word.to_le_bytes()));
    // 1: a word; 2: an alias of it.
    words(&mut types, &[string("u64"), 1 << 24, 8, 64]);
    words(&mut types, &[string("alias"), 8 << 24, 1]);
    words(
        &mut types,
        &[string("pageflags"), 6 << 24 | 2, 4, string("PG_locked"), 0, string("PG_uptodate"), UP_TO_DATE],
    );
    let mut next = 4;
    let mut ids: Vec<(&str, u32)> = Vec::new();
    for (name, size, members) in structures {
        let mut rows = Vec::new();
        for &(member, offset, kind) in *members {
            let kind = match kind {
                Kind::Plain => 2,
                Kind::Inner(inner) | Kind::Nameless(inner) => {
                    ids.iter().find(|(name, _)| *name == inner).expect(inner).1
                }
                Kind::Words(count) => {
                    words(&mut types, &[0, 3 << 24, 0, 1, 1, count]);
                    next += 1;
                    next - 1
                }
            };
            rows.extend([string(member), kind, offset * 8]);
        }
        assert_eq!(rows.len() as u32 * 4, ENTRY * members.len() as u32);
        words(&mut types, &[string(name), 4 << 24 | members.len() as u32, *size]);
        words(&mut types, &rows);
        ids.push((name, next));
        next += 1;
    }
    let mut out = vec![0x9f, 0xeb, 1, 0];
    words(&mut out, &[24, 0, types.len() as u32, types.len() as u32, strings.len() as u32]);
    out.extend(types);
    out.extend(strings);
    out
}
