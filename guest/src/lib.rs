//! Looking into a Linux guest from its memory alone.
//!
//! Comes in: a guest's memory, as bytes at the addresses that its page tables hold ([`GuestMemory`]: a running domain, or
//! an image that was saved), and the page-table root of one sample of its CPUs. Goes out: what runs there. [`Kernel`]
//! has where the kernel is, its version and its symbols; it tells modules, tasks, what each has mapped, its control group,
//! and the bytes of mapped files from the guest's page cache ([`MappedFile`]).
//!
//! Nothing is installed in the guest and nothing is known of its kernel beforehand: names come from the table that the
//! kernel itself has (`kallsyms`), and the layout of its structures from its own type information (BTF). A kernel
//! without BTF still has names; [`Kernel::knows_its_structures`] says why its processes can't be told.
//!
//! **All of it is foreign.** A guest may forge whatever is read, or change it while it is read. So every walk is bounded,
//! all that is done in one [`Look`] comes out of one budget of work, memory and time, addresses of the guest are added
//! with wrapping, and nothing panics. A guest can spoil its own names and nobody else's. All text that is handed out is
//! untrusted: it is escaped where it is shown.
//!
//! ```no_run
//! use std::fs::File;
//!
//! use guest::{Kernel, Limits, Look, MemoryImage};
//!
//! let image = File::open("memory")?;
//! let length = image.metadata()?.len();
//! let memory = MemoryImage::of_pc(image, length);
//!
//! let look = Look::new(&memory, Limits::default());
//! let cr3 = 0x2a0c000; // of any sample
//! let kernel = Kernel::find(&look, cr3)?;
//! println!("{} with {} symbols", kernel.release(), kernel.symbols().len());
//! if let Some(task) = kernel.tasks(&look)?.process(cr3) {
//!     for mapping in kernel.mappings(&look, task)? {
//!         println!("{:?} of {:?} has {:?}", mapping.range, task.comm, mapping.content);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Not here: how memory is got from a hypervisor, unwinding, and looking up names by addresses.
#![forbid(unsafe_code)]

mod btf;
mod budget;
mod build_id;
mod cgroups;
mod current;
mod elf;
mod error;
mod file;
mod generated;
mod image;
mod kallsyms;
mod kernel;
mod kernel_image;
mod look;
mod maple;
mod mappings;
mod memory;
mod modules;
mod names;
mod orc;
mod page_cache;
mod page_tables;
mod paths;
mod places;
mod process_memory;
mod symbols;
mod tasks;
mod translations;
mod vdso;
mod words;

pub use btf::{Btf, join_types};
pub use budget::{Budget, Exhausted, Limits};
pub use build_id::in_notes as build_id_in_notes;
pub use elf::{Elf, ElfError, ElfSegment, FrameTables, Function, FunctionList, FunctionSource, Part};
pub use error::{GuestError, KernelError, LayoutError, ReadError};
pub use file::{FileBytes, FileError};
pub use generated::GeneratedCode;
pub use image::{ImageBytes, MemoryImage, Segment};
pub use kernel::Kernel;
pub use look::Look;
pub use mappings::{Content, FileId, FilePiece, Mapping};
pub use memory::{Frames, GuestMemory, GuestPhysical, Missing};
pub use modules::Module;
pub use orc::{Border, OrcBytes};
pub use page_cache::MappedFile;
pub use page_tables::{Levels, PageTables, Translation};
pub use symbols::{Symbol, SymbolList};
pub use tasks::{Task, Tasks};
