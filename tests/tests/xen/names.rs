//! Are guests' kernels, processes and functions named rightly, with no file of theirs given?
//!
//! In the emulator looking into a guest takes seconds, a hundred times what it takes elsewhere: what is judged are the
//! samples from the first named one on.

use std::collections::BTreeSet;

use profile::Mode;

use crate::{
    figures,
    host::{Booted, Host, host},
    programs, symbols,
};

static BOOTED: Booted = Booted::new();

const GUESTS: [&str; 2] = ["alpha", "gamma"];

fn names() -> &'static Host {
    host(&BOOTED, "names")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn kernels_are_named_by_their_own_symbols() {
    names().step("record").ended(0);
    let observed = names().observed("names.xsr");
    for guest in GUESTS {
        let domain = observed.domain(guest);
        let listed = symbols::listed(&names().text(format!("symbols/{guest}.kallsyms")));
        let samples = observed.once_named(domain, Mode::Kernel);
        let named: Vec<&str> = samples.iter().filter_map(|sample| observed.function(sample)).collect();
        let strange: BTreeSet<&&str> = named.iter().filter(|name| !listed.contains(**name)).collect();
        assert!(strange.is_empty(), "{guest}: not in its own list: {strange:?}");
        let (named, all) = (named.len(), samples.len());
        figures::figure(format_args!("{guest}, kernel samples named"), format_args!("{named} of {all}"));
        assert!(all > 100, "{guest}: {all} kernel samples");
        assert!(named as f64 >= 0.99 * all as f64, "{guest}: {named} of {all}");
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn processes_have_their_numbers_names_and_functions() {
    let observed = names().observed("names.xsr");
    for guest in GUESTS {
        programs::assert_named(names(), &observed, guest, &["hot", "syscalls"], |program| {
            Some(names().path(format!("symbols/{guest}.{program}")))
        });
    }
}
