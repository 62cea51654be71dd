//! What an event's records say of processes, in the terms of [`Change`].

use profile::Time;

use super::records::PerfRecord;
use crate::{Change, Record};

/// The change that a record tells of; none if it is of a thread that is not its process's first, or none at all.
pub(super) fn change(record: PerfRecord) -> Option<Record> {
    /// Mappings of the kernel's own (modules) are told as this process's.
    const KERNEL: u32 = u32::MAX;
    let (time, change) = match record {
        PerfRecord::Mapped { time, pid, mapping } if pid != KERNEL => (time, Change::Mapped { pid, mapping }),
        PerfRecord::Named { time, pid, name, executed: true, .. } => (time, Change::Executed { pid, name }),
        PerfRecord::Named { time, pid, tid, name, .. } if pid == tid => (time, Change::Renamed { pid, name }),
        PerfRecord::Forked { time, pid, tid, parent } if pid == tid => (time, Change::Forked { pid, parent }),
        PerfRecord::Exited { time, pid, tid } if pid == tid => (time, Change::Exited { pid }),
        _ => return None,
    };
    Some(Record::Change { time: Time(time), change })
}
