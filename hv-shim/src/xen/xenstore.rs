//! What xenstore knows of domains: a question and an answer over xenstored's socket or the kernel's device
//! (xen/io/xs_wire.h).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

const READ: u32 = 2;
const ERROR: u32 = 16;

/// `XENSTORE_PAYLOAD_MAX`.
const LONGEST: usize = 4096;

/// Which places xenstored listens at.
const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
const DEVICES: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];

/// A connection.
pub(super) struct Xenstore(Connection);

enum Connection {
    Socket(UnixStream),
    Device(File),
}

impl Xenstore {
    /// Connects wherever xenstored can be reached; none where it can't.
    pub(super) fn connect() -> Option<Self> {
        let socket = SOCKETS.iter().find_map(|path| UnixStream::connect(path).ok());
        if let Some(socket) = socket {
            // A daemon that hangs must not take the collector along.
            socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
            return Some(Self(Connection::Socket(socket)));
        }
        let device =
            DEVICES.iter().find_map(|path| OpenOptions::new().read(true).write(true).open(path).ok())?;
        Some(Self(Connection::Device(device)))
    }

    /// A domain's name.
    pub(super) fn name(&mut self, domid: u16) -> io::Result<String> {
        self.read(&format!("/local/domain/{domid}/name"))
    }

    /// The value at a path.
    pub(super) fn read(&mut self, path: &str) -> io::Result<String> {
        let path = format!("{path}\0");
        let value = match &mut self.0 {
            Connection::Socket(socket) => ask(socket, path.as_bytes()),
            Connection::Device(device) => ask(device, path.as_bytes()),
        }?;
        Ok(String::from_utf8_lossy(&value).into_owned())
    }
}

fn ask(connection: &mut (impl Read + Write), path: &[u8]) -> io::Result<Vec<u8>> {
    connection.write_all(&question(path))?;
    let mut header = [0; 16];
    connection.read_exact(&mut header)?;
    let (kind, length) = answer(&header)?;
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    match kind {
        READ => Ok(body),
        ERROR => Err(io::Error::other(format!("xenstored says {}", String::from_utf8_lossy(&body)))),
        _ => Err(io::Error::other("xenstored answered something else")),
    }
}

/// `struct xsd_sockmsg` (type, request, transaction, length), then the path.
fn question(path: &[u8]) -> Vec<u8> {
    let words = [READ, 0, 0, path.len() as u32];
    words.iter().flat_map(|word| word.to_le_bytes()).chain(path.iter().copied()).collect()
}

fn answer(header: &[u8; 16]) -> io::Result<(u32, usize)> {
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    match word(12) as usize {
        length if length <= LONGEST => Ok((word(0), length)),
        length => Err(io::Error::other(format!("xenstored's answer has {length} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn served(kind: u32, length: u32, body: &[u8]) -> io::Result<Vec<u8>> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let reply: Vec<u8> = [kind, 0, 0, length]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .chain(body.iter().copied())
            .collect();
        let server = thread::spawn(move || {
            let mut asked = [0; 16 + 3];
            theirs.read_exact(&mut asked).unwrap();
            theirs.write_all(&reply).unwrap();
            asked
        });
        let answer = ask(&mut ours, b"/a\0");
        assert_eq!(&server.join().unwrap()[12..], b"\x03\0\0\0/a\0");
        answer
    }

    #[test]
    fn a_value_is_read_and_an_error_told() {
        assert_eq!(served(READ, 5, b"alpha").unwrap(), b"alpha");
        assert!(served(ERROR, 7, b"ENOENT\0").unwrap_err().to_string().contains("ENOENT"));
        assert!(served(7, 0, b"").is_err());
    }

    #[test]
    fn an_answer_without_measure_is_not_waited_for() {
        assert!(served(READ, 1 << 30, b"").unwrap_err().to_string().contains("bytes"));
    }
}
