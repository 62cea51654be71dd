//! Images to names.
//!
//! Comes in: ELF files, kernels' symbol lists (`/proc/kallsyms`, `System.map`) and the hypervisor's own, as bytes or
//! as files that a user named; then addresses, each with the space whose code it is. Goes out: [`Resolved`], the
//! symbol, the module and the offset of an address, or none of them where nothing claims it.
//!
//! [`SymbolTable`] answers for one image, [`Symbolizer`] knows whose images they are, [`DebugInfo`] adds to a name the
//! functions inlined there and the line. Only [`load`], [`SymbolFiles`] and [`DebugInfo`] do input and output; everything below takes bytes, is bounded and returns a [`ParseError`] for
//! whatever is wrong with them.
//!
//! ```
//! use profile::{CodeAddress, DomainId, Space};
//! use symbolizer::{SymbolTable, Symbolizer};
//!
//! let kallsyms = b"ffffffff81000000 t do_idle\nffffffff81000040 T _etext\n";
//! let mut symbolizer = Symbolizer::default();
//! symbolizer.set_kernel(DomainId(1), "vmlinux", SymbolTable::from_kallsyms(kallsyms)?);
//!
//! let address = CodeAddress::InstructionPointer(0xffffffff81000010);
//! let resolved = symbolizer.resolve(Space::Kernel(DomainId(1)), address);
//! assert_eq!(resolved.symbol, Some("do_idle"));
//! assert_eq!(resolved.offset.0, 0x10);
//! # Ok::<(), symbolizer::ParseError>(())
//! ```
//!
//! Not here: how symbols are got from a hypervisor or a running guest, unwinding, and the escaping of
//! names, which are untrusted text up to the edge where they are shown.
#![forbid(unsafe_code)]

mod debug_info;
mod demangle;
mod elf;
mod error;
mod files;
mod image;
mod kallsyms;
mod listing;
mod load;
mod mapped;
mod preference;
mod symbolizer;
mod table;
mod xen;

pub use debug_info::DebugInfo;
pub use demangle::demangle;
pub use elf::{Linked, LinkedFunction};
pub use error::{ParseError, SymbolizerError};
pub use files::{SymbolFiles, SymbolStore, from_hexadecimal, hexadecimal};
pub use image::{Executable, Image};
pub use load::{ImageFile, build_id, load, load_linked};
pub use mapped::{ImageId, Place};
pub use symbolizer::{Resolved, Symbolizer};
pub use table::{Symbol, SymbolTable};
