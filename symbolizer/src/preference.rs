//! Which of several names of one address is shown.

/// How good a name is: the least is shown, and of equals the first in the table's order.
///
/// For kernels these are the criteria by which the kernel sorts its own table (`compare_symbols` in its
/// `scripts/kallsyms.c`), so that our names are those of its stack traces. It does not ask whether a symbol is
/// local, nor does the letter in kallsyms tell: a module's exported symbols are given as global. ELF tells, and
/// there global names win, in the order that `perf` uses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Preference {
    unsized_in_elf: bool,
    weak: bool,
    local_in_elf: bool,
    section_mark: bool,
    underscores: u8,
}

impl Preference {
    /// A symbol in a kernel's or hypervisor's list.
    pub(crate) fn of_listed(name: &str, weak: bool) -> Self {
        Self {
            unsized_in_elf: false,
            weak,
            local_in_elf: false,
            section_mark: is_section_mark(name),
            underscores: leading_underscores(name),
        }
    }

    /// A symbol of an ELF file.
    pub(crate) fn of_elf(name: &str, is_unsized: bool, weak: bool, local: bool) -> Self {
        Self { unsized_in_elf: is_unsized, local_in_elf: local, ..Self::of_listed(name, weak) }
    }
}

fn leading_underscores(name: &str) -> u8 {
    name.bytes().take_while(|&byte| byte == b'_').count().min(u8::MAX.into()) as u8
}

/// Whether a linker script made up the name (`__sched_text_start`): it would hide the function that begins there.
fn is_section_mark(name: &str) -> bool {
    name.strip_prefix("__").is_some_and(|name| {
        ["start_", "stop_", "end_"].iter().any(|prefix| name.starts_with(prefix))
            || ["_start", "_end"].iter().any(|suffix| name.ends_with(suffix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_prefer_strong_names_then_functions_then_few_underscores() {
        let listed = |name| Preference::of_listed(name, false);
        assert!(listed("__schedule") < listed("__sched_text_start"));
        assert!(listed("__x64_sys_getpid") < Preference::of_listed("getpid", true));
        assert!(listed("do_fork") < listed("__do_fork"));
        assert!(listed("__do_sys_fork") == listed("__ia32_sys_fork"));
    }

    #[test]
    fn elf_files_prefer_sized_strong_global_names() {
        let elf = |is_unsized, weak, local| Preference::of_elf("f", is_unsized, weak, local);
        assert!(elf(false, true, true) < elf(true, false, false));
        assert!(elf(false, false, true) < elf(false, true, false));
        assert!(elf(false, false, false) < elf(false, false, true));
    }
}
