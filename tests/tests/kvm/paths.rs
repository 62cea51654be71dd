//! Are call chains the ones that there are? Programs in which each function has one caller, on this machine.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use profile::Mode;

use lab::evidence::paths::Paths;

use crate::{
    figures,
    recorder::{Recorder, program},
};

/// Compiles a program of a language that the lab's domains do not need.
fn compiled(recorder: &Recorder, compiler: &str, flags: &[&str], source: &str) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(source);
    let binary = recorder.folder().join(format!("paths-{compiler}"));
    let mut command = Command::new(compiler);
    command.args(flags).arg("-o").arg(&binary).arg(source).env("GOCACHE", recorder.folder().join("go"));
    match command.status() {
        Ok(status) => assert!(status.success(), "{compiler} failed"),
        Err(error) => {
            println!("skipped: {compiler}: {error}");
            return None;
        }
    }
    Some(binary)
}

/// Records a program and looks at its chains.
fn assert_right(recorder: &Recorder, what: &str, program: &Path, outermost: &str) {
    let output = recorder.record(&["-F", "2000", "-g", "--", "timeout", "3", program.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(124), "{}", String::from_utf8_lossy(&output.stderr));
    let observed = recorder.observed();
    let mut paths = Paths::default();
    let name = program.file_name().unwrap().to_str().unwrap();
    for sample in &observed.samples {
        let own = observed.process_name(sample).is_some_and(|process| name.starts_with(process));
        if own && matches!(sample.mode, Mode::User | Mode::Kernel) {
            paths.add(sample.chain, &observed.recorded.tables, outermost);
        }
    }
    figures::figure(
        format!("samples of {what} with the one true chain"),
        format_args!("{} of {}, {:?}", paths.right, paths.samples, paths.broken),
    );
    assert_eq!(paths.depths.keys().copied().collect::<Vec<_>>(), [8, 16, 24, 32, 40], "every path was taken");
    assert!(paths.samples > 100, "{paths:?}");
    assert_eq!(paths.wrong, 0, "callers that do not exist");
    assert!(paths.share() >= 0.95, "{what}: {paths:?}");
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn c_with_and_without_frame_pointers() {
    let Some(recorder) = Recorder::new() else { return };
    assert_right(&recorder, "C with frame pointers", &program("paths.c", &[]), "_start");
    assert_right(
        &recorder,
        "C without frame pointers",
        &program("paths.c", &["-fomit-frame-pointer"]),
        "_start",
    );
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn cpp_with_exceptions_and_virtual_calls() {
    let Some(recorder) = Recorder::new() else { return };
    let Some(program) = compiled(&recorder, "c++", &["-std=c++17", "-O2"], "paths.cc") else { return };
    assert_right(&recorder, "C++", &program, "_start");
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn rust() {
    let Some(recorder) = Recorder::new() else { return };
    let Some(program) = compiled(&recorder, "rustc", &["-O"], "paths.rs") else { return };
    assert_right(&recorder, "Rust", &program, "_start");
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn go() {
    let Some(recorder) = Recorder::new() else { return };
    let Some(program) = compiled(&recorder, "go", &["build"], "paths.go") else { return };
    assert_right(&recorder, "Go", &program, "runtime.goexit.abi0");
}
