//! A virtual machine of a page of code on this machine's own KVM, of which it is known what its processor does.

use std::{
    io::{BufRead, BufReader, Read},
    ops::Range,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

/// The exit status of the program where there is no usable `/dev/kvm`.
const NOT_HERE: i32 = 77;

/// How much is done in either ring before it is the other one's turn.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) user: u64,
    pub(crate) kernel: u64,
}

/// A virtual machine that runs. It ends when this is dropped.
pub(crate) struct TinyGuest {
    program: Child,
    stdout: BufReader<ChildStdout>,
    /// Its VMM's process.
    pub(crate) process: u32,
    /// The thread that its virtual CPU runs in.
    pub(crate) vcpu_thread: u32,
    /// Where it is in kernel mode, but for the changes of mode.
    pub(crate) kernel_loop: Range<u64>,
    /// Where it is in user mode.
    pub(crate) user_loop: Range<u64>,
}

/// What its processor has done, by its own clock.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) turns: u64,
    pub(crate) user_ticks: u64,
    pub(crate) kernel_ticks: u64,
}

impl TinyGuest {
    /// Starts it for some seconds; `None`, and a line that tells why, where this machine can't run it.
    pub(crate) fn start(seconds: u32, rounds: Rounds) -> Option<Self> {
        Self::start_with(&[seconds.into(), rounds.user, rounds.kernel])
    }

    /// The same; after some seconds it is given a second virtual CPU, which is in kernel mode for ever.
    pub(crate) fn start_and_add(seconds: u32, rounds: Rounds, later: u32) -> Option<Self> {
        Self::start_with(&[seconds.into(), rounds.user, rounds.kernel, later.into()])
    }

    fn start_with(numbers: &[u64]) -> Option<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/tiny_guest.c");
        let mut command = Command::new(lab::compiled(&source, &[]).unwrap());
        command.args(numbers.iter().map(u64::to_string));
        let mut program = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(program.stdout.take().unwrap());
        let lines: Vec<String> = (&mut stdout).lines().take(3).map(Result::unwrap).collect();
        let [kernel_loop, user_loop, threads] = lines.as_slice() else {
            let mut said = String::new();
            program.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            let status = program.wait().unwrap();
            assert_eq!(status.code(), Some(NOT_HERE), "{said}");
            println!("skipped: {}", said.trim());
            return None;
        };
        let (kernel_loop, user_loop) = (range(kernel_loop), range(user_loop));
        let [process, vcpu_thread] = self::numbers(threads);
        let [process, vcpu_thread] = [process, vcpu_thread].map(|id| u32::try_from(id).unwrap());
        Some(Self { program, stdout, process, vcpu_thread, kernel_loop, user_loop })
    }

    /// Waits until its time is over.
    pub(crate) fn end(mut self) -> Truth {
        let mut last = String::new();
        self.stdout.read_to_string(&mut last).unwrap();
        let status = self.program.wait().unwrap();
        assert!(status.success(), "{status}: {last}");
        // What it says of a second virtual CPU's thread stands before it.
        let [turns, user_ticks, kernel_ticks] = numbers(last.trim_end().lines().last().unwrap_or(&last));
        Truth { turns, user_ticks, kernel_ticks }
    }
}

impl Drop for TinyGuest {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// All decimal numbers in a text.
fn numbers<const COUNT: usize>(text: &str) -> [u64; COUNT] {
    let words = text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    let numbers: Vec<u64> = words.collect();
    numbers.try_into().unwrap_or_else(|_| panic!("not {COUNT} numbers in {text:?}"))
}

/// The last word of a line, `0x1-0x2`.
fn range(line: &str) -> Range<u64> {
    let ends = line.rsplit(' ').next().and_then(|word| word.split_once('-'));
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let range = ends.and_then(|(start, end)| Some(number(start)?..number(end)?));
    range.unwrap_or_else(|| panic!("no range of addresses in {line:?}"))
}

#[test]
fn a_tiny_guest_works_in_both_rings_and_at_both_halves_of_the_addresses() {
    let Some(guest) = TinyGuest::start(1, Rounds { user: 100_000, kernel: 100 }) else { return };
    assert!(guest.kernel_loop.start > u64::MAX / 2 && guest.user_loop.end < u64::MAX / 2);
    let task = format!("/proc/{}/task/{}", guest.process, guest.vcpu_thread);
    assert_eq!(std::fs::read_to_string(format!("{task}/comm")).unwrap(), "CPU 0/KVM\n");
    let truth = guest.end();
    assert!(truth.turns > 0 && truth.user_ticks > 0 && truth.kernel_ticks > 0, "{truth:?}");
}
