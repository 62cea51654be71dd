//! Whether the call chains of a guest are the ones that there are: those of its programs, of its kernel, and of the
//! hypervisor's code that its exits lead to.

use std::collections::{BTreeMap, HashSet};

use profile::{DomainId, Mode, Sample, Space};

use super::{
    figures::figure,
    kernel_code::{Call, KernelCode},
    observed::Observed,
    paths::Paths,
    report::Report,
};

/// Fails unless the samples of a program of paths (see [`Paths`]), from the first named one on, have the one chain that
/// there is.
pub fn assert_paths(observed: &Observed, guest: &str, program: &str) {
    assert_paths_of(observed, observed.domain(guest), program);
}

/// As [`assert_paths`], of one stay of a guest.
pub fn assert_paths_of(observed: &Observed, domain: DomainId, program: &str) {
    let guest = &observed.recorded.tables.domain(domain).name;
    let outermost = if program == "go" { "runtime.goexit.abi0" } else { "_start" };
    let mut paths = Paths::default();
    for sample in observed.once_named(domain, Mode::User) {
        if observed.process_name(sample) == Some(program) {
            paths.add(sample.chain, &observed.recorded.tables, outermost);
        }
    }
    figure(
        format_args!("{guest}, samples of {program} with the one true chain"),
        format_args!("{} of {}, {:?}", paths.right, paths.samples, paths.broken),
    );
    let depths: Vec<usize> = paths.depths.keys().copied().collect();
    assert_eq!(depths, [8, 16, 24, 32, 40], "{guest}, {program}: every path was taken");
    assert!(paths.samples > 60, "{guest}, {program}: {paths:?}");
    assert_eq!(paths.wrong, 0, "{guest}, {program}: callers that do not exist");
    assert!(paths.share() >= 0.95, "{guest}, {program}: {paths:?}");
}

/// Fails unless the samples of a guest's kernel have chains without a gap, which on behalf of `program` go on to where that
/// begins, and callers that the kernel's code has.
pub fn assert_kernel(observed: &Observed, guest: &str, program: &str, code: &KernelCode) {
    let tables = &observed.recorded.tables;
    let domain = observed.domain(guest);
    // Go asks the kernel for the time from a stack of its own, below which the others' frames are not sought.
    let mut samples = once_known(observed, domain, Mode::Kernel);
    samples.retain(|sample| observed.process_name(sample) != Some("go"));
    let (mut complete, mut gaps) = (0, BTreeMap::<_, usize>::new());
    let (mut own, mut whole) = (0, 0);
    let mut calls = BTreeMap::<Call, usize>::new();
    let mut wrong = BTreeMap::<_, usize>::new();
    for sample in &samples {
        let gap = tables.frames(sample.chain).zip(names(observed, sample)).find(|(frame, _)| frame.is_gap());
        match gap {
            None => complete += 1,
            Some((_, why)) => {
                let names: Vec<&str> = names(observed, sample).collect();
                *gaps.entry(format!("{why} {names:?}")).or_default() += 1;
            }
        }
        if observed.process_name(sample) == Some(program) {
            own += 1;
            whole += usize::from(gap.is_none() && names(observed, sample).last() == Some("_start"));
        }
        for (call, callee, caller) in code.calls(sample.chain, tables) {
            *calls.entry(call).or_default() += 1;
            if call == Call::None {
                *wrong.entry((callee, caller)).or_default() += 1;
            }
        }
    }
    let all = samples.len();
    figure(format_args!("{guest}, kernel chains without a gap"), format_args!("{complete} of {all}"));
    let mut gaps: Vec<_> = gaps.into_iter().collect();
    gaps.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    for (gap, count) in gaps.iter().take(20) {
        println!("{count} {gap}");
    }
    figure(
        format_args!("{guest}, of those for {program} chains that reach its beginning"),
        format_args!("{whole} of {own}"),
    );
    figure(format_args!("{guest}, callers in the kernel"), format_args!("{calls:?}"));
    assert!(all > 100 && own > 30, "{guest}: {all} samples of the kernel, {own} for {program}");
    assert!(wrong.is_empty(), "{guest}: callers that the kernel's code does not have: {wrong:?}");
    assert!(complete * 100 >= all * 95, "{guest}: {complete} of {all}");
    assert!(whole * 100 >= own * 95, "{guest}, {program}: {whole} of {own}");
}

/// Fails unless what the hypervisor did for a guest's program `exits` stands above the one function of it whose exits those
/// were.
pub fn assert_exits(observed: &Observed, guest: &str) {
    let tables = &observed.recorded.tables;
    let domain = observed.domain(guest);
    let samples = observed.once_named(domain, Mode::Hypervisor);
    let (mut own, mut direct, mut in_kernel) = (0, 0, 0);
    let mut others = BTreeMap::<_, usize>::new();
    for sample in &samples {
        let frames: Vec<(Space, &str)> =
            tables.frames(sample.chain).map(|frame| frame.space).zip(names(observed, sample)).collect();
        let is_its = |space: Space| match space {
            Space::User(_, process) => tables.process(process).name.as_deref() == Some("exits"),
            _ => false,
        };
        if !frames.iter().any(|&(space, _)| is_its(space)) {
            continue;
        }
        own += 1;
        let above = frames.iter().take_while(|&&(space, _)| is_hypervisors(space, domain)).count();
        // A tick that came meanwhile is served by the guest's kernel, which has exits of its own.
        let kernel = frames[above..].iter().take_while(|&&(space, _)| space == Space::Kernel(domain)).count();
        let below: Vec<&str> = frames[above + kernel..].iter().map(|&(_, name)| name).collect();
        let is_whole = below.starts_with(&["ask", "keep_asking", "main"]) && below.ends_with(&["_start"]);
        match (above > 0 && is_whole, kernel) {
            (true, 0) => direct += 1,
            (true, _) => in_kernel += 1,
            (false, _) => {
                let names: Vec<&str> = frames.iter().map(|&(_, name)| name).collect();
                *others.entry(names).or_default() += 1;
            }
        }
    }
    figure(
        format_args!("{guest}, samples of the hypervisor above the function whose exits they are"),
        format_args!("{direct} and, in its kernel's ticks, {in_kernel}, of {own}, {others:?}"),
    );
    assert!(own > 50 && direct * 2 > own, "{guest}: {direct} of {own}");
    assert!((direct + in_kernel) * 100 >= own * 95, "{guest}: {direct} and {in_kernel} of {own}: {others:?}");
}

/// Fails unless what the hypervisor did for a guest's program, or its kernel on behalf of that, stands above the program's
/// chain down to its beginning.
pub fn assert_below_hypervisor(observed: &Observed, guest: &str, program: &str) {
    let tables = &observed.recorded.tables;
    let domain = observed.domain(guest);
    let (mut own, mut whole, mut others) = (0, 0, BTreeMap::<_, usize>::new());
    for sample in once_known(observed, domain, Mode::Hypervisor) {
        if observed.process_name(sample) != Some(program) {
            continue;
        }
        own += 1;
        let frames: Vec<_> = tables.frames(sample.chain).collect();
        let above = frames.iter().take_while(|frame| is_hypervisors(frame.space, domain)).count();
        let is_apart = frames[above..].iter().all(|frame| !is_hypervisors(frame.space, domain));
        let names: Vec<&str> = names(observed, sample).collect();
        if above > 0
            && is_apart
            && !frames.iter().any(|frame| frame.is_gap())
            && names.last() == Some(&"_start")
        {
            whole += 1;
        } else {
            *others.entry(names.join(" < ")).or_default() += 1;
        }
    }
    figure(
        format_args!("{guest}, samples of the hypervisor above {program}, down to its beginning"),
        format_args!("{whole} of {own}, {others:?}"),
    );
    assert!(own > 30 && whole * 100 >= own * 95, "{guest}, {program}: {whole} of {own}: {others:?}");
}

/// Fails unless a report tells which part of a guest's chains has no gap, in each mode, and each chain of the program's
/// processes that does not reach its beginning ends in a frame that says why. Gives the share of the guest's user mode.
pub fn assert_reported(report: &Report, observed: &Observed, guest: &str, program: &str) -> f64 {
    let tables = &observed.recorded.tables;
    let domain = observed.domain(guest);
    let reported = &report.domain(guest).complete_chains;
    let mut weights = BTreeMap::<&str, (u64, u64)>::new();
    let mut ends = BTreeMap::<_, usize>::new();
    for sample in observed.samples_of(domain) {
        let is_gap = tables.frames(sample.chain).any(|frame| frame.is_gap());
        let (complete, all) = weights.entry(sample.mode.as_str()).or_default();
        *all += sample.weight;
        *complete += if is_gap { 0 } else { sample.weight };
        let is_its = sample.mode == Mode::User && observed.process_name(sample) == Some(program);
        let last = tables.frames(sample.chain).zip(names(observed, sample)).last();
        let (frame, name) = last.expect("a chain has frames");
        if is_its && name != "_start" {
            assert!(frame.is_gap() && is_gap, "{guest}, {program}: a chain ends in {name}");
            *ends.entry(name).or_default() += 1;
        }
    }
    figure(format_args!("{guest}, share of chains without a gap, by mode"), format_args!("{reported:.4?}"));
    figure(
        format_args!("{guest}, how chains of {program} end before its beginning"),
        format_args!("{ends:?}"),
    );
    assert_eq!(reported.keys().collect::<Vec<_>>(), weights.keys().collect::<Vec<_>>());
    for (mode, (complete, all)) in weights {
        let share = complete as f64 / all as f64;
        assert!(
            (reported[mode] - share).abs() < 1e-9,
            "{guest}, {mode}: {share}, and not {}",
            reported[mode]
        );
    }
    reported["user"]
}

/// Xen's code, or that of a KVM host's kernel.
fn is_hypervisors(space: Space, guest: DomainId) -> bool {
    match space {
        Space::Hypervisor => true,
        Space::Kernel(owner) => owner != guest,
        Space::User(..) => false,
    }
}

/// The samples of a mode of a guest, each process's from that on which names it: looking into a guest takes seconds in the
/// emulator, and until then what its kernel calls back to has no frames.
fn once_known(observed: &Observed, domain: DomainId, mode: Mode) -> Vec<&Sample> {
    let mut known = HashSet::new();
    let is_known = |sample: &&Sample| {
        if sample.mode == Mode::User && observed.function(sample).is_some() {
            known.extend(sample.process);
        }
        sample.mode == mode && sample.process.is_none_or(|process| known.contains(&process))
    };
    let samples = observed.samples_of(domain).filter(is_known);
    samples.skip_while(|sample| observed.function(sample).is_none()).collect()
}

/// What the frames of a sample are called.
fn names<'o>(observed: &'o Observed, sample: &Sample) -> impl Iterator<Item = &'o str> {
    let tables = &observed.recorded.tables;
    let frames = tables.frames(sample.chain);
    frames.map(|frame| frame.function.map_or("[unknown]", |name| tables.name(name)))
}
