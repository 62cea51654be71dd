//! Are the samples of a guest's processes those of the programs that its console tells of, in functions of theirs?
//!
//! In the emulator looking into a process takes seconds: what is judged are its samples from the first located one on.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use profile::{CodeAddress, Frame, Mode, Sample, Space, Time};

use super::{figures, host::Host, observed::Observed, reuse, symbols::Functions};

/// Where the symbols of an image are, for comparison.
pub enum Symbols {
    /// All that this file has are in reach of whoever names functions.
    All(PathBuf),
    /// Of what this file has, some may be out of reach.
    Some(PathBuf),
    /// There are none in reach.
    None,
}

/// Fails unless the user samples of these processes, which the guest tells of as `process NAME PID`, have the right process
/// and lie in what it has mapped, each in a function that is there, if there is one in reach; and unless 99 % of all user
/// samples of the guest lie in what their processes have mapped, once all of these are known, but for processes that come
/// and go (`reuse`). `file` tells where an image's symbols are.
pub fn assert_named(
    host: &Host,
    observed: &Observed,
    guest: &str,
    programs: &[&str],
    file: impl Fn(&str) -> Symbols,
) {
    let tables = &observed.recorded.tables;
    let domain = observed.domain(guest);
    let (mut all, mut located, mut named) = (0, 0, 0);
    let mut known = Time(0);
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
        known = known.max(own[0].time);
        all += own.len();
        for (image, frames) in images {
            located += frames.len();
            let in_function = frames.iter().filter(|frame| frame.function.is_some()).count();
            named += in_function;
            let what = format!("{guest}, {program}, {image}");
            println!("{what}: {in_function} of {} samples named", frames.len());
            let (path, all) = match file(image) {
                Symbols::All(path) => (path, true),
                Symbols::Some(path) => (path, false),
                Symbols::None => {
                    assert!(image.starts_with('[') || in_function == 0, "{what}: names from nowhere");
                    continue;
                }
            };
            let functions = Functions::of(&path);
            assert_right(&what, &functions, &frames, |frame| frame.function.map(|name| tables.name(name)));
            let missed = |frame: &&&Frame| frame.function.is_none() && functions.at(frame.offset.0).is_some();
            if all && let Some(frame) = frames.iter().find(missed) {
                panic!("{what}: {:#x} is in {:?}", frame.offset.0, functions.at(frame.offset.0));
            }
        }
    }
    figures::figure(
        format_args!("{guest}, user samples located, and named, each by its own program"),
        format_args!("{located} and {named} of {all}"),
    );
    assert!(located as f64 >= 0.99 * all as f64, "{guest}: {located} of {all}");

    let lasting = |sample: &&Sample| !reuse::is_theirs(observed.frame(sample));
    let user = observed.samples_of(domain).filter(|sample| sample.mode == Mode::User && sample.time >= known);
    let user: Vec<&Sample> = user.filter(lasting).collect();
    let (located, all) = (user.iter().filter(|sample| observed.module(sample).is_some()).count(), user.len());
    figures::figure(format_args!("{guest}, all user samples located"), format_args!("{located} of {all}"));
    assert!(located as f64 >= 0.99 * all as f64, "{guest}: {located} of {all}");
}

/// Fails unless an image lies somewhere in the process where each of the frames that have a name is in the function that
/// it is said to be in.
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
        let Some(name) = name(frame) else { continue };
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
