//! Forged stacks and tables of frames.

use profile::{Registers, StackPiece, Stretch};
use unwind::{Code, FrameTable, Image, KernelCode, MAX_FRAMES, OrcTable, Part, Parts, Process, Stacks};

/// Where the tables and stacks of an input are: low, so that its small numbers lead somewhere.
const AT: u64 = 0x1000;

/// All addresses are code of one image.
struct Everywhere(Image);

impl Process for Everywhere {
    fn code_at(&mut self, address: u64) -> Option<Code<'_>> {
        Some(Code::Image(&self.0, address))
    }
}

/// Walks up a stack by tables that are both made of the input: its first byte says which kind of table, and the second
/// where the stack begins in it.
pub fn chains(input: &[u8]) {
    let [kind, split, rest @ ..] = input else { return };
    let (tables, stack) = rest.split_at(rest.len() * usize::from(*split) / 256);
    let word =
        |at: usize| stack.get(at..at + 8).map_or(0, |word| u64::from_le_bytes(word.try_into().unwrap()));
    let registers = Registers { ip: word(0), sp: word(8), bp: word(16), ..Registers::default() };
    let stacks = vec![StackPiece { address: AT, bytes: stack.to_vec() }];
    let stretch = Stretch::Copied { registers, stacks };
    let stacks = Stacks::of([&stretch]);
    let part = Some(Part { address: AT, bytes: tables.to_vec() });
    let parts = match kind % 4 {
        0 => {
            let (addresses, entries) = tables.split_at(tables.len() / 10 * 4);
            let entries = &entries[..addresses.len() / 4 * 6];
            let kernel = KernelCode::new(OrcTable::parse(AT, addresses, entries), Vec::new());
            let (chain, _) = kernel.walk(&registers, &stacks);
            assert!(chain.frames.len() <= MAX_FRAMES + 1);
            return;
        }
        1 => Parts { eh_frame_header: part, ..Parts::default() },
        2 => Parts { eh_frame: part, ..Parts::default() },
        _ => Parts { go_functions: part, ..Parts::default() },
    };
    let chain = unwind::walk(&mut Everywhere(Image::new(FrameTable::read(&parts))), &registers, &stacks);
    assert!(chain.frames.len() <= MAX_FRAMES);
}
