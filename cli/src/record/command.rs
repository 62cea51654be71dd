//! The command whose life is recorded.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{self, Child},
    thread,
    time::{Duration, Instant},
};

/// For how long a command that was interrupted along with us may tidy up.
const GRACE: Duration = Duration::from_secs(2);

/// A command that may be none.
pub(super) struct Command {
    words: Vec<String>,
    child: Option<Child>,
}

impl Command {
    pub(super) fn new(words: &[String]) -> Self {
        Self { words: words.to_vec(), child: None }
    }

    pub(super) fn start(&mut self) -> io::Result<()> {
        if let Some((program, arguments)) = self.words.split_first() {
            let child = process::Command::new(program).args(arguments).spawn();
            self.child =
                Some(child.map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?);
        }
        Ok(())
    }

    /// Its exit status, once it has ended; as shells tell it where a signal ended it.
    pub(super) fn ended(&mut self) -> Option<i32> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        status.code().or_else(|| Some(128 + status.signal()?))
    }

    /// Leaves nothing running.
    pub(super) fn end(&mut self) {
        let deadline = Instant::now() + GRACE;
        while self.child.is_some() && self.ended().is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        if let Some(mut child) = self.child.take() {
            // Both fail only where it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
