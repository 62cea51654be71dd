//! The kernel's own account of what its CPUs do: `/proc/stat`.

use std::fs;

use crate::{ShimError, clock};

/// CPU times since the machine booted, in nanoseconds, of the CPUs that are online.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accounting {
    /// Of every CPU: nothing ran, nor waited for a disk.
    pub(super) idle_ns: Vec<u64>,
    /// Of all CPUs: something ran, guests included. What is left of the time: the kernel's own counts of it miss what
    /// passes between two ticks that come late.
    pub(super) busy_ns: u64,
}

pub(super) fn read() -> Result<Accounting, ShimError> {
    let text = fs::read_to_string("/proc/stat").map_err(ShimError::io("reading /proc/stat"))?;
    Ok(parse(&text, clock::tick_ns(), clock::monotonic_ns()))
}

/// proc(5): user, nice, system, idle, iowait, irq, softirq, steal; guests' times are part of user and nice.
fn parse(text: &str, tick_ns: u64, now: u64) -> Accounting {
    let mut accounting = Accounting { idle_ns: Vec::new(), busy_ns: 0 };
    for line in text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")) {
        let times: Vec<u64> =
            line.split_ascii_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
        let &[_user, _nice, _system, idle, iowait, _irq, _softirq, steal, ..] = &*times else { continue };
        let idle_ns = (idle + iowait) * tick_ns;
        accounting.idle_ns.push(idle_ns);
        accounting.busy_ns += now.saturating_sub(idle_ns + steal * tick_ns);
    }
    accounting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_idle_nor_stolen_is_busy() {
        let text = "cpu  3 0 3 10 1 0 0 9 2 0\ncpu0 1 0 2 4 1 0 0 9 1 0\ncpu1 2 0 1 6 0 0 0 0 1 0\nintr 5\n";
        assert_eq!(parse(text, 10, 200), Accounting { idle_ns: vec![50, 60], busy_ns: 60 + 140 });
    }
}
