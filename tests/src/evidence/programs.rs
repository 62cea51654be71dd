//! Are the samples of a guest's processes those of the programs that its console tells of?

use std::path::PathBuf;

use profile::{Mode, Sample, Space};

use super::{figures, host::Host, observed::Observed, symbols};

/// The programs whose processes guests tell of as `process NAME PID`.
const PROGRAMS: [&str; 2] = ["hot", "syscalls"];

/// Fails unless a guest's user samples, from the first named one on, are of its programs' processes, each in a function of
/// its own. `file` is where a program's symbols are.
pub fn assert_named(host: &Host, observed: &Observed, guest: &str, file: impl Fn(&str) -> PathBuf) {
    let tables = &observed.recorded.tables;
    let domain = observed.domain(guest);
    let samples = observed.once_named(domain, Mode::User);
    let mut named = 0;
    for program in PROGRAMS {
        let functions = symbols::of_program(&file(program));
        let pid = Some(host.told(guest, &format!("process {program} ")).parse::<u32>().unwrap());
        let of_program = |sample: &&&Sample| sample.process.is_some_and(|id| tables.process(id).pid == pid);
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
