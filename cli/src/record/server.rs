//! A recording's end of the control socket.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{
    control::{MAX_REQUEST, PATIENCE},
    output::Place,
};

/// More marks than this are not taken between two looks.
const MAX_MARKS: usize = 1000;

/// What both the recording and its clients see.
#[derive(Debug, Default)]
struct Shared {
    marks: Vec<(Instant, String)>,
    samples: u64,
    lost: u64,
    elapsed: Duration,
}

/// The socket; it goes when this is dropped.
pub(super) struct Server {
    path: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

impl Server {
    /// Serves at `path`, for the members of a group too if one is given. `stop` is set when a client wants it.
    pub(super) fn start(
        path: &Path,
        group: Option<&str>,
        file: Place,
        stop: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let shown = || format!("the control socket {}", path.display());
        let group = group.map(group_id).transpose()?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).with_context(shown)?;
        }
        if UnixStream::connect(path).is_ok() {
            bail!("another recording serves {}", path.display());
        }
        match fs::symlink_metadata(path) {
            // Whoever served there is no more.
            Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
                fs::remove_file(path).with_context(shown)?;
            }
            Ok(_) => bail!("{} is there and no socket", path.display()),
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).with_context(shown)?;
        let server = Self { path: path.to_owned(), shared: Arc::default() };
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(shown)?;
        if let Some(group) = group {
            chown(path, None, Some(group)).with_context(shown)?;
        }
        let shared = Arc::clone(&server.shared);
        let serve = move || {
            for stream in listener.incoming().flatten() {
                // A client that fails or is slow only loses its own answer.
                let _ = answer(&stream, &shared, &file.get(), &stop);
            }
        };
        thread::Builder::new().name("control".into()).spawn(serve).with_context(shown)?;
        Ok(server)
    }

    pub(super) fn take_marks(&self) -> Vec<(Instant, String)> {
        std::mem::take(&mut lock(&self.shared).marks)
    }

    pub(super) fn so_far(&self, samples: u64, lost: u64, elapsed: Duration) {
        let mut shared = lock(&self.shared);
        (shared.samples, shared.lost, shared.elapsed) = (samples, lost, elapsed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The thread ends with the process.
        let _ = fs::remove_file(&self.path);
    }
}

/// Nothing that is done under the lock panics.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(stream: &UnixStream, shared: &Mutex<Shared>, file: &Path, stop: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    BufReader::new(stream).take(MAX_REQUEST).read_until(b'\n', &mut request)?;
    let request = String::from_utf8_lossy(&request);
    let answer = serve(request.trim_end(), &mut lock(shared), file, stop);
    let mut stream = stream;
    writeln!(stream, "{answer}")
}

fn serve(request: &str, shared: &mut Shared, file: &Path, stop: &AtomicBool) -> Value {
    match request.split_once(' ').unwrap_or((request, "")) {
        ("mark", "") => json!({ "error": "a mark needs a name" }),
        ("mark", _) if shared.marks.len() >= MAX_MARKS => json!({ "error": "too many marks at once" }),
        ("mark", name) => {
            shared.marks.push((Instant::now(), name.to_owned()));
            json!({ "ok": true })
        }
        ("status", "") => json!({
            "ok": true,
            "file": file.display().to_string(),
            "samples": shared.samples,
            "lost": shared.lost,
            "elapsed_s": (shared.elapsed.as_secs_f64() * 1e3).round() / 1e3,
        }),
        ("stop", "") => {
            stop.store(true, Ordering::Relaxed);
            json!({ "ok": true })
        }
        _ => json!({ "error": "no such request; there are: mark NAME, status, stop" }),
    }
}

/// The number of a group (group(5)).
fn group_id(name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").context("could not read /etc/group")?;
    let of = |line: &str| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        fields.nth(1).filter(|_| is_it)?.parse().ok()
    };
    groups.lines().find_map(of).with_context(|| format!("there is no group {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_answered() {
        let (mut shared, stop) = (Shared::default(), AtomicBool::new(false));
        shared.samples = 7;
        let mut ask = |request: &str| serve(request, &mut shared, Path::new("a.xsr"), &stop);
        assert_eq!(ask("mark warm up"), json!({ "ok": true }));
        assert_eq!(ask("status")["samples"], 7);
        assert!(ask("mark")["error"].is_string());
        assert!(ask("rm -rf /")["error"].is_string());
        assert!(ask("")["error"].is_string());
        assert_eq!(ask("stop"), json!({ "ok": true }));
        assert!(stop.load(Ordering::Relaxed));
        assert_eq!(shared.marks[0].1, "warm up");
    }

    #[test]
    fn the_socket_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let stop = Arc::new(AtomicBool::new(false));
        let server = Server::start(&path, None, Place::default(), Arc::clone(&stop)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Server::start(&path, None, Place::default(), Arc::clone(&stop)).is_err(), "it is taken");
        writeln!(UnixStream::connect(&path).unwrap(), "stop").unwrap();
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        drop(server);
        assert!(!path.exists());
    }
}
