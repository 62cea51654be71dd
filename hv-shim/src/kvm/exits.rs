//! What guests are left for, on its way out: rows that the kernel has counted become records.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use profile::{ExitCost, Time};

use super::{
    bpf::{Bpf, ExitCounter, ExitRow, Lack, Processor},
    charge,
    vcpus::Known,
};
use crate::{Exits, Owner, ProcessKey, Record, Taken, exit_reason};

/// How often rows are taken.
const TURN: Duration = Duration::from_millis(250);

/// The exits of all guests.
pub(super) struct ExitAccount {
    counter: ExitCounter,
    turned: Instant,
    reasons: Reasons,
    /// Exits of which the processor's control block told of another place.
    strange: u64,
    /// Why rows can't be taken any more.
    failure: Option<io::Error>,
}

impl ExitAccount {
    /// Begins to count, on a machine with so many CPUs, of which `first` is online.
    pub(super) fn begin(bpf: &Bpf, cpus: u32, first: u32) -> Result<Self, Lack> {
        let counter = bpf.count_exits(cpus, first)?;
        Ok(Self {
            reasons: Reasons { processor: bpf.layout.processor, names: HashMap::new() },
            counter,
            turned: Instant::now(),
            strange: 0,
            failure: None,
        })
    }

    /// Takes what is due, as records of this time.
    pub(super) fn take(&mut self, time: Time, known: &mut Known) -> Vec<Record> {
        if self.turned.elapsed() < TURN {
            return Vec::new();
        }
        self.turned = Instant::now();
        let rows = self.counter.next_turn();
        self.tell(rows, time, known)
    }

    /// Ends counting.
    pub(super) fn stop(&mut self) {
        self.counter.detach();
    }

    /// Takes all that is left, a moment after the end.
    pub(super) fn rest(&mut self, time: Time, known: &mut Known) -> Vec<Record> {
        let rows = self.counter.rest();
        self.tell(rows, time, known)
    }

    fn tell(&mut self, rows: io::Result<Vec<ExitRow>>, time: Time, known: &mut Known) -> Vec<Record> {
        let rows = rows.unwrap_or_else(|error| {
            self.failure = Some(error);
            Vec::new()
        });
        let (strange, reasons) = (&mut self.strange, &mut self.reasons);
        let records = rows.into_iter().map(|row| {
            *strange += if row.strange { row.count } else { 0 };
            Record::Exits(reasons.record(&row, time, known))
        });
        records.collect()
    }

    /// What the operator should know when it is over.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some([(exits @ 1.., exit_ns), (_, entry_ns)]) = self.counter.runs() {
            notes.push(format!(
                "{exits} exits of guests were counted; the BPF programs that do so took {:.2} µs of each",
                (exit_ns + entry_ns) as f64 / exits as f64 / 1e3
            ));
        }
        let books = self.counter.books().unwrap_or_default();
        if books.dropped > 0 {
            notes.push(format!(
                "{} exits of guests, which took {:.3} s, are not in the recording: there were too many places to count them \
                 apart",
                books.dropped,
                books.dropped_ns as f64 / 1e9
            ));
        }
        if books.unpaired > 0 {
            notes.push(format!(
                "{} exits of guests are not in the recording: their ends were not seen",
                books.unpaired
            ));
        }
        if self.strange > 0 {
            notes.push(format!(
                "of {} exits the guest's state was not where KVM is expected to keep it: they have their address alone",
                self.strange
            ));
        }
        if let Some(error) = &self.failure {
            notes.push(format!(
                "some exits of guests are not in the recording: the kernel refuses to tell: {error}"
            ));
        }
        notes
    }
}

/// What reasons are called.
struct Reasons {
    processor: Processor,
    names: HashMap<u64, Arc<str>>,
}

impl Reasons {
    fn name(&mut self, reason: u64) -> Arc<str> {
        let name = || match self.processor {
            Processor::Amd => exit_reason::svm(reason),
            Processor::Intel => exit_reason::vmx(reason),
        };
        Arc::clone(self.names.entry(reason).or_insert_with(|| name().into()))
    }

    fn record(&mut self, row: &ExitRow, time: Time, known: &mut Known) -> Exits {
        let guest = row.process;
        known.running_guest(guest, row.thread).index = Some(row.vcpu_id);
        let (mode, owner) = charge::guest_code(guest, row.instruction_pointer, row.state);
        // Firmware runs without any.
        let page_tables = row.state.map(|state| state.root).filter(|root| root.0 != 0);
        let at = Taken {
            process: page_tables.filter(|_| matches!(owner, Owner::Process(_))).map(ProcessKey::Root),
            page_tables,
            ..Taken::unsampled(time, (guest, row.vcpu_id), (mode, owner), row.instruction_pointer)
        };
        let cost = ExitCost { count: row.count, total_ns: row.total_ns, longest_ns: row.longest_ns };
        Exits { at, reason: self.name(row.reason), cost }
    }
}

#[cfg(test)]
mod tests {
    use profile::{AddressSpaceRoot, Mode};

    use super::*;
    use crate::kvm::bpf::GuestState;

    #[test]
    fn an_exit_is_charged_to_the_code_that_was_left() {
        let mut reasons = Reasons { processor: Processor::Amd, names: HashMap::new() };
        let mut known = Known::default();
        let row = ExitRow {
            process: 7,
            thread: 8,
            vcpu_id: 1,
            reason: 0x72,
            instruction_pointer: 0x40_1234,
            state: Some(GuestState { root: AddressSpaceRoot(0x2000), user: true }),
            strange: false,
            count: 3,
            total_ns: 300,
            longest_ns: 200,
        };
        let user = reasons.record(&row, Time(5), &mut known);
        assert_eq!((&*user.reason, user.at.time), ("cpuid", Time(5)));
        assert_eq!(user.cost, ExitCost { count: 3, total_ns: 300, longest_ns: 200 });
        assert_eq!((user.at.charged_to, user.at.vcpu, user.at.mode), (Some(7), Some(1), Mode::User));
        let root = AddressSpaceRoot(0x2000);
        assert_eq!((user.at.owner, user.at.process), (Owner::Process(7), Some(ProcessKey::Root(root))));
        assert_eq!(known.of_thread(8).and_then(|vcpu| vcpu.index), Some(1), "its thread is a vCPU's");

        let kernel = ExitRow { state: Some(GuestState { root, user: false }), reason: 0x78, ..row.clone() };
        let kernel = reasons.record(&kernel, Time(6), &mut known);
        assert_eq!((&*kernel.reason, kernel.at.mode, kernel.at.process), ("hlt", Mode::Kernel, None));
        assert_eq!((kernel.at.owner, kernel.at.page_tables), (Owner::Kernel(7), Some(root)));

        let no_tables = Some(GuestState { root: AddressSpaceRoot(0), user: false });
        let firmware = reasons.record(&ExitRow { state: no_tables, ..row.clone() }, Time(6), &mut known);
        assert_eq!((firmware.at.mode, firmware.at.page_tables), (Mode::Kernel, None));

        let unknown = reasons.record(&ExitRow { state: None, ..row }, Time(7), &mut known);
        assert_eq!((unknown.at.owner, unknown.at.process), (Owner::Process(7), None));
    }
}
