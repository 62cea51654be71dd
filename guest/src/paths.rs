//! Paths of files, put together from the names of directory entries up to the root of all mounts.

use profile::GuestVirtual;

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError},
    look::{GuestAddress, Space},
};

const MAX_DEPTH: usize = 512;
/// `PATH_MAX`.
const MAX_PATH: usize = 4096;
/// `NAME_MAX`.
const MAX_NAME: u32 = 255;

/// Where directory entries and mounts have what is asked of them.
#[derive(Debug)]
pub(crate) struct PathLayout {
    name: u64,
    name_length: u64,
    parent: u64,
    inode: u64,
    hashed: u64,
    mount: u64,
    mount_parent: u64,
    mount_point: u64,
    mount_root: u64,
}

impl PathLayout {
    pub(crate) fn of(btf: &Btf) -> Result<Self, LayoutError> {
        let (dentry, mount) = (|member| btf.offset("dentry", member), |member| btf.offset("mount", member));
        let name = dentry("d_name")?;
        Ok(Self {
            name: name + btf.offset("qstr", "name")?,
            name_length: name + btf.offset("qstr", "len")?,
            parent: dentry("d_parent")?,
            inode: dentry("d_inode")?,
            hashed: dentry("d_hash.pprev")?,
            mount: mount("mnt")?,
            mount_parent: mount("mnt_parent")?,
            mount_point: mount("mnt_mountpoint")?,
            mount_root: btf.offset("vfsmount", "mnt_root")?,
        })
    }

    pub(crate) fn inode(&self, space: &Space<'_>, dentry: GuestVirtual) -> Result<GuestVirtual, GuestError> {
        space.pointer(dentry.plus(self.inode))
    }

    /// The path of what a mount (`struct vfsmount`) and a directory entry stand for.
    pub(crate) fn path(
        &self,
        space: &Space<'_>,
        mut mount: GuestVirtual,
        mut dentry: GuestVirtual,
    ) -> Result<String, GuestError> {
        let is_root = space.pointer(dentry.plus(self.parent))? == dentry;
        // Shared memory without a file, and memfd, are files of no directory: the kernel shows them as gone from its root.
        let is_unplaced = is_root && space.pointer(mount.plus(self.mount_root))? != dentry;
        if is_unplaced {
            return Ok(format!("/{} (deleted)", self.name(space, dentry)?));
        }
        // What is in no directory any more is not among the hashed entries; roots never are.
        let deleted = !is_root && space.u64(dentry.plus(self.hashed))? == 0;
        let mut names: Vec<String> = Vec::new();
        let mut length = 0;
        for _ in 0..MAX_DEPTH {
            let parent = space.pointer(dentry.plus(self.parent))?;
            if dentry == space.pointer(mount.plus(self.mount_root))? || dentry == parent {
                let mounted = mount.minus(self.mount);
                let above = space.pointer(mounted.plus(self.mount_parent))?;
                if above == mounted || above.is_null() {
                    names.reverse();
                    let suffix = if deleted { " (deleted)" } else { "" };
                    return Ok(format!("/{}{suffix}", names.join("/")));
                }
                dentry = space.pointer(mounted.plus(self.mount_point))?;
                mount = above.plus(self.mount);
                continue;
            }
            let name = self.name(space, dentry)?;
            length += name.len() + 1;
            if length > MAX_PATH {
                return Err(space.damaged("a path is too long"));
            }
            names.push(name);
            dentry = parent;
        }
        Err(space.damaged("a path is too deep"))
    }

    fn name(&self, space: &Space<'_>, dentry: GuestVirtual) -> Result<String, GuestError> {
        let length = space.u32(dentry.plus(self.name_length))?.min(MAX_NAME) as usize;
        let name = space.bytes(space.pointer(dentry.plus(self.name))?, length)?;
        Ok(String::from_utf8_lossy(&name).into_owned())
    }
}
