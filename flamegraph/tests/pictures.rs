//! Pictures of stacks that were made by hand.

use std::collections::BTreeMap;

use analysis::{DomainReport, EventReport, HostReport, Layer, Modes, Named, Report, Stack};
use flamegraph::{PictureError, Pictures};
use profile::{DomainKind, LossCause, Mode, Source};

fn row(name: &str) -> DomainReport {
    DomainReport {
        id: Some(1),
        name: name.to_owned(),
        uuid: None,
        kind: DomainKind::Hvm,
        samples: 0,
        weight: 0,
        share: 0.0,
        modes: Modes::default(),
        named: Named::default(),
        complete_chains: BTreeMap::new(),
        functions: Vec::new(),
        processes: Vec::new(),
        cpu_s: None,
        vcpus: Vec::new(),
        exits: Vec::new(),
        moves: Vec::new(),
    }
}

fn report(domains: &[&str]) -> Report {
    let event = EventReport {
        name: "cpu-clock".to_owned(),
        unit: "ns".to_owned(),
        source: Source::Timer,
        bias: Source::Timer.bias(),
        rate_hz: 99.0,
        samples: 1_000,
        weight: 0,
        idle_s: None,
        filtered: Some(0),
        lost: BTreeMap::from([(LossCause::RingFull, 7)]),
        modes: Modes::default(),
        domains: domains.iter().map(|name| row(name)).collect(),
        taken: Some(1_007),
        quiet_s: None,
        masked_s: Some(0.0),
        foreign_nmis: Some(0),
        overhead: None,
        cpus: Vec::new(),
    };
    let host = HostReport {
        hypervisor: "Xen 4.17.7".to_owned(),
        build_id: None,
        kernel: "6.1.0".to_owned(),
        hostname: "lab".to_owned(),
        cpus: 2,
    };
    Report { schema: 1, duration_s: 10.0, host, events: vec![event], complete: true, notes: Vec::new() }
}

fn stack(domain: usize, layers: &[(&str, Mode)], weight: u64) -> Stack {
    let layers = layers.iter().map(|&(name, mode)| Layer { name: name.to_owned(), mode }).collect();
    Stack { domain, layers, weight }
}

fn text(svg: Result<Vec<u8>, PictureError>) -> String {
    String::from_utf8(svg.unwrap()).unwrap()
}

/// The tool tips: what is drawn, with its weight.
fn titles(svg: &str) -> Vec<&str> {
    svg.split("<title>").skip(1).map(|rest| rest.split("</title>").next().unwrap()).collect()
}

/// The colour of the frame with this tool tip.
fn fill<'a>(svg: &'a str, title: &str) -> &'a str {
    let frame = svg.split("<title>").find(|frame| frame.starts_with(title)).unwrap();
    frame.split("fill=\"").nth(1).unwrap().split('"').next().unwrap()
}

#[test]
fn the_machine_has_its_domains_at_the_roots() {
    let report = report(&["web", "hypervisor"]);
    let stacks = [
        stack(
            0,
            &[("kernel", Mode::Kernel), ("do_syscall_64", Mode::Kernel), ("vfs_read", Mode::Kernel)],
            30,
        ),
        stack(0, &[("process 0x1000", Mode::User), ("main", Mode::User)], 50),
        stack(1, &[("hypervisor", Mode::Hypervisor), ("csched2_tick", Mode::Hypervisor)], 20),
    ];
    let pictures = Pictures::new(&report, &report.events[0], stacks);
    let svg = text(pictures.machine());
    let mut drawn = titles(&svg);
    drawn.sort_unstable();
    assert_eq!(
        drawn,
        [
            "all (100 ns, 100%)",
            "csched2_tick (20 ns, 20.00%)",
            "do_syscall_64 (30 ns, 30.00%)",
            "hypervisor (20 ns, 20.00%)",
            "hypervisor (20 ns, 20.00%)",
            "kernel (30 ns, 30.00%)",
            "main (50 ns, 50.00%)",
            "process 0x1000 (50 ns, 50.00%)",
            "vfs_read (30 ns, 30.00%)",
            "web (80 ns, 80.00%)",
        ]
    );
    assert!(svg.contains("lab: all domains"));
    assert!(svg.contains("10.0 s of cpu-clock at 99 Hz from timer: 1000 samples, 7 of 1007 lost"));

    let domain = text(pictures.domain(1));
    assert_eq!(titles(&domain).len(), 3);
    assert_eq!(
        fill(&domain, "csched2_tick"),
        fill(&svg, "csched2_tick"),
        "colours do not change between pictures"
    );
}

#[test]
fn modes_differ_in_colour() {
    let report = report(&["web"]);
    let stacks = Mode::ALL.map(|mode| stack(0, &[(mode.as_str(), mode), ("f", mode)], 10));
    let svg = text(Pictures::new(&report, &report.events[0], stacks).machine());
    let mut fills: Vec<&str> = svg.split("<title>f (").skip(1).map(|frame| fill(frame, "10 ns")).collect();
    fills.dedup();
    assert_eq!(fills.len(), 4, "{fills:?}");
}

#[test]
fn names_are_text_and_nothing_else() {
    let report = report(&["<script>alert(1)</script>\u{1b}", "# x 5_[k]"]);
    let hostile = "a;b\n7 & \u{202e}<b> 12";
    let stacks = [
        stack(0, &[("kernel", Mode::Kernel), (hostile, Mode::Kernel)], 10),
        stack(1, &[("5", Mode::User)], 10),
    ];
    let svg = text(Pictures::new(&report, &report.events[0], stacks).machine());
    let drawn = titles(&svg);
    assert!(drawn.contains(&r"a:b\n7 &amp; \u{202e}&lt;b&gt; 12 (10 ns, 50.00%)"), "{drawn:?}");
    assert!(drawn.contains(&r"&lt;script&gt;alert(1)&lt;/script&gt;\u{1b} (10 ns, 50.00%)"), "{drawn:?}");
    assert!(drawn.contains(&r"\u{23} x 5_[k\u{5d} (10 ns, 50.00%)"), "{drawn:?}");
    assert!(!svg.contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn big_profiles_stay_small() {
    let report = report(&["web"]);
    let stacks = (0..100_000)
        .map(|n| stack(0, &[("kernel", Mode::Kernel), (&format!("function_{n}"), Mode::Kernel)], 1));
    let svg = text(Pictures::new(&report, &report.events[0], stacks).machine());
    assert!(svg.len() < 100_000, "{} bytes", svg.len());
}

#[test]
fn what_cannot_be_drawn_is_an_error() {
    let report = report(&["web", "db"]);
    let nothing = Pictures::new(&report, &report.events[0], []);
    assert_eq!(nothing.domain(1).unwrap_err().to_string(), "there are no samples of db");
    let stacks = [stack(0, &[("a", Mode::User)], u64::MAX), stack(0, &[("b", Mode::User)], 1)];
    let heavy = Pictures::new(&report, &report.events[0], stacks);
    assert!(matches!(heavy.machine(), Err(PictureError::TooHeavy { .. })));
}
