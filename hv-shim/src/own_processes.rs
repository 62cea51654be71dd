//! Processes of the system that this program runs on, dom0 or the host, as `/proc` shows them now (proc(5)).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
};

use crate::{MappedFile, Mapping, ProcessState};

/// The symbols of some hundred thousand generated functions.
const MAX_GENERATED: u64 = 32 << 20;

/// What can be seen of a process; none if it is no more.
pub fn state(pid: u32) -> Option<ProcessState> {
    if pid == 0 {
        // The idle task has no folder.
        return Some(ProcessState { name: Some("swapper".into()), ..ProcessState::default() });
    }
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
    let name = String::from_utf8_lossy(&read("comm")?).trim_end_matches('\n').to_owned();
    // Kernel threads and other users' processes show none.
    let maps = read("maps").unwrap_or_default();
    let mappings = String::from_utf8_lossy(&maps).lines().filter_map(mapping).collect();
    Some(ProcessState { name: Some(name), container: container(pid), mappings })
}

/// Whether a process of this name lives.
pub(crate) fn is_running(name: &str) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    let named = |entry: io::Result<fs::DirEntry>| {
        let comm = fs::read_to_string(entry.ok()?.path().join("comm")).ok()?;
        Some(comm.trim_end() == name)
    };
    entries.filter_map(named).any(|is_named| is_named)
}

/// The control group that a process is in.
pub fn container(pid: u32) -> Option<String> {
    let text = fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    group(&String::from_utf8_lossy(&text))
}

/// The group in the unified hierarchy (cgroups(7)), or the most telling one of the old ones.
fn group(text: &str) -> Option<String> {
    let path = |line: &'_ str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let unified = text.lines().find(|line| line.starts_with("0::")).and_then(path);
    if unified.as_deref().is_some_and(|path| path != "/") {
        return unified;
    }
    text.lines()
        .filter_map(path)
        .max_by_key(|path| path.matches('/').count() + usize::from(path != "/"))
        .or(unified)
}

/// A line of `maps` that is executable: `START-END PERMISSIONS OFFSET DEVICE INODE PATH`.
fn mapping(line: &str) -> Option<Mapping> {
    let (addresses, rest) = line.split_once(' ')?;
    let (permissions, rest) = rest.split_once(' ')?;
    let (offset, rest) = rest.split_once(' ')?;
    let (device, rest) = rest.split_once(' ')?;
    let (inode, path) = rest.split_once(' ').unwrap_or((rest, ""));
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = addresses.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    permissions.contains('x').then_some(Mapping {
        addresses: hex(start)?..hex(end)?,
        offset: hex(offset)?,
        file: MappedFile {
            path: path.trim_start().trim_end_matches(" (deleted)").to_owned(),
            device: (hex(major)? as u32, hex(minor)? as u32),
            inode: inode.parse().ok()?,
        },
    })
}

/// The file that a process has mapped: by the process's own root, which may be a container's, and by ours where the
/// process is no more. Only if it is still the same file.
pub fn open(pid: u32, file: &MappedFile) -> Option<File> {
    if file.inode == 0 || !file.path.starts_with('/') {
        return None;
    }
    let places = [format!("/proc/{pid}/root{}", file.path), file.path.clone()];
    places.iter().find_map(|place| {
        let opened = open_without_waiting(place).ok()?;
        // The device is not compared: overlay file systems show another one in mappings than on their files.
        let metadata = opened.metadata().ok()?;
        (metadata.is_file() && metadata.ino() == file.inode).then_some(opened)
    })
}

/// What a process writes of the code that it generates: `/tmp/perf-PID.map`, in its own file system and by the
/// number that it knows itself by. Taken only from a file that belongs to the process's user, as `perf` does.
pub fn generated_symbols(pid: u32) -> Option<Vec<u8>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let own: u32 = numbers.split_ascii_whitespace().next_back()?.parse().ok()?;
    let file = open_without_waiting(&format!("/proc/{pid}/root/tmp/perf-{own}.map")).ok()?;
    let (metadata, user) = (file.metadata().ok()?, fs::metadata(format!("/proc/{pid}")).ok()?.uid());
    if !metadata.is_file() || metadata.uid() != user {
        return None;
    }
    let mut text = Vec::new();
    file.take(MAX_GENERATED).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Opens a file of somebody else's. It could be a pipe that nobody writes to: that must not hold anybody up.
fn open_without_waiting(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_the_executable_ones() {
        let line =
            "7f1c2a400000-7f1c2a595000 r-xp 00028000 fe:01 131467   /usr/lib/x86 64/libc.so.6 (deleted)";
        let file = MappedFile { path: "/usr/lib/x86 64/libc.so.6".into(), device: (0xfe, 1), inode: 131_467 };
        assert_eq!(
            mapping(line),
            Some(Mapping { addresses: 0x7f1c_2a40_0000..0x7f1c_2a59_5000, offset: 0x28000, file })
        );
        assert_eq!(mapping("7f1c2a400000-7f1c2a595000 r--p 00028000 fe:01 131467 /usr/lib/libc.so.6"), None);
        let anonymous = mapping("7f1c2a400000-7f1c2a595000 rwxp 00000000 00:00 0 ").unwrap();
        assert_eq!((anonymous.file.path.as_str(), anonymous.file.inode), ("", 0));
        assert_eq!(mapping("nonsense"), None);
    }

    #[test]
    fn containers_are_told_by_either_hierarchy() {
        assert_eq!(
            group("0::/system.slice/docker-ab.scope\n").as_deref(),
            Some("/system.slice/docker-ab.scope")
        );
        let hybrid = "3:cpuset:/\n2:memory:/docker/ab\n0::/\n";
        assert_eq!(group(hybrid).as_deref(), Some("/docker/ab"));
        assert_eq!(group("0::/\n").as_deref(), Some("/"));
        assert_eq!(group(""), None);
    }

    #[test]
    fn this_process_shows_its_own_program() {
        let state = state(std::process::id()).unwrap();
        let program = std::env::current_exe().unwrap();
        let own =
            state.mappings.iter().find(|mapping| mapping.file.path == program.to_str().unwrap()).unwrap();
        assert!(open(std::process::id(), &own.file).is_some());
        let other = MappedFile { inode: own.file.inode + 1, ..own.file.clone() };
        assert!(open(std::process::id(), &other).is_none(), "another file of that name is not it");
    }
}
