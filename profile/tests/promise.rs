//! What docs/recording.md promises: readers read what older writers have written.
//!
//! `format-2.xsr` is what the first recorder with format 2 wrote: four seconds of a KVM host with one guest, with call chains
//! and a mark, on a machine that the lab played. It is never made anew.

use std::collections::BTreeMap;

use profile::{
    DomainKind, Mode,
    recording::{Completeness, EndReason, Recording},
};

const FORMAT_2: &[u8] = include_bytes!("format-2.xsr");

#[test]
fn format_2_is_read() {
    let mut weights: BTreeMap<(String, Mode, String), u64> = BTreeMap::new();
    let (mut samples, mut deepest) = (0, 0);
    let recorded = Recording::read(FORMAT_2)
        .unwrap()
        .for_each_sample(|sample, tables| {
            samples += 1;
            let domain = tables.domain(sample.charged_to.unwrap()).name.clone();
            let frame = tables.frames(sample.chain).next().unwrap();
            let function = frame.function.map_or("", |name| tables.name(name)).to_owned();
            *weights.entry((domain, sample.mode, function)).or_default() += sample.weight;
            deepest = deepest.max(tables.frames(sample.chain).count());
        })
        .unwrap();

    let header = &recorded.header;
    assert_eq!(header.tool, "xenoscope 0.1.0");
    assert_eq!((header.host.hypervisor.as_str(), header.host.cpus), ("KVM", 2));
    assert_eq!(header.host.kernel, "6.1.0-56-amd64");
    assert_eq!((header.events[0].name.as_str(), header.events[0].unit.as_str()), ("cpu-clock", "ns"));
    assert_eq!(header.options["call-graph"], "stack,4096");
    let Completeness::Whole(end) = &recorded.completeness else { panic!("{:?}", recorded.completeness) };
    assert_eq!(end.reason, EndReason::Duration);

    let weight = |domain: &str, mode, function: &str| weights[&(domain.into(), mode, function.into())];
    assert_eq!((samples, weights.values().sum::<u64>()), (165, 6_062_323_026));
    assert_eq!(weight("beta", Mode::User, "beta_hot"), 2_488_433_448);
    assert_eq!(weight("beta", Mode::User, "beta_warm"), 654_949_190);
    assert_eq!(weight("host", Mode::Kernel, "clear_page_rep"), 363_232_260);
    assert!(deepest > 10, "{deepest} frames");

    let tables = &recorded.tables;
    let beta = tables.domains().find(|domain| domain.name == "beta").unwrap();
    assert_eq!((beta.number, beta.kind, beta.vcpus), (132, DomainKind::Kvm, 1));
    assert_eq!(beta.uuid.unwrap().to_string(), "df314959-e004-8b76-8c05-821efd83358a");
    let hot =
        tables.processes().find(|process| process.domain == beta.id && process.pid == Some(87)).unwrap();
    assert_eq!(hot.name.as_deref(), Some("hot"));
    assert_eq!(recorded.marks.iter().map(|mark| mark.name.as_str()).collect::<Vec<_>>(), ["half"]);
    assert_eq!(recorded.notes.len(), 2);
    let cpus = &recorded.snapshot.as_ref().unwrap().cpus;
    assert_eq!(cpus.iter().map(|(_, account)| account.taken).sum::<u64>(), 165);
    assert!(cpus.iter().all(|(_, account)| account.balances()));
}
