//! A piece of a file, copied as far as its pages are there.

use crate::{
    budget::Budget,
    elf::ElfError,
    file::{FileBytes, FileError},
};

const PAGE: u64 = 4096;
/// So much is announced before it is read.
const AHEAD: u64 = 64 * PAGE;

/// A piece of a file in which pages may be missing.
pub(crate) struct Sparse {
    bytes: Vec<u8>,
    /// Where the piece begins within its first page.
    lead: usize,
    /// Of each page that the piece touches, whether it is there.
    present: Vec<bool>,
}

impl Sparse {
    /// Copies `length` bytes, which the caller has bounded, from `offset` on; `what` they are is for errors.
    pub(crate) fn read(
        file: &(impl FileBytes + ?Sized),
        budget: &Budget,
        what: &'static str,
        offset: u64,
        length: u64,
    ) -> Result<Self, ElfError> {
        let end = offset.checked_add(length).filter(|&end| end <= file.size());
        let end = end.ok_or(ElfError::Damaged("a table reaches past the end of the file"))?;
        budget.memory(length)?;
        let mut sparse =
            Self { bytes: vec![0; length as usize], lead: (offset % PAGE) as usize, present: Vec::new() };
        let mut at = offset;
        while at < end {
            let next = (at - at % PAGE).saturating_add(PAGE).min(end);
            budget.scan(next - at)?;
            if at == offset || at.is_multiple_of(AHEAD) {
                let ahead = (at - at % AHEAD).saturating_add(AHEAD).min(end);
                file.announce(at, ahead - at);
            }
            let part = &mut sparse.bytes[(at - offset) as usize..(next - offset) as usize];
            sparse.present.push(match file.read(at, part) {
                Ok(()) => true,
                Err(FileError::NotResident(_)) => false,
                Err(problem) => return Err(ElfError::of_read(what, problem)),
            });
            at = next;
        }
        Ok(sparse)
    }

    /// All of its bytes, those that are missing as zeros.
    pub(crate) fn with_zeros(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Some of its bytes, if all of them are there.
    pub(crate) fn get(&self, start: usize, length: usize) -> Option<&[u8]> {
        let end = start.checked_add(length)?;
        let bytes = self.bytes.get(start..end)?;
        let pages = (self.lead + start) / PAGE as usize..=(self.lead + end.max(1) - 1) / PAGE as usize;
        (length == 0 || self.present.get(pages)?.iter().all(|&present| present)).then_some(bytes)
    }

    /// The string that begins at `start`, without its NUL, if all of it is there; or as much of it as `max` allows.
    pub(crate) fn string(&self, start: usize, max: usize) -> Option<&[u8]> {
        let rest = self.bytes.get(start..)?;
        let rest = &rest[..rest.len().min(max)];
        // What is missing was left as zeros: an end there is none.
        let length = memchr::memchr(0, rest).unwrap_or(rest.len());
        let with_end = (length + 1).min(rest.len());
        Some(&self.get(start, with_end)?[..length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Limits;

    /// Three pages of letters, of which the second is missing.
    struct Holed;

    impl FileBytes for Holed {
        fn size(&self) -> u64 {
            3 * PAGE
        }

        fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FileError> {
            if offset / PAGE == 1 {
                return Err(FileError::NotResident(offset));
            }
            bytes.fill(b'a');
            Ok(())
        }
    }

    #[test]
    fn what_touches_a_missing_page_is_missing() {
        let budget = Budget::new(Limits::default());
        let read = |offset, length| Sparse::read(&Holed, &budget, "it", offset, length);
        let sparse = read(PAGE - 8, PAGE + 16).unwrap();
        assert_eq!(sparse.get(0, 8), Some(&[b'a'; 8][..]));
        assert_eq!(sparse.get(0, 9), None);
        assert_eq!(sparse.get(8, 1), None);
        assert_eq!(sparse.get(PAGE as usize + 8, 8), Some(&[b'a'; 8][..]));
        assert_eq!(sparse.get(PAGE as usize + 8, 9), None, "past its end");
        assert_eq!(sparse.string(4, 4), Some(&b"aaaa"[..]));
        assert_eq!(sparse.string(4, 100), None, "its end is not known");
        assert!(read(2 * PAGE, PAGE + 1).is_err());
    }
}
