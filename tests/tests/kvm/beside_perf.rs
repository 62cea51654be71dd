//! What `perf kvm` and the profiler tell of the same guests at the same time.
//!
//! Both see the same threads at the same rate. Who is right is told by the guests: where their kernels lie, and at which
//! addresses their programs.

use std::collections::BTreeMap;

use profile::{Mode, Space};

use crate::{
    figures,
    host::{Booted, Host, host},
    observed::Observed,
};

static BOOTED: Booted = Booted::new();

fn beside() -> &'static Host {
    host(&BOOTED, "kvm_perf")
}

/// A kernel's functions, where it was linked to.
struct Functions(BTreeMap<u64, Vec<String>>);

impl Functions {
    fn read(kallsyms: &str) -> Self {
        let mut functions: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for line in kallsyms.lines() {
            let mut words = line.split_whitespace();
            if let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) =
                (words.next(), words.next(), words.next())
                && let Ok(address) = u64::from_str_radix(address, 16)
            {
                functions.entry(address).or_default().push(name.to_owned());
            }
        }
        Self(functions)
    }

    fn is_at(&self, name: &str, address: u64) -> bool {
        let found = self.0.range(..=address).next_back();
        found.is_some_and(|(_, names)| names.iter().any(|own| own == name))
    }

    fn address_of(&self, name: &str) -> u64 {
        *self.0.iter().find(|(_, names)| names.iter().any(|own| own == name)).expect("a symbol").0
    }
}

/// What is told of a guest's own samples, right or not at all: counts.
#[derive(Debug, Default)]
struct Told {
    kernel: usize,
    user: usize,
    /// Whose they are, by the guest's name.
    domain: usize,
    mode: usize,
    process: usize,
    kernel_function: usize,
    user_function: usize,
    /// Chains down to an outermost function.
    chain: usize,
}

impl Told {
    fn print(&self, who: &str, guest: &str) {
        let all = self.kernel + self.user;
        let of = |part: usize, all: usize| {
            format!("{part} of {all} ({:.1} %)", 100.0 * part as f64 / all.max(1) as f64)
        };
        for (what, told) in [
            ("domain by name", of(self.domain, all)),
            ("mode", of(self.mode, all)),
            ("process", of(self.process, self.user)),
            ("kernel function", of(self.kernel_function, self.kernel)),
            ("user function", of(self.user_function, self.user)),
            ("chain to its beginning", of(self.chain, all)),
        ] {
            figures::figure(format_args!("{who}, {guest}, {what}"), told);
        }
    }
}

/// What a guest really is.
struct Truth<'a> {
    name: &'a str,
    /// Its monitor's process.
    process: u32,
    functions: &'a Functions,
    /// From where its kernel was linked to, to where it lies.
    slide: u64,
}

impl Truth<'_> {
    fn is_program(&self, function: &str) -> bool {
        ["hot", "warm", "cool"].iter().any(|part| function == format!("{}_{part}", self.name))
            || !function.starts_with(['[', '0'])
    }

    /// What `perf script` tells: a line is COMMAND PROCESS/THREAD MODES TIME: ADDRESS SYMBOL (IMAGE).
    fn of_perf(&self, script: &str) -> Told {
        let mut told = Told::default();
        for line in script.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_thread = |word: &&str| {
                word.split_once('/').is_some_and(|(process, thread)| {
                    process.parse() == Ok(self.process) && thread.parse::<u32>().is_ok()
                })
            };
            let Some(at) = words.iter().position(is_thread) else { continue };
            // The bits of GUEST_USER include those of KERNEL and of GUEST_KERNEL.
            let (Some(modes), Some(address), Some(symbol)) =
                (words.get(at + 1), words.get(at + 3), words.get(at + 4))
            else {
                continue;
            };
            if !modes.contains('G') {
                continue;
            }
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            let in_kernel = address >> 63 == 1;
            told.domain += usize::from(words[..at].contains(&self.name));
            told.mode += usize::from(modes.contains('g') != in_kernel);
            told.process += usize::from(words[..at].iter().any(|word| ["hot", "syscalls"].contains(word)));
            if in_kernel {
                told.kernel += 1;
                told.kernel_function +=
                    usize::from(self.functions.is_at(symbol, address.wrapping_sub(self.slide)));
            } else {
                told.user += 1;
                told.user_function += usize::from(self.is_program(symbol));
            }
        }
        told
    }

    fn of_own(&self, observed: &Observed) -> Told {
        let mut told = Told::default();
        let tables = &observed.recorded.tables;
        let domain = observed.domain(self.name);
        for sample in
            observed.samples_of(domain).filter(|sample| matches!(sample.mode, Mode::Kernel | Mode::User))
        {
            let frame = observed.frame(sample);
            let (address, function) = (frame.address.raw(), observed.function(sample));
            let in_kernel = matches!(frame.space, Space::Kernel(_));
            told.domain += 1;
            told.mode += usize::from(in_kernel == (address >> 63 == 1));
            if in_kernel {
                told.kernel += 1;
                let is_right = |name| self.functions.is_at(name, address.wrapping_sub(self.slide));
                told.kernel_function += usize::from(function.is_some_and(is_right));
            } else {
                told.user += 1;
                let process = observed.process_name(sample);
                told.process += usize::from(process.is_some_and(|name| ["hot", "syscalls"].contains(&name)));
                told.user_function += usize::from(function.is_some_and(|name| self.is_program(name)));
            }
            let outermost = tables.frames(sample.chain).last().and_then(|frame| frame.function);
            let whole = outermost.is_some_and(|name| !tables.name(name).starts_with('['));
            let callers = tables.frames(sample.chain).count() > 1;
            told.chain += usize::from(whole && callers);
        }
        told
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test --long"]
fn long_beside_perf_kvm_guests_are_told_apart_and_named() {
    let step = beside().step("record").ended(0);
    beside().step("perf").ended(0);
    let functions = Functions::read(&beside().text("kallsyms"));
    let script = beside().text("perf.script");
    let observed = beside().observed("beside.xsr");
    observed.assert_balanced();
    for guest in ["alpha", "beta"] {
        let monitor = step.stdout.lines().find_map(|line| line.strip_prefix(guest)).expect("a monitor");
        let text = beside().told(guest, "kernel text");
        let text = u64::from_str_radix(text.split_whitespace().next().unwrap(), 16).unwrap();
        let truth = Truth {
            name: guest,
            process: monitor.trim().parse().unwrap(),
            functions: &functions,
            slide: text.wrapping_sub(functions.address_of("_text")),
        };
        let (perf, own) = (truth.of_perf(&script), truth.of_own(&observed));
        perf.print("perf kvm", guest);
        own.print("xenoscope", guest);
        let (perf_all, all) = (perf.kernel + perf.user, own.kernel + own.user);
        assert!(perf_all > 500 && all > 500, "{guest}: {perf_all} and {all} samples");
        assert_eq!((own.domain, own.mode), (all, all));
        for (what, part, whole) in [
            ("process", own.process, own.user),
            ("kernel function", own.kernel_function, own.kernel),
            ("user function", own.user_function, own.user),
            ("chain", own.chain, all),
        ] {
            // Until a guest is looked into for the first time, its samples wait, for so long.
            assert!(part as f64 >= 0.9 * whole as f64, "{guest}, {what}: {part} of {whole}");
        }
        assert!(own.kernel_function * perf.kernel >= perf.kernel_function * own.kernel, "{guest}");
    }
}
