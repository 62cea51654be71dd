//! Are guests' kernels, processes and functions named rightly, with no file of theirs given?
//!
//! In the emulator looking into a guest takes seconds, a hundred times what it takes elsewhere: what is judged are the
//! samples from the first named one on.

use std::collections::BTreeSet;

use profile::{Mode, Sample, Space};

use crate::{
    figures,
    host::{Booted, Host, host},
    symbols,
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
    let tables = &observed.recorded.tables;
    for guest in GUESTS {
        let domain = observed.domain(guest);
        let console = names().text(format!("console/{guest}.log"));
        let pid = |program: &str| {
            let told = format!("process {program} ");
            let line = console.lines().find_map(|line| line.trim().strip_prefix(&told));
            line.unwrap_or_else(|| panic!("{guest} does not tell of {program}"))
                .trim()
                .parse::<u32>()
                .unwrap()
        };
        let samples = observed.once_named(domain, Mode::User);
        let mut named = 0;
        for program in ["hot", "syscalls"] {
            let functions = symbols::of_program(&names().path(format!("symbols/{guest}.{program}")));
            let pid = Some(pid(program));
            let of_program =
                |sample: &&&Sample| sample.process.is_some_and(|id| tables.process(id).pid == pid);
            let own: Vec<_> = samples.iter().filter(of_program).collect();
            assert!(own.len() > 10, "{guest}: {} samples of {program}", own.len());
            for sample in own {
                assert_eq!(observed.process_name(sample), Some(program));
                assert!(matches!(observed.frame(sample).space, Space::User(owner, _) if owner == domain));
                if let Some(function) = observed.function(sample) {
                    assert!(functions.contains(function), "{guest}: {function} is not of {program}");
                    named += 1;
                }
            }
        }
        let all = samples.len();
        figures::figure(
            format_args!("{guest}, user samples named, each by its own program"),
            format_args!("{named} of {all}"),
        );
        assert!(f64::from(named) >= 0.98 * all as f64, "{guest}: {named} of {all}");
    }
}
