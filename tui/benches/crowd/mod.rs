//! A recording of many domains with many functions.

use std::{collections::BTreeMap, io::Write};

use profile::{
    Chain, CodeAddress, Domain, DomainId, DomainKind, Event, EventId, Frame, ImageOffset, Mode, Origin,
    PhysCpu, Sample, Source, Space, Time, VcpuId,
    recording::{End, EndReason, Header, Host, Writer},
};

/// Writes a recording of so many seconds in which every function was hit twice in ten seconds, with eight callers each.
pub(crate) fn write<W: Write>(out: W, domains: u32, functions: u32, seconds: u64) -> W {
    let header = Header {
        tool: String::new(),
        started_unix_ns: 0,
        started: Time(0),
        host: Host {
            hypervisor: "Xen".into(),
            build_id: None,
            kernel: String::new(),
            hostname: "bench".into(),
            cpus: 64,
        },
        events: vec![Event {
            name: "cpu-clock".into(),
            unit: "ns".into(),
            source: Source::Timer,
            rate_hz: 1000.0,
        }],
        command: None,
        options: BTreeMap::new(),
    };
    let mut writer = Writer::new(out, &header).unwrap();
    let samples = u64::from(functions) * seconds / 5;
    for id in 0..domains {
        let name = format!("guest-{id:04}");
        let (id, number) = (DomainId(id), id);
        let from = Time(0);
        writer.domain(Domain { id, number, name, uuid: None, kind: DomainKind::Pvh, vcpus: 2, from });
    }
    for at in 0..samples {
        let which = (at % u64::from(functions)) as u32;
        let domain = DomainId(which % domains);
        let space = Space::Kernel(domain);
        let module = Some(writer.name("vmlinux"));
        let mut caller = None;
        for depth in 0..9 {
            let name = if depth == 8 {
                format!("function_{which}")
            } else {
                format!("caller_{}", which % (depth + 2))
            };
            let function = Some(writer.name(&name));
            let address = CodeAddress::InstructionPointer(u64::from(which) * 64 + u64::from(depth));
            let frame = writer.frame(Frame {
                space,
                address,
                function,
                module,
                offset: ImageOffset(0),
                origin: Origin::default(),
            });
            caller = Some(writer.chain(Chain { caller, frame }));
        }
        writer.sample(Sample {
            time: Time(at * seconds * 1_000_000_000 / samples),
            cpu: PhysCpu(which % 64),
            vcpu: Some(VcpuId { domain, index: 0 }),
            charged_to: Some(domain),
            process: None,
            mode: Mode::Kernel,
            event: EventId(0),
            weight: 1_000_000 + u64::from(which * 7919 % functions),
            sequence: at,
            chain: caller.unwrap(),
        });
    }
    writer.finish(End { time: Time(seconds * 1_000_000_000 - 1), reason: EndReason::Duration }).unwrap()
}
