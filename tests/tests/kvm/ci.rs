//! Does the example for continuous integration work as it is written?

use std::{fs, path::Path};

use lab::Scenario;

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
    println!("{}", gate.stdout);
    ci().step("alike").ended(4);
    let observed = ci().observed("job.xsr");
    let marks: Vec<&str> = observed.recorded.marks.iter().map(|mark| mark.name.as_str()).collect();
    assert_eq!(marks.len(), 9, "{marks:?}");
    assert_eq!((marks[0], marks[7], marks[8]), ("before-1", "after-4", "done"));
}

/// What docs/ci.md has its reader type is what is run here, word for word.
#[test]
fn the_example_is_what_is_tested() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scenario = Scenario::load(&folder.join("scenarios/ci.toml")).unwrap();
    let page = fs::read_to_string(folder.join("../docs/ci.md")).unwrap();
    let blocks: Vec<&str> =
        page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    let [job, record, gate] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    assert_eq!(job.trim_end(), scenario.guests[0].init.join("\n"));
    let step = |name| &scenario.steps.iter().find(|step| step.name.get_ref() == name).unwrap().run;
    // The test also brings the recording back.
    assert!(step("record").starts_with(record), "{}", step("record"));
    assert_eq!(step("gate"), gate);
}
