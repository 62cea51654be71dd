//! Where a kernel keeps what is looked at: the addresses of its symbols.

use std::ops::Range;

use profile::GuestVirtual;

use crate::{
    error::ReadError,
    look::{Space, unless_exhausted},
    symbols::SymbolList,
};

/// Where memory is mapped, and where the structures of its pages are, when neither was moved at random: with four levels
/// of page tables (Documentation/arch/x86/x86_64/mm.rst).
const DIRECT_MAP: GuestVirtual = GuestVirtual(0xffff_8880_0000_0000);
const PAGE_ARRAY: GuestVirtual = GuestVirtual(0xffff_ea00_0000_0000);

/// Addresses in a kernel; those are missing which it has no symbols for.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) text: Option<GuestVirtual>,
    pub(crate) banner: Option<GuestVirtual>,
    pub(crate) notes: Option<Range<u64>>,
    pub(crate) types: Option<Range<u64>>,
    /// The table of callers: its addresses and its entries.
    pub(crate) orc_addresses: Option<Range<u64>>,
    pub(crate) orc_entries: Option<Range<u64>>,
    pub(crate) init_mm: Option<GuestVirtual>,
    pub(crate) init_task: Option<GuestVirtual>,
    pub(crate) modules: Option<GuestVirtual>,
    pub(crate) bpf_symbols: Option<GuestVirtual>,
    pub(crate) trampolines: Option<GuestVirtual>,
    pub(crate) special_mapping: Option<GuestVirtual>,
    pub(crate) vdso: Option<GuestVirtual>,
    /// Variables of which each CPU has one of its own, at this address and its offset.
    pub(crate) current_task: Option<GuestVirtual>,
    pub(crate) hot_variables: Option<GuestVirtual>,
    pub(crate) cpu_offsets: Option<GuestVirtual>,
    /// The first page's `struct page`.
    pub(crate) page_array: GuestVirtual,
    /// The first byte of memory.
    pub(crate) direct_map: GuestVirtual,
}

impl Places {
    /// Takes them from the kernel's symbols, and from its image where variables have them.
    pub(crate) fn of(symbols: &SymbolList, image: &Space<'_>) -> Result<Self, ReadError> {
        let found = symbols.addresses(&[
            "_text",
            "linux_banner",
            "__start_notes",
            "__stop_notes",
            "__start_BTF",
            "__stop_BTF",
            "__start_orc_unwind_ip",
            "__stop_orc_unwind_ip",
            "__start_orc_unwind",
            "__stop_orc_unwind",
            "init_mm",
            "init_task",
            "modules",
            "bpf_kallsyms",
            "ftrace_ops_trampoline_list",
            "special_mapping_vmops",
            "vdso_image_64",
            "vdso64_image",
            "current_task",
            "pcpu_hot",
            "__per_cpu_offset",
            "vmemmap_base",
            "page_offset_base",
        ]);
        let at = |name| found.get(name).copied();
        let range = |start, end| Some(at(start)?.0..at(end)?.0);
        let variable = |name, fixed| match at(name) {
            Some(place) => Ok(unless_exhausted(image.pointer(place))?.unwrap_or(fixed)),
            None => Ok::<_, ReadError>(fixed),
        };
        Ok(Self {
            text: at("_text"),
            banner: at("linux_banner"),
            notes: range("__start_notes", "__stop_notes"),
            types: range("__start_BTF", "__stop_BTF"),
            orc_addresses: range("__start_orc_unwind_ip", "__stop_orc_unwind_ip"),
            orc_entries: range("__start_orc_unwind", "__stop_orc_unwind"),
            init_mm: at("init_mm"),
            init_task: at("init_task"),
            modules: at("modules"),
            bpf_symbols: at("bpf_kallsyms"),
            trampolines: at("ftrace_ops_trampoline_list"),
            special_mapping: at("special_mapping_vmops"),
            // The second is its name in kernels after 6.14.
            vdso: at("vdso_image_64").or(at("vdso64_image")),
            current_task: at("current_task"),
            hot_variables: at("pcpu_hot"),
            cpu_offsets: at("__per_cpu_offset"),
            page_array: variable("vmemmap_base", PAGE_ARRAY)?,
            direct_map: variable("page_offset_base", DIRECT_MAP)?,
        })
    }
}
