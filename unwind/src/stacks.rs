//! The bytes that were copied of a thread's stacks.

use profile::{StackPiece, Stretch};

/// Pieces of stacks, each at the address that it was copied from.
#[derive(Clone, Debug, Default)]
pub struct Stacks<'a> {
    pieces: Vec<&'a StackPiece>,
}

impl<'a> Stacks<'a> {
    /// Those of some stretches: a kernel goes from one of its stacks to another.
    pub fn of(stretches: impl IntoIterator<Item = &'a Stretch>) -> Self {
        let pieces = stretches.into_iter().flat_map(|stretch| match stretch {
            Stretch::Copied { stacks, .. } => &stacks[..],
            Stretch::Walked(_) => &[],
        });
        Self { pieces: pieces.collect() }
    }

    /// The word at an address, if it was copied.
    pub fn word(&self, address: u64) -> Option<u64> {
        self.pieces.iter().find_map(|piece| piece.word(address))
    }
}
