//! The machine's serial line, to which Xen and dom0 write, or a KVM host.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::scenario::HypervisorKind;

const SERIAL: &str = "serial.log";

/// How Xen and Linux begin their last words.
const LAST_WORDS: [&str; 3] = ["Panic on CPU", "FATAL TRAP", "Kernel panic - not syncing"];

/// The log of the serial line while the machine runs.
#[derive(Debug)]
pub(crate) struct Serial {
    path: PathBuf,
    read: u64,
}

impl Serial {
    /// The log in the folder of consoles, to be written by QEMU.
    pub(crate) fn new(folder: &Path) -> Serial {
        Serial { path: folder.join(SERIAL), read: 0 }
    }

    /// Where QEMU writes it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A line written since the last call that tells of the end of Xen or Linux.
    pub(crate) fn last_words(&mut self) -> Result<Option<String>> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(None) };
        file.seek(SeekFrom::Start(self.read))?;
        let mut written = Vec::new();
        file.read_to_end(&mut written)?;
        // A line that is not complete is looked at again.
        let complete = written.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.read += complete as u64;
        let text = String::from_utf8_lossy(&written[..complete]);
        let told = text.lines().find(|line| LAST_WORDS.iter().any(|words| line.contains(words)));
        Ok(told.map(|line| line.trim().to_owned()))
    }
}

/// Makes a log for each who wrote from what was gathered while the machine ran: `xen.log` and `dom0.log`, or
/// `host.log`, and `GUEST.log`.
pub(crate) fn separate(folder: &Path, hypervisor: HypervisorKind) -> Result<()> {
    let serial = folder.join(SERIAL);
    let text = fs::read(&serial).with_context(|| format!("cannot read {}", serial.display()))?;
    let (xen, linux) = split(&String::from_utf8_lossy(&text));
    if hypervisor == HypervisorKind::Xen {
        fs::write(folder.join("xen.log"), xen)?;
    }
    fs::write(folder.join(format!("{}.log", hypervisor.control_domain())), linux)?;
    fs::remove_file(&serial)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let guest =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("guest-"));
        if let Some(guest) = guest {
            fs::rename(&path, folder.join(guest))?;
        }
    }
    Ok(())
}

/// Xen's lines and dom0's.
fn split(serial: &str) -> (String, String) {
    let (mut xen, mut dom0) = (String::new(), String::new());
    for line in serial.lines() {
        let line = line.trim_end_matches('\r');
        let log = if line.contains("(XEN) ") { &mut xen } else { &mut dom0 };
        log.push_str(line);
        log.push('\n');
    }
    (xen, dom0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_whom_they_are_of() {
        let serial = "(XEN) Xen version 4.17.7\r\n[    0.000000] Linux version 6.1\r\n(XEN) d0 hello\r\n";
        let (xen, dom0) = split(serial);
        assert_eq!(xen, "(XEN) Xen version 4.17.7\n(XEN) d0 hello\n");
        assert_eq!(dom0, "[    0.000000] Linux version 6.1\n");
    }

    #[test]
    fn last_words_are_found_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut serial = Serial::new(folder.path());
        assert_eq!(serial.last_words().unwrap(), None);
        fs::write(serial.path(), "all is well\n(XEN) Panic on ").unwrap();
        assert_eq!(serial.last_words().unwrap(), None);
        fs::write(serial.path(), "all is well\n(XEN) Panic on CPU 0:\r\n").unwrap();
        assert_eq!(serial.last_words().unwrap().as_deref(), Some("(XEN) Panic on CPU 0:"));
        assert_eq!(serial.last_words().unwrap(), None);
    }
}
