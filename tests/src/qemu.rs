//! QEMU as a child process: started, watched, and never left behind.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const MENDS: &str = "apt-get install qemu-system-x86";

/// A running QEMU. It ends when this is dropped, and when this process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Qemu {
    process: Child,
    folder: PathBuf,
}

impl Qemu {
    /// Starts QEMU in `folder`, so that `arguments` may name files there; its own complaints go to `qemu.log`.
    ///
    /// The thread that calls this must outlive the machine: the kernel takes that thread's end for its parent's.
    pub(crate) fn start<S: AsRef<OsStr>>(
        folder: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Qemu> {
        Qemu::start_program(folder, &["qemu-system-x86_64"], arguments)
    }

    /// The same with another release's QEMU: its program, after what loads it and before what it is always told.
    pub(crate) fn start_program<P: AsRef<OsStr>, S: AsRef<OsStr>>(
        folder: &Path,
        program: &[P],
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Qemu> {
        let log = File::create(folder.join("qemu.log"))?;
        // The only way without unsafe code to have the kernel end QEMU when this process is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(program);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        // A thread for each CPU, unless instructions are counted.
        command.args(["-accel", "tcg"]).args(arguments);
        // A group of its own: an interrupt from the terminal is for this process, which then ends QEMU.
        command.current_dir(folder).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        match command.spawn() {
            Ok(process) => Ok(Qemu { process, folder: folder.to_owned() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("setpriv is missing: run `apt-get install util-linux`")
            }
            Err(error) => Err(error).context("cannot start QEMU"),
        }
    }

    /// Connects to a socket that QEMU serves in its folder.
    pub(crate) fn connect(&mut self, socket: &str) -> Result<UnixStream> {
        let path = self.folder.join(socket);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match UnixStream::connect(&path) {
                Ok(stream) => return Ok(stream),
                Err(_) if self.ended()?.is_some() => bail!("QEMU did not start: {}", self.complaints()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("QEMU does not serve {}", path.display()));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Whether QEMU has ended by itself.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.try_wait().context("cannot ask for QEMU's state")
    }

    /// Waits until QEMU ends by itself; `false` when it takes longer than `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while self.ended()?.is_none() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }

    /// What QEMU itself has to say, and how to have it at all.
    pub(crate) fn complaints(&self) -> String {
        let log = fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
        match log.trim() {
            // setpriv's own words when there is no such program.
            log if log.contains("failed to execute") => format!("it is missing: run `{MENDS}`"),
            "" => "it says nothing".to_owned(),
            log => log.to_owned(),
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
