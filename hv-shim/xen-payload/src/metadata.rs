//! The payload's metadata: text that dom0 reads with the stock livepatch list operation.

use core::{arch::global_asm, ptr};

use sampler::probe::Refusal;

use crate::xen::address;

// In assembly: `#[used]` would mark the section SHF_GNU_RETAIN and with it the object ELFOSABI_GNU, which Xen
// refuses. Below 900 bytes, because the list operation copies no more than a page for all payloads.
global_asm!(
    ".section .modinfo, \"aw\", @progbits",
    "xenoscope_metadata: .fill 255, 1, 32",
    ".byte 0",
    ".text"
);

unsafe extern "C" {
    static xenoscope_metadata: [u8; 255];
}

/// Where the text ends.
struct Cursor(usize);

impl Cursor {
    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.0 < 255 {
                // SAFETY: the index is inside of the array; only the hooks write to it, and Xen runs them one at a
                // time.
                unsafe {
                    ptr::write_volatile((address!(of xenoscope_metadata) as *mut u8).add(self.0), byte)
                };
                self.0 += 1;
            }
        }
    }

    fn hexadecimal(&mut self, value: u64) {
        let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let value = (value >> (4 * digit) & 15) as usize;
            self.text(&"0123456789abcdef"[value..=value]);
        }
    }
}

/// Tells where the control page is.
pub(crate) fn tell_control(mfn: u64) {
    let mut cursor = Cursor(0);
    cursor.text(abi::control::METADATA_CONTROL);
    cursor.hexadecimal(mfn);
    cursor.text(" ");
}

/// Tells that nothing of the shim's runs any more.
pub(crate) fn tell_reverted() {
    Cursor(0).text(abi::control::METADATA_REVERTED);
}

/// Tells why the shim stays inert.
pub(crate) fn tell_refusal(refusal: Refusal) {
    let mut cursor = Cursor(0);
    cursor.text(abi::control::METADATA_REFUSED);
    cursor.text(refusal.reason());
}
