//! Where files with symbols are that a guest does not have in memory, or that were stripped of them.
//!
//! In this order: a store of the user's own, by build id; what distributions install beside programs, by build id; folders
//! that stand for guests' file systems, by path; and a server (debuginfod), if the user allows that: it is told which
//! builds of programs run here. Nothing here looks into a file: whoever does compares the build id.

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

/// Where distributions install what they strip off (`-dbgsym`, `-debuginfo`).
const INSTALLED: &str = "/usr/lib/debug/.build-id";

/// For how long, in seconds, and for how many bytes a server is waited for.
const SERVER_PATIENCE: &str = "20";
const LARGEST_DOWNLOAD: &str = "1073741824";

/// Where to look for symbols.
#[derive(Debug)]
pub struct SymbolFiles {
    store: SymbolStore,
    /// Domains by name or number, each with a folder that stands for its file system.
    folders: Vec<(String, OwnedFd)>,
    servers: Vec<String>,
}

impl SymbolFiles {
    /// Looks in `store`, and in no folder and at no server yet.
    pub fn new(store: SymbolStore) -> Self {
        Self { store, folders: Vec::new(), servers: Vec::new() }
    }

    /// Adds a folder that stands for a domain's file system, by the domain's name or number.
    pub fn add_folder(&mut self, domain: &str, folder: &Path) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.folders.push((domain.to_owned(), openat(CWD, folder, flags, Mode::empty())?));
        Ok(())
    }

    /// Adds servers: the URLs of `DEBUGINFOD_URLS`.
    pub fn add_servers(&mut self, urls: &str) {
        self.servers.extend(urls.split_whitespace().map(|url| url.trim_end_matches('/').to_owned()));
    }

    /// The folders' domains.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().map(|(domain, _)| domain.as_str())
    }

    /// Files that may have the symbols of what one of a domain's processes has mapped as `path`: untrusted text.
    pub fn candidates(&self, names: &[&str], path: &str, build_id: &[u8]) -> impl Iterator<Item = File> {
        let id = by_id(build_id);
        let own = id.iter().flat_map(|id| [self.store.folder.join(id), Path::new(INSTALLED).join(id)]);
        let own = own.filter_map(|path| File::open(path).ok());
        let folders = self.folders.iter().filter(|(domain, _)| names.contains(&domain.as_str()));
        let debug = id.as_ref().map(|id| format!("{INSTALLED}/{id}"));
        let within = [debug, Some(path.to_owned())].into_iter().flatten();
        let within: Vec<File> = folders
            .flat_map(|(_, folder)| within.clone().filter_map(move |path| open_within(folder, &path).ok()))
            .collect();
        let servers = self.servers.iter().filter_map(move |server| self.store.fetch(server, build_id).ok());
        own.collect::<Vec<_>>().into_iter().chain(within).chain(servers)
    }
}

/// `ab/cdef….debug`, as everybody lays such files out.
fn by_id(build_id: &[u8]) -> Option<String> {
    let (first, rest) = build_id.split_first().filter(|(_, rest)| !rest.is_empty())?;
    Some(format!("{first:02x}/{}.debug", hexadecimal(rest)))
}

/// A build id as it is written.
pub fn hexadecimal(build_id: &[u8]) -> String {
    build_id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A build id that was so written; none where it was not.
pub fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |&[high, low]: &[u8; 2]| Some((digit(high)? * 16 + digit(low)?) as u8);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

/// Opens a path of a guest's as if `folder` were its root: neither `..` nor a link leads out of it (openat2(2)).
fn open_within(folder: &OwnedFd, path: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(folder, path, flags, Mode::empty(), resolve)?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Files with symbols, kept by their build ids.
#[derive(Clone, Debug)]
pub struct SymbolStore {
    folder: PathBuf,
}

impl SymbolStore {
    /// The user's own: `$XDG_DATA_HOME/xenoscope/symbols`, or below `~/.local/share`.
    pub fn of_user() -> Self {
        let below = |variable, path: &str| Some(PathBuf::from(env::var_os(variable)?).join(path));
        let data = below("XDG_DATA_HOME", "").or_else(|| below("HOME", ".local/share"));
        Self { folder: data.unwrap_or_default().join("xenoscope/symbols") }
    }

    /// One in a folder, which need not be there yet.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a file. What the store has of that build is replaced.
    pub fn put(&self, build_id: &[u8], mut content: impl Read) -> io::Result<PathBuf> {
        let id = by_id(build_id).ok_or(io::ErrorKind::InvalidInput)?;
        let path = self.folder.join(id);
        fs::create_dir_all(path.parent().expect("it is in a folder"))?;
        // Under another name first: half a file must never be taken for one.
        let unfinished = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = File::create(&unfinished)?;
        io::copy(&mut content, &mut file)?;
        file.flush()?;
        fs::rename(&unfinished, &path)?;
        Ok(path)
    }

    /// Asks a server for the debug information of a build, and keeps it.
    ///
    /// By `curl`, which is on every host where a server can be asked at all, with the host's certificates and proxies.
    fn fetch(&self, server: &str, build_id: &[u8]) -> io::Result<File> {
        let url = format!("{server}/buildid/{}/debuginfo", hexadecimal(build_id));
        let mut curl = Command::new("curl")
            .args(["--fail", "--silent", "--location", "--proto", "=http,https"])
            .args(["--max-time", SERVER_PATIENCE, "--max-filesize", LARGEST_DOWNLOAD, "--", &url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let content = curl.stdout.take().expect("it was piped");
        let mut bytes = Vec::new();
        content.take(LARGEST_DOWNLOAD.parse().expect("a number")).read_to_end(&mut bytes)?;
        if !curl.wait()?.success() {
            return Err(io::ErrorKind::NotFound.into());
        }
        File::open(self.put(build_id, &bytes[..])?)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead, io::BufReader, net::TcpListener, os::unix::fs::symlink, thread};

    use super::*;

    const ID: [u8; 4] = [0xab, 0xcd, 0xef, 0x01];

    fn contents(files: &SymbolFiles, names: &[&str], path: &str) -> Vec<String> {
        let read = |file: File| io::read_to_string(file).unwrap();
        files.candidates(names, path, &ID).map(read).collect()
    }

    #[test]
    fn files_are_found_by_id_and_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for (path, text) in
            [("usr/bin/server", "by path"), ("usr/lib/debug/.build-id/ab/cdef01.debug", "beside")]
        {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        }
        let store = SymbolStore::at(folder.path().join("store"));
        let mut files = SymbolFiles::new(store.clone());
        files.add_folder("web", &root).unwrap();
        assert_eq!(contents(&files, &["web", "7"], "/usr/bin/server"), ["beside", "by path"]);
        assert_eq!(contents(&files, &["db", "8"], "/usr/bin/server"), [""; 0]);
        store.put(&ID, &b"kept"[..]).unwrap();
        assert_eq!(contents(&files, &["db"], "/usr/bin/server"), ["kept"]);
    }

    /// Paths and links are a guest's: this host's own files must not be reached by them.
    #[test]
    fn nothing_leads_out_of_a_guests_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(folder.path().join("secret"), "outside").unwrap();
        fs::write(root.join("secret"), "inside").unwrap();
        symlink("/secret", root.join("bin/absolute")).unwrap();
        symlink("../../../../secret", root.join("bin/climbing")).unwrap();
        symlink("/proc/self/root", root.join("bin/magic")).unwrap();
        let mut files = SymbolFiles::new(SymbolStore::at(folder.path().join("store")));
        files.add_folder("web", &root).unwrap();
        for path in ["/bin/absolute", "/bin/climbing", "/../secret", "/bin/../../secret", "secret"] {
            assert_eq!(contents(&files, &["web"], path), ["inside"], "{path}");
        }
        for path in ["/bin/magic/etc/passwd", "/etc/passwd", "/bin", ""] {
            assert_eq!(contents(&files, &["web"], path), [""; 0], "{path}");
        }
    }

    #[test]
    fn build_ids_are_read_as_they_are_written() {
        assert_eq!(from_hexadecimal(&hexadecimal(&ID)).as_deref(), Some(&ID[..]));
        for wrong in ["abc", "xy", "0é"] {
            assert_eq!(from_hexadecimal(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_server_is_asked_once() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        let answering = thread::spawn(move || {
            let (mut socket, _) = server.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&socket).read_line(&mut request).unwrap();
            socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ndebug")
                .unwrap();
            request
        });
        let folder = tempfile::tempdir().unwrap();
        let mut files = SymbolFiles::new(SymbolStore::at(folder.path()));
        files.add_servers(&url);
        assert_eq!(contents(&files, &["web"], "/bin/server"), ["debug"]);
        let request = answering.join().unwrap();
        assert!(request.starts_with("GET /buildid/abcdef01/debuginfo HTTP"), "{request}");
        // From now on it is in the store; the server is no more.
        assert_eq!(contents(&files, &["web"], "/bin/server"), ["debug"]);
    }
}
