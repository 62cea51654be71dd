//! The example for continuous integration.

use std::{fs, path::Path};

/// What docs/ci.md has its reader type is what its scenario runs.
#[test]
fn the_example_is_what_the_scenario_runs() {
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
