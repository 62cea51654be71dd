//! The kernel's door to the hypervisor: `/dev/xen/privcmd`, by hand.
//!
//! Every version of Xen has its own libxenctrl, and none of them is needed for what this project does: a hypercall
//! is one ioctl, a foreign mapping another.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU32, AtomicU64},
};

use abi::PAGE_SIZE;

use crate::ShimError;

/// `IOCTL_PRIVCMD_HYPERCALL` (xen/privcmd.h): `_IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))`.
const IOCTL_HYPERCALL: libc::c_ulong = request(0, size_of::<Hypercall>());

/// `IOCTL_PRIVCMD_MMAPBATCH_V2`.
const IOCTL_MMAPBATCH_V2: libc::c_ulong = request(4, size_of::<MmapBatch>());

const fn request(number: u64, size: usize) -> libc::c_ulong {
    (size as u64) << 16 | (b'P' as u64) << 8 | number
}

/// `struct privcmd_hypercall`.
#[repr(C)]
struct Hypercall {
    op: u64,
    arguments: [u64; 5],
}

/// `struct privcmd_mmapbatch_v2`.
#[repr(C)]
struct MmapBatch {
    count: u32,
    domain: u16,
    address: u64,
    frames: *const u64,
    errors: *mut i32,
}

/// The open device.
pub(super) struct Privcmd {
    device: File,
    /// Memory for hypercall arguments that is never moved or paged; older kernels lack it.
    hypercall: Option<File>,
}

impl Privcmd {
    pub(super) fn open() -> Result<Self, ShimError> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        match open("/dev/xen/privcmd") {
            Ok(device) => Ok(Self { device, hypercall: open("/dev/xen/hypercall").ok() }),
            Err(error) => match error.kind() {
                io::ErrorKind::PermissionDenied => Err(ShimError::NotPrivileged),
                io::ErrorKind::NotFound => Err(ShimError::NoPrivcmd),
                _ => Err(ShimError::Io { what: "opening /dev/xen/privcmd".into(), error }),
            },
        }
    }

    /// Makes a hypercall. What it needs beyond its arguments must lie in [`Buffer`]s, whose addresses are among them.
    pub(super) fn hypercall(&self, op: u64, arguments: &[u64]) -> io::Result<u64> {
        let mut call = Hypercall { op, arguments: [0; 5] };
        call.arguments[..arguments.len()].copy_from_slice(arguments);
        // SAFETY: the ioctl reads one struct privcmd_hypercall. Which memory the hypervisor touches for it is the
        // callers' contract: sizes and addresses of live buffers only.
        let value = unsafe { libc::ioctl(self.device.as_raw_fd(), IOCTL_HYPERCALL, &raw mut call) };
        if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value as u64) }
    }

    /// Zeroed memory that a hypercall may use.
    pub(super) fn buffer(&self, bytes: usize) -> io::Result<Buffer> {
        let flags = match &self.hypercall {
            Some(_) => libc::MAP_SHARED,
            None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_LOCKED | libc::MAP_POPULATE,
        };
        let fd = self.hypercall.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let memory = Memory::map(bytes.max(1), libc::PROT_READ | libc::PROT_WRITE, flags, fd)?;
        Ok(Buffer { memory, bytes })
    }

    /// Maps frames of a domain, one behind the other.
    pub(super) fn map(&self, domain: u16, frames: &[u64], access: Access) -> io::Result<Mapping> {
        let protection = match access {
            Access::ReadOnly => libc::PROT_READ,
            Access::Writable => libc::PROT_READ | libc::PROT_WRITE,
        };
        let memory =
            Memory::map(frames.len() * PAGE_SIZE, protection, libc::MAP_SHARED, self.device.as_raw_fd())?;
        let mut errors = vec![0; frames.len()];
        let mut batch = MmapBatch {
            count: frames.len() as u32,
            domain,
            address: memory.address.as_ptr() as u64,
            frames: frames.as_ptr(),
            errors: errors.as_mut_ptr(),
        };
        // SAFETY: the ioctl reads the struct and `count` frames, writes `count` errors, and maps into memory that was
        // just reserved from this device for nothing else.
        let value = unsafe { libc::ioctl(self.device.as_raw_fd(), IOCTL_MMAPBATCH_V2, &raw mut batch) };
        if value != 0 {
            return Err(io::Error::last_os_error());
        }
        match errors.iter().find(|&&error| error != 0) {
            Some(&error) => Err(io::Error::from_raw_os_error(-error)),
            None => Ok(Mapping(memory)),
        }
    }
}

/// What is done with a foreign mapping.
#[derive(Clone, Copy)]
pub(super) enum Access {
    ReadOnly,
    Writable,
}

/// A memory mapping that goes when it is dropped.
struct Memory {
    address: NonNull<u8>,
    bytes: usize,
}

impl Memory {
    fn map(bytes: usize, protection: i32, flags: i32, fd: i32) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(PAGE_SIZE);
        // SAFETY: a new mapping wherever the kernel likes; it aliases nothing of ours.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).expect("the kernel maps nothing at address 0 unasked");
        Ok(Self { address, bytes })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size; whoever borrowed from it borrowed from `self`.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}

/// Arguments of a hypercall: bytes that the hypervisor reads and writes while it runs, and only then.
pub(super) struct Buffer {
    memory: Memory,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and who has the buffer has it for himself.
unsafe impl Send for Buffer {}

impl Buffer {
    /// What a hypercall is told.
    pub(super) fn address(&self) -> u64 {
        self.memory.address.as_ptr() as u64
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped, initialized by the kernel, and written by the hypervisor only during a hypercall, for which
        // no borrow can be alive: `hypercall` returns before this is called again.
        unsafe { slice::from_raw_parts(self.memory.address.as_ptr(), self.bytes) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.memory.address.as_ptr(), self.bytes) }
    }

    pub(super) fn put_u16(&mut self, offset: usize, value: u16) {
        self.bytes_mut()[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn put_u32(&mut self, offset: usize, value: u32) {
        self.bytes_mut()[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn put_u64(&mut self, offset: usize, value: u64) {
        self.bytes_mut()[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes()[offset..offset + 4].try_into().expect("four bytes"))
    }

    pub(super) fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes()[offset..offset + 8].try_into().expect("eight bytes"))
    }
}

/// Pages of another domain, which writes them when it likes: words are all that can be had of them.
pub(super) struct Mapping(Memory);

// SAFETY: a mapping belongs to the process, not to a thread, and is reached through atomics only.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped for as long as `self`, aligned to pages; shared with another writer, hence atomics.
        unsafe { slice::from_raw_parts(self.0.address.as_ptr().cast(), self.0.bytes / 8) }
    }

    /// The same in halves, for structures that are made of such: who uses these must never use [`Self::words`].
    pub(super) fn halves(&self) -> &[AtomicU32] {
        // SAFETY: as for `words`.
        unsafe { slice::from_raw_parts(self.0.address.as_ptr().cast(), self.0.bytes / 4) }
    }

    /// The page as one of the contract's structures.
    pub(super) fn page<T: SharedPage>(&self) -> &T {
        const { assert!(size_of::<T>() <= PAGE_SIZE) };
        // SAFETY: at least one page is mapped, aligned to its size, and `SharedPage` promises atomics only.
        unsafe { self.0.address.cast().as_ref() }
    }
}

/// A structure made of atomic words alone.
///
/// # Safety
/// Every field must be an `AtomicU64`, or an array or structure of such.
pub(super) unsafe trait SharedPage {}

// SAFETY: atomics only.
unsafe impl SharedPage for abi::control::ControlPage {}
// SAFETY: atomics only.
unsafe impl SharedPage for abi::control::LeasePage {}
// SAFETY: atomics only.
unsafe impl SharedPage for abi::ring::RingHeader {}
// SAFETY: atomics only.
unsafe impl SharedPage for abi::ring::ConsumerPage {}
