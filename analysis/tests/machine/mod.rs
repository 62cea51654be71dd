//! A recording made by hand: few enough samples to add up on paper.

use std::collections::BTreeMap;

use analysis::Aggregate;
use profile::{
    AddressSpaceRoot, Chain, CodeAddress, CpuAccount, Domain, DomainId, DomainKind, DomainTime, Event,
    EventId, ExitCost, Frame, ImageOffset, LossCause, Mode, Origin, PhysCpu, Process, ProcessId, Sample,
    Snapshot, Source, Space, Time, Uuid, VcpuId, VcpuTime, VcpuTimes,
    recording::{End, EndReason, Header, Host, Place, Recording, Writer},
};

pub(crate) const DOM0: DomainId = DomainId(0);
pub(crate) const WEB: DomainId = DomainId(1);
/// `web` after its reboot.
pub(crate) const WEB_AGAIN: DomainId = DomainId(2);
pub(crate) const DB: DomainId = DomainId(3);

pub(crate) const WEB_UUID: Uuid = Uuid([0xab; 16]);

const SECOND: u64 = 1_000_000_000;

/// What a frame of a test says: `module`, `function` and the offset from whichever is known last.
pub(crate) type Code = (Space, Option<&'static str>, Option<&'static str>, u64);

pub(crate) struct Machine {
    pub(crate) writer: Writer<Vec<u8>>,
    sequence: u64,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let header = Header {
            tool: "xenoscope 0.1.0".to_owned(),
            started_unix_ns: 0,
            started: Time(100 * SECOND),
            host: Host {
                hypervisor: "Xen 4.17.7".to_owned(),
                build_id: None,
                kernel: "6.1.0".to_owned(),
                hostname: "lab".to_owned(),
                cpus: 1,
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
        Self { writer: Writer::new(Vec::new(), &header).unwrap(), sequence: 0 }
    }

    pub(crate) fn domain(
        &mut self,
        id: DomainId,
        number: u32,
        name: &str,
        kind: DomainKind,
        uuid: Option<Uuid>,
    ) {
        let from = Time(100 * SECOND + u64::from(id.0));
        self.writer.domain(Domain { id, number, name: name.to_owned(), uuid, kind, vcpus: 1, from });
    }

    /// A process of `web` after its reboot.
    fn process(&mut self, id: u32) -> ProcessId {
        let (id, root) = (ProcessId(id), Some(AddressSpaceRoot(0x1000 * (u64::from(id) + 1))));
        let from = Time(100 * SECOND);
        let process = Process { id, domain: WEB_AGAIN, pid: None, root, name: None, container: None, from };
        self.writer.process(process);
        id
    }

    /// A sample whose chain is given innermost frame first.
    pub(crate) fn sample(&mut self, charged_to: Option<DomainId>, mode: Mode, weight: u64, chain: &[Code]) {
        let mut caller = None;
        for &(space, module, function, offset) in chain.iter().rev() {
            let frame = Frame {
                space,
                address: CodeAddress::InstructionPointer(offset),
                function: function.map(|name| self.writer.name(name)),
                module: module.map(|name| self.writer.name(name)),
                offset: ImageOffset(offset),
                origin: Origin::default(),
            };
            let frame = self.writer.frame(frame);
            caller = Some(self.writer.chain(Chain { caller, frame }));
        }
        let process = match chain[0].0 {
            Space::User(_, process) => Some(process),
            _ => None,
        };
        self.writer.sample(Sample {
            time: Time(101 * SECOND),
            cpu: PhysCpu(0),
            vcpu: None,
            charged_to,
            process,
            mode,
            event: EventId(0),
            weight,
            sequence: self.sequence,
            chain: caller.unwrap(),
        });
        self.sequence += 1;
    }

    /// A vCPU that ran, waited and was blocked for so many milliseconds, and the domain that it is of.
    pub(crate) fn times(&mut self, times: &[(DomainId, u32, [u64; 3])]) {
        let time = |&(domain, index, ms): &(DomainId, u32, [u64; 3])| {
            let [running_ns, waiting_ns, blocked_ns] = ms.map(|ms| ms * 1_000_000);
            VcpuTime { vcpu: VcpuId { domain, index }, running_ns, waiting_ns, blocked_ns }
        };
        let vcpus = times.iter().map(time).collect();
        self.writer.vcpu_times(VcpuTimes { time: Time(110 * SECOND), vcpus });
    }

    /// Exits of a kernel's function for a reason: how often, and how many microseconds in all and at most.
    pub(crate) fn exits(&mut self, domain: DomainId, function: &str, reason: &str, cost: [u64; 3]) {
        let frame = Frame {
            space: Space::Kernel(domain),
            address: CodeAddress::InstructionPointer(0x70),
            function: Some(self.writer.name(function)),
            module: Some(self.writer.name("vmlinux")),
            offset: ImageOffset(0x70),
            origin: Origin::default(),
        };
        let frame = self.writer.frame(frame);
        let chain = self.writer.chain(Chain { caller: None, frame });
        let place = Place { charged_to: Some(domain), process: None, mode: Mode::Kernel, chain };
        let reason = self.writer.name(reason);
        let [count, total, longest] = cost;
        let cost = ExitCost { count, total_ns: total * 1_000, longest_ns: longest * 1_000 };
        self.writer.exits(Time(105 * SECOND), place, reason, cost);
    }

    /// Samples that were due but are not in the recording.
    pub(crate) fn gap(&mut self, samples: u64) {
        self.sequence += samples;
    }

    pub(crate) fn books(&mut self, account: CpuAccount, times: &[(DomainId, u64)]) {
        self.writer.snapshot(Snapshot {
            time: Time(110 * SECOND),
            unix_ns: 0,
            cpus: vec![(PhysCpu(0), account)],
            idle_ns: 3 * SECOND,
            domains: times.iter().map(|&(domain, cpu_ns)| DomainTime { domain, cpu_ns }).collect(),
        });
    }

    pub(crate) fn finish(self, reason: EndReason) -> Aggregate {
        let bytes = self.writer.finish(End { time: Time(110 * SECOND), reason }).unwrap();
        aggregate(&bytes)
    }
}

pub(crate) fn aggregate(bytes: &[u8]) -> Aggregate {
    Aggregate::of(Recording::read(bytes).unwrap()).unwrap()
}

pub(crate) fn account(taken: u64, written: u64, filtered: u64, ring_full: u64) -> CpuAccount {
    let lost = BTreeMap::from([(LossCause::RingFull, ring_full)]);
    CpuAccount { taken, written, filtered, lost, quiet_ns: SECOND / 2, ..CpuAccount::default() }
}

/// Nine samples of 200 ns: 140 for `web` in two boots, 40 for dom0, 20 for nobody; `db` slept.
pub(crate) fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.domain(DOM0, 0, "Domain-0", DomainKind::Dom0, Some(Uuid([0; 16])));
    machine.domain(WEB, 1, "web", DomainKind::Pvh, Some(WEB_UUID));
    machine.domain(DB, 2, "db", DomainKind::Hvm, Some(Uuid([0; 16])));
    let xen = |function| (Space::Hypervisor, Some("xen"), Some(function), 4);
    let kernel = |domain, function| (Space::Kernel(domain), Some("vmlinux"), Some(function), 8);
    let process = |id, module, function, offset| {
        (Space::User(WEB_AGAIN, ProcessId(id)), Some(module), function, offset)
    };

    let (syscall, read) = (kernel(WEB, "do_syscall_64"), kernel(WEB, "vfs_read"));
    machine.sample(None, Mode::Hypervisor, 20, &[xen("csched2_tick")]);
    machine.sample(Some(WEB), Mode::Kernel, 30, &[read, syscall]);
    machine.sample(Some(WEB), Mode::Kernel, 10, &[syscall, read, syscall]);

    machine.domain(WEB_AGAIN, 5, "web", DomainKind::Pvh, Some(WEB_UUID));
    machine.process(0);
    let other = machine.process(1);
    let main = process(0, "nginx", Some("main"), 0x40);
    let unknown = (Space::User(WEB_AGAIN, other), None, None, 0);
    machine.sample(Some(WEB_AGAIN), Mode::User, 25, &[process(0, "libc.so.6", None, 0x88), main]);
    machine.sample(Some(WEB_AGAIN), Mode::User, 5, &[unknown]);
    machine.sample(Some(WEB_AGAIN), Mode::User, 20, &[main]);
    machine.gap(2);
    let exit = [xen("vmx_vmexit_handler"), kernel(WEB_AGAIN, "do_syscall_64")];
    machine.sample(Some(WEB_AGAIN), Mode::Hypervisor, 10, &exit);
    machine.sample(Some(WEB_AGAIN), Mode::Backend, 40, &[kernel(DOM0, "xenvif_rx")]);
    machine.sample(Some(DOM0), Mode::Kernel, 40, &[kernel(DOM0, "schedule")]);
    machine
}
