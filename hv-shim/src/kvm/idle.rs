//! Which code of the host's kernel is a CPU doing nothing.
//!
//! A clock samples idle CPUs too. Their samples are told by where they are: the idle task (process 0) also runs the
//! interrupts that end its sleep, and those are work.

use std::ops::Range;

/// The functions in which an idle CPU waits, across versions and drivers of Linux. Where the kernel tells its own
/// bounds (`__cpuidle_text_start`), they serve besides.
const FUNCTIONS: [&str; 19] = [
    "acpi_idle_do_entry",
    "acpi_idle_enter",
    "acpi_processor_ffh_cstate_enter",
    "acpi_safe_halt",
    "arch_cpu_idle",
    "cpu_idle_poll",
    "cpuidle_enter",
    "cpuidle_enter_state",
    "default_idle",
    "default_idle_call",
    "do_idle",
    "intel_idle",
    "intel_idle_ibrs",
    "intel_idle_irq",
    "mwait_idle",
    "mwait_idle_with_hints.constprop.0",
    "native_safe_halt",
    "poll_idle",
    "pv_native_safe_halt",
];

/// The addresses of idling.
#[derive(Debug, Default)]
pub(super) struct IdleCode(Vec<Range<u64>>);

impl IdleCode {
    /// Of a kernel by its list of symbols; none where that hides the addresses.
    pub(super) fn find(kallsyms: &str) -> Option<Self> {
        let code = Self::parse(kallsyms);
        (!code.0.is_empty()).then_some(code)
    }

    /// Lists are not sorted (modules' symbols are not), so a function ends at the nearest address above it.
    fn parse(kallsyms: &str) -> Self {
        let mut addresses = Vec::new();
        let (mut starts, mut section) = (Vec::new(), (None, None));
        for line in kallsyms.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(address @ 1..) = u64::from_str_radix(address, 16) else { continue };
            addresses.push(address);
            match name {
                "__cpuidle_text_start" => section.0 = Some(address),
                "__cpuidle_text_end" => section.1 = Some(address),
                _ if kind.eq_ignore_ascii_case("t") && FUNCTIONS.contains(&name) => starts.push(address),
                _ => {}
            }
        }
        let end_of = |start| addresses.iter().copied().filter(|&address| address > start).min();
        let functions = starts.into_iter().filter_map(|start| Some(start..end_of(start)?));
        let section = section.0.zip(section.1).map(|(start, end)| start..end);
        Self(functions.chain(section).collect())
    }

    pub(super) fn contains(&self, address: u64) -> bool {
        self.0.iter().any(|range| range.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idling_is_known_functions_and_the_kernels_own_section() {
        let kallsyms = "\
            ffffffff81000000 T _text\n\
            ffffffff81000100 t do_idle\n\
            ffffffff81000100 t alias_of_do_idle\n\
            ffffffff81000200 T cpu_startup_entry\n\
            ffffffff81000300 D intel_idle\n\
            ffffffff81000400 T __cpuidle_text_start\n\
            ffffffff81000440 T __cpuidle_text_end\n\
            ffffffffc0000000 t acpi_safe_halt\t[processor]\n\
            ffffffffc0000010 t next\t[processor]\n";
        let code = IdleCode::parse(kallsyms);
        let idle =
            [0xffff_ffff_8100_0100, 0xffff_ffff_8100_01ff, 0xffff_ffff_8100_0400, 0xffff_ffff_c000_0000];
        let busy =
            [0xffff_ffff_8100_0000, 0xffff_ffff_8100_0200, 0xffff_ffff_8100_0300, 0xffff_ffff_c000_0010];
        assert!(idle.iter().all(|&address| code.contains(address)), "{code:x?}");
        assert!(!busy.iter().any(|&address| code.contains(address)), "{code:x?}");
    }

    #[test]
    fn hidden_addresses_are_no_code() {
        assert!(IdleCode::parse("0000000000000000 T do_idle\n0000000000000000 T next\n").0.is_empty());
    }
}
