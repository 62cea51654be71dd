//! A guest made up for tests: memory, page tables, a kernel with symbols and type information, processes and files.
//!
//! What a kernel's sources say is written here once more, on purpose not shared with the code under test: the tables of
//! `scripts/kallsyms.c`, BTF, the nodes of trees. Its structures are short and in an order of their own, since nothing may
//! be known of them but what the type information says.

mod btf;
pub(crate) mod elf;
mod kallsyms;
mod linux;
mod ram;
mod structures;
mod trees;

pub(crate) use kallsyms::Layout;
pub(crate) use linux::{FILE_SIZE, Linux, Release, Shape};
pub(crate) use trees::is_resident;
