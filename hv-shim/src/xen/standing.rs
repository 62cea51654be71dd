//! A shim that is already in place: whose it is, whether it still samples, and how it is silenced or taken out.

use std::{
    fmt, fs, process, thread,
    time::{Duration, Instant, SystemTime},
};

use abi::{
    Ordering,
    control::{COMMAND_QUIET, METADATA_CONTROL, METADATA_REFUSED, METADATA_REVERTED},
};

use super::{
    hypercalls::Hypercalls,
    livepatch::{self, Payload, State},
    rings::Shared,
};
use crate::{ShimError, Stopped};

/// The payload's name among Xen's livepatches.
pub(super) const NAME: &str = "xenoscope";

/// The shim among Xen's livepatches.
pub(super) fn find(xen: &Hypercalls) -> Result<Option<Payload>, ShimError> {
    Ok(livepatch::list(xen)?.into_iter().find(|payload| payload.name == NAME))
}

/// What can be seen of a shim that is in effect.
pub(super) struct Standing {
    shared: Shared,
    owner: Owner,
}

struct Owner {
    pid: u64,
    since: SystemTime,
    /// Whether that process lives and is a program of ours; process ids are handed out again.
    lives: bool,
}

impl Standing {
    /// Looks at a shim that is in effect. Fails where it is of another version.
    pub(super) fn look(xen: &Hypercalls, payload: &Payload) -> Result<Self, ShimError> {
        let shared = Shared::map(&xen.privcmd, &payload.metadata)?;
        let lease = shared.lease();
        let pid = lease.owner_pid.load(Ordering::Relaxed);
        let since = Duration::from_secs(lease.owner_since.load(Ordering::Relaxed));
        let owner = Owner { pid, since: SystemTime::UNIX_EPOCH + since, lives: is_collector(pid) };
        Ok(Self { shared, owner })
    }

    /// Whether a collector uses it.
    pub(super) fn is_in_use(&self) -> bool {
        self.owner.lives
    }

    /// Fails where a collector uses it.
    fn unused(&self) -> Result<(), ShimError> {
        let Owner { pid, since, lives } = self.owner;
        if lives { Err(ShimError::InUse { pid: pid as u32, since }) } else { Ok(()) }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, rings) = (self.owner.pid, &self.shared.rings);
        match self.owner.lives {
            true => write!(f, "used by process {pid}")?,
            false => write!(f, "left behind by process {pid}")?,
        }
        let taken: u64 = rings.iter().map(|ring| ring.header().counts.0.taken()).sum();
        let is_quiet = |since: u64| since != 0;
        let quiet = rings
            .iter()
            .filter(|ring| is_quiet(ring.header().counts.0.quiet_since.load(Ordering::Relaxed)))
            .count();
        write!(f, "; {taken} samples taken, quiet on {quiet} of {} CPUs", rings.len())
    }
}

/// Removes a shim that nobody uses any more; tells what was found. Fails where a collector uses it.
pub(super) fn remove_left_over(xen: &Hypercalls) -> Result<Option<(Stopped, String)>, ShimError> {
    let Some(payload) = find(xen)? else { return Ok(None) };
    let mut about = "not in effect".to_owned();
    let mut pause = None;
    if payload.state == State::Applied {
        // Pages of another version can't be asked: such a shim is removed like one whose owner died.
        about = "of another version".to_owned();
        if let Ok(standing) = Standing::look(xen, &payload) {
            standing.unused()?;
            about = standing.to_string();
        }
        // Here all its pages are unmapped, so that the hypervisor gets them back.
        pause = Some(revert(xen)?);
    }
    livepatch::unload(xen, NAME)?;
    Ok(Some((Stopped { pause }, about)))
}

/// The same, before a session; what there is to say of it.
pub(super) fn removed_first(xen: &Hypercalls) -> Result<Option<String>, ShimError> {
    let removed = remove_left_over(xen)?;
    Ok(removed.map(|(_, about)| {
        format!("a shim that an earlier collector had left behind was removed first ({about})")
    }))
}

/// For how long the shim's own hooks are waited for.
const HOOKS: Duration = Duration::from_secs(3);

/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Puts an uploaded shim into effect. Returns it as it is then, and for how long the machine can have stood still.
pub(super) fn apply(xen: &Hypercalls) -> Result<(Payload, Duration), ShimError> {
    let pause = livepatch::apply(xen, NAME)?;
    let told = |metadata: &str| [METADATA_CONTROL, METADATA_REFUSED].iter().any(|key| metadata.contains(key));
    Ok((await_hook(xen, told)?, pause))
}

/// Takes the shim out of effect, so that it may be unloaded. Returns for how long the machine can have stood still.
pub(super) fn revert(xen: &Hypercalls) -> Result<Duration, ShimError> {
    let pause = livepatch::revert(xen, NAME)?;
    // A shim of another version may never say so: for that one, the time has to do.
    let _ = await_hook(xen, |metadata| metadata.starts_with(METADATA_REVERTED));
    Ok(pause)
}

/// Xen tells that an action is over, and then runs the hooks that follow it: on another CPU than this, where they may
/// not even have begun. Waits until the shim's metadata says what only its hook writes.
fn await_hook(xen: &Hypercalls, done: impl Fn(&str) -> bool) -> Result<Payload, ShimError> {
    let deadline = Instant::now() + HOOKS;
    let mut before = String::new();
    loop {
        let missing = || ShimError::Contract { what: "it is not in Xen's list".into() };
        let payload = find(xen)?.ok_or_else(missing)?;
        // Twice the same: it is not being written any more, and the hook has returned.
        if done(&payload.metadata) && payload.metadata == before {
            return Ok(payload);
        }
        if Instant::now() > deadline {
            let what = format!("its metadata reads {:?}", payload.metadata);
            return Err(ShimError::Contract { what });
        }
        before = payload.metadata;
        thread::sleep(LOOK_EVERY);
    }
}

/// Has a shim take no samples any more, whoever uses it; tells what was found.
pub(super) fn silence(xen: &Hypercalls) -> Result<Option<String>, ShimError> {
    let Some(payload) = find(xen)?.filter(|payload| payload.state == State::Applied) else {
        return Ok(None);
    };
    let standing = Standing::look(xen, &payload)?;
    standing.shared.lease().command.store(COMMAND_QUIET, Ordering::SeqCst);
    Ok(Some(standing.to_string()))
}

fn is_collector(pid: u64) -> bool {
    let program = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    pid != u64::from(process::id())
        && program(&pid.to_string()).is_some_and(|name| Some(name) == program("self"))
}
