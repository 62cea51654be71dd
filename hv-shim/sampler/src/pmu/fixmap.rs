//! Where Xen maps the local APIC's registers, on machines that reach them through memory.

use crate::Machine;

/// The last two megabytes below the ranges of Xen's own image (`FIXADDR_TOP`, asm-x86/config.h and fixmap.h): one page
/// table's worth of pages with fixed uses, the local APIC's one among them.
const RANGE: u64 = 0xffff_82d0_0000_0000 - (ENTRIES << 12);
const ENTRIES: u64 = 512;

/// Present, and the address, in an entry of a page table.
const PRESENT: u64 = 1 << 0;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The address at which the page of a physical address is mapped; `l1_fixmap` is the page table of that range. None
/// unless it is there once.
pub fn fixmap_of<M: Machine>(machine: &M, l1_fixmap: u64, physical: u64) -> Option<u64> {
    let is_it = |&number: &u64| {
        let entry = machine.read(l1_fixmap + number * 8);
        entry & PRESENT != 0 && entry & ADDRESS == physical
    };
    let mut found = (0..ENTRIES).filter(is_it);
    match (found.next(), found.next()) {
        (Some(number), None) => Some(RANGE + (number << 12)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table(fn(u64) -> u64);

    impl Machine for Table {
        fn read(&self, address: u64) -> u64 {
            self.0((address - 0x1000) / 8)
        }

        fn cr3(&self) -> u64 {
            0
        }

        fn vmread(&self, _: u64) -> Option<u64> {
            None
        }
    }

    #[test]
    fn the_one_entry_of_the_page_gives_its_address() {
        let once =
            Table(|number| if number == 3 { 0xfee0_0000 | 0x8000_0000_0000_0173 } else { 0xfee0_0000 });
        assert_eq!(fixmap_of(&once, 0x1000, 0xfee0_0000), Some(0xffff_82cf_ffe0_3000));
        let twice = Table(|_| 0xfee0_0001);
        assert_eq!(fixmap_of(&twice, 0x1000, 0xfee0_0000), None);
        let never = Table(|_| 0xfec0_0001);
        assert_eq!(fixmap_of(&never, 0x1000, 0xfee0_0000), None);
    }
}
