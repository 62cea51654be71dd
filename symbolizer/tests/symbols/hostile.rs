//! Bytes that mean harm: whatever comes out, it is no panic.

use proptest::{collection::vec, prelude::*, sample::Index};
use symbolizer::{Image, SymbolTable};

use crate::{
    KALLSYMS,
    tiny_elf::{DATA, FUNCTION, LABEL, TEXT, TinyElf, TinySymbol},
};

/// Parses, and asks what came out for addresses near and far.
fn exercise(bytes: &[u8], addresses: &[u64]) {
    for base in [None, Some(0), Some(0x5555_5555_4000), Some(u64::MAX)] {
        if let Ok(image) = Image::parse("hostile", bytes, base) {
            let table = image.into_kernel();
            for &address in addresses {
                if let Some(symbol) = table.lookup(address) {
                    assert!(symbol.start <= address);
                }
            }
        }
    }
}

fn corrupt(bytes: &mut [u8], changes: &[(Index, u8)]) {
    for (at, value) in changes {
        bytes[at.index(bytes.len())] = *value;
    }
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0x40_0000..0x40_4000_u64, 0xffff_ffff_8100_0000..=u64::MAX]
}

proptest! {
    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..500), addresses in vec(address(), 20)) {
        exercise(&bytes, &addresses);
        exercise(&[b"\x7fELF\x02\x01\x01", &bytes[..]].concat(), &addresses);
    }

    #[test]
    fn random_lists(text in "([0-9a-f]{1,17} [tTwWdDA] [a-z_]{0,9}(\t\\[[a-z]?\\])?\n){0,20}",
                    addresses in vec(address(), 20)) {
        exercise(text.as_bytes(), &addresses);
    }

    #[test]
    fn corrupted_lists(changes in vec(any::<(Index, u8)>(), 1..20), addresses in vec(address(), 20)) {
        let mut bytes = KALLSYMS.as_bytes().to_vec();
        corrupt(&mut bytes, &changes);
        exercise(&bytes, &addresses);
    }

    #[test]
    fn corrupted_files(
        kind in 2..=3_u16,
        dynamic: bool,
        length in any::<Index>(),
        changes in vec(any::<(Index, u8)>(), 0..8),
        addresses in vec(address(), 20),
    ) {
        let symbols = [
            ("outer", 0x40_1000, 0x200, FUNCTION, 1),
            ("inner", 0x40_1080, 0x10, FUNCTION, 1),
            ("label", 0x40_1800, 0, LABEL, 1),
        ];
        let mut bytes = TinyElf { kind, dynamic, symbols: &symbols, ..TinyElf::default() }.bytes();
        corrupt(&mut bytes, &changes);
        exercise(&bytes, &addresses);
        bytes.truncate(length.index(bytes.len()));
        exercise(&bytes, &addresses);
    }

    /// Well-formed files with senseless values, of which a corrupted byte makes few.
    #[test]
    fn senseless_files(
        segments in vec((address(), any::<u64>(), prop_oneof![Just(TEXT), Just(DATA)]), 0..6),
        symbols in vec((address(), any::<u64>(), any::<u8>(), any::<u16>()), 0..20),
        addresses in vec(address(), 20),
    ) {
        let named = |&(value, size, info, section)| -> TinySymbol<'_> { ("f", value, size, info, section) };
        let symbols: Vec<_> = symbols.iter().map(named).collect();
        for kind in [2, 3] {
            let elf = TinyElf { kind, segments: &segments, symbols: &symbols, ..TinyElf::default() };
            exercise(&elf.bytes(), &addresses);
        }
    }

    #[test]
    fn senseless_xens(
        symbols in vec((address(), any::<char>(), "[a-z#]{0,4}"), 0..20),
        addresses in vec(address(), 20),
    ) {
        let symbols = symbols.iter().map(|(address, kind, name)| (*address, *kind, name.as_str(), None));
        if let Ok(table) = SymbolTable::from_xen(symbols) {
            for address in addresses {
                table.lookup(address);
            }
        }
    }
}
