//! What a process has mapped, as its `/proc/PID/maps` tells it.

use std::{collections::HashMap, ops::Range};

use profile::GuestVirtual;

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError},
    kernel::Kernel,
    look::{GuestAddress, Look, Space},
    maple::{self, MapleLayout},
    paths::PathLayout,
    tasks::Task,
};

/// Real processes may not have more than 65,530 unless told so (`vm.max_map_count`).
const MAX_MAPPINGS: usize = 128 << 10;
const MAX_SPECIAL_NAME: usize = 32;
const PAGE: u64 = 4096;

const VM_READ: u64 = 1;
const VM_WRITE: u64 = 1 << 1;
const VM_EXEC: u64 = 1 << 2;
/// `VM_MAYSHARE`: what is shown as shared.
const VM_SHARED: u64 = 1 << 7;
/// `FMODE_BACKING`: bit 25, and bit 24 in later kernels; it is no constant that BTF knows.
const BACKING: u32 = 3 << 24;

/// Where the structures of address spaces and files have what is asked of them.
#[derive(Debug)]
pub(crate) struct MappingLayout {
    areas: AreasLayout,
    heap_start: u64,
    heap_end: u64,
    stack: u64,
    start: u64,
    end: u64,
    flags: u64,
    page_offset: u64,
    file: u64,
    operations: u64,
    private: u64,
    mount: u64,
    dentry: u64,
    inode: u64,
    content: u64,
    host: u64,
    inode_number: u64,
    inode_size: u64,
    backing: Option<BackingLayout>,
    paths: PathLayout,
}

#[derive(Debug)]
enum AreasLayout {
    /// Up to Linux 6.0.
    List { first: u64, next: u64 },
    /// Since 6.1.
    Tree { root: u64, layout: MapleLayout },
}

/// Of files that another file system has opened for one that is layered over it (overlayfs, since 6.8).
#[derive(Debug)]
struct BackingLayout {
    mode: u64,
    mount: u64,
    dentry: u64,
    mount_super: u64,
    dentry_super: u64,
}

impl MappingLayout {
    pub(crate) fn of(btf: &Btf) -> Result<Self, LayoutError> {
        let (mm, area) =
            (|member| btf.offset("mm_struct", member), |member| btf.offset("vm_area_struct", member));
        let areas = match mm("mm_mt.ma_root") {
            Ok(root) => AreasLayout::Tree { root, layout: MapleLayout::of(btf)? },
            Err(_) => AreasLayout::List { first: mm("mmap")?, next: area("vm_next")? },
        };
        Ok(Self {
            areas,
            heap_start: mm("start_brk")?,
            heap_end: mm("brk")?,
            stack: mm("start_stack")?,
            start: area("vm_start")?,
            end: area("vm_end")?,
            flags: area("vm_flags")?,
            page_offset: area("vm_pgoff")?,
            file: area("vm_file")?,
            operations: area("vm_ops")?,
            private: area("vm_private_data")?,
            mount: btf.offset("file", "f_path.mnt")?,
            dentry: btf.offset("file", "f_path.dentry")?,
            inode: btf.offset("file", "f_inode")?,
            content: btf.offset("file", "f_mapping")?,
            host: btf.offset("address_space", "host")?,
            inode_number: btf.offset("inode", "i_ino")?,
            inode_size: btf.offset("inode", "i_size")?,
            backing: BackingLayout::of(btf).ok(),
            paths: PathLayout::of(btf)?,
        })
    }
}

impl BackingLayout {
    fn of(btf: &Btf) -> Result<Self, LayoutError> {
        Ok(Self {
            mode: btf.offset("file", "f_mode")?,
            mount: btf.offset("backing_file", "user_path.mnt")?,
            dentry: btf.offset("backing_file", "user_path.dentry")?,
            mount_super: btf.offset("vfsmount", "mnt_sb")?,
            dentry_super: btf.offset("dentry", "d_sb")?,
        })
    }
}

/// A range of a process's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub range: Range<u64>,
    /// Whether it may be read.
    pub readable: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be executed.
    pub executable: bool,
    /// Whether what is written is shared with others.
    pub shared: bool,
    /// What is there.
    pub content: Content,
}

/// What a range of addresses holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file, or a piece of one.
    File(FilePiece),
    /// What the kernel puts into every process: `[vdso]` and the like.
    Special(String),
    /// The heap that grows with `brk`.
    Heap,
    /// The first thread's stack.
    Stack,
    /// Other memory without a name.
    Anonymous,
}

/// A file, and where in it a mapping begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePiece {
    /// Its path as processes at the guest's own root see it, with ` (deleted)` behind it where that holds: untrusted
    /// text. Empty where it could not be read: what is mapped is known all the same.
    pub path: String,
    /// The number of its inode, as `stat` shows it.
    pub inode: u64,
    /// Where in the file the mapping begins, in bytes.
    pub offset: u64,
    /// The file itself.
    pub file: FileId,
}

/// A file of the guest: what has its bytes. Two mappings of one file have the same, as long as the file is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// What the kernel calls an address space: a file's pages in memory.
    pub(crate) pages: GuestVirtual,
    /// The file's size in bytes.
    pub(crate) size: u64,
}

impl FileId {
    /// Where the guest's kernel keeps the list of the file's pages: what tells it from other files that are in use.
    pub fn pages(self) -> GuestVirtual {
        self.pages
    }

    /// The file's size in bytes.
    pub fn size(self) -> u64 {
        self.size
    }
}

impl Mapping {
    /// Where in its file the byte is that the process has at `address`.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        match &self.content {
            Content::File(piece) if self.range.contains(&address) => {
                piece.offset.checked_add(address - self.range.start)
            }
            _ => None,
        }
    }
}

impl Kernel {
    /// What a process has mapped now, by ascending addresses; nothing for a thread of the kernel.
    pub fn mappings(&self, look: &Look<'_>, task: &Task) -> Result<Vec<Mapping>, GuestError> {
        let layout = self.layout(|layouts| &layouts.mappings)?;
        if task.mm.is_null() {
            return Ok(Vec::new());
        }
        let space = self.space(look, "the mappings of a process");
        let [heap_start, heap_end, stack] =
            [layout.heap_start, layout.heap_end, layout.stack].map(|member| space.u64(task.mm.plus(member)));
        let anonymous = Anonymous { heap: heap_start?..heap_end?, stack: stack? };
        let mut files = Files { layout, space, known: HashMap::new() };
        let mut mappings = Vec::new();
        let mut before = 0;
        for area in layout.areas(&space, task.mm)? {
            space.budget().memory(size_of::<Mapping>() as u64)?;
            let range = space.u64(area.plus(layout.start))?..space.u64(area.plus(layout.end))?;
            if range.start < before || range.is_empty() {
                return Err(space.damaged("they are not in order"));
            }
            before = range.end;
            let flags = space.u64(area.plus(layout.flags))?;
            let file = space.pointer(area.plus(layout.file))?;
            let content = if !file.is_null() {
                let offset = space.u64(area.plus(layout.page_offset))?.wrapping_mul(PAGE);
                Content::File(FilePiece { offset, ..files.describe(file)? })
            } else if self.is_special(&space, layout, area)? {
                let name = space.pointer(space.pointer(area.plus(layout.private))?)?;
                Content::Special(space.text(name, MAX_SPECIAL_NAME)?)
            } else {
                anonymous.content(&range)
            };
            mappings.push(Mapping {
                range,
                readable: flags & VM_READ != 0,
                writable: flags & VM_WRITE != 0,
                executable: flags & VM_EXEC != 0,
                shared: flags & VM_SHARED != 0,
                content,
            });
        }
        Ok(mappings)
    }

    fn is_special(
        &self,
        space: &Space<'_>,
        layout: &MappingLayout,
        area: GuestVirtual,
    ) -> Result<bool, GuestError> {
        let operations = space.pointer(area.plus(layout.operations))?;
        Ok(!operations.is_null() && self.places.special_mapping == Some(operations))
    }
}

impl MappingLayout {
    /// The structures of all ranges, by ascending addresses.
    fn areas(&self, space: &Space<'_>, mm: GuestVirtual) -> Result<Vec<GuestVirtual>, GuestError> {
        match &self.areas {
            AreasLayout::Tree { root, layout } => {
                maple::entries(space, layout, space.u64(mm.plus(*root))?, MAX_MAPPINGS)
            }
            AreasLayout::List { first, next } => {
                let mut areas = Vec::new();
                let mut area = space.pointer(mm.plus(*first))?;
                while !area.is_null() {
                    // A circle ends here too, and then fails to be in order.
                    if areas.len() == MAX_MAPPINGS {
                        return Err(space.damaged("the list of them is endless"));
                    }
                    space.budget().memory(8)?;
                    areas.push(area);
                    area = space.pointer(area.plus(*next))?;
                }
                Ok(areas)
            }
        }
    }
}

/// Where memory without a file has names.
struct Anonymous {
    heap: Range<u64>,
    stack: u64,
}

impl Anonymous {
    fn content(&self, range: &Range<u64>) -> Content {
        let touches_heap = range.start <= self.heap.end && range.end >= self.heap.start;
        if !self.heap.is_empty() && touches_heap {
            Content::Heap
        } else if range.start <= self.stack && range.end >= self.stack {
            Content::Stack
        } else {
            Content::Anonymous
        }
    }
}

/// Describes files, each once.
struct Files<'a> {
    layout: &'a MappingLayout,
    space: Space<'a>,
    known: HashMap<GuestVirtual, FilePiece>,
}

impl Files<'_> {
    fn describe(&mut self, file: GuestVirtual) -> Result<FilePiece, GuestError> {
        if let Some(known) = self.known.get(&file) {
            return Ok(known.clone());
        }
        let (layout, space) = (self.layout, self.space);
        let pages = space.pointer(file.plus(layout.content))?;
        let size = space.u64(space.pointer(pages.plus(layout.host))?.plus(layout.inode_size))?;
        let mut inode = space.pointer(file.plus(layout.inode))?;
        let (mut mount, mut dentry) =
            (space.pointer(file.plus(layout.mount))?, space.pointer(file.plus(layout.dentry))?);
        if let Some(user) = self.backed(file)? {
            (mount, dentry, inode) = user;
        }
        let path = match layout.paths.path(&space, mount, dentry) {
            Err(GuestError::Exhausted(exhausted)) => return Err(exhausted.into()),
            path => path.unwrap_or_default(),
        };
        let described = FilePiece {
            path,
            inode: space.u64(inode.plus(layout.inode_number))?,
            offset: 0,
            file: FileId { pages, size },
        };
        self.known.insert(file, described.clone());
        Ok(described)
    }

    /// Mount, dentry and inode under which the user opened a file, where it stands for a layered one.
    ///
    /// The flag that says so has moved between kernels, so that what it leads to must look like it: both on one file
    /// system.
    fn backed(
        &self,
        file: GuestVirtual,
    ) -> Result<Option<(GuestVirtual, GuestVirtual, GuestVirtual)>, GuestError> {
        let Self { layout, space, .. } = self;
        let Some(backing) = &layout.backing else { return Ok(None) };
        if space.u32(file.plus(backing.mode))? & BACKING == 0 {
            return Ok(None);
        }
        let read = || {
            let mount = space.pointer(file.plus(backing.mount))?;
            let dentry = space.pointer(file.plus(backing.dentry))?;
            let mount_super = space.pointer(mount.plus(backing.mount_super))?;
            let dentry_super = space.pointer(dentry.plus(backing.dentry_super))?;
            let inode = layout.paths.inode(space, dentry)?;
            let same = !mount_super.is_null() && mount_super == dentry_super && !inode.is_null();
            Ok(same.then_some((mount, dentry, inode)))
        };
        match read() {
            Err(GuestError::Exhausted(exhausted)) => Err(exhausted.into()),
            // A file that is not backed has something else there.
            Err(_) => Ok(None),
            found => found,
        }
    }
}
