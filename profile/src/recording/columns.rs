//! Columns of numbers: how tables are laid out before they are compressed.
//!
//! A table is its count of rows and its count of columns (varint, u8), then its columns. A column is its width in bytes (0 to 8)
//! and as many planes: the lowest byte of every row, then the second-lowest, and so on. What is random in a number and
//! what is not thus come to lie apart, which is what a compressor needs. A column that an older writer did not know of
//! reads as zeros; one that a newer writer has added is not looked at.

use super::Damage;

/// No table of one chunk has more rows: their memory is bounded by this where a width is 0.
pub(super) const MAX_ROWS: usize = 1 << 18;

/// Rows that were not written yet.
#[derive(Debug)]
pub(super) struct Table<const N: usize>([Vec<u64>; N]);

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self([const { Vec::new() }; N])
    }
}

impl<const N: usize> Table<N> {
    /// How many there are.
    pub(super) fn rows(&self) -> usize {
        self.0.first().map_or(0, Vec::len)
    }

    pub(super) fn push(&mut self, row: [u64; N]) {
        self.0.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }

    /// Appends the table, and forgets its rows.
    pub(super) fn drain_into(&mut self, out: &mut Vec<u8>) {
        append(out, self.0.each_ref().map(Vec::as_slice));
        self.0.iter_mut().for_each(Vec::clear);
    }
}

/// Appends a table; all columns are of one length.
pub(super) fn append<const N: usize>(out: &mut Vec<u8>, columns: [&[u64]; N]) {
    append_number(out, columns.first().map_or(0, |column| column.len()) as u64);
    out.push(N as u8);
    for column in columns {
        let widest = column.iter().fold(0, |bits, &value| bits | value);
        let width = 8 - widest.leading_zeros() / 8;
        out.push(width as u8);
        for plane in 0..width {
            out.extend(column.iter().map(|value| (value >> (8 * plane)) as u8));
        }
    }
}

/// Reads a table from the front of `bytes`; its columns have as many rows.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<(usize, [Vec<u64>; N]), Damage> {
    let rows = take_number(bytes)? as usize;
    if rows > MAX_ROWS {
        return Err(Damage::Columns("a table has too many rows"));
    }
    let stored = usize::from(take_bytes(bytes, 1)?[0]);
    let mut columns = [const { Vec::new() }; N];
    for index in 0..stored {
        let width = usize::from(take_bytes(bytes, 1)?[0]);
        if width > 8 {
            return Err(Damage::Columns("a number is wider than eight bytes"));
        }
        let planes = take_bytes(bytes, width * rows)?;
        let Some(column) = columns.get_mut(index) else { continue };
        column.resize(rows, 0);
        if rows > 0 {
            for (plane, values) in planes.chunks_exact(rows).enumerate() {
                for (value, &byte) in column.iter_mut().zip(values) {
                    *value |= u64::from(byte) << (8 * plane);
                }
            }
        }
    }
    for column in &mut columns[stored.min(N)..] {
        column.resize(rows, 0);
    }
    Ok((rows, columns))
}

/// Appends a number of any size (LEB128).
pub(super) fn append_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads such a number.
pub(super) fn take_number(bytes: &mut &[u8]) -> Result<u64, Damage> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = take_bytes(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Damage::Columns("a number is longer than any"))
}

/// Takes so many bytes.
pub(super) fn take_bytes<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Damage> {
    let (front, rest) = bytes.split_at_checked(count).ok_or(Damage::Columns("a table is cut"))?;
    *bytes = rest;
    Ok(front)
}

/// A difference as a number that is small where the difference is, whichever its sign.
pub(super) fn difference(value: u64, expected: u64) -> u64 {
    let signed = value.wrapping_sub(expected) as i64;
    ((signed << 1) ^ (signed >> 63)) as u64
}

/// The value that differs so from what was expected.
pub(super) fn differing(difference: u64, expected: u64) -> u64 {
    expected.wrapping_add((difference >> 1) ^ (difference & 1).wrapping_neg())
}

/// A number of something that there may be none of.
pub(super) fn optional(number: Option<u32>) -> u64 {
    number.map_or(0, |number| u64::from(number) + 1)
}

/// What [`optional`] was made of.
pub(super) fn take_optional(number: u64) -> Result<Option<u32>, Damage> {
    number.checked_sub(1).map(take_u32).transpose()
}

/// A number that must be one of something.
pub(super) fn take_u32(number: u64) -> Result<u32, Damage> {
    number.try_into().map_err(|_| Damage::Columns("a number is too large for what it counts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_read_back() {
        let (small, large, none) = ([1, 2, 255], [u64::MAX, 0, 1 << 40], [0; 3]);
        let mut bytes = Vec::new();
        append(&mut bytes, [&small, &large, &none]);
        assert_eq!(bytes.len(), 2 + (1 + 3) + (1 + 24) + 1);
        let (rows, columns) = take::<3>(&mut &*bytes).unwrap();
        assert_eq!((rows, columns), (3, [small.to_vec(), large.to_vec(), none.to_vec()]));
    }

    #[test]
    fn columns_may_be_added() {
        let mut bytes = Vec::new();
        append(&mut bytes, [&[7, 8], &[9, 10]]);
        bytes.push(77);
        let mut rest = &*bytes;
        assert_eq!(take::<1>(&mut rest).unwrap().1, [vec![7, 8]]);
        assert_eq!(rest, [77]);
        assert_eq!(take::<3>(&mut &*bytes).unwrap().1, [vec![7, 8], vec![9, 10], vec![0, 0]]);
    }

    #[test]
    fn differences_are_small_either_way() {
        assert_eq!([difference(5, 5), difference(4, 5), difference(6, 5)], [0, 1, 2]);
        for (value, expected) in [(0, u64::MAX), (u64::MAX, 0), (3, 900), (1 << 63, 1)] {
            assert_eq!(differing(difference(value, expected), expected), value);
        }
    }

    #[test]
    fn what_is_no_table_is_damage() {
        let mut many = Vec::new();
        append_number(&mut many, MAX_ROWS as u64 + 1);
        many.push(0);
        for bytes in [&many[..], &[3], &[1, 1, 9], &[1, 1, 2, 0], &[0xff; 11]] {
            assert!(take::<1>(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
