//! By what this Xen is sampled: the shim where it can be loaded, else what serves without it.

use std::sync::Arc;

use super::{backends::Backends, hypercalls::Hypercalls, poll, processor::Processor, session, xenoprof};
use crate::{HypervisorSymbol, OwnKernel, Request, SampleBy, Sampling, ShimError};

/// Begins to sample, with notes on what was cleaned up and why no better way was taken.
pub(super) fn begin(
    xen: &Arc<Hypercalls>,
    symbols: &[HypervisorSymbol],
    own_kernel: OwnKernel,
    request: &Request,
) -> Result<Box<dyn Sampling>, ShimError> {
    let processor = Processor::of(&xen.cpuid().map_err(ShimError::io("asking Xen what processor this is"))?);
    let mut notes = Vec::new();
    if xenoprof::remove_left_over(xen)? {
        notes.push(
            "a session of xenoprof that an earlier collector had left behind was ended first".to_owned(),
        );
    }
    let start = |by, notes: Vec<String>| -> Result<Box<dyn Sampling>, ShimError> {
        Ok(match by {
            By::Shim => {
                let backends = Backends::new(own_kernel.clone());
                Box::new(session::begin(xen.clone(), symbols, &processor, request, backends, notes)?)
            }
            By::Xenoprof => Box::new(xenoprof::begin(xen.clone(), &processor, request, notes)?),
            By::VcpuPoll => Box::new(poll::begin(xen.clone(), request, notes)?),
        })
    };
    match request.sample_by {
        SampleBy::Shim => start(By::Shim, notes),
        SampleBy::Xenoprof => start(By::Xenoprof, notes),
        SampleBy::VcpuPoll => start(By::VcpuPoll, notes),
        SampleBy::Auto => first_that_works(notes, start),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Shim,
    Xenoprof,
    VcpuPoll,
}

/// Tries one after the other, best first. Why one was passed over is a note of what comes after it.
fn first_that_works<T>(
    mut notes: Vec<String>,
    start: impl Fn(By, Vec<String>) -> Result<T, ShimError>,
) -> Result<T, ShimError> {
    let mut why = match start(By::Shim, notes.clone()) {
        Err(error) if is_for_others(&error) => format!("the shim was not used: {error}"),
        done => return done,
    };
    notes.push(why.clone());
    let error = match start(By::Xenoprof, notes.clone()) {
        Err(error) => error,
        done => return done,
    };
    let and_xenoprof = format!("xenoprof was not used: {error}");
    notes.push(and_xenoprof.clone());
    why = format!("{why}; {and_xenoprof}");
    // What can't be had at all is told with why not: either could be mended.
    start(By::VcpuPoll, notes).map_err(|error| ShimError::Request(format!("{error} ({why})")))
}

/// Whether the shim can't be in this Xen, and what needs no shim is asked next. What is wrong with a request, or who
/// is at work already, is no reason to go around it.
fn is_for_others(error: &ShimError) -> bool {
    match error {
        ShimError::NoLivepatch
        | ShimError::BuildId { .. }
        | ShimError::MissingSymbol(_)
        | ShimError::AmbiguousSymbol(_)
        | ShimError::Refused { .. }
        | ShimError::Livepatch { action: "upload" | "apply", .. } => true,
        ShimError::PerfForbidden { .. }
        | ShimError::OpenFiles { .. }
        | ShimError::LockedMemory { .. }
        | ShimError::NoPerfEvents
        | ShimError::NoPrivcmd
        | ShimError::NotPrivileged
        | ShimError::NotControlDomain
        | ShimError::UnknownInterface
        | ShimError::InUse { .. }
        | ShimError::Contract { .. }
        | ShimError::Livepatch { .. }
        | ShimError::Event(_)
        | ShimError::Request(_)
        | ShimError::Io { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Tried = Result<(By, Vec<String>), ShimError>;

    /// What is begun where the shim, xenoprof and reading end like this.
    fn chosen(results: [Option<ShimError>; 3]) -> Tried {
        let results = std::cell::RefCell::new(results);
        first_that_works(vec!["earlier".into()], |by, notes| {
            let result = results.borrow_mut()[by as usize].take();
            result.map_or(Ok((by, notes)), Err)
        })
    }

    #[test]
    fn the_shim_is_first() {
        assert_eq!(chosen([None, None, None]).unwrap(), (By::Shim, vec!["earlier".to_owned()]));
    }

    #[test]
    fn why_something_was_passed_over_is_noted() {
        let (by, notes) = chosen([Some(ShimError::NoLivepatch), None, None]).unwrap();
        assert_eq!(by, By::Xenoprof);
        assert!(notes[1].starts_with("the shim was not used: this Xen takes no livepatches"), "{notes:?}");
        let lacking = ShimError::Request("no counters".into());
        let refused = ShimError::Refused { reason: "no free memory".into() };
        let (by, notes) = chosen([Some(refused), Some(lacking), None]).unwrap();
        assert_eq!(by, By::VcpuPoll);
        assert!(notes[1].ends_with("no free memory"), "{notes:?}");
        assert_eq!(notes[2], "xenoprof was not used: no counters");
    }

    #[test]
    fn who_is_at_work_and_what_is_wrong_are_not_gone_around() {
        let busy = ShimError::InUse { pid: 7, since: std::time::SystemTime::UNIX_EPOCH };
        assert!(matches!(chosen([Some(busy), None, None]), Err(ShimError::InUse { .. })));
        let wrong = ShimError::Request("a rate of 0 Hz".into());
        assert!(matches!(chosen([Some(wrong), None, None]), Err(ShimError::Request(_))));
    }

    #[test]
    fn where_nothing_serves_all_is_told() {
        let lacking = |what: &str| Some(ShimError::Request(what.into()));
        let error = chosen([Some(ShimError::NoLivepatch), lacking("no counters"), lacking("no cycles")]);
        let text = error.unwrap_err().to_string();
        assert!(
            text.starts_with("no cycles (the shim was not used: ") && text.ends_with("no counters)"),
            "{text}"
        );
    }
}
