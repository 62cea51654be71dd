//! What does a sample cost in the hypervisor? Counted in instructions, not timed: all that Xen's code executes while
//! somebody samples, less what it executes while nobody does. What the collector has Xen do is in it, and so is all that
//! is put off.

use crate::{
    figures,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();

fn costs() -> &'static Host {
    host(&BOOTED, "cost")
}

/// The emulator's counters read as if they had overflowed, all of them: so many records has xenoprof of each NMI, whatever
/// it was asked for, and so many samples the shim, if it is asked for as many events.
const COUNTERS: u64 = 4;

/// A second of a session has so many NMIs, to compare sessions whose NMIs did not come equally fast.
const RATE_HZ: f64 = 1000.0;

/// How long each step takes that is counted, by the clock of the machine, which counts instructions.
const STEP_S: f64 = 12.0;

/// Instructions a second in Xen.
fn rate(step: &str) -> f64 {
    costs().executed_in_xen(step) as f64 / STEP_S
}

/// Instructions for each NMI that is as many samples, in a session of the steps of this name.
fn of_an_nmi(session: &str, off: f64, samples: u64) -> f64 {
    let observed = costs().observed(&format!("{session}.xsr"));
    observed.assert_balanced();
    // Interrupts came in this step only, and with them the samples.
    let taken: u64 = observed.accounts().iter().map(|(_, account)| account.taken).sum();
    // Of xenoprof's records, the collector counts those that an event was set up for: one of each NMI.
    let nmis = if session == "xenoprof" { taken } else { taken / samples };
    let waiting = rate(&format!("{session}-waiting"));
    let by_itself = (rate(session) - waiting) * STEP_S / nmis as f64;
    let always = waiting - off;
    let cost = by_itself + always / RATE_HZ;
    figures::figure(
        format_args!("instructions in Xen for an NMI of {samples} samples, {session}"),
        format_args!(
            "{by_itself:.0} by itself ({nmis} of them), {always:.0} a second besides: {cost:.0} at 1 kHz, {:.0} a sample",
            cost / samples as f64
        ),
    );
    cost
}

/// Both are asked for the same: one event, at a period. What they make of an NMI differs here, since xenoprof has records of
/// all counters, whatever it was asked for. So the shim is also asked for four events: with as many samples an NMI, each
/// can be compared with a record of xenoprof's, in figures.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_a_session_costs_no_more_instructions_than_one_of_xenoprof() {
    let (before, after) = (rate("off"), rate("off-again"));
    figures::figure(
        "instructions a second in Xen without sampling, before and after",
        format_args!("{before:.0}, {after:.0}"),
    );
    let off = (before + after) / 2.0;
    let (ours, theirs) = (of_an_nmi("one", off, 1), of_an_nmi("xenoprof", off, COUNTERS));
    of_an_nmi("four", off, COUNTERS);
    assert!(ours <= theirs, "an NMI costs more than one of xenoprof");
}
