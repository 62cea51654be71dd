//! Does the example for continuous integration work as it is written?

use std::{fs, path::Path};

use crate::host::{Booted, Host, host};

fn ci() -> &'static Host {
    static BOOTED: Booted = Booted::new();
    host(&BOOTED, "ci")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_job_marks_its_phases_and_the_gate_judges_them() {
    ci().step("record").ended(0);
    let gate = ci().step("gate").ended(3);
    assert!(gate.stdout.starts_with("regression"), "{}", gate.stdout);
    assert!(gate.stdout.contains("ci: user function look_up"), "{}", gate.stdout);
    assert!(gate.stdout.contains("minimum detectable increase"), "{}", gate.stdout);
    ci().step("alike").ended(4);
    let observed = ci().observed("job.xsr");
    let marks: Vec<&str> = observed.recorded.marks.iter().map(|mark| mark.name.as_str()).collect();
    assert_eq!(marks.len(), 9, "{marks:?}");
    assert_eq!((marks[0], marks[7], marks[8]), ("before-1", "after-4", "done"));
}

/// What docs/ci.md has its reader type is what is run here.
#[test]
fn the_example_is_what_is_tested() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scenario = fs::read_to_string(folder.join("scenarios/ci.toml")).unwrap();
    let page = fs::read_to_string(folder.join("../docs/ci.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines: Vec<&str> = blocks.flat_map(str::lines).filter(|line| !line.is_empty()).collect();
    assert!(lines.len() > 10);
    for line in lines {
        assert!(scenario.lines().any(|run| run.contains(line.trim())), "nobody runs {line}");
    }
}
