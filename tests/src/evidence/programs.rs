//! Are the samples of a guest's processes those of the programs that its console tells of, in functions of theirs?
//!
//! In the emulator looking into a process takes seconds: what is judged are its samples from the first located one on.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use profile::{CodeAddress, Frame, Mode, Sample, Space};

use super::{figures, host::Host, observed::Observed, symbols::Functions};

/// Fails unless the user samples of these processes, which the guest tells of as `process NAME PID`, have the right process
/// and lie in what it has mapped, each in a function that is there, if there is one. `file` is where all symbols of an
/// image are that can be had; there may be none.
pub fn assert_named(
    host: &Host,
    observed: &Observed,
    guest: &str,
    programs: &[&str],
    file: impl Fn(&str) -> Option<PathBuf>,
) {
    let tables = &observed.recorded.tables;
    let domain = observed.domain(guest);
    let (mut all, mut located, mut named) = (0, 0, 0);
    for program in programs {
        let pid = host.told(guest, &format!("process {program} ")).parse::<u32>().unwrap();
        let of_program = |sample: &&Sample| {
            sample.mode == Mode::User && sample.process.is_some_and(|id| tables.process(id).pid == Some(pid))
        };
        let own = observed.samples_of(domain).filter(of_program);
        let own: Vec<&Sample> = own.skip_while(|sample| observed.module(sample).is_none()).collect();
        assert!(own.len() > 10, "{guest}: {} samples of {program}", own.len());
        let mut images: BTreeMap<&str, Vec<&Frame>> = BTreeMap::new();
        for sample in &own {
            assert_eq!(observed.process_name(sample), Some(*program));
            let frame = observed.frame(sample);
            assert!(matches!(frame.space, Space::User(owner, _) if owner == domain));
            if let Some(image) = observed.module(sample) {
                images.entry(image).or_default().push(frame);
            }
        }
        all += own.len();
        for (image, frames) in images {
            located += frames.len();
            let in_function = frames.iter().filter(|frame| frame.function.is_some()).count();
            named += in_function;
            let what = format!("{guest}, {program}, {image}");
            println!("{what}: {in_function} of {} samples named", frames.len());
            match file(image) {
                Some(path) => assert_right(&what, &Functions::of(&path), &frames, |frame| {
                    frame.function.map(|name| tables.name(name))
                }),
                None => assert!(image.starts_with('[') || in_function == 0, "{what}: names from nowhere"),
            }
        }
    }
    figures::figure(
        format_args!("{guest}, user samples located, and named, each by its own program"),
        format_args!("{located} and {named} of {all}"),
    );
    assert!(located as f64 >= 0.99 * all as f64, "{guest}: {located} of {all}");
}

/// Fails unless an image lies somewhere in the process where each of the frames is in the function that it is said to be
/// in, and what has no name lies in none.
fn assert_right<'a>(
    what: &str,
    functions: &Functions,
    frames: &[&Frame],
    name: impl Fn(&Frame) -> Option<&'a str>,
) {
    let mut moved_by: Option<BTreeSet<u64>> = None;
    for frame in frames {
        let CodeAddress::InstructionPointer(address) = frame.address else {
            panic!("a sample has an instruction pointer")
        };
        let Some(name) = name(frame) else {
            let missed = functions.at(frame.offset.0);
            assert!(missed.is_none(), "{what}: {:#x} is in {missed:?}", frame.offset.0);
            continue;
        };
        let start = address.wrapping_sub(frame.offset.0);
        let whole_pages = |slide: &u64| slide.is_multiple_of(4096);
        let slides = functions.starts(name).map(|linked| start.wrapping_sub(linked)).filter(whole_pages);
        let slides: BTreeSet<u64> = slides.collect();
        let left: BTreeSet<u64> = match &moved_by {
            Some(before) => slides.intersection(before).copied().collect(),
            None => slides,
        };
        assert!(!left.is_empty(), "{what}: {name} is not at {start:#x}; moved by {moved_by:x?}");
        moved_by = Some(left);
    }
}
