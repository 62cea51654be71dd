//! Are the samples in a guest's kernel named by its own list of symbols, wherever it lies?

use std::collections::BTreeSet;

use profile::{CodeAddress, Mode};

use super::{figures, host::Host, observed::Observed, symbols};

/// What kernels are called as images.
const KERNEL: &str = "vmlinux";

/// Fails unless 99 % of a guest's kernel samples, from the first named one on, are named, all of them in its kernel by
/// functions that begin there by its own `list`. The guest tells where its kernel is as `kernel text ADDRESS`. Returns how
/// far it is moved.
pub fn assert_named(host: &Host, observed: &Observed, guest: &str, list: &str) -> u64 {
    let listed = symbols::places(list);
    let told = host.told(guest, "kernel text ");
    let text = u64::from_str_radix(told.split(' ').next().unwrap(), 16).unwrap();
    let slide = text.wrapping_sub(listed["_text"][0]);
    let samples = observed.once_named(observed.domain(guest), Mode::Kernel);
    let (mut named, mut wrong) = (0, BTreeSet::new());
    for sample in &samples {
        let Some(function) = observed.function(sample) else { continue };
        named += 1;
        let frame = observed.frame(sample);
        let CodeAddress::InstructionPointer(address) = frame.address else {
            panic!("a sample has an instruction pointer")
        };
        let start = address.wrapping_sub(frame.offset.0).wrapping_sub(slide);
        // The list is without modules.
        let right = listed.get(function).is_some_and(|places| places.contains(&start));
        if !right && observed.module(sample) == Some(KERNEL) {
            wrong.insert((function, start));
        }
    }
    assert!(wrong.is_empty(), "{guest}: not in its own list: {wrong:x?}");
    let all = samples.len();
    figures::figure(format_args!("{guest}, kernel samples named"), format_args!("{named} of {all}"));
    assert!(all > 100, "{guest}: {all} kernel samples");
    assert!(f64::from(named) >= 0.99 * all as f64, "{guest}: {named} of {all}");
    slide
}
