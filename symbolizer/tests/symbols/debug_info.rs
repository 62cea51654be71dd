//! Debug information, compared with what a compiler was given.

use std::{fs, fs::File, path::Path, process::Command};

use profile::recording::SourceFrame;
use symbolizer::DebugInfo;

/// `outer` (lines 1 to 4) has no other code than `inner`'s, which is inlined into `middle`, and that into `outer`.
const PROGRAM: &str = "\
static inline __attribute__((always_inline)) int inner(volatile int *x) {
    return *x * 3;
}
static inline __attribute__((always_inline)) int middle(volatile int *x) {
    return inner(x) + 1;
}
int outer(volatile int *x) {
    return middle(x);
}
int main(void) { volatile int x = 1; return outer(&x); }
";

fn compiled(folder: &Path, flags: &[&str]) -> File {
    let (source, program) = (folder.join("inlined.c"), folder.join("inlined"));
    fs::write(&source, PROGRAM).unwrap();
    let mut cc = Command::new("cc");
    let status = cc.args(["-O2", "-fno-lto", "-o"]).arg(&program).args(flags).arg(&source).status().unwrap();
    assert!(status.success());
    File::open(program).unwrap()
}

/// The address of `outer` as `nm` has it.
fn outer(folder: &Path) -> u64 {
    let listed = Command::new("nm").arg(folder.join("inlined")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let line = listed.lines().find(|line| line.ends_with(" T outer")).unwrap();
    u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
}

#[test]
fn inlined_functions_are_told_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    for flags in [&["-g"][..], &["-g1", "-gz=zlib"], &["-g", "-gdwarf-4"]] {
        let debug = DebugInfo::open(&compiled(folder.path(), flags)).unwrap();
        let outer = outer(folder.path());
        let at: Vec<Vec<SourceFrame>> = (outer..outer + 8).map(|address| debug.source(address)).collect();
        let deep = at.iter().find(|frames| frames.len() == 3).unwrap_or_else(|| panic!("{flags:?}: {at:?}"));
        let told: Vec<(&str, u32)> =
            deep.iter().map(|frame| (frame.function.as_deref().unwrap(), frame.line)).collect();
        assert_eq!(told, [("inner", 2), ("middle", 5), ("outer", 8)], "{flags:?}");
        assert!(deep[0].file.as_deref().unwrap().ends_with("inlined.c"));
        assert_eq!(debug.source(0), []);
    }
}

#[test]
fn files_that_tell_nothing_are_none() {
    let folder = tempfile::tempdir().unwrap();
    assert!(DebugInfo::open(&compiled(folder.path(), &["-s"])).is_none());
    let text = folder.path().join("text");
    fs::write(&text, "no ELF file").unwrap();
    assert!(DebugInfo::open(&File::open(text).unwrap()).is_none());
}

/// Whatever is wrong with it: nothing worse than nothing comes out.
#[test]
fn damaged_debug_information_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    compiled(folder.path(), &["-g"]);
    let (whole, outer) = (fs::read(folder.path().join("inlined")).unwrap(), outer(folder.path()));
    let damaged = folder.path().join("damaged");
    for at in (64..whole.len()).step_by(whole.len() / 400) {
        for byte in [0x00, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            fs::write(&damaged, &bytes).unwrap();
            if let Some(debug) = DebugInfo::open(&File::open(&damaged).unwrap()) {
                assert!(debug.source(outer + 1).len() <= 256);
            }
        }
    }
}
