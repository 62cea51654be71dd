//! A machine that was recorded: known domains, processes, functions and call chains, at known weights.

use std::collections::BTreeMap;

use profile::{
    Chain, ChainId, CodeAddress, CpuAccount, Domain, DomainId, DomainKind, DomainTime, Event, EventId, Frame,
    ImageOffset, LossCause, Mode, Origin, PhysCpu, Process, ProcessId, Sample, Snapshot, Source, Space, Time,
    Uuid, VcpuId, VcpuTime, VcpuTimes,
    recording::{End, EndReason, Header, Host, Move, Note, Recording, Told, Writer},
};
use tui::{Limits, State};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const STARTED: u64 = 1000 * SECOND;

/// When something was, in milliseconds after the beginning.
pub(crate) fn at(ms: u64) -> Time {
    Time(STARTED + ms * 1_000_000)
}

pub(crate) struct Machine {
    writer: Writer<Vec<u8>>,
    sequence: u64,
}

/// Where a sample was taken.
#[derive(Clone, Copy)]
pub(crate) struct Where {
    pub(crate) domain: Option<DomainId>,
    pub(crate) process: Option<ProcessId>,
    pub(crate) mode: Mode,
    pub(crate) chain: ChainId,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with_events(&["cpu-clock"])
    }

    pub(crate) fn with_events(names: &[&str]) -> Self {
        let event = |name: &&str| Event {
            name: (*name).to_owned(),
            unit: "ns".to_owned(),
            source: Source::Timer,
            rate_hz: 1000.0,
        };
        let header = Header {
            tool: "xenoscope".into(),
            started_unix_ns: 1_700_000_000 * SECOND,
            started: Time(STARTED),
            host: Host {
                hypervisor: "Xen 4.17.7".into(),
                build_id: None,
                kernel: "6.1.0".into(),
                hostname: "dom0".into(),
                cpus: 2,
            },
            events: names.iter().map(event).collect(),
            command: None,
            options: BTreeMap::new(),
        };
        let writer = Writer::new(Vec::new(), &header).expect("vectors take all that is written");
        Self { writer, sequence: 0 }
    }

    pub(crate) fn domain(
        &mut self,
        id: u32,
        number: u32,
        name: &str,
        kind: DomainKind,
        from: Time,
    ) -> DomainId {
        // The boots of one guest have its UUID in common.
        let mut uuid = [0; 16];
        name.bytes().take(16).enumerate().for_each(|(at, byte)| uuid[at] = byte);
        let uuid = Some(Uuid(uuid)).filter(|_| kind != DomainKind::Dom0);
        let id = DomainId(id);
        self.writer.domain(Domain { id, number, name: name.into(), uuid, kind, vcpus: 1, from });
        id
    }

    pub(crate) fn gone(&mut self, domain: DomainId, at: Time) {
        self.writer.domain_gone(domain, at);
    }

    pub(crate) fn moved(&mut self, from: DomainId, from_number: u32, to: u32, (left, arrived): (Time, Time)) {
        self.writer.domain_moved(Move { from, from_number, to: DomainId(to), left, arrived });
    }

    pub(crate) fn process(&mut self, id: u32, domain: DomainId, pid: u32, name: &str) -> ProcessId {
        let id = ProcessId(id);
        self.writer.process(Process {
            id,
            domain,
            pid: Some(pid),
            root: None,
            name: Some(name.into()),
            container: Some("/system.slice".into()),
            from: at(0),
        });
        id
    }

    pub(crate) fn note(&mut self, time: Time, text: &str) {
        self.writer.note(Note { time, text: text.into() });
    }

    /// A chain of functions, innermost first, all in one space, each interrupted at an offset.
    pub(crate) fn chain(&mut self, space: Space, module: &str, functions: &[(&str, u64)]) -> ChainId {
        let mut caller = None;
        for (depth, (function, offset)) in functions.iter().enumerate().rev() {
            let hash =
                function.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            let start = 0x40_0000 + hash % 0x1000 * 0x100;
            let address = match depth {
                0 => CodeAddress::InstructionPointer(start + offset),
                _ => CodeAddress::ReturnAddress(start + offset),
            };
            let [function, module] = [*function, module].map(|name| Some(self.writer.name(name)));
            let frame = self.writer.frame(Frame {
                space,
                address,
                function,
                module,
                offset: ImageOffset(*offset),
                origin: Origin::default(),
            });
            caller = Some(self.writer.chain(Chain { caller, frame }));
        }
        caller.expect("there are functions")
    }

    pub(crate) fn sample(&mut self, time: Time, place: Where) {
        self.sample_of(time, place, EventId(0), 1_000_000);
    }

    pub(crate) fn sample_of(&mut self, time: Time, place: Where, event: EventId, weight: u64) {
        let Where { domain, process, mode, chain } = place;
        self.writer.sample(Sample {
            time,
            cpu: PhysCpu(0),
            vcpu: domain.map(|domain| VcpuId { domain, index: 0 }),
            charged_to: domain,
            process,
            mode,
            event,
            weight,
            sequence: self.sequence,
            chain,
        });
        self.sequence += 1;
    }

    pub(crate) fn snapshot(&mut self, time: Time, lost: u64, domains: &[(DomainId, u64)]) {
        let account = CpuAccount {
            taken: self.sequence + lost,
            written: self.sequence,
            lost: BTreeMap::from([(LossCause::RingFull, lost)]),
            awake_ns: time.0 - STARTED + 1,
            own_ns: (time.0 - STARTED) / 200,
            ..CpuAccount::default()
        };
        let domains = domains.iter().map(|&(domain, cpu_ns)| DomainTime { domain, cpu_ns }).collect();
        let idle_ns = (time.0 - STARTED) / 4;
        self.writer.snapshot(Snapshot {
            time,
            unix_ns: 0,
            cpus: vec![(PhysCpu(0), account)],
            idle_ns,
            domains,
        });
        self.flush();
    }

    /// That samples from a time on wait for their names.
    pub(crate) fn samples_wait(&mut self, since: Time) {
        self.writer.samples_wait(since);
    }

    /// What vCPUs did, one of each domain: ran, waited, and nothing.
    pub(crate) fn times(&mut self, time: Time, times: &[(DomainId, [u64; 3])]) {
        let time_of = |&(domain, [running_ns, waiting_ns, blocked_ns]): &(DomainId, [u64; 3])| VcpuTime {
            vcpu: VcpuId { domain, index: 0 },
            running_ns,
            waiting_ns,
            blocked_ns,
        };
        self.writer.vcpu_times(VcpuTimes { time, vcpus: times.iter().map(time_of).collect() });
    }

    pub(crate) fn flush(&mut self) {
        self.writer.flush().expect("vectors take all that is written");
    }

    pub(crate) fn finish(self, time: Time) -> Vec<u8> {
        self.writer
            .finish(End { time, reason: EndReason::Duration })
            .expect("vectors take all that is written")
    }
}

/// All that a recording tells.
pub(crate) fn told(recording: &[u8]) -> (State, Vec<Told>) {
    let mut reader = Recording::read(recording).unwrap();
    let state = State::new(reader.header().clone(), Limits::default(), 10);
    let mut told = Vec::new();
    while told.last().is_none_or(|told: &Told| !told.is_last()) {
        told.push(reader.read_next().unwrap());
    }
    (state, told)
}

/// The state after a recording.
pub(crate) fn state(recording: &[u8]) -> State {
    let (mut state, told) = told(recording);
    told.into_iter().for_each(|told| state.take(told).unwrap());
    state
}

/// Twelve seconds of a Xen host: alpha's server computes and reads, beta's kernel works, dom0 serves them, and beta is
/// rebooted after eight.
pub(crate) fn usual(lost: u64) -> Vec<u8> {
    let mut machine = Machine::new();
    let dom0 = machine.domain(0, 0, "Domain-0", DomainKind::Dom0, at(1));
    let alpha = machine.domain(1, 1, "alpha", DomainKind::Pvh, at(1));
    let mut beta = machine.domain(2, 2, "beta", DomainKind::Pv, at(1));
    machine.note(at(2), "the local APIC's timer samples: this processor has no counters that work");
    let server = machine.process(0, alpha, 101, "server");
    let shell = machine.process(1, alpha, 77, "sh");
    let qemu = machine.process(2, dom0, 1234, "qemu-system-x86");
    let xen = machine.chain(Space::Hypervisor, "xen", &[("svm_vmexit_handler", 0x10)]);
    let own = machine.chain(Space::Hypervisor, "xen", &[("idle_loop", 0x20)]);
    let user = Space::User(alpha, server);
    let compute = machine.chain(user, "server", &[("compute", 0x1a), ("serve", 0x40), ("main", 0x99)]);
    let compute_later = machine.chain(user, "server", &[("compute", 0x2c), ("serve", 0x40), ("main", 0x99)]);
    let parse = machine.chain(user, "server", &[("parse", 0x7), ("serve", 0x60), ("main", 0x99)]);
    let read =
        machine.chain(Space::Kernel(alpha), "vmlinux", &[("copy_user_generic", 3), ("vfs_read", 0x50)]);
    let sh = machine.chain(Space::User(alpha, shell), "busybox", &[("ash_main", 0x30)]);
    let serve = machine.chain(Space::Kernel(dom0), "vmlinux", &[("xen_blkbk_map", 0x11)]);
    let emulate = machine.chain(Space::User(dom0, qemu), "qemu", &[("main_loop_wait", 0x5)]);
    let mut spin =
        machine.chain(Space::Kernel(beta), "vmlinux", &[("native_queued_spin_lock_slowpath", 0x44)]);
    for second in 0..12 {
        if second == 8 {
            machine.gone(beta, at(8000));
            beta = machine.domain(3, 5, "beta", DomainKind::Pv, at(8200));
            spin =
                machine.chain(Space::Kernel(beta), "vmlinux", &[("native_queued_spin_lock_slowpath", 0x44)]);
        }
        for step in 0..100u64 {
            let time = at(second * 1000 + step * 10);
            let place = |domain, process, mode, chain| Where { domain, process, mode, chain };
            let place = match step {
                0..30 => place(Some(alpha), Some(server), Mode::User, compute),
                30..40 => place(Some(alpha), Some(server), Mode::User, compute_later),
                40..48 => place(Some(alpha), Some(server), Mode::User, parse),
                48..55 => place(Some(alpha), Some(server), Mode::Kernel, read),
                55..57 => place(Some(alpha), Some(shell), Mode::User, sh),
                57..62 => place(Some(alpha), None, Mode::Hypervisor, xen),
                // More of it with every second.
                62..82 if step < 70 + second => place(Some(beta), None, Mode::Kernel, spin),
                62..88 => place(Some(dom0), None, Mode::Kernel, serve),
                88..95 => place(Some(alpha), Some(qemu), Mode::Backend, emulate),
                _ => place(None, None, Mode::Hypervisor, own),
            };
            machine.sample(time, place);
        }
        let used = (second + 1) * SECOND;
        let rest = (second + 1) * SECOND - used / 2;
        machine.times(
            at(second * 1000 + 999),
            &[(alpha, [used / 2, rest / 4, rest / 4 * 3]), (dom0, [used / 5, 0, used / 5 * 4])],
        );
        let lost = if second > 9 { lost } else { 0 };
        machine.snapshot(
            at(second * 1000 + 999),
            lost,
            &[(alpha, used / 2), (dom0, used / 5), (beta, used / 10)],
        );
    }
    machine.finish(at(12_000))
}
