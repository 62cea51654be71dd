//! The system call bpf(2) (include/uapi/linux/bpf.h of Linux): the commands that are needed, each with its part of `union
//! bpf_attr`.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const MAP_FREEZE: libc::c_int = 22;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_DELETE_BATCH: libc::c_int = 27;
const ENABLE_STATS: libc::c_int = 32;

/// `BPF_F_RDONLY_PROG`: programs only read it.
const READ_ONLY: u32 = 1 << 7;

/// What kind of map.
#[derive(Clone, Copy)]
pub(super) enum MapKind {
    Array,
    PerfEvents,
    Hash {
        key_bytes: u32,
    },
    /// A hash that forgets what was not used for longest where it has no room.
    Recent,
}

#[repr(C)]
struct CreateMap {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Batch {
    after: u64,
    last: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
struct OpenRawTracepoint {
    name: u64,
    program: u32,
    _pad: u32,
}

#[repr(C)]
struct LoadProgram {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
}

#[repr(C)]
struct TestRun {
    program: u32,
    result: u32,
    data_bytes: [u32; 2],
    data: [u64; 2],
    repeat: u32,
    duration: u32,
    context_bytes_in: u32,
    context_bytes_out: u32,
    context_in: u64,
    context_out: u64,
}

#[repr(C)]
struct Information {
    object: u32,
    bytes: u32,
    information: u64,
}

/// # Safety
/// `attributes` is the part of `union bpf_attr` that the command reads, and all that it points to is valid for what the
/// command does with it.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the size tells how much there is; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
/// As for [`bpf`], and the command makes a descriptor.
unsafe fn bpf_descriptor<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let descriptor = unsafe { bpf(command, attributes)? };
    // SAFETY: the command just made it (close-on-exec), and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as libc::c_int) })
}

/// Makes a map; its keys have four bytes unless its kind says otherwise.
pub(super) fn create_map(kind: MapKind, value_bytes: u32, entries: u32) -> io::Result<OwnedFd> {
    create(kind, value_bytes, entries, 0)
}

fn create(kind: MapKind, value_bytes: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    let (kind, key_bytes) = match kind {
        MapKind::Hash { key_bytes } => (1, key_bytes),
        MapKind::Array => (2, 4),
        MapKind::PerfEvents => (4, 4),
        MapKind::Recent => (9, 4),
    };
    // SAFETY: the command reads these attributes and nothing else.
    unsafe { bpf_descriptor(MAP_CREATE, &mut CreateMap { kind, key_bytes, value_bytes, entries, flags }) }
}

/// A map of one value that nobody can change any more: what a program reads there is a constant to its verifier.
pub(super) fn constants(words: &[u32]) -> io::Result<OwnedFd> {
    let map = create(MapKind::Array, size_of_val(words) as u32, 1, READ_ONLY)?;
    let key = 0_u32;
    update(map.as_fd(), key, words.as_ptr().addr() as u64)?;
    // SAFETY: the command reads the descriptor alone.
    unsafe { bpf(MAP_FREEZE, &mut map.as_raw_fd())? };
    Ok(map)
}

/// Puts a perf event into a map of such.
pub(super) fn set_event(map: BorrowedFd<'_>, index: u32, event: BorrowedFd<'_>) -> io::Result<()> {
    let value = event.as_raw_fd();
    update(map, index, (&raw const value).addr() as u64)
}

/// Writes the one value of a map, which is a word.
pub(super) fn set_word(map: BorrowedFd<'_>, word: u64) -> io::Result<()> {
    update(map, 0, (&raw const word).addr() as u64)
}

/// `value` is the address of as many bytes as the map's values have, and outlives the call.
fn update(map: BorrowedFd<'_>, key: u32, value: u64) -> io::Result<()> {
    let key = (&raw const key).addr() as u64;
    let mut element = Element { map: map.as_raw_fd() as u32, _pad: 0, key, value, flags: 0 };
    // SAFETY: key and value are of the sizes that the map was made with, by this function's callers above.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut element)? };
    Ok(())
}

/// Copies the first value of a map, which are all as large as `value`.
pub(super) fn look_up(map: BorrowedFd<'_>, value: &mut [u8]) -> io::Result<()> {
    let key = 0_u32;
    let mut element = Element {
        map: map.as_raw_fd() as u32,
        _pad: 0,
        key: (&raw const key).addr() as u64,
        value: value.as_mut_ptr().addr() as u64,
        flags: 0,
    };
    // SAFETY: the kernel writes a value; the caller says that `value` has room for it.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut element)? };
    Ok(())
}

/// Copies up to so many elements of a hash as there is room for in `keys`, those behind `after`; returns how many there are
/// and behind which one to go on, if there are more.
pub(super) fn look_up_batch(
    map: BorrowedFd<'_>,
    after: Option<u32>,
    [key_bytes, value_bytes]: [usize; 2],
    keys: &mut [u8],
    values: &mut [u8],
) -> io::Result<(usize, Option<u32>)> {
    let mut last = 0_u32;
    let room = (keys.len() / key_bytes).min(values.len() / value_bytes);
    let mut batch = Batch {
        after: after.as_ref().map_or(0, |after| (&raw const *after).addr() as u64),
        last: (&raw mut last).addr() as u64,
        keys: keys.as_mut_ptr().addr() as u64,
        values: values.as_mut_ptr().addr() as u64,
        count: room as u32,
        map: map.as_raw_fd() as u32,
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel writes at most `count` keys and values, of the sizes that the map was made with, which the caller
    // tells, and a word.
    match unsafe { bpf(MAP_LOOKUP_BATCH, &mut batch) } {
        Ok(_) => Ok((batch.count as usize, Some(last))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((batch.count as usize, None)),
        Err(error) => Err(error),
    }
}

/// Deletes `count` elements of a hash, whose keys lie one behind the other.
pub(super) fn delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: usize) -> io::Result<()> {
    let mut batch = Batch {
        after: 0,
        last: 0,
        keys: keys.as_ptr().addr() as u64,
        values: 0,
        count: count as u32,
        map: map.as_raw_fd() as u32,
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `count` keys, which the caller says are there.
    unsafe { bpf(MAP_DELETE_BATCH, &mut batch)? };
    Ok(())
}

/// Has a program run whenever the kernel passes a tracepoint, until the descriptor is closed.
pub(super) fn open_raw_tracepoint(name: &CStr, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attributes =
        OpenRawTracepoint { name: name.as_ptr().addr() as u64, program: program.as_raw_fd() as u32, _pad: 0 };
    // SAFETY: the kernel reads the name up to its end.
    unsafe { bpf_descriptor(RAW_TRACEPOINT_OPEN, &mut attributes) }
}

/// Loads a program. What the verifier says goes into `log`.
pub(super) fn load(kind: u32, code: &[u8], log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attributes = LoadProgram {
        kind,
        instructions: (code.len() / 8) as u32,
        code: code.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_bytes: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr().addr() as u64 },
    };
    // SAFETY: code and licence are read, the log is written, each within its length.
    unsafe { bpf_descriptor(PROG_LOAD, &mut attributes) }
}

/// Runs a program once, here and now, with these arguments.
pub(super) fn run(program: BorrowedFd<'_>, arguments: &[u64]) -> io::Result<()> {
    let mut attributes = TestRun {
        program: program.as_raw_fd() as u32,
        result: 0,
        data_bytes: [0; 2],
        data: [0; 2],
        repeat: 0,
        duration: 0,
        context_bytes_in: size_of_val(arguments) as u32,
        context_bytes_out: 0,
        context_in: arguments.as_ptr().addr() as u64,
        context_out: 0,
    };
    // SAFETY: the arguments are read, within their length.
    unsafe { bpf(PROG_TEST_RUN, &mut attributes)? };
    Ok(())
}

/// Has the kernel count how often programs run and for how long, until the descriptor is closed.
pub(super) fn count_runs() -> io::Result<OwnedFd> {
    const RUN_TIME: u32 = 0;
    // SAFETY: the command reads one word, and makes a descriptor.
    unsafe { bpf_descriptor(ENABLE_STATS, &mut { RUN_TIME }) }
}

/// How often a program has run, and for how many nanoseconds in all.
pub(super) fn runs(program: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    /// Where `struct bpf_prog_info` has `run_time_ns`, in words; `run_cnt` follows.
    const RUN_TIME_NS: usize = 24;
    let mut information = [0_u64; RUN_TIME_NS + 2];
    let mut attributes = Information {
        object: program.as_raw_fd() as u32,
        bytes: size_of_val(&information) as u32,
        information: information.as_mut_ptr().addr() as u64,
    };
    // SAFETY: the kernel writes no more than it was told that there is room for.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes)? };
    Ok((information[RUN_TIME_NS + 1], information[RUN_TIME_NS]))
}
