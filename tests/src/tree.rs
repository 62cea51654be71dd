//! A file tree in memory, from which an initramfs or a disk is made.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::cpio::Archive;

/// A file tree: what is put in later replaces what was there under the same path.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Clone)]
enum Node {
    Folder,
    File { permissions: u32, content: Vec<u8> },
    Link { target: String },
    CharacterDevice { major: u32, minor: u32 },
}

impl Tree {
    /// Puts in a folder.
    pub(crate) fn folder(&mut self, path: &str) {
        self.put(path, Node::Folder);
    }

    /// Puts in a file.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: impl Into<Vec<u8>>) {
        self.put(path, Node::File { permissions, content: content.into() });
    }

    /// Puts in a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.put(path, Node::Link { target: target.to_owned() });
    }

    /// Puts in a character device; only an initramfs keeps it.
    pub(crate) fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.put(path, Node::CharacterDevice { major, minor });
    }

    /// Puts a whole tree below `path`, leaving out devices.
    pub(crate) fn graft(&mut self, path: &str, other: &Tree) {
        for (name, node) in &other.nodes {
            if !matches!(node, Node::CharacterDevice { .. }) {
                self.put(&format!("{path}{name}"), node.clone());
            }
        }
    }

    /// Writes the tree as a cpio archive.
    pub(crate) fn write_cpio(&self, out: impl Write) -> io::Result<()> {
        let mut archive = Archive::new(out);
        for (path, node) in &self.nodes {
            match node {
                Node::Folder => archive.folder(path)?,
                Node::File { permissions, content } => archive.file(path, *permissions, content)?,
                Node::Link { target } => archive.link(path, target)?,
                Node::CharacterDevice { major, minor } => archive.character_device(path, *major, *minor)?,
            }
        }
        archive.finish().map(drop)
    }

    /// The tree as a cpio archive.
    pub(crate) fn to_cpio(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        self.write_cpio(&mut archive).expect("a Vec takes all that is written");
        archive
    }

    /// Writes the tree into a folder, leaving out devices, which only root may make.
    pub(crate) fn write_folder(&self, folder: &Path) -> io::Result<()> {
        for (path, node) in &self.nodes {
            let path = folder.join(path.trim_start_matches('/'));
            if let Some(above) = path.parent() {
                fs::create_dir_all(above)?;
            }
            match node {
                Node::Folder => fs::create_dir_all(&path)?,
                Node::File { permissions, content } => {
                    fs::write(&path, content)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(*permissions))?;
                }
                Node::Link { target } => symlink(target, &path)?,
                Node::CharacterDevice { .. } => {}
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &str, node: Node) {
        debug_assert!(path.starts_with('/'), "{path} is not absolute");
        self.nodes.insert(path.trim_end_matches('/').to_owned(), node);
    }
}
