//! What this host allows, looked at one by one.

use super::{
    TYPE,
    claim::XENOPROF,
    hypercalls::Hypercalls,
    livepatch::{self, Payload, State},
    privcmd::Privcmd,
    processor::Processor,
    session,
    standing::{self, Standing},
    trace, xenoprof,
};
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
    let build_id = xen.build_id().unwrap_or_default();
    checks.push(match build_id.len() {
        20 => pass("build id", build_id.iter().map(|byte| format!("{byte:02x}")).collect()),
        bytes => without_shim("build id", &ShimError::BuildId { bytes }, "linked with a build id"),
    });
    let listed = livepatch::list(&xen);
    checks.push(match &listed {
        Ok(payloads) => livepatches(&xen, payloads),
        Err(error) => without_shim("livepatch", error, "built with CONFIG_LIVEPATCH"),
    });
    checks.push(counters(&xen));
    checks.push(sources(&xen, listed.map(drop)));
    checks.push(match trace::look(&xen) {
        Ok(found) => pass("trace", found),
        Err(error) => Check {
            name: "trace",
            outcome: Outcome::Warn,
            found: error.to_string(),
            advice: Some("vCPUs' times and exits (`--times`, `--exits`) are not to be had".into()),
        },
    });
    checks
}

/// What there is to sample by, and what a recording would take.
fn sources(xen: &Hypercalls, livepatches: Result<(), ShimError>) -> Check {
    let told = |possible: &Result<(), String>| match possible {
        Ok(()) => "possible".to_owned(),
        Err(why) => format!("not possible: {why}"),
    };
    let shim = livepatches.and_then(|()| session::look(xen)).map_err(|error| error.to_string());
    let xenoprof = xenoprof::look(xen);
    let chosen = match (&shim, &xenoprof) {
        (Ok(()), _) => "shim",
        (Err(_), Ok(())) => "xenoprof if its counters count, else vcpu-poll",
        (Err(_), Err(_)) => "vcpu-poll",
    };
    let found = format!(
        "shim: {}; xenoprof: {}; vcpu-poll: possible; a recording takes {chosen}",
        told(&shim),
        told(&xenoprof)
    );
    let advice = match XENOPROF.left_over() {
        Some(_) => {
            Some("a session of xenoprof was left behind: the next `xenoscope record` ends it".to_owned())
        }
        None => shim.err().map(|_| {
            "without the shim, samples have a bias that their report states (`--source`, docs/hosts.md)"
                .to_owned()
        }),
    };
    let outcome = if advice.is_some() { Outcome::Warn } else { Outcome::Pass };
    Check { name: "sources", outcome, found, advice }
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

/// Who is loaded, and who is in whose way.
fn livepatches(xen: &Hypercalls, payloads: &[Payload]) -> Check {
    let Some(last) = payloads.last() else {
        return pass("livepatch", "supported, none is loaded".into());
    };
    let ours = payloads.iter().find(|payload| payload.name == standing::NAME);
    let standing = ours.filter(|ours| ours.state == State::Applied).map(|ours| Standing::look(xen, ours));
    let about = match &standing {
        Some(Ok(standing)) => format!("; xenoscope's shim: {standing}"),
        Some(Err(error)) => format!("; xenoscope's shim: {error}"),
        None => String::new(),
    };
    let names: Vec<String> = payloads.iter().map(named).collect();
    Check {
        name: "livepatch",
        outcome: if ours.is_some() { Outcome::Warn } else { Outcome::Pass },
        found: format!("supported, loaded: {}{about}", names.join(", ")),
        advice: Some(match standing {
            Some(standing) => advice_with_shim(standing.is_ok_and(|standing| standing.is_in_use())),
            None if ours.is_some() => {
                "the shim was loaded and is not in effect: `xenoscope unload` removes it".into()
            }
            None => format!(
                "the shim goes on top of {}: while a recording runs, Xen reverts none of these, nor applies others",
                last.name
            ),
        }),
    }
}

fn advice_with_shim(in_use: bool) -> String {
    let way_out = match in_use {
        true => "end the recording",
        false => "`xenoscope unload` takes it out, and so does the next `xenoscope record`",
    };
    format!(
        "while the shim is in effect, Xen refuses livepatches that were built for the hypervisor itself, and reverts \
         none that was applied before it: {way_out}. Where another one was applied on top of it, that one has to be \
         reverted first; `xenoscope quiet` silences the shim until then"
    )
}

fn named(payload: &Payload) -> String {
    let state = match payload.state {
        State::Applied => "applied",
        State::Checked => "not applied",
    };
    format!("{} ({state})", payload.name)
}

fn pass(name: &'static str, found: String) -> Check {
    Check { name, outcome: Outcome::Pass, found, advice: None }
}

fn fail(name: &'static str, error: &ShimError, advice: &str) -> Check {
    Check { name, outcome: Outcome::Fail, found: error.to_string(), advice: Some(advice.into()) }
}

/// What keeps the shim out, and nothing else.
fn without_shim(name: &'static str, error: &ShimError, built: &str) -> Check {
    Check {
        name,
        outcome: Outcome::Warn,
        found: error.to_string(),
        advice: Some(format!("use a Xen that was {built}, as distributions' are, to have the shim")),
    }
}
