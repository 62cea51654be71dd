//! Are stacks in the recording if they are asked for, and only then?

use std::{collections::HashMap, path::Path};

use profile::{Mode, PhysCpu};
use serde_json::Value;

use crate::{
    figures, host,
    recorder::{Recorder, program},
};

/// How much of each stack is kept: all that is captured.
const BYTES: usize = 1024;

/// What the program prints.
fn said(arguments: &[&str]) -> String {
    let output = host::xenoscope(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What is kept, and what `info` says of that.
fn kept(file: &Path) -> (Vec<Value>, u64) {
    let file = file.to_str().unwrap();
    let lines = said(&["export", "--to", "stacks", "-i", file, "-o", "-"]);
    let info: Value = serde_json::from_str(&said(&["info", "--json", "-i", file])).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), info["kept_stacks"].as_u64().unwrap())
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn stacks_are_kept_where_that_is_asked_for() {
    let Some(recorder) = Recorder::new() else { return };
    let program = program("paths.c", &[]);
    let record = |options: &[&str]| {
        let command =
            ["-F", "500", "--call-graph", "stack,1K", "--", "timeout", "2", program.to_str().unwrap()];
        let output = recorder.record(&[options, &command].concat());
        assert_eq!(output.status.code(), Some(124), "{}", String::from_utf8_lossy(&output.stderr));
    };
    record(&[]);
    assert_eq!(kept(&recorder.file()), (Vec::new(), 0), "stacks are dropped");

    record(&["--keep-stacks"]);
    let (lines, counted) = kept(&recorder.file());
    assert_eq!(lines.len() as u64, counted);
    let by_sample: HashMap<(u64, u64), &Value> = lines
        .iter()
        .map(|line| ((line["cpu"].as_u64().unwrap(), line["sequence"].as_u64().unwrap()), line))
        .collect();
    let observed = recorder.observed();
    let name = program.file_name().unwrap().to_str().unwrap();
    let mut whole = 0;
    for sample in observed.samples.iter().filter(|sample| sample.mode == Mode::User) {
        if !observed.process_name(sample).is_some_and(|process| name.starts_with(process)) {
            continue;
        }
        let PhysCpu(cpu) = sample.cpu;
        let line = by_sample[&(cpu.into(), sample.sequence)];
        let stretch = line["stretches"].as_array().unwrap().last().unwrap();
        assert_eq!(stretch["space"], "user", "{line}");
        let address = observed.frame(sample).address.raw();
        assert_eq!(stretch["registers"]["rip"], format!("{address:#x}"));
        let bytes = stretch["stacks"][0]["bytes"].as_str().unwrap();
        assert!(bytes.len() <= 2 * BYTES, "{} digits", bytes.len());
        whole += usize::from(bytes.len() == 2 * BYTES);
    }
    figures::figure(
        "samples whose stacks are kept, those of the program's with all of it",
        format_args!("{counted}, {whole}"),
    );
    assert!(whole > 50, "{whole}");

    let copy = recorder.folder().join("copy.xsr");
    said(&["redact", "--all", "-i", recorder.file().to_str().unwrap(), "-o", copy.to_str().unwrap()]);
    assert_eq!(kept(&copy), (Vec::new(), 0), "copies have none");
}
