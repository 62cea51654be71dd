//! Is whatever a user gets wrong or a host lacks told clearly, with nothing left in the hypervisor?

use crate::host::{Booted, Step, host, xenoscope};

static BOOTED: Booted = Booted::new();

/// A step, which must end well itself and leave nothing loaded.
fn step(name: &str) -> Step {
    host(&BOOTED, "bad_input").step(name).ended(0).left_nothing_loaded()
}

fn says(step: &Step, out: &[&str], err: &[&str]) {
    for words in out {
        assert!(step.stdout.contains(words), "no {words:?} in {}", step.stdout);
    }
    for words in err {
        assert!(step.stderr.contains(words), "no {words:?} in {}", step.stderr);
    }
}

#[test]
#[ignore = "needs the program: cargo xtask test"]
fn not_on_xen() {
    for command in ["quiet", "unload"] {
        let output = xenoscope(&[command]);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stderr).contains("there is no shim"));
    }
    assert_eq!(xenoscope(&["record", "--no-such-option"]).status.code(), Some(2));
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn not_root() {
    says(&step("not-root"), &["status 1", "doctor 1"], &["run as root"]);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn no_privcmd() {
    says(&step("no-privcmd"), &["status 1"], &["modprobe xen-privcmd"]);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn events_that_cannot_be_sampled_are_told_in_a_line_each() {
    let step = step("events");
    assert_eq!(step.stdout.matches("status 1").count(), 6, "{}", step.stdout);
    let lines: Vec<&str> = step.stderr.lines().filter(|line| line.starts_with("xenoscope:")).collect();
    let expected = [
        "near it: cycles",
        "9 events are too many",
        "a period of 10 is out of range",
        "cpu-clock has no period",
        "has no event for ref-cycles",
        "'z' is no modifier",
    ];
    assert_eq!(lines.len(), expected.len(), "{}", step.stderr);
    for (line, words) in lines.iter().zip(expected) {
        assert!(line.contains(words), "no {words:?} in {line:?}");
    }
    assert!(step.stderr.contains("/tmp/none.xsr: No such file"), "{}", step.stderr);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_rate_that_no_timer_has_leaves_the_older_recording_alone() {
    says(&step("rate"), &["status 1", "older"], &["out of range"]);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn symbol_files_that_are_none() {
    let out = ["unreadable 1", "foreign 1", "usage 2"];
    let err = ["/no/such/file", "neither ELF, System.map nor kallsyms", "not of the form NAME=FILE"];
    says(&step("symbol-files"), &out, &[&err[..], &["/tmp/none.xsr: No such file"]].concat());
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn an_output_that_cannot_be_written_or_fills_up() {
    let err = ["/no/such/folder/a.xsr can't be written", "No space left on device"];
    says(&step("output"), &["folder 1", "full 1", "recording is cut"], &err);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_commands_own_status_is_passed_on() {
    says(&step("commands"), &["false 1", "seven 7", "missing 1"], &["no-such-command"]);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_domain_that_is_not_there() {
    says(&step("unknown-domain"), &["status 1", "report 1"], &["no domain was called nobody"]);
}
