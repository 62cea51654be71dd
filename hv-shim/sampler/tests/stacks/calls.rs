//! Which words of Xen's stack look like return addresses.

use sampler::{Machine, calls::call_before};

/// Code that ends at an address.
struct Code(Vec<u8>);

const END: u64 = 0xffff_82d0_4020_1000;

impl Machine for Code {
    fn read(&self, address: u64) -> u64 {
        let code = [&[0x90; 16][..], &self.0].concat();
        let from = code.len() - (END - address) as usize;
        u64::from_le_bytes(code[from..from + 8].try_into().unwrap())
    }

    fn cr3(&self) -> u64 {
        0
    }

    fn vmread(&self, _: u64) -> Option<u64> {
        None
    }
}

/// Encodings as GNU as has them.
#[test]
fn every_kind_of_call_is_known() {
    assert_eq!(call_before(&Code(vec![0xe8, 0x10, 0, 0, 0]), END), Some(END + 0x10));
    assert_eq!(call_before(&Code(vec![0xe8, 0xf0, 0xff, 0xff, 0xff]), END), Some(END - 0x10));
    let indirect: [&[u8]; 10] = [
        &[0xff, 0xd0],                      // *%rax
        &[0x41, 0xff, 0xd3],                // *%r11
        &[0xff, 0x10],                      // *(%rax)
        &[0xff, 0x14, 0xc8],                // *(%rax,%rcx,8)
        &[0xff, 0x50, 0x18],                // *0x18(%rax)
        &[0xff, 0x54, 0x24, 0x18],          // *0x18(%rsp)
        &[0xff, 0x90, 0x80, 0, 0, 0],       // *0x80(%rax)
        &[0xff, 0x15, 0x80, 0, 0, 0],       // *0x80(%rip)
        &[0xff, 0x94, 0xc8, 0x80, 0, 0, 0], // *0x80(%rax,%rcx,8)
        &[0xff, 0x14, 0x25, 0x80, 0, 0, 0], // *0x80
    ];
    for code in indirect {
        assert_eq!(call_before(&Code(code.to_vec()), END), Some(0), "{code:x?}");
    }
    let others: [&[u8]; 5] = [
        &[0xff, 0xe0],             // jmp *%rax
        &[0xff, 0x75, 0x18],       // pushq 0x18(%rbp)
        &[0xe9, 0x10, 0, 0, 0],    // jmp
        &[0xff, 0x15, 0x80, 0, 0], // not all of it
        &[0x90, 0x90],
    ];
    for code in others {
        assert_eq!(call_before(&Code(code.to_vec()), END), None, "{code:x?}");
    }
}
