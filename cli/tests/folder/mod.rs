//! A folder with a recording made by hand, and the command run in it.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use profile::{
    AddressSpaceRoot, Chain, CodeAddress, CpuAccount, Domain, DomainId, DomainKind, DomainTime, Event,
    EventId, ExitCost, Frame, ImageOffset, LossCause, Mode, Origin, PhysCpu, Process, ProcessId, Sample,
    Snapshot, Source, Space, Time, Uuid, VcpuId, VcpuTime, VcpuTimes,
    recording::{End, EndReason, Header, Host, Note, Place, Writer},
};
use tempfile::TempDir;

const SECOND: u64 = 1_000_000_000;

/// A folder with a recording, `xenoscope.xsr`, of ten samples among two domains and the hypervisor.
pub(crate) fn folder() -> TempDir {
    let header = Header {
        tool: "xenoscope 0.1.0".to_owned(),
        started_unix_ns: 0,
        started: Time(0),
        host: Host {
            hypervisor: "Xen 4.17.7".to_owned(),
            build_id: None,
            kernel: "6.1.0-25-amd64".to_owned(),
            hostname: "lab".to_owned(),
            cpus: 2,
        },
        events: vec![Event {
            name: "cpu-clock".to_owned(),
            unit: "ns".to_owned(),
            source: Source::Timer,
            rate_hz: 99.0,
        }],
        command: None,
        options: BTreeMap::new(),
    };
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    let (dom0, guest) = (DomainId(0), DomainId(1));
    for (id, number, name, kind) in
        [(dom0, 0, "Domain-0", DomainKind::Dom0), (guest, 3, "we\u{1b}[31mb", DomainKind::Pvh)]
    {
        let uuid = Some(Uuid([number as u8; 16]));
        writer.domain(Domain { id, number, name: name.to_owned(), uuid, kind, vcpus: 1, from: Time(0) });
    }
    writer.note(Note { time: Time(SECOND / 2), text: "the symbols of db could not be read".to_owned() });

    let process = ProcessId(0);
    let root = Some(AddressSpaceRoot(0x1000));
    let (name, from) = (Some("ngin\u{7}x".to_owned()), Time(0));
    writer.process(Process { id: process, domain: guest, pid: Some(9), root, name, container: None, from });
    let user = Space::User(guest, process);
    let code = [
        (None, Mode::Hypervisor, Space::Hypervisor, "xen", "csched2_schedule", 1),
        (Some(dom0), Mode::Kernel, Space::Kernel(dom0), "vmlinux", "schedule", 2),
        (Some(guest), Mode::User, user, "nginx", "ngx_http\u{9b}_parse", 4),
        (Some(guest), Mode::Backend, Space::Kernel(dom0), "xen_netback", "xenvif_tx", 3),
    ];
    let mut sequence = 0;
    for (charged_to, mode, space, module, function, samples) in code {
        let frame = Frame {
            space,
            address: CodeAddress::InstructionPointer(0x10),
            function: Some(writer.name(function)),
            module: Some(writer.name(module)),
            offset: ImageOffset(0),
            origin: Origin::default(),
        };
        let frame = writer.frame(frame);
        let chain = writer.chain(Chain { caller: None, frame });
        for _ in 0..samples {
            writer.sample(Sample {
                time: Time(SECOND),
                cpu: PhysCpu(0),
                vcpu: None,
                charged_to,
                process: (space == user).then_some(process),
                mode,
                event: EventId(0),
                weight: 10_000_000,
                sequence,
                chain,
            });
            sequence += 1;
        }
    }
    let place = |mode, space, function: &str, writer: &mut Writer<Vec<u8>>| {
        let frame = Frame {
            space,
            address: CodeAddress::InstructionPointer(0x20),
            function: Some(writer.name(function)),
            module: Some(writer.name("vmlinux")),
            offset: ImageOffset(0),
            origin: Origin::default(),
        };
        let frame = writer.frame(frame);
        let chain = writer.chain(Chain { caller: None, frame });
        Place { charged_to: Some(guest), process: None, mode, chain }
    };
    let kernel = Space::Kernel(guest);
    for (function, reason, count, total_ns) in
        [("iowrite\u{7}16", "npf", 1_500, 30_000_000), ("default_idle", "hlt", 20, 900_000_000)]
    {
        let place = place(Mode::Kernel, kernel, function, &mut writer);
        let reason = writer.name(reason);
        writer.exits(Time(SECOND), place, reason, ExitCost { count, total_ns, longest_ns: total_ns / 10 });
    }
    let time = |domain, [running_ns, waiting_ns, blocked_ns]: [u64; 3]| VcpuTime {
        vcpu: VcpuId { domain, index: 0 },
        running_ns,
        waiting_ns,
        blocked_ns,
    };
    writer.vcpu_times(VcpuTimes {
        time: Time(2 * SECOND),
        vcpus: vec![
            time(dom0, [SECOND / 4, 0, SECOND * 7 / 4]),
            time(guest, [SECOND / 2, SECOND / 2, SECOND]),
        ],
    });
    let account = CpuAccount {
        taken: 1_012,
        written: 10,
        filtered: 1_000,
        lost: BTreeMap::from([(LossCause::RingFull, 2)]),
        ..CpuAccount::default()
    };
    writer.snapshot(Snapshot {
        time: Time(2 * SECOND),
        unix_ns: 0,
        cpus: vec![(PhysCpu(0), account)],
        idle_ns: 3 * SECOND,
        domains: vec![DomainTime { domain: guest, cpu_ns: SECOND / 2 }],
    });
    let bytes = writer.finish(End { time: Time(2 * SECOND), reason: EndReason::Duration }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("xenoscope.xsr"), bytes).unwrap();
    folder
}

pub(crate) fn xenoscope(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xenoscope"));
    command.current_dir(folder).args(args).env_remove("CLICOLOR_FORCE");
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
