//! The profiler on this machine.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::{observed::Observed, report::Report};

/// A user without any privileges.
const NOBODY: u32 = 65_534;

/// A recording that is or was made here.
pub(crate) struct Recorder {
    folder: TempDir,
}

impl Recorder {
    /// None, and a line that tells why, where this user may not sample this machine.
    pub(crate) fn new() -> Option<Self> {
        let output = Command::new(lab::xenoscope().unwrap()).args(["doctor", "--json"]).output().unwrap();
        let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = checks["checks"].as_array().unwrap().iter();
        let events =
            checks.clone().find(|check| check["name"] == "perf events").expect("the host is no dom0");
        if events["outcome"] != "ok" {
            println!("skipped: {}", events["found"]);
            return None;
        }
        Some(Self { folder: tempfile::tempdir().unwrap() })
    }

    /// A folder that goes with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The recording.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("recording.xsr")
    }

    fn command(&self, xenoscope: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(xenoscope);
        command.current_dir(&self.folder).arg("record").arg("-o").arg(self.file()).args(arguments);
        self.own_socket(&mut command);
        command
    }

    /// Has a command look for the control socket where this recorder has it, and not where another one may.
    pub(crate) fn own_socket<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("RUNTIME_DIRECTORY", self.folder())
    }

    /// Records, and waits for the end.
    pub(crate) fn record(&self, arguments: &[&str]) -> Output {
        self.command(&lab::xenoscope().unwrap(), arguments).output().unwrap()
    }

    /// Records as somebody without privileges, with a copy of the program in a folder that is his.
    pub(crate) fn record_unprivileged(&self, arguments: &[&str]) -> Output {
        std::os::unix::fs::chown(&self.folder, Some(NOBODY), Some(NOBODY)).unwrap();
        let xenoscope = self.copy_of(&lab::xenoscope().unwrap());
        self.command(&xenoscope, arguments).uid(NOBODY).gid(NOBODY).output().unwrap()
    }

    /// A program where anybody can reach it.
    pub(crate) fn copy_of(&self, program: &Path) -> PathBuf {
        let copy = self.folder.path().join(program.file_name().expect("a program is a file"));
        std::fs::copy(program, &copy).unwrap();
        copy
    }

    /// Begins to record.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(&lab::xenoscope().unwrap(), arguments).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Every sample of what was recorded.
    pub(crate) fn observed(&self) -> Observed {
        Observed::read(&self.file())
    }

    /// What the program says of it.
    pub(crate) fn report(&self) -> Report {
        let output = Command::new(lab::xenoscope().unwrap())
            .args(["report", "--json", "-i"])
            .arg(self.file())
            .output();
        Report::parse(&output.unwrap().stdout)
    }
}

/// A program that runs until this is dropped.
pub(crate) struct Load(Child);

impl Load {
    /// One of the lab's programs, under a name of its own.
    pub(crate) fn start(source: &str, flags: &[&str]) -> Self {
        Self(Command::new(program(source, flags)).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// One of the lab's programs.
pub(crate) fn program(source: &str, flags: &[&str]) -> PathBuf {
    lab::compiled(&Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(source), flags).unwrap()
}

/// Sends a signal.
pub(crate) fn signal(process: &Child, name: &str) {
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}
