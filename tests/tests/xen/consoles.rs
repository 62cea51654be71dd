//! Is the hypervisor's console free of complaints?

/// What Xen prints when something is wrong.
const COMPLAINTS: [&str; 8] =
    ["WARN", "BUG", "Xen call trace", "Assertion", "FATAL", "spinlock", "watchdog", "timed out"];

/// Fails on any complaint in a console's log.
pub(crate) fn assert_clean(log: &str) {
    let complaint = log.lines().find(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)));
    assert_eq!(complaint, None, "on the hypervisor's console");
}

#[test]
fn complaints_are_found() {
    assert_clean("(XEN) livepatch: xenoscope finished APPLY with rc=0");
    let complains = || assert_clean("(XEN) fine\n(XEN) Xen WARN at timer.c:1");
    assert!(std::panic::catch_unwind(complains).is_err());
}
