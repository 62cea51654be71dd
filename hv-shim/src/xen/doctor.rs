//! What this host allows, looked at one by one.

use super::{TYPE, hypercalls::Hypercalls, livepatch, privcmd::Privcmd, processor::Processor, session};
use crate::{Check, Outcome, ShimError, events::Counted};

/// Looks from the outside in, and stops where nothing behind can be seen.
pub(crate) fn doctor() -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(pass("hypervisor", format!("{TYPE} says xen")));
    let privcmd = match Privcmd::open() {
        Ok(privcmd) => privcmd,
        Err(error @ ShimError::NotPrivileged) => {
            checks.push(fail("privileges", &error, "sudo xenoscope doctor"));
            return checks;
        }
        Err(error) => {
            checks.push(fail("privcmd", &error, "modprobe xen-privcmd"));
            return checks;
        }
    };
    checks.push(pass("privcmd", "/dev/xen/privcmd can be opened".into()));
    let xen = match Hypercalls::new(privcmd) {
        Ok(xen) => xen,
        Err(error) => {
            checks.push(fail("control interface", &error, "run this in dom0, on Xen 4.14 or later"));
            return checks;
        }
    };
    let version = xen.version();
    checks.push(pass("version", format!("Xen {}.{}{}", version.major, version.minor, version.extra)));
    checks.push(match xen.build_id() {
        Ok(id) if id.len() == 20 => pass("build id", id.iter().map(|byte| format!("{byte:02x}")).collect()),
        Ok(id) => fail(
            "build id",
            &ShimError::BuildId { bytes: id.len() },
            "use a Xen that was linked with a build id",
        ),
        Err(error) => {
            let error = ShimError::Io { what: "reading it".into(), error };
            fail("build id", &error, "use a Xen that was linked with a build id")
        }
    });
    checks.push(match livepatch::list(&xen) {
        Ok(payloads) => livepatches(&payloads),
        Err(error) => {
            fail("livepatch", &error, "use a Xen built with CONFIG_LIVEPATCH, as distributions' are")
        }
    });
    checks.push(counters(&xen));
    checks
}

/// What Xen's command line gives to others stands in the way; what the counters are worth shows when they are used.
fn counters(xen: &Hypercalls) -> Check {
    let name = "counters";
    let asked = xen.cpuid().and_then(|leaves| Ok((Processor::of(&leaves), xen.command_line()?)));
    let (processor, options) = match asked {
        Ok(found) => found,
        Err(error) => {
            let found = format!("what processor this is can't be asked: {error}");
            return Check { name, outcome: Outcome::Warn, found, advice: Some(TIMER_SERVES.into()) };
        }
    };
    let events = Counted::named().filter(|&event| processor.selector(event).is_some()).count();
    let found = format!("{processor}: codes for {events} events");
    let taken = options.split_whitespace().find(|option| {
        let (name, value) = option.split_once('=').unwrap_or((option, "on"));
        matches!(name, "vpmu" | "watchdog") && !matches!(value, "0" | "no" | "off" | "false" | "disable")
    });
    match taken {
        _ if events == 0 => Check { name, outcome: Outcome::Warn, found, advice: Some(TIMER_SERVES.into()) },
        Some(option) => Check {
            name,
            outcome: Outcome::Warn,
            found: format!("{found}; Xen's option {option} gives the counters to others"),
            advice: Some(format!("boot Xen without {option}; {TIMER_SERVES}")),
        },
        None => pass(
            name,
            format!("{found}; they are tried out when a recording begins, and its notes say what came of it"),
        ),
    }
}

const TIMER_SERVES: &str = "until then time is sampled, by the timer";

fn livepatches(payloads: &[livepatch::Payload]) -> Check {
    if payloads.is_empty() {
        return pass("livepatch", "supported, none is loaded".into());
    }
    let names: Vec<&str> = payloads.iter().map(|payload| payload.name.as_str()).collect();
    let ours = names.contains(&session::NAME);
    Check {
        name: "livepatch",
        outcome: if ours { Outcome::Warn } else { Outcome::Pass },
        found: format!("supported, loaded: {}", names.join(", ")),
        advice: ours.then(|| {
            "xenoscope's shim is loaded: by a collector that runs now, or left by one that was killed; \
             in that case the next `xenoscope record` removes it"
                .into()
        }),
    }
}

fn pass(name: &'static str, found: String) -> Check {
    Check { name, outcome: Outcome::Pass, found, advice: None }
}

fn fail(name: &'static str, error: &ShimError, advice: &str) -> Check {
    Check { name, outcome: Outcome::Fail, found: error.to_string(), advice: Some(advice.into()) }
}
