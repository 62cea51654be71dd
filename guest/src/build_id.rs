//! Build ids: what tells one build of a program from every other, in ELF notes (`NT_GNU_BUILD_ID`).

use crate::words::u32_at;

const NT_GNU_BUILD_ID: u32 = 3;
const OWNER: &[u8] = b"GNU\0";
const MAX_NOTES: usize = 256;

/// The first build id among notes, which are padded to 4 bytes.
pub fn in_notes(mut notes: &[u8]) -> Option<&[u8]> {
    for _ in 0..MAX_NOTES {
        let [name, content, kind] = [0, 4, 8].map(|at| u32_at(notes, at));
        let (name, content, kind) = (name? as usize, content? as usize, kind?);
        let rest = notes.get(12..)?;
        let content_at = name.checked_next_multiple_of(4)?;
        let end = content_at.checked_add(content)?;
        if kind == NT_GNU_BUILD_ID && rest.get(..name)? == OWNER {
            return rest.get(content_at..end).filter(|id| !id.is_empty());
        }
        notes = rest.get(end.checked_next_multiple_of(4)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(owner: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [owner.len() as u32, content.len() as u32, kind] {
            note.extend(word.to_le_bytes());
        }
        for part in [owner, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let notes = [note(b"Xen\0", 3, b"12345"), note(b"GNU\0", 1, b"x"), note(OWNER, 3, b"id")].concat();
        assert_eq!(in_notes(&notes), Some(&b"id"[..]));
        assert_eq!(in_notes(&notes[..notes.len() - 4]), None);
        assert_eq!(in_notes(&[0xff; 64]), None);
    }
}
