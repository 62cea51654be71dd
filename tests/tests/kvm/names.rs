//! Are the kernels, processes and functions of two alike guests named rightly, with no file of theirs given?
//!
//! Both run the same kernel, each where it chose to, and the same programs at the same addresses. In the emulator looking
//! into a guest takes seconds: what is judged are the samples from the first named one on.

use std::collections::{BTreeMap, BTreeSet};

use profile::{CodeAddress, Mode};

use crate::{
    figures,
    host::{Booted, Host, host},
    programs,
};

static BOOTED: Booted = Booted::new();

const GUESTS: [&str; 2] = ["alpha", "beta"];

fn names() -> &'static Host {
    host(&BOOTED, "kvm_names")
}

/// How far a guest's kernel lies behind where it was linked to.
fn slide(guest: &str, linked: u64) -> u64 {
    let line = names().told(guest, "kernel text ");
    u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap().wrapping_sub(linked)
}

/// Where a list as /proc/kallsyms has each name: several, where files have functions of one name.
fn places(text: &str) -> BTreeMap<&str, Vec<u64>> {
    let mut places = BTreeMap::<_, Vec<u64>>::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[address, _, name] = &*words else { continue };
        places.entry(name).or_default().push(u64::from_str_radix(address, 16).unwrap());
    }
    places
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn kernels_are_named_by_their_own_symbols_wherever_they_lie() {
    names().step("record").ended(0);
    let list = names().text("symbols/kallsyms");
    let listed = places(&list);
    let slides = GUESTS.map(|guest| slide(guest, listed["_text"][0]));
    assert!(slides[0] != slides[1] && slides.iter().any(|slide| *slide != 0), "{slides:x?}");
    let observed = names().observed("names.xsr");
    observed.assert_balanced();
    for (guest, slide) in GUESTS.into_iter().zip(slides) {
        let domain = observed.domain(guest);
        let samples = observed.once_named(domain, Mode::Kernel);
        let (mut named, mut wrong) = (0, BTreeSet::new());
        for sample in &samples {
            let Some(function) = observed.function(sample) else { continue };
            named += 1;
            let frame = observed.frame(sample);
            let module = frame.module.map(|name| observed.recorded.tables.name(name));
            let CodeAddress::InstructionPointer(address) = frame.address else {
                panic!("a sample has an instruction pointer")
            };
            let start = address.wrapping_sub(frame.offset.0).wrapping_sub(slide);
            // The list is without modules.
            let right = listed.get(function).is_some_and(|places| places.contains(&start));
            if !right && module == Some("vmlinux") {
                wrong.insert((function, start));
            }
        }
        assert!(wrong.is_empty(), "{guest}: not in its own list: {wrong:x?}");
        let all = samples.len();
        figures::figure(format_args!("{guest}, kernel samples named"), format_args!("{named} of {all}"));
        assert!(all > 100, "{guest}: {all} kernel samples");
        assert!(f64::from(named) >= 0.99 * all as f64, "{guest}: {named} of {all}");
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn processes_of_alike_guests_are_told_apart() {
    let observed = names().observed("names.xsr");
    for guest in GUESTS {
        programs::assert_named(names(), &observed, guest, |program| {
            names().path(format!("symbols/{program}"))
        });
    }
}
