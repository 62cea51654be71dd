//! Livepatches, through XEN_SYSCTL_LIVEPATCH_OP (public/sysctl.h).

use std::{
    io, thread,
    time::{Duration, Instant},
};

use super::{
    hypercalls::{Hypercalls, SYSCTL_LIVEPATCH_OP, SYSCTL_UNION},
    privcmd::Buffer,
};
use crate::ShimError;

const UPLOAD: u32 = 0;
const GET: u32 = 1;
const LIST: u32 = 2;
const ACTION: u32 = 3;

const ACTION_UNLOAD: u32 = 1;
const ACTION_REVERT: u32 = 2;
const ACTION_APPLY: u32 = 3;

/// The payload was built for the hypervisor itself, whatever has been applied on top of it.
const APPLY_WITHOUT_DEPENDENCIES: u32 = 1 << 0;

/// Where the operation's own arguments begin, behind its number.
const ARGUMENTS: usize = SYSCTL_UNION + 8;

/// For how long Xen tries to get all CPUs together; after that it gives up, harmlessly, and we try again: a CPU may be about
/// something that takes it seconds.
const QUIESCE_NS: u32 = 100_000_000;
const TRIES: u32 = 10;

/// How long it is waited before the second try; before each further one twice as long, up to a limit.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often it is tried where Xen refuses at once to revert: somebody else's action may be going on, for a moment.
const TRIES_REFUSED: u32 = 3;

/// How many payloads are listed at once, and how much text of each.
const LISTED: usize = 16;
const TEXT: usize = 1024;

/// Where a payload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Uploaded.
    Checked,
    /// In effect.
    Applied,
}

/// A payload in Xen's list.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    pub(super) name: String,
    pub(super) state: State,
    /// What its `.modinfo` section holds now.
    pub(super) metadata: String,
}

/// All payloads, in the order in which they were uploaded.
pub(super) fn list(xen: &Hypercalls) -> Result<Vec<Payload>, ShimError> {
    whole(|from| part(xen, from)).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM) => ShimError::NoLivepatch,
        _ => ShimError::Io { what: "listing Xen's livepatches".into(), error },
    })
}

/// A piece of Xen's list.
struct Part {
    /// Changes with the list.
    version: u32,
    payloads: Vec<Payload>,
    /// How many payloads follow.
    left: u32,
}

/// Asks for pieces from some place on until the list is whole: Xen ends a piece early where it has something better to do.
fn whole(part: impl Fn(usize) -> io::Result<Part>) -> io::Result<Vec<Payload>> {
    'list: for _ in 0..TRIES {
        let (mut all, mut version) = (Vec::new(), None);
        loop {
            let part = match part(all.len()) {
                // There is nothing at that place any more.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !all.is_empty() => continue 'list,
                part => part?,
            };
            if *version.get_or_insert(part.version) != part.version {
                continue 'list;
            }
            let is_end = part.left == 0 || part.payloads.is_empty();
            all.extend(part.payloads);
            if is_end {
                return Ok(all);
            }
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

fn part(xen: &Hypercalls, from: usize) -> io::Result<Part> {
    let buffer = |bytes| xen.privcmd.buffer(bytes);
    let (states, names, name_lengths) = (buffer(LISTED * 8)?, buffer(LISTED * TEXT)?, buffer(LISTED * 4)?);
    let (texts, text_lengths) = (buffer(LISTED * TEXT)?, buffer(LISTED * 4)?);
    let mut op = xen.sysctl_buffer(SYSCTL_LIVEPATCH_OP)?;
    op.put_u32(SYSCTL_UNION, LIST);
    op.put_u32(ARGUMENTS + 4, from as u32);
    op.put_u32(ARGUMENTS + 8, LISTED as u32);
    for (i, buffer) in [&states, &names, &name_lengths, &texts, &text_lengths].into_iter().enumerate() {
        op.put_u64(ARGUMENTS + 24 + 8 * i, buffer.address());
    }
    xen.sysctl(&op)?;
    // What is listed is what got a name.
    let count = (0..LISTED).take_while(|&i| name_lengths.u32(4 * i) != 0).count();
    let (mut name_at, mut text_at) = (0, 0);
    let next = |buffer: &Buffer, at: &mut usize, length: u32| {
        let bytes = &buffer.bytes()[*at..*at + length as usize];
        *at += bytes.len();
        String::from_utf8_lossy(bytes).trim_end_matches(['\0', ' ']).to_owned()
    };
    let payloads = (0..count).map(|i| Payload {
        name: next(&names, &mut name_at, name_lengths.u32(4 * i)),
        state: if states.u32(8 * i) == 2 { State::Applied } else { State::Checked },
        metadata: next(&texts, &mut text_at, text_lengths.u32(4 * i)),
    });
    Ok(Part { version: op.u32(ARGUMENTS), payloads: payloads.collect(), left: op.u32(ARGUMENTS + 8) })
}

/// Uploads an object under a name.
pub(super) fn upload(xen: &Hypercalls, name: &str, object: &[u8]) -> Result<(), ShimError> {
    let failed = |error| refused("upload", error);
    let mut payload = xen.privcmd.buffer(object.len()).map_err(failed)?;
    payload.bytes_mut().copy_from_slice(object);
    let (mut op, _name) = operation(xen, UPLOAD, name).map_err(failed)?;
    op.put_u64(ARGUMENTS + 16, object.len() as u64);
    op.put_u64(ARGUMENTS + 24, payload.address());
    xen.sysctl(&op).map_err(failed)?;
    Ok(())
}

/// Puts an uploaded payload into effect. Returns for how long the machine can have stood still at most.
pub(super) fn apply(xen: &Hypercalls, name: &str) -> Result<Duration, ShimError> {
    act(xen, name, "apply", ACTION_APPLY, APPLY_WITHOUT_DEPENDENCIES)
}

/// Takes a payload out of effect. Returns for how long the machine can have stood still at most.
pub(super) fn revert(xen: &Hypercalls, name: &str) -> Result<Duration, ShimError> {
    act(xen, name, "revert", ACTION_REVERT, 0)
}

/// Removes a payload that is not in effect.
pub(super) fn unload(xen: &Hypercalls, name: &str) -> Result<(), ShimError> {
    match act(xen, name, "unload", ACTION_UNLOAD, 0) {
        // Who put it there has taken it out meanwhile.
        Err(ShimError::Livepatch { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map(drop),
    }
}

fn operation(xen: &Hypercalls, number: u32, name: &str) -> io::Result<(Buffer, Buffer)> {
    let mut text = xen.privcmd.buffer(name.len() + 1)?;
    text.bytes_mut()[..name.len()].copy_from_slice(name.as_bytes());
    let mut op = xen.sysctl_buffer(SYSCTL_LIVEPATCH_OP)?;
    op.put_u32(SYSCTL_UNION, number);
    op.put_u64(ARGUMENTS, text.address());
    op.put_u16(ARGUMENTS + 8, name.len() as u16 + 1);
    Ok((op, text))
}

/// Does an action to its end.
///
/// All CPUs stand still for part of it, this one among them. So the longest time between two of our own steps bounds
/// that pause from above.
fn act(
    xen: &Hypercalls,
    name: &str,
    word: &'static str,
    action: u32,
    flags: u32,
) -> Result<Duration, ShimError> {
    let failed = |error| refused(word, error);
    let mut longest = Duration::ZERO;
    for attempt in 1.. {
        let (mut op, _name) = operation(xen, ACTION, name).map_err(failed)?;
        op.put_u32(ARGUMENTS + 16, action);
        op.put_u32(ARGUMENTS + 20, QUIESCE_NS);
        op.put_u32(ARGUMENTS + 24, flags);
        let mut step = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            longest = longest.max(now - step);
            step = now;
        };
        let done = xen.sysctl(&op).map(|_| ());
        lap();
        // Only the payload that was applied last can be reverted.
        let in_the_way = action == ACTION_REVERT && is_busy(&done);
        // Unloading is over with the call, and the payload gone.
        let done = match action {
            ACTION_UNLOAD => done,
            _ => done.and_then(|()| wait(xen, name, &mut lap)),
        };
        match done {
            Ok(()) => break,
            // Not all CPUs came together in time: nothing was changed.
            Err(_) if is_busy(&done) && attempt < if in_the_way { TRIES_REFUSED } else { TRIES } => {
                thread::sleep((PAUSE * (1 << (attempt - 1))).min(LONGEST_PAUSE));
            }
            Err(error) if in_the_way => {
                let hint = " (another livepatch was applied on top of it: revert that one first; the shim stays quiet \
                    meanwhile)";
                return Err(ShimError::Livepatch { action: word, error, hint });
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(longest)
}

fn is_busy(done: &io::Result<()>) -> bool {
    let code = done.as_ref().err().and_then(io::Error::raw_os_error);
    matches!(code, Some(libc::EBUSY | libc::ETIMEDOUT))
}

/// Waits until an action is over: while it is not, its result is EAGAIN.
fn wait(xen: &Hypercalls, name: &str, lap: &mut dyn FnMut()) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (op, _name) = operation(xen, GET, name)?;
        xen.sysctl(&op)?;
        lap();
        match -(op.u32(ARGUMENTS + 20) as i32) {
            0 => return Ok(()),
            libc::EAGAIN if Instant::now() < deadline => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

fn refused(action: &'static str, error: io::Error) -> ShimError {
    let hint = match (action, error.raw_os_error()) {
        (_, Some(libc::ENOSYS | libc::EOPNOTSUPP)) => return ShimError::NoLivepatch,
        ("upload", Some(libc::EINVAL | libc::ENOENT)) => {
            " (`xl dmesg` has the loader's words; a build id that is not the running Xen's is one)"
        }
        (_, Some(libc::EBUSY | libc::ETIMEDOUT)) => {
            " (the machine is too busy to stop all CPUs in time: try again)"
        }
        _ => "",
    };
    ShimError::Livepatch { action, error, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(action: &'static str, code: i32) -> String {
        refused(action, io::Error::from_raw_os_error(code)).to_string()
    }

    #[test]
    fn a_xen_without_livepatches_is_told_apart_from_one_that_refuses_this_one() {
        for code in [libc::ENOSYS, libc::EOPNOTSUPP] {
            assert!(told("upload", code).contains("takes no livepatches"));
        }
        let refused = told("upload", libc::EINVAL);
        assert!(refused.contains("refused to upload") && refused.contains("build id"), "{refused}");
        assert!(told("revert", libc::EBUSY).contains("try again"));
        assert!(told("apply", libc::ETIMEDOUT).contains("try again"));
    }

    /// A list of so many payloads that Xen gives piece by piece, of a version for each time that it is asked.
    fn listed(payloads: &[&str], pieces: usize, versions: &[u32]) -> io::Result<Vec<String>> {
        let asked = std::cell::Cell::new(0);
        let part = |from: usize| {
            let version = versions[asked.replace(asked.get() + 1).min(versions.len() - 1)];
            let rest = payloads.get(from..).filter(|rest| !rest.is_empty() || payloads.is_empty());
            let rest = rest.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
            let payloads = rest.iter().take(pieces).map(|&name| Payload {
                name: name.into(),
                state: State::Applied,
                metadata: String::new(),
            });
            let payloads: Vec<_> = payloads.collect();
            Ok(Part { version, left: (rest.len() - payloads.len()) as u32, payloads })
        };
        whole(part).map(|all| all.into_iter().map(|payload| payload.name).collect())
    }

    #[test]
    fn a_list_that_xen_cuts_short_is_asked_for_to_its_end() {
        for pieces in 1..4 {
            assert_eq!(listed(&["a", "b", "c"], pieces, &[7]).unwrap(), ["a", "b", "c"]);
        }
        assert!(listed(&[], 1, &[7]).unwrap().is_empty());
        // Another list than the one that was begun: from the beginning again.
        assert_eq!(listed(&["a", "b"], 1, &[7, 8]).unwrap(), ["a", "b"]);
        let endless: Vec<u32> = (0..100).collect();
        assert_eq!(listed(&["a", "b"], 1, &endless).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    }
}
