//! Names, compared with what the kernel, the linker and `nm` say.

mod debug_info;
mod elf;
mod hostile;
mod listings;
mod routing;
mod tiny_elf;

/// Lines of a 6.18 kernel's `/proc/kallsyms`, its gaps left as they are, with modules as a 6.1 kernel shows them.
const KALLSYMS: &str = include_str!("kallsyms.txt");
