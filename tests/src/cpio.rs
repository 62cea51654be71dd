//! Writes "newc" cpio archives, the form in which Linux takes its initramfs.
//!
//! The kernel unpacks one archive after the other from the same initrd, so that a large image made
//! once and a small one made for a scenario need only be written behind each other.

use std::collections::BTreeSet;
use std::io::{self, Write};

/// File type bits of a mode (`man 7 inode`).
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive being written; [`Archive::finish`] completes it.
pub(crate) struct Archive<W> {
    out: W,
    inode: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Starts an archive in `out`.
    pub(crate) fn new(out: W) -> Self {
        Archive { out, inode: 0, folders: BTreeSet::new() }
    }

    /// Adds a folder and those above it; one that is there already is left as it is.
    pub(crate) fn folder(&mut self, path: &str) -> io::Result<()> {
        let path = relative(path);
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for end in ends {
            let folder = &path[..end];
            if !folder.is_empty() && self.folders.insert(folder.to_owned()) {
                self.entry(folder, FOLDER | 0o755, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file with its permissions, and the folders above it.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.folders_above(path)?;
        self.entry(relative(path), REGULAR | (permissions & 0o7777), (0, 0), content)
    }

    /// Adds a symbolic link to `target`, and the folders above it.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.folders_above(path)?;
        self.entry(relative(path), LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device, which the kernel makes for an init that has no `/dev` yet.
    pub(crate) fn character_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.folders_above(path)?;
        self.entry(relative(path), CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// Writes the trailer and hands back what was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn folders_above(&mut self, path: &str) -> io::Result<()> {
        match relative(path).rsplit_once('/') {
            Some((above, _)) => self.folder(above),
            None => Ok(()),
        }
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: over 4 GiB in an initramfs"))
        })?;
        self.inode += 1;
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        let (inode, name_size) = (self.inode, name.len() as u32 + 1);
        // magic, inode, mode, uid, gid, links, time, size, device, device of a device node, name's size, checksum
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(b"\0")?;
        // Header and name, and then the content, each end on a multiple of four.
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }
}

/// Names in an archive have no leading slash.
fn relative(path: &str) -> &str {
    path.trim_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back by the format's description, without the writer's own code.
    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&archive[at..at + 6], b"070701");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                let text = std::str::from_utf8(&archive[start..start + 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(archive[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
            let content = (at + 110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(archive.len() % 4, 0);
                return found;
            }
            found.push((name, mode, archive[content..content + size].to_vec()));
            at = (content + size).next_multiple_of(4);
        }
    }

    #[test]
    fn files_links_and_the_folders_above_them() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/usr/bin/tool", 0o755, b"12345").unwrap();
        archive.file("/usr/bin/other", 0o644, b"").unwrap();
        archive.link("/bin", "usr/bin").unwrap();
        archive.character_device("/dev/console", 5, 1).unwrap();
        let entries = entries(&archive.finish().unwrap());
        let names: Vec<&str> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["usr", "usr/bin", "usr/bin/tool", "usr/bin/other", "bin", "dev", "dev/console"]);
        assert_eq!(entries[0].1, 0o040_755);
        assert_eq!(entries[2].1, 0o100_755);
        assert_eq!(entries[2].2, b"12345");
        assert_eq!((entries[4].1, entries[4].2.as_slice()), (0o120_777, b"usr/bin".as_slice()));
        assert_eq!(entries[6].1, 0o020_600);
    }
}
