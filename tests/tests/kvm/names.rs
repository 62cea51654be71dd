//! Are the kernels, processes and functions of two alike guests named rightly, with no file of theirs given?
//!
//! Both run the same kernel, each where it chose to, and the same programs at the same addresses. In the emulator looking
//! into a guest takes seconds: what is judged are the samples from the first named one on.

use crate::{
    host::{Booted, Host, host},
    kernels,
    programs::{self, Symbols},
    reuse,
};

static BOOTED: Booted = Booted::new();

const GUESTS: [&str; 2] = ["alpha", "beta"];

fn names() -> &'static Host {
    host(&BOOTED, "kvm_names")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn kernels_are_named_by_their_own_symbols_wherever_they_lie() {
    names().step("record").ended(0);
    let list = names().text("symbols/kallsyms");
    let observed = names().observed("names.xsr");
    observed.assert_balanced();
    let slides = GUESTS.map(|guest| kernels::assert_named(names(), &observed, guest, &list).slide);
    assert!(slides[0] != slides[1] && slides.iter().any(|slide| *slide != 0), "{slides:x?}");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn processes_of_alike_guests_are_told_apart() {
    let observed = names().observed("names.xsr");
    for guest in GUESTS {
        programs::assert_named(names(), &observed, guest, &["hot", "syscalls"], |program| {
            Symbols::All(names().path(format!("symbols/{program}")))
        });
    }
}

/// The one's kernel has page tables of its own, the other's has not.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn no_sample_is_given_to_a_process_that_is_no_more() {
    let observed = names().observed("names.xsr");
    for guest in GUESTS {
        reuse::assert_right(&observed, guest);
    }
}
