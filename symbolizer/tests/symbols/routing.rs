//! Whose image an address is looked up in.

use profile::{CodeAddress, DomainId, ImageOffset, ProcessId, Space};
use symbolizer::{Executable, Image, Resolved, SymbolTable, Symbolizer, SymbolizerError};

use crate::{
    KALLSYMS,
    tiny_elf::{FUNCTION, TEXT, TinyElf},
};

const GUEST: DomainId = DomainId(3);
const OTHER: DomainId = DomainId(4);
const PROCESS: ProcessId = ProcessId(7);

fn resolved<'a>(symbol: Option<&'a str>, module: Option<&'a str>, offset: u64) -> Resolved<'a> {
    Resolved { symbol, module, offset: ImageOffset(offset), linked: None }
}

fn nothing() -> Resolved<'static> {
    resolved(None, None, 0)
}

fn executable(name: &str, elf: &TinyElf<'_>) -> Executable {
    Image::parse(name, &elf.bytes(), None).unwrap().into_executable().unwrap()
}

fn symbolizer() -> Symbolizer {
    let mut symbolizer = Symbolizer::default();
    let xen = [
        (0xffff_82d0_4020_0000, 'T', "_start", None),
        (0xffff_82d0_4020_3360, 't', "arch/x86/irq.c#do_IRQ", None),
        (0xffff_82d0_403a_4b99, 'T', "_etext", None),
    ];
    symbolizer.set_hypervisor(SymbolTable::from_xen(xen).unwrap());
    symbolizer.set_kernel(GUEST, "vmlinux", SymbolTable::from_kallsyms(KALLSYMS.as_bytes()).unwrap());
    symbolizer.add_executable(GUEST, executable("app", &TinyElf::default())).unwrap();
    symbolizer
}

#[test]
fn each_space_has_its_own_images() {
    let symbolizer = symbolizer();
    let at = |space, address| symbolizer.resolve(space, CodeAddress::InstructionPointer(address));
    let (do_irq, schedule, main) = (0xffff_82d0_4020_3370, 0xffff_ffff_821f_8548, 0x40_1004);

    assert_eq!(at(Space::Hypervisor, do_irq), resolved(Some("do_IRQ"), Some("xen"), 0x10));
    assert_eq!(at(Space::Kernel(GUEST), schedule), resolved(Some("__schedule"), Some("vmlinux"), 8));
    let module = at(Space::Kernel(GUEST), 0xffff_ffff_c0a3_1025);
    assert_eq!(module, resolved(Some("nf_tables_getset"), Some("nf_tables"), 5));
    assert_eq!(at(Space::User(GUEST, PROCESS), main), resolved(Some("main"), Some("app"), 4));

    for (space, address) in [
        (Space::Hypervisor, schedule),
        (Space::Kernel(GUEST), do_irq),
        (Space::Kernel(GUEST), main),
        (Space::Kernel(OTHER), schedule),
        (Space::User(GUEST, PROCESS), schedule),
        (Space::User(OTHER, PROCESS), main),
    ] {
        assert_eq!(at(space, address), nothing(), "{space:?} {address:#x}");
    }
}

#[test]
fn return_addresses_belong_to_the_call() {
    let symbolizer = symbolizer();
    let user = Space::User(GUEST, PROCESS);
    // A call that never returns may be the last instruction of `main`, which is 0x20 bytes long.
    let after = 0x40_1020;
    let frame = symbolizer.resolve(user, CodeAddress::ReturnAddress(after));
    assert_eq!(frame, resolved(Some("main"), Some("app"), 0x20));
    let frame = symbolizer.resolve(user, CodeAddress::InstructionPointer(after));
    assert_eq!(frame, resolved(None, Some("app"), 0x1020));
    assert_eq!(symbolizer.resolve(user, CodeAddress::ReturnAddress(0)), nothing());
}

#[test]
fn what_has_no_name_is_located_inside_its_image_only() {
    let symbolizer = symbolizer();
    let at = |space, address| symbolizer.resolve(space, CodeAddress::InstructionPointer(address));
    let user = Space::User(GUEST, PROCESS);
    assert_eq!(at(user, 0x40_1800), resolved(None, Some("app"), 0x1800));
    // Mapped, but no code.
    assert_eq!(at(user, 0x40_0800), nothing());
    assert_eq!(at(user, 0x40_2800), nothing());
    let kernel = Space::Kernel(GUEST);
    assert_eq!(at(kernel, 0xffff_ffff_8240_0010), resolved(None, Some("vmlinux"), 0x140_0010));
    assert_eq!(at(kernel, 0xffff_ffff_a000_0000), nothing());
}

#[test]
fn executables_that_overlap_are_refused() {
    let mut symbolizer = symbolizer();
    let beside = TinyElf {
        segments: &[(0x40_0000, 0x1000, 4), (0x40_2000, 0x1000, TEXT)],
        symbols: &[("beside", 0x40_2000, 0x20, FUNCTION, 1)],
        ..TinyElf::default()
    };
    symbolizer.add_executable(GUEST, executable("beside", &beside)).unwrap();
    let around = TinyElf { segments: &[(0x40_0000, 0x10000, TEXT)], ..TinyElf::default() };
    let error = symbolizer.add_executable(GUEST, executable("around", &around)).unwrap_err();
    assert_eq!(error.to_string(), "ambiguous: app and around of domain 3 both have code at 0x401000");
    assert!(matches!(error, SymbolizerError::Ambiguous { domain: GUEST, .. }));
    symbolizer.add_executable(OTHER, executable("around", &around)).unwrap();
}

#[test]
fn dead_domains_are_forgotten() {
    let mut symbolizer = symbolizer();
    symbolizer.forget(GUEST);
    symbolizer.forget(OTHER);
    let (kernel, user) = (Space::Kernel(GUEST), Space::User(GUEST, PROCESS));
    let at = |space, address| symbolizer.resolve(space, CodeAddress::InstructionPointer(address));
    assert_eq!(at(kernel, 0xffff_ffff_821f_8548), nothing());
    assert_eq!(at(user, 0x40_1004), nothing());
    symbolizer.add_executable(GUEST, executable("reborn", &TinyElf::default())).unwrap();
}
