//! docs/commands.md: what it says is printed is what is printed. `XENOSCOPE_DOCUMENTS=update` writes it anew.

use std::{env, fs, path::Path, process::Command};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/commands.md");
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../profile/tests/format-2.xsr");

const BEGINNING: &str = "```console\n";
const END: &str = "```\n";

/// Runs the commands of a block in a shell, and returns the block as it should be.
fn block(text: &str, folder: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_xenoscope"));
    let path = format!("{}:{}", program.parent().unwrap().display(), env::var("PATH").unwrap());
    let mut block = String::new();
    for command in text.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(folder).envs([("PATH", path.as_str()), ("LC_ALL", "C")]);
        let output = shell.output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let complaints = String::from_utf8(output.stderr).unwrap();
        assert_eq!(complaints, "", "{command}");
        block += &format!("$ {command}\n");
        // Blanks at the ends of lines are not kept by those who edit documents.
        printed.lines().for_each(|line| block += &format!("{}\n", line.trim_end()));
    }
    block
}

#[test]
fn commands_print_what_is_documented() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(RECORDING, folder.path().join("xenoscope.xsr")).unwrap();
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let mut written = String::new();
    let mut rest = document.as_str();
    while let Some((before, after)) = rest.split_once(BEGINNING) {
        let (text, after) = after.split_once(END).expect("every block ends");
        written += &format!("{before}{BEGINNING}{}{END}", block(text, folder.path()));
        rest = after;
    }
    written += rest;
    match env::var("XENOSCOPE_DOCUMENTS").as_deref() {
        Ok("update") => fs::write(DOCUMENT, written).unwrap(),
        _ => assert_eq!(written, document),
    }
}

#[test]
fn every_command_is_documented() {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_xenoscope")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| line.starts_with("  "));
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 20, "{names:?}");
    let is_titled = |name: &str| {
        let titles = document.lines().filter_map(|line| line.strip_prefix("## "));
        titles.flat_map(|title| title.split(", ")).any(|title| title == name)
    };
    let missing: Vec<&str> = names.into_iter().filter(|name| *name != "help" && !is_titled(name)).collect();
    assert_eq!(missing, [""; 0]);
}
