//! The payload's object, bound to one running hypervisor.
//!
//! The object is the same for every Xen. Before it is uploaded, every symbol that it wants becomes an absolute
//! address of *this* hypervisor, the build ids that Xen compares become this hypervisor's, and the settings are
//! filled in. So a Xen that lacks something is refused here, with a name, and not half-way through its loader.

use abi::{
    config::{self, Config, OptionalSymbols},
    pmu::{EventConfig, MAX_EVENTS},
};

use profile::HypervisorVirtual;

use crate::{
    CallGraph, HypervisorSymbol, ShimError,
    own_object::{Elf, SYMBOL_SECTION, SYMBOL_VALUE},
};

/// The object as it was built.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/xen-payload.o"));

/// Sections that hold the build id of the hypervisor that the payload is for.
const DEPENDS: [&str; 2] = [".livepatch.depends", ".livepatch.xen_depends"];

/// An ELF note's header and the name "GNU" before the build id.
const NOTE_HEADER: usize = 16;
const BUILD_ID_BYTES: usize = 20;

/// Names that a symbol has had in other versions.
const FORMER_NAMES: [(&str, &str); 1] = [("per_cpu__irq_regs", "per_cpu____irq_regs")];

/// Functions that the payload calls only where the settings say that there are such.
const OPTIONAL_FUNCTIONS: [&str; 3] = ["set_nmi_callback", "on_selected_cpus", "__mfn_valid"];

/// Where calls to functions lead that are not there: to any address of this hypervisor, since none is ever made.
const NOWHERE: &str = "get_s_time";

/// `SHN_ABS`.
const ABSOLUTE: u16 = 0xfff1;

/// Finds the addresses of the hypervisor's symbols by name.
pub(super) struct SymbolIndex<'a>(&'a [HypervisorSymbol]);

impl<'a> SymbolIndex<'a> {
    pub(super) fn new(symbols: &'a [HypervisorSymbol]) -> Self {
        Self(symbols)
    }

    /// The one symbol of this name, be it static (`file.c#name`) or not.
    pub(super) fn address(&self, name: &str) -> Result<u64, ShimError> {
        let former = FORMER_NAMES.iter().find(|(now, _)| *now == name).map(|(_, former)| *former);
        let is = |symbol: &str, name: &str| symbol.rsplit('#').next() == Some(name);
        let mut found = self
            .0
            .iter()
            .filter(|symbol| is(&symbol.name, name) || former.is_some_and(|former| is(&symbol.name, former)))
            .map(|symbol| symbol.address.0);
        match (found.next(), found.next()) {
            (Some(address), None) => Ok(address),
            (None, _) => Err(ShimError::MissingSymbol(name.into())),
            (Some(_), Some(_)) => Err(ShimError::AmbiguousSymbol(name.into())),
        }
    }
}

/// The payload's settings, but for the symbols that [`bind`] finds.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) period_ns: u64,
    pub(super) modes: u64,
    pub(super) overhead_millionths: u64,
    pub(super) trust: u64,
    pub(super) events: Vec<EventConfig>,
    pub(super) lease_ns: u64,
    pub(super) ring_pages: u64,
    pub(super) call_graph: CallGraph,
}

/// The object, ready for upload.
pub(super) fn bind(
    symbols: &SymbolIndex<'_>,
    build_id: &[u8],
    settings: &Settings,
) -> Result<Vec<u8>, ShimError> {
    let build_id: [u8; BUILD_ID_BYTES] =
        build_id.try_into().map_err(|_| ShimError::BuildId { bytes: build_id.len() })?;
    let config = config(symbols, settings)?;
    let elf = Elf::parse(OBJECT);
    let mut object = OBJECT.to_vec();
    let mut write = |at: usize, bytes: &[u8]| object[at..at + bytes.len()].copy_from_slice(bytes);
    for symbol in elf.symbols() {
        if symbol.section == 0 && !symbol.name.is_empty() {
            write(symbol.entry + SYMBOL_SECTION, &ABSOLUTE.to_le_bytes());
            let address = match symbols.address(symbol.name) {
                Err(ShimError::MissingSymbol(_)) if OPTIONAL_FUNCTIONS.contains(&symbol.name) => {
                    symbols.address(NOWHERE)?
                }
                found => found?,
            };
            write(symbol.entry + SYMBOL_VALUE, &address.to_le_bytes());
        } else if symbol.name == config::SYMBOL {
            let at = elf.sections[usize::from(symbol.section)].offset + symbol.value as usize;
            let words: Vec<u8> = config.words().iter().flat_map(|word| word.to_le_bytes()).collect();
            write(at, &words);
        }
    }
    for section in elf.sections.iter().filter(|section| DEPENDS.contains(&section.name)) {
        write(section.offset + NOTE_HEADER, &build_id);
    }
    Ok(object)
}

/// The symbols of the payload's code, as it lies in the hypervisor from `text` on.
pub(super) fn symbols(text: u64, livepatch: &'static str) -> Vec<HypervisorSymbol> {
    let elf = Elf::parse(OBJECT);
    let code = elf.sections.iter().position(|section| section.name == ".text").expect("a code section");
    let functions =
        elf.symbols().filter(|symbol| usize::from(symbol.section) == code && !symbol.name.is_empty());
    functions
        .map(|symbol| HypervisorSymbol {
            address: HypervisorVirtual(text + symbol.value),
            kind: 't',
            name: symbol.name.to_owned(),
            livepatch: Some(livepatch),
        })
        .collect()
}

fn config(symbols: &SymbolIndex<'_>, settings: &Settings) -> Result<Config, ShimError> {
    let optional = |name| match symbols.address(name) {
        Err(ShimError::MissingSymbol(_)) => Ok(0),
        found => found,
    };
    let mut event = [EventConfig::default(); MAX_EVENTS];
    event.iter_mut().zip(&settings.events).for_each(|(to, config)| *to = *config);
    Ok(Config {
        version: abi::VERSION,
        period_ns: settings.period_ns,
        modes: settings.modes,
        overhead_millionths: settings.overhead_millionths,
        trust: settings.trust,
        events: settings.events.len() as u64,
        event,
        lease_ns: settings.lease_ns,
        ring_pages: settings.ring_pages,
        call_graph: match settings.call_graph {
            CallGraph::Off => config::CALL_GRAPH_OFF,
            CallGraph::FramePointers => config::CALL_GRAPH_FRAMES,
            CallGraph::Stack { .. } => config::CALL_GRAPH_STACKS,
        },
        stack_words: match settings.call_graph {
            CallGraph::Stack { bytes } => u64::from(bytes).div_ceil(8),
            _ => 0,
        },
        optional: OptionalSymbols {
            pfn_pdx_hole_shift: optional("pfn_pdx_hole_shift")?,
            pfn_pdx_bottom_mask: optional("pfn_pdx_bottom_mask")?,
            pfn_top_mask: optional("pfn_top_mask")?,
            svm_asm_do_resume: optional("svm_asm_do_resume")?,
            svm_stgi_label: optional("svm_stgi_label")?,
            vmx_asm_vmexit_handler: optional("vmx_asm_vmexit_handler")?,
            vpmu_mode: optional("vpmu_mode")?,
            nmi_watchdog: optional("nmi_watchdog")?,
            xenoprof_state: optional("xenoprof_state")?,
            l1_fixmap: optional("l1_fixmap")?,
            set_nmi_callback: optional("set_nmi_callback")?,
            on_selected_cpus: optional("on_selected_cpus")?,
            mfn_valid: optional("__mfn_valid")?,
            text_start: optional("_stext")?,
            text_end: optional("_etext")?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own_object::word;

    /// What Xen's loader can relocate (arch/x86/livepatch.c): R_X86_64_NONE, 64, PC32 and PLT32.
    const RELOCATIONS: [u32; 4] = [0, 1, 2, 4];

    fn xen() -> Vec<HypervisorSymbol> {
        Elf::parse(OBJECT)
            .symbols()
            .filter(|symbol| symbol.section == 0 && !symbol.name.is_empty())
            .enumerate()
            .map(|(i, symbol)| HypervisorSymbol {
                address: HypervisorVirtual(0xffff_82d0_4020_0000 + 16 * i as u64),
                livepatch: None,
                kind: 'T',
                // Half of them static, as Xen names those.
                name: if i % 2 == 0 { symbol.name.into() } else { format!("common/file.c#{}", symbol.name) },
            })
            .collect()
    }

    fn settings() -> Settings {
        Settings {
            period_ns: 1_000_000,
            modes: 7,
            overhead_millionths: 10_000,
            trust: 0,
            events: vec![EventConfig { selector: 0x76, period: 100_000, interval_ns: 0, modes: 7 }],
            lease_ns: 5,
            ring_pages: 64,
            call_graph: CallGraph::Stack { bytes: 4096 },
        }
    }

    #[test]
    fn the_object_holds_only_what_xen_can_load() {
        let elf = Elf::parse(OBJECT);
        const RELA: u32 = 4;
        for section in elf.sections.iter().filter(|section| section.kind == RELA) {
            for entry in (section.offset..section.offset + section.bytes).step_by(24) {
                let kind = word(OBJECT, entry + 8) as u32;
                assert!(RELOCATIONS.contains(&kind), "relocation type {kind} in {}", section.name);
            }
        }
        assert_eq!(OBJECT[7], 0, "ELFOSABI_NONE");
        for name in [".note.gnu.build-id", ".livepatch.depends", ".livepatch.xen_depends", ".modinfo"] {
            assert!(elf.sections.iter().any(|section| section.name == name), "no section {name}");
        }
        // Xen refuses a payload that defines a name of its own table again.
        for taken in ["memcpy", "memset", "memmove", "memcmp", "strlen"] {
            assert!(
                !elf.symbols().any(|symbol| symbol.name == taken && symbol.section != 0),
                "defines {taken}"
            );
        }
        assert!(OBJECT.len() < 2 << 20, "Xen takes 2 MiB at most");
    }

    #[test]
    fn binding_leaves_no_symbol_and_no_setting_open() {
        let object = bind(&SymbolIndex::new(&xen()), &[7; 20], &settings()).unwrap();
        let elf = Elf::parse(&object);
        assert!(elf.symbols().all(|symbol| symbol.section != 0 || symbol.name.is_empty()));
        let symbol = elf.symbols().find(|symbol| symbol.name == "get_s_time").unwrap();
        assert_eq!((symbol.section, symbol.value & !0xffff), (ABSOLUTE, 0xffff_82d0_4020_0000));
        for name in DEPENDS {
            let section = elf.sections.iter().find(|section| section.name == name).unwrap();
            assert_eq!(object[section.offset..section.offset + 16], *b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0");
            assert_eq!(object[section.offset + 16..section.offset + 36], [7; 20]);
        }
        let config = elf.symbols().find(|symbol| symbol.name == config::SYMBOL).unwrap();
        let at = elf.sections[usize::from(config.section)].offset + config.value as usize;
        assert_eq!(word(&object, at), abi::VERSION);
        assert_eq!(word(&object, at + 8), settings().period_ns);
        assert_eq!(word(&object, at + 32), settings().ring_pages);
        assert_eq!(word(&object, at + 64), settings().events[0].selector);
    }

    #[test]
    fn a_former_name_serves() {
        let mut symbols = xen();
        let irq_regs = symbols.iter_mut().find(|symbol| symbol.name.ends_with("per_cpu__irq_regs")).unwrap();
        irq_regs.name = "per_cpu____irq_regs".into();
        bind(&SymbolIndex::new(&symbols), &[7; 20], &settings()).unwrap();
    }

    #[test]
    fn what_is_missing_or_in_doubt_is_named() {
        let mut symbols = xen();
        symbols.retain(|symbol| !symbol.name.ends_with("reprogram_timer"));
        let error = bind(&SymbolIndex::new(&symbols), &[7; 20], &settings()).unwrap_err();
        assert!(matches!(&error, ShimError::MissingSymbol(name) if name == "reprogram_timer"), "{error}");

        let mut symbols = xen();
        symbols.push(HypervisorSymbol {
            address: HypervisorVirtual(1),
            kind: 't',
            name: "other.c#put_page".into(),
            livepatch: None,
        });
        let error = bind(&SymbolIndex::new(&symbols), &[7; 20], &settings()).unwrap_err();
        assert!(matches!(&error, ShimError::AmbiguousSymbol(name) if name == "put_page"), "{error}");

        let error = bind(&SymbolIndex::new(&xen()), &[7; 8], &settings()).unwrap_err();
        assert!(matches!(error, ShimError::BuildId { bytes: 8 }), "{error}");
    }
}
