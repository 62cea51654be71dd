//! What debug information adds to a recording.

use std::process::Command;

use crate::{
    figures,
    observed::Observed,
    recorder::{Load, Recorder, program},
};

const FLAGS: [&str; 3] = ["-O2", "-g", "-Wl,--build-id"];

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn inlined_functions_and_lines_are_added_to_a_recording() {
    let Some(recorder) = Recorder::new() else { return };
    let load = Load::start("inlined.c", &FLAGS);
    let output = recorder.record(&["-F", "1000", "-g", "--duration", "3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    drop(load);
    let enriched = recorder.folder().join("enriched.xsr");
    let mut enrich = Command::new(lab::xenoscope().unwrap());
    enrich.args(["enrich", "-i"]).arg(recorder.file()).arg("-o").arg(&enriched);
    let output = enrich.arg("--file").arg(program("inlined.c", &FLAGS)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let source = include_str!("../../programs/inlined.c");
    let functions = ["innermost", "between", "outermost"];
    let expected = functions.map(|function| {
        let mark = format!("// {function}");
        let line =
            source.lines().position(|line| line.ends_with(&mark)).expect("the program is marked") as u32 + 1;
        (function, line)
    });
    let (before, after) = (recorder.observed(), Observed::read(&enriched));
    assert_eq!(before.samples.len(), after.samples.len());
    let (mut in_loop, mut at_marks) = (0, 0);
    for (sample, original) in after.samples.iter().zip(&before.samples) {
        if before.function(original) != Some("outermost") {
            continue;
        }
        let tables = &after.recorded.tables;
        let frames: Vec<_> = tables.frames(sample.chain).take(3).collect();
        if tables.name(frames[0].function.expect("a name")) != "innermost" {
            continue;
        }
        in_loop += 1;
        let told = frames.iter().map(|frame| {
            let line = frame.origin.line.expect("a line");
            assert!(tables.name(line.file).ends_with("inlined.c"));
            (tables.name(frame.function.expect("a name")), line.line)
        });
        at_marks += usize::from(told.eq(expected));
        assert_eq!(frames.iter().map(|frame| frame.origin.inlined).collect::<Vec<_>>(), [true, true, false]);
    }
    figures::figure("samples in inlined code", in_loop);
    figures::figure("of them at the lines that are marked", at_marks);
    assert!(in_loop > 200, "{in_loop}");
    // The loop's own line has the rest.
    assert!(at_marks * 2 > in_loop, "{at_marks} of {in_loop}");
}
