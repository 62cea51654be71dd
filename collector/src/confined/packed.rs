//! Long lists in messages, as they lie in memory: told number by number, those of a kernel's symbols would take both sides
//! longer than all else that is done with them.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// A row of a list, in so many bytes.
pub(super) trait Packed<const N: usize>: Copy {
    fn to_bytes(self) -> [u8; N];
    fn from_bytes(bytes: [u8; N]) -> Self;
}

impl Packed<4> for u32 {
    fn to_bytes(self) -> [u8; 4] {
        self.to_le_bytes()
    }

    fn from_bytes(bytes: [u8; 4]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

pub(super) fn serialize<S: Serializer, T: Packed<N>, const N: usize>(
    rows: &[T],
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(rows.len() * N);
    rows.iter().for_each(|row| bytes.extend_from_slice(&row.to_bytes()));
    to.serialize_bytes(&bytes)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Packed<N>, const N: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let (rows, rest) = <&[u8]>::deserialize(from)?.as_chunks::<N>();
    match rest {
        [] => Ok(rows.iter().map(|&row| T::from_bytes(row)).collect()),
        _ => Err(D::Error::custom("a row of a list is cut off")),
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct List(#[serde(with = "super")] Vec<u32>);

    #[test]
    fn lists_come_back_whole_or_not_at_all() {
        let rows = vec![0, 1, u32::MAX, 0x1234_5678];
        let mut bytes = postcard::to_stdvec(&List(rows.clone())).unwrap();
        assert_eq!(postcard::from_bytes::<List>(&bytes).unwrap().0, rows);
        // One byte of the last row less.
        bytes.pop();
        bytes[0] -= 1;
        assert!(postcard::from_bytes::<List>(&bytes).is_err());
    }
}
