//! Forged stacks and tables: nothing panics, and what comes out is bounded.

use profile::{Registers, StackPiece, Stretch};
use proptest::{collection::vec, prelude::*};
use unwind::{Code, FrameTable, Image, KernelCode, MAX_FRAMES, OrcTable, Part, Parts, Process, Stacks};

/// All addresses are code of one image, or of none.
struct Everywhere(Option<Image>);

impl Process for Everywhere {
    fn code_at(&mut self, address: u64) -> Option<Code<'_>> {
        Some(self.0.as_ref().map_or(Code::Generated, |image| Code::Image(image, address)))
    }
}

fn assert_bounded(process: &mut dyn Process, registers: Registers, stack: StackPiece) {
    let stretch = Stretch::Copied { registers, stacks: vec![stack] };
    let chain = unwind::walk(process, &registers, &Stacks::of([&stretch]));
    assert!((1..=MAX_FRAMES).contains(&chain.frames.len()));
}

fn registers() -> impl Strategy<Value = Registers> {
    let value = prop_oneof![0..0x200_u64, any::<u64>(), Just(u64::MAX), Just(0)];
    vec(value, 4).prop_map(|v| Registers { ip: v[0], sp: v[1], bp: v[2], bx: v[3], ..Registers::default() })
}

/// Small numbers lead to small addresses, so that forged things find each other.
fn words(count: usize) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![0..0x400_u64, any::<u64>(), 0xffff_ffff_8100_0000..0xffff_ffff_8100_0400_u64];
    vec(word, 0..count).prop_map(|words| words.into_iter().flat_map(u64::to_le_bytes).collect())
}

proptest! {
    #[test]
    fn stacks_without_tables(registers in registers(), bytes in words(64), at in 0..0x400_u64) {
        assert_bounded(&mut Everywhere(None), registers, StackPiece { address: at, bytes });
    }

    #[test]
    fn call_frames(registers in registers(), frames in vec(any::<u8>(), 0..256), stack in words(64)) {
        // The header leads to whatever follows it.
        let mut header = vec![1, 0x1b, 0x03, 0x3b, 8, 0, 0, 0, 1, 0, 0, 0];
        header.extend([0, 0, 0, 0, 20, 0, 0, 0]);
        header.extend(&frames);
        let parts = [
            Parts { eh_frame_header: Some(Part { address: 0, bytes: header }), ..Parts::default() },
            Parts { eh_frame: Some(Part { address: 0, bytes: frames }), ..Parts::default() },
        ];
        for parts in parts {
            let stack = StackPiece { address: 0, bytes: stack.clone() };
            assert_bounded(&mut Everywhere(Some(Image::new(FrameTable::read(&parts)))), registers, stack);
        }
    }

    #[test]
    fn functions_of_go(registers in registers(), rest in words(64), stack in words(64)) {
        let mut bytes = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
        bytes.extend(rest);
        let parts = Parts { go_functions: Some(Part { address: 0, bytes }), ..Parts::default() };
        let stack = StackPiece { address: 0, bytes: stack };
        assert_bounded(&mut Everywhere(Some(Image::new(FrameTable::read(&parts)))), registers, stack);
    }

    #[test]
    fn kernels(
        registers in registers(),
        (addresses, entries) in (0..64_usize).prop_flat_map(|count| {
            (vec(0..0x400_u32, count), vec(any::<[u8; 6]>(), count))
        }),
        stack in words(64),
        at in 0..0x400_u64,
    ) {
        let addresses: Vec<u8> = addresses.into_iter().flat_map(u32::to_le_bytes).collect();
        let table = OrcTable::parse(0xffff_ffff_8100_0000, &addresses, &entries.concat());
        let kernel = KernelCode::new(table, Vec::from_iter([0x10..0x20, 0x20..0x30]));
        let ip = 0xffff_ffff_8100_0000 | registers.ip & 0x3ff;
        let registers = Registers { ip, sp: at, ..registers };
        let stretch = Stretch::Copied { registers, stacks: vec![StackPiece { address: at, bytes: stack }] };
        let (chain, _) = kernel.walk(&registers, &Stacks::of([&stretch]));
        prop_assert!((1..=MAX_FRAMES + 1).contains(&chain.frames.len()));
    }
}
