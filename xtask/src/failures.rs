//! What went wrong in a long run, said once more at its end: between the words of hosts that boot, nobody finds it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process;

/// The message of a panic is shown up to here.
const LINES: usize = 40;

/// What follows upon a panic's message, of the lab, of the tests' harness and of cargo.
const NOT_OF_A_MESSAGE: [&str; 5] = ["lab ", "note: run with ", "error: ", "     Running ", "thread '"];

/// Runs tests that show what they print, and must succeed; if they don't, all panics are told at the end.
pub(crate) fn run(tests: &mut Command) -> Result<()> {
    let shown = process::announce(tests);
    let mut child = tests.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot run `{shown}`"))?;
    let panics = pass_on(child.stderr.take().expect("it is piped"), std::io::stderr());
    let ended = process::must_succeed(&shown, child.wait()?);
    if ended.is_err() && !panics.is_empty() {
        eprintln!("xtask: what failed, once more:\n\n{}", panics.join("\n"));
    }
    ended
}

/// Copies everything, and gives the messages of panics in it.
fn pass_on(from: impl Read, mut to: impl Write) -> Vec<String> {
    let mut panics: Vec<String> = Vec::new();
    let mut left = 0;
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        // Where it can't be shown, the tests are run all the same.
        let _ = to.write_all(&line).and_then(|()| to.write_all(b"\n"));
        let line = String::from_utf8_lossy(&line);
        if line.starts_with("thread '") && line.contains(" panicked at ") {
            panics.push(String::new());
            left = LINES;
        } else if NOT_OF_A_MESSAGE.iter().any(|other| line.starts_with(other)) {
            left = 0;
        }
        if let Some(message) = panics.last_mut().filter(|_| left > 0) {
            message.push_str(&line);
            message.push('\n');
            left -= 1;
        }
    }
    panics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_kept_and_everything_is_passed_on() {
        let text = "lab    0.0 s  booting\n\n\
            thread 'names::alike' (31978) panicked at tests/src/evidence/programs.rs:91:5:\n\
            alpha: 3605 of 3644\n\
            note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\
            lab    1.0 s  booting\n\
            thread 'stacks' panicked at tests/src/evidence/host.rs:1:1:\nstep shim said\n\nnothing\n\
            error: test failed\n";
        let mut passed = Vec::new();
        let panics = pass_on(text.as_bytes(), &mut passed);
        assert_eq!(String::from_utf8(passed).unwrap(), text);
        assert_eq!(panics.len(), 2, "{panics:?}");
        assert!(panics[0].ends_with("programs.rs:91:5:\nalpha: 3605 of 3644\n"), "{}", panics[0]);
        assert!(panics[1].ends_with("host.rs:1:1:\nstep shim said\n\nnothing\n"), "{}", panics[1]);
    }
}
