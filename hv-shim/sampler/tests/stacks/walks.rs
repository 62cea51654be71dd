//! Whose memory a walk may end in.

use proptest::{collection::vec, prelude::*};
use sampler::walk::{AddressSpace, Paging, Reader, translate};

use crate::model::{GUEST, GUEST_KERNEL, LARGE, Machine, OTHER, PRESENT, USER};

const ROOT: u64 = 0x10;
const NESTED: u64 = 0x20;
const PAGE: u64 = 0x100;

const PROCESS: u64 = 0x7ffc_1234_5000;
const KERNEL: u64 = 0xffff_c900_0000_4000;

/// A paravirtualized guest's address space with one page.
fn direct(address: u64, flags: u64) -> Machine {
    let mut machine = Machine::default();
    machine.add(ROOT, GUEST);
    machine.add(PAGE, GUEST);
    machine.map(ROOT, address, PAGE, flags, GUEST);
    machine
}

fn reads(machine: &Machine, address: u64, paging: Paging, reader: Reader) -> bool {
    AddressSpace::new(machine, ROOT << 12, paging, GUEST).page(address, reader).is_some()
}

fn reads_direct(machine: &Machine, address: u64, reader: Reader) -> bool {
    reads(machine, address, Paging::Direct, reader)
}

#[test]
fn a_process_reads_what_is_marked_as_its_own() {
    let machine = direct(PROCESS, PRESENT | USER);
    assert!(reads_direct(&machine, PROCESS + 8, Reader::User));
    assert!(reads_direct(&machine, PROCESS + 8, Reader::Kernel));
    assert!(!reads_direct(&machine, PROCESS + 0x1000, Reader::User));
    for flags in [PRESENT, USER, 0, PRESENT | USER | GUEST_KERNEL] {
        assert!(!reads_direct(&direct(PROCESS, flags), PROCESS, Reader::User), "{flags:#x}");
    }
    // A kernel's page, whatever its marks.
    let machine = direct(KERNEL, PRESENT | USER);
    assert!(reads_direct(&machine, KERNEL, Reader::Kernel));
    assert!(!reads_direct(&machine, KERNEL, Reader::User));
}

#[test]
fn a_table_on_the_way_can_forbid_it_too() {
    let machine = direct(PROCESS, PRESENT | USER);
    let place = (PROCESS >> 39) as usize % 512;
    machine.set(ROOT, place, machine_word(&machine, ROOT, place) & !USER);
    assert!(!reads_direct(&machine, PROCESS, Reader::User));
    assert!(reads_direct(&machine, PROCESS, Reader::Kernel));
}

fn machine_word(machine: &Machine, frame: u64, place: usize) -> u64 {
    use sampler::walk::Memory;
    machine.frame(frame).unwrap()[place].load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn memory_of_others_and_what_is_no_memory_is_not_read() {
    let mut machine = direct(PROCESS, PRESENT | USER);
    machine.give(PAGE, OTHER);
    assert!(!reads_direct(&machine, PROCESS, Reader::User), "mapped from another domain");
    let mut machine = direct(PROCESS, PRESENT | USER);
    machine.map(ROOT, PROCESS, 0xf_ee00, PRESENT | USER, GUEST);
    assert!(!reads_direct(&machine, PROCESS, Reader::User), "a device");
}

#[test]
fn addresses_that_the_guest_can_not_have_are_not_looked_up() {
    let machine = direct(PROCESS, PRESENT | USER);
    for address in [0x8000_0000_0000, 0xffff_7fff_ffff_f000, 0xffff_82d0_4020_0000, 0xffff_8300_0000_0000] {
        assert!(!reads_direct(&machine, address, Reader::Kernel), "{address:#x}");
    }
    assert_eq!(machine.asked.get(), 0);
}

#[test]
fn a_second_page_beside_the_first_costs_two_looks() {
    let mut machine = direct(PROCESS, PRESENT | USER);
    machine.add(PAGE + 1, GUEST);
    machine.map(ROOT, PROCESS + 0x1000, PAGE + 1, PRESENT | USER, GUEST);
    machine.map(ROOT, PROCESS + 0x2000, PAGE, PRESENT, GUEST);
    let mut space = AddressSpace::new(&machine, ROOT << 12, Paging::Direct, GUEST);
    assert!(space.page(PROCESS, Reader::User).is_some());
    assert_eq!(machine.asked.get(), 5);
    assert!(space.page(PROCESS + 0x1000, Reader::User).is_some());
    assert_eq!(machine.asked.get(), 6);
    assert!(space.page(PROCESS + 0x2000, Reader::User).is_none(), "what was remembered has rights too");
}

/// A guest's frames 0.. are the machine's 0x100…: tables and pages alike.
fn nested() -> Machine {
    let mut machine = Machine::default();
    machine.add(NESTED, OTHER);
    for guest_frame in 0..16 {
        machine.add(PAGE + guest_frame, GUEST);
        machine.map(NESTED, guest_frame << 12, PAGE + guest_frame, PRESENT, OTHER);
    }
    // The guest's root is its frame 0, and the tables below it 1, 2 and 3.
    for (level, shift) in [39, 30, 21].into_iter().enumerate() {
        let level = level as u64;
        machine.set(PAGE + level, (PROCESS >> shift) as usize % 512, (level + 1) << 12 | PRESENT | USER);
    }
    machine.set(PAGE + 3, (PROCESS >> 12) as usize % 512, 5 << 12 | PRESENT | USER);
    machine
}

fn reads_nested(machine: &Machine) -> bool {
    AddressSpace::new(machine, 0, Paging::Nested(NESTED << 12), GUEST).page(PROCESS, Reader::User).is_some()
}

#[test]
fn a_hardware_guests_tables_have_to_be_its_own_memory() {
    assert!(reads_nested(&nested()));
    for frame in [0, 1, 2, 3, 5] {
        let mut machine = nested();
        machine.give(PAGE + frame, OTHER);
        assert!(!reads_nested(&machine), "{frame}");
    }
    // An address that the nested tables have no room for must not be cut down to one that they have.
    let machine = nested();
    machine.set(PAGE + 3, (PROCESS >> 12) as usize % 512, 1 << 48 | 5 << 12 | PRESENT | USER);
    assert!(!reads_nested(&machine));
    assert_eq!(translate(&machine, NESTED << 12, 1 << 48), None);
}

#[test]
fn large_pages_are_gone_into() {
    let machine = nested();
    // The guest's last table but one maps 2 MiB from its address 0 on.
    machine.set(PAGE + 2, (PROCESS >> 21) as usize % 512, LARGE | PRESENT | USER);
    let within = PROCESS >> 12 & 511;
    assert!(!reads_nested(&machine), "frame {within} is not there");
    let near = PROCESS & !0x1f_ffff | 5 << 12;
    let mut space = AddressSpace::new(&machine, 0, Paging::Nested(NESTED << 12), GUEST);
    let page = space.page(near, Reader::User).unwrap();
    assert!(std::ptr::eq(page, {
        use sampler::walk::Memory;
        machine.frame(PAGE + 5).unwrap()
    }));
    // There is no page as large as an entry of the root table.
    machine.set(PAGE, (PROCESS >> 39) as usize % 512, LARGE | PRESENT | USER);
    assert!(!reads_nested(&machine));
}

proptest! {
    /// Whatever the tables hold, they may lead into each other and into everything: the walk ends, soon, in the guest's
    /// own memory or nowhere.
    #[test]
    fn forged_tables_lead_nowhere_else(
        entries in vec((0..6u64, 0..512usize, 0..8u64, any::<u16>()), 0..64),
        address in any::<u64>(),
        is_nested in any::<bool>(),
        is_user in any::<bool>(),
    ) {
        let mut machine = Machine::default();
        for frame in 0..6 {
            machine.add(frame, if frame < 3 { GUEST } else { OTHER });
        }
        for (frame, place, to, flags) in entries {
            let flags = u64::from(flags) & 0xfff | PRESENT;
            machine.set(frame, place, to << 12 | flags);
            // Often where it is looked for.
            machine.set(frame, (address >> (12 + 9 * (place % 4))) as usize % 512, to << 12 | flags);
        }
        let paging = if is_nested { Paging::Nested(0) } else { Paging::Direct };
        let reader = if is_user { Reader::User } else { Reader::Kernel };
        let mut space = AddressSpace::new(&machine, 0, paging, GUEST);
        if let Some(page) = space.page(address, reader) {
            prop_assert!(machine.is_of(page, GUEST));
        }
        prop_assert!(machine.asked.get() <= 25, "{} looks", machine.asked.get());
    }
}
