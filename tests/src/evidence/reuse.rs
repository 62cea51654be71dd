//! Are samples of processes that execute programs and end given to the right ones, when their numbers and page tables serve
//! again? `programs/lives.c` works at addresses that tell the process's number and program.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use profile::{Frame, Mode, ProcessId};

use super::{figures, observed::Observed};

/// Where the processes of each name work: a page for each number.
const PLACES: [(&str, u64); 2] = [("first", 0x1_0000_0000), ("second", 0x2_0000_0000)];
const PAGES: u64 = 1 << 16;

/// Where scenarios link the program to.
const PROGRAM: Range<u64> = 0x3000_0000..0x3020_0000;

/// Whether a frame is of such a process, or of what starts them.
pub fn is_theirs(frame: &Frame) -> bool {
    whose(frame).is_some() || PROGRAM.contains(&frame.address.raw())
}

/// The name and the number of the process that works at a place, if it is one of these processes.
fn whose(frame: &Frame) -> Option<(&'static str, u32)> {
    let address = frame.address.raw();
    let page = |base: u64| address.checked_sub(base).map(|within| within >> 12).filter(|page| *page < PAGES);
    PLACES.iter().find_map(|&(name, base)| Some((name, page(base)? as u32)))
}

/// Fails if one of the samples of such processes in a guest is another's, or if there are few. Between two looks at page
/// tables that change hands it may be that nobody can tell whose a sample is; in the emulator, where a look takes a second,
/// those are many.
pub fn assert_right(observed: &Observed, guest: &str) {
    let tables = &observed.recorded.tables;
    let mut lives: BTreeMap<(&str, u32), BTreeSet<ProcessId>> = BTreeMap::new();
    let (mut right, mut untold) = (0, 0);
    for sample in observed.samples_of(observed.domain(guest)).filter(|sample| sample.mode == Mode::User) {
        let Some((name, pid)) = whose(observed.frame(sample)) else { continue };
        let process = tables.process(sample.process.expect("user samples have a process"));
        if process.pid.is_none() {
            untold += 1;
            continue;
        }
        let told = (process.name.as_deref(), process.pid);
        assert_eq!(
            told,
            (Some(name), Some(pid)),
            "{guest}: at {:.3} s",
            observed.since_start(sample) as f64 / 1e9
        );
        lives.entry((name, pid)).or_default().insert(process.id);
        right += 1;
    }
    let again = lives.values().filter(|lives| lives.len() > 1).count();
    figures::figure(
        format_args!("{guest}, samples of processes that come and go"),
        format_args!("{right} with the right process, none with another, {untold} with none"),
    );
    figures::figure(
        format_args!("{guest}, numbers that served several"),
        format_args!("{again} of {}", lives.len()),
    );
    for (name, _) in PLACES {
        assert!(lives.keys().any(|(of, _)| *of == name), "{guest}: no sample of {name}");
    }
    assert!(right > 20, "{guest}: {right}");
}
