//! The gate on recordings made by hand.

use std::collections::BTreeMap;

use analysis::{
    Aggregate,
    compare::{CompareError, Comparing, Measure, Run, Subject, compare},
    gate::{Judged, Rules, RulesError, Verdict, judge},
};
use profile::{
    Chain, CodeAddress, CpuAccount, Domain, DomainId, DomainKind, Event, EventId, Frame, ImageOffset, Mode,
    Origin, PhysCpu, Sample, Snapshot, Source, Space, Time,
    recording::{End, EndReason, Header, Host, Recording, Writer},
};

const GUEST: DomainId = DomainId(1);

/// A run in which each of these functions of the guest's kernel has so many samples.
struct Made<'a> {
    functions: &'a [(&'a str, u64)],
    hostname: &'a str,
    guest: &'a str,
    source: Source,
    lost: u64,
    whole: bool,
}

impl Default for Made<'_> {
    fn default() -> Self {
        Self { functions: &[], hostname: "lab", guest: "web", source: Source::Timer, lost: 0, whole: true }
    }
}

impl Made<'_> {
    fn run(&self) -> Run {
        let header = Header {
            tool: String::new(),
            started_unix_ns: 0,
            started: Time(0),
            host: Host {
                hypervisor: "Xen 4.17.7".to_owned(),
                build_id: None,
                kernel: "6.1.0".to_owned(),
                hostname: self.hostname.to_owned(),
                cpus: 1,
            },
            events: vec![Event {
                name: "cpu-clock".to_owned(),
                unit: "ns".to_owned(),
                source: self.source,
                rate_hz: 1000.0,
            }],
            command: None,
            options: BTreeMap::new(),
        };
        let mut writer = Writer::new(Vec::new(), &header).unwrap();
        let (id, name, from) = (GUEST, self.guest.to_owned(), Time(0));
        writer.domain(Domain { id, number: 1, name, uuid: None, kind: DomainKind::Pvh, vcpus: 1, from });
        let mut sequence = 0;
        for (name, samples) in self.functions {
            let (function, module) = (Some(writer.name(name)), Some(writer.name("vmlinux")));
            let (space, offset) = (Space::Kernel(GUEST), ImageOffset(0));
            let address = CodeAddress::InstructionPointer(0);
            let frame =
                writer.frame(Frame { space, address, function, module, offset, origin: Origin::default() });
            let chain = writer.chain(Chain { caller: None, frame });
            for _ in 0..*samples {
                writer.sample(Sample {
                    time: Time(sequence * 1_000_000),
                    cpu: PhysCpu(0),
                    vcpu: None,
                    charged_to: Some(GUEST),
                    process: None,
                    mode: Mode::Kernel,
                    event: EventId(0),
                    weight: 1_000_000,
                    sequence,
                    chain,
                });
                sequence += 1;
            }
        }
        let lost = BTreeMap::from([(profile::LossCause::RingFull, self.lost)]);
        let account =
            CpuAccount { taken: sequence + self.lost, written: sequence, lost, ..CpuAccount::default() };
        let cpus = vec![(PhysCpu(0), account)];
        writer.snapshot(Snapshot { time: Time(1), unix_ns: 0, cpus, idle_ns: 0, domains: Vec::new() });
        let mut bytes =
            writer.finish(End { time: Time(1_000_000_000), reason: EndReason::Duration }).unwrap();
        if !self.whole {
            bytes.truncate(bytes.len() - 3);
        }
        let aggregate = Aggregate::of(Recording::read(&*bytes).unwrap()).unwrap();
        Run::of(&aggregate, None, &vec![("web-*".to_owned(), "web".to_owned())], self.hostname).unwrap()
    }
}

/// Runs of a thousand samples, in which `slow` has about so many.
fn runs(slow: &[u64]) -> Vec<Run> {
    slow.iter()
        .map(|&slow| {
            let functions = [("slow_path.isra.0", slow), ("steady", 500), ("rest", 500 - slow)];
            Made { functions: &functions, ..Made::default() }.run()
        })
        .collect()
}

const SAME: [u64; 4] = [100, 104, 97, 102];
const ALIKE: [u64; 4] = [101, 99, 103, 98];
const SLOWER: [u64; 4] = [201, 197, 204, 199];

fn verdict(rules: &str, baseline: &[Run], candidate: &[Run]) -> Judged {
    judge(&Rules::parse(rules).unwrap(), baseline, candidate, Vec::new(), false).unwrap()
}

const ANY: &str = "[[function]]\nmax-increase = '10%'\n";

#[test]
fn what_is_alike_passes_and_says_what_it_would_have_seen() {
    let judged = verdict(ANY, &runs(&SAME), &runs(&ALIKE));
    assert_eq!(judged.verdict, Verdict::Pass, "{judged:?}");
    let detectable = judged.judgements[0].detectable.unwrap();
    assert!((0.1..0.5).contains(&detectable), "{detectable}");
}

#[test]
fn a_slower_function_is_found_by_name() {
    let judged = verdict(ANY, &runs(&SAME), &runs(&SLOWER));
    assert_eq!(judged.verdict, Verdict::Regression);
    let names: Vec<String> =
        judged.judgements[0].changes.iter().map(|change| change.subject.to_string()).collect();
    assert_eq!(names, ["web: kernel function slow_path in vmlinux"]);
    assert!((judged.judgements[0].changes[0].relative() - 0.99).abs() < 0.05);
    // What it may grow by is no regression.
    let judged = verdict("[[function]]\nmax-increase = '150%'\n", &runs(&SAME), &runs(&SLOWER));
    assert_eq!(judged.verdict, Verdict::Pass);
}

#[test]
fn one_or_two_runs_a_side_never_convict() {
    for count in 1..=2 {
        let judged = verdict(ANY, &runs(&SAME[..count]), &runs(&SLOWER[..count]));
        assert_eq!(judged.verdict, Verdict::CannotTell);
        assert!(judged.why[0].contains("too few"), "{judged:?}");
    }
    let judged = verdict(ANY, &runs(&SAME[..3]), &runs(&SLOWER[..3]));
    assert_eq!(judged.verdict, Verdict::Regression);
}

#[test]
fn what_is_too_noisy_or_too_little_can_not_be_told() {
    let noisy = "[[function]]\nname = 'slow_path'\nmax-increase = '0%'\ndetect = '20%'\n";
    let judged = verdict(noisy, &runs(&[50, 200, 90, 150]), &runs(&[60, 190, 100, 140]));
    assert_eq!(judged.verdict, Verdict::CannotTell, "{judged:?}");
    assert!(judged.judgements[0].why.as_ref().unwrap().contains("too noisy"));

    let nothing =
        verdict("[[function]]\nname = 'not_there'\nmax-increase = 0\n", &runs(&SAME), &runs(&ALIKE));
    assert_eq!(nothing.verdict, Verdict::CannotTell);

    let few = format!("min-samples = 2000\n{ANY}");
    assert_eq!(verdict(&few, &runs(&SAME), &runs(&SLOWER)).verdict, Verdict::CannotTell);

    let lossy: Vec<Run> =
        (0..3).map(|_| Made { functions: &[("a", 500)], lost: 100, ..Made::default() }.run()).collect();
    let judged = verdict(ANY, &lossy, &lossy);
    assert_eq!(judged.verdict, Verdict::CannotTell);
    assert!(judged.why[0].contains("lost 17 %"), "{judged:?}");
}

#[test]
fn new_functions_have_a_bound_of_their_own() {
    let with = |new: u64| {
        let functions = [("old", 1000 - new), ("new", new)];
        (0..4).map(|_| Made { functions: &functions, ..Made::default() }.run()).collect::<Vec<_>>()
    };
    let rules = "[[new-function]]\ndomain = 'w*'\nmax-share = '2%'\n";
    assert_eq!(verdict(rules, &with(0), &with(50)).verdict, Verdict::Regression);
    assert_eq!(verdict(rules, &with(0), &with(15)).verdict, Verdict::Pass);
    assert_eq!(verdict(rules, &with(10), &with(50)).verdict, Verdict::Pass, "it was there before");
}

#[test]
fn unlike_things_are_refused() {
    let rules = Rules::parse(ANY).unwrap();
    let functions = [("a", 500)];
    let like = || Made { functions: &functions, ..Made::default() };
    let refused = |other: Made<'_>, unlike_hosts| {
        judge(&rules, &[like().run()], &[other.run()], Vec::new(), unlike_hosts).unwrap_err()
    };
    let host = || Made { hostname: "other", ..like() };
    assert!(matches!(refused(host(), false), CompareError::Unlike { .. }));
    assert!(judge(&rules, &[like().run()], &[host().run()], Vec::new(), true).is_ok());
    let source = Made { source: Source::Pmu, ..like() };
    assert!(matches!(refused(source, true), CompareError::Unlike { .. }));
    assert!(matches!(refused(Made { whole: false, ..like() }, false), CompareError::NotWhole(_)));
    assert!(matches!(refused(Made::default(), false), CompareError::Empty(_)));
}

/// A guest that was made anew has another name and is the same for the comparison.
#[test]
fn guests_are_matched_by_pattern() {
    let functions = [("a", 500)];
    let run = Made { functions: &functions, guest: "web-17", ..Made::default() }.run();
    assert!(run.weights.keys().any(|subject| *subject == Subject::Domain { domain: "web".to_owned() }));
}

#[test]
fn work_is_what_counts() {
    let how = Comparing { measure: Measure::Work, work: vec![10.0, 20.0], ..Comparing::default() };
    let comparison = compare(&runs(&[100]), &runs(&[100]), &how).unwrap();
    assert!(comparison.changes.iter().all(|change| (change.relative() + 0.5).abs() < 1e-9));
    let how = Comparing { measure: Measure::Work, work: vec![10.0], ..Comparing::default() };
    assert_eq!(
        compare(&runs(&[100]), &runs(&[100]), &how).unwrap_err(),
        CompareError::Work { runs: 2, given: 1 }
    );
}

#[test]
fn rules_are_read_strictly() {
    assert_eq!(Rules::parse("").unwrap_err(), RulesError::Empty);
    assert_eq!(Rules::parse(&format!("alpha = 0.9\n{ANY}")).unwrap_err(), RulesError::Alpha);
    for wrong in [
        "[[function]]\nmax-increase = '10'\n",
        "[[function]]\nmax-increase = '-1%'\n",
        "[[function]]\nmax-increase = '10%'\nmode = 'root'\n",
        "[[function]]\nmax-increase = '10%'\nmodul = 'x'\n",
        "[[funktion]]\nmax-increase = '10%'\n",
        "[[function]]\nname = 'x'\n",
    ] {
        assert!(matches!(Rules::parse(wrong), Err(RulesError::Unreadable(_))), "{wrong}");
    }
}
