//! Are the samples in a guest's kernel named by its own list of symbols, wherever it lies?

use std::collections::{BTreeMap, BTreeSet};

use profile::{CodeAddress, Mode};

use super::{figures, host::Host, observed::Observed, symbols};

/// What kernels are called as images.
const KERNEL: &str = "vmlinux";

/// What was found of a kernel.
pub struct Named {
    /// How far it is moved from where it is linked.
    pub slide: u64,
    /// Samples in its modules, by the module.
    pub in_modules: BTreeMap<String, usize>,
}

/// Samples wait for their names, so that even the first ones have some.
const FIRST_NAMED_NS: u64 = 1_000_000_000;

/// Fails unless a guest has a named sample of the recording's first second, and unless 99 % of its kernel samples, from the
/// first named one on, are named, all of them by functions that begin there: in its kernel by its own `list`, in modules by
/// the lines `module symbol …` that it says, each as in /proc/kallsyms. It tells where its kernel is as `kernel text
/// ADDRESS`.
pub fn assert_named(host: &Host, observed: &Observed, guest: &str, list: &str) -> Named {
    let listed = symbols::places(list);
    let console = host.text(format!("console/{guest}.log"));
    let loaded = symbols::places_in_modules(
        console.lines().filter_map(|line| line.trim().strip_prefix("module symbol ")),
    );
    let told = host.told(guest, "kernel text ");
    let text = u64::from_str_radix(told.split(' ').next().unwrap(), 16).unwrap();
    let slide = text.wrapping_sub(listed["_text"][0]);
    let domain = observed.domain(guest);
    let first = observed.own_samples_of(domain).find(|sample| observed.function(sample).is_some());
    let first = observed.since_start(first.expect("some are named"));
    figures::figure(format_args!("{guest}, first named sample after, ms"), first / 1_000_000);
    assert!(first < FIRST_NAMED_NS, "{guest}: {first} ns");
    let samples = observed.once_named(domain, Mode::Kernel);
    let (mut named, mut wrong, mut in_modules) = (0, BTreeSet::new(), BTreeMap::<String, usize>::new());
    for sample in &samples {
        let Some(function) = observed.function(sample) else { continue };
        named += 1;
        let frame = observed.frame(sample);
        let CodeAddress::InstructionPointer(address) = frame.address else {
            panic!("a sample has an instruction pointer")
        };
        let start = address.wrapping_sub(frame.offset.0);
        let right = match observed.module(sample) {
            Some(KERNEL) => {
                listed.get(function).is_some_and(|places| places.contains(&start.wrapping_sub(slide)))
            }
            Some(module) => {
                *in_modules.entry(module.to_owned()).or_default() += 1;
                // What kernels generate while they run is not among their modules.
                loaded.get(module).is_none_or(|symbols| symbols.contains(&(start, function)))
            }
            None => false,
        };
        if !right {
            wrong.insert((observed.module(sample), function, start));
        }
    }
    assert!(wrong.is_empty(), "{guest}: not in its own list: {wrong:x?}");
    let all = samples.len();
    figures::figure(
        format_args!("{guest}, kernel samples named, moved by {slide:#x}"),
        format_args!("{named} of {all}, in modules {in_modules:?}"),
    );
    assert!(all > 100, "{guest}: {all} kernel samples");
    assert!(f64::from(named) >= 0.99 * all as f64, "{guest}: {named} of {all}");
    Named { slide, in_modules }
}
