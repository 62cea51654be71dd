//! Records of an event's buffer (perf_event_open(2)): bytes in, values out.
//!
//! Only what the events of [`super::perf`] ask for is read. Whatever is shorter than it should be ends the parsing:
//! nothing that follows could be found.

use perf_event_open_sys::bindings as sys;

use super::{
    bpf::VcpuState,
    callers,
    perf::{CountLayout, SampleLayout},
};
use crate::{Captured, MappedFile, Mapping};

/// `PERF_RECORD_MISC_CPUMODE_MASK` and its values.
const MODE: u16 = 7;

/// A record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PerfRecord {
    Sample(PerfSample),
    /// What the sample that follows can't tell of the guest whose vCPU the thread is.
    Vcpu(Box<VcpuState>),
    /// So many records before this one found no room.
    Lost {
        count: u64,
    },
    /// The kernel stopped sampling, because too many samples came.
    Throttled {
        time: u64,
    },
    /// It goes on.
    Unthrottled {
        time: u64,
    },
    Mapped {
        time: u64,
        pid: u32,
        mapping: Mapping,
    },
    /// A thread has another name; `executed` if because it is another program.
    Named {
        time: u64,
        pid: u32,
        tid: u32,
        name: String,
        executed: bool,
    },
    /// A process (then `tid` is `pid`) or a thread of one was born.
    Forked {
        time: u64,
        pid: u32,
        tid: u32,
        parent: u32,
    },
    Exited {
        time: u64,
        pid: u32,
        tid: u32,
    },
}

/// A sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PerfSample {
    pub(super) mode: CpuMode,
    pub(super) instruction_pointer: u64,
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) time: u64,
    /// How much was counted for it, where the kernel finds the period.
    pub(super) period: Option<u64>,
    /// How often its CPU had gone over to another thread, where that is counted.
    pub(super) switches: Option<u64>,
    /// What of the host's callers was captured, innermost first.
    pub(super) callers: Vec<Captured>,
}

/// Where the processor was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CpuMode {
    Kernel,
    User,
    /// In a guest. Whether in its kernel the address tells: the record's own word for it is wrong in some kernels
    /// (Linux 6.1 takes the state of the vCPU that was *loaded* last).
    Guest,
}

/// Calls `each` for every record that is known.
pub(super) fn parse(mut bytes: &[u8], layout: SampleLayout, each: &mut impl FnMut(PerfRecord)) {
    while let Some(header) = bytes.first_chunk::<8>() {
        let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let misc = u16::from_ne_bytes([header[4], header[5]]);
        let size = usize::from(u16::from_ne_bytes([header[6], header[7]]));
        let Some(body) = bytes.get(8..size) else { return };
        if let Some(record) = decode(kind, misc, Fields(body), layout) {
            each(record);
        }
        bytes = &bytes[size..];
    }
}

fn decode(kind: u32, misc: u16, mut fields: Fields<'_>, layout: SampleLayout) -> Option<PerfRecord> {
    if kind == sys::PERF_RECORD_SAMPLE {
        let mode = match u32::from(misc & MODE) {
            sys::PERF_RECORD_MISC_USER => CpuMode::User,
            sys::PERF_RECORD_MISC_GUEST_KERNEL | sys::PERF_RECORD_MISC_GUEST_USER => CpuMode::Guest,
            _ => CpuMode::Kernel,
        };
        if let Some(number) = layout.number
            && fields.u64()? != number
        {
            let (_thread, _time, length) = (fields.u64()?, fields.u64()?, fields.u32()?);
            let state = VcpuState::parse(fields.0.get(..length as usize)?)?;
            return Some(PerfRecord::Vcpu(Box::new(state)));
        }
        let (instruction_pointer, pid, tid, time) =
            (fields.u64()?, fields.u32()?, fields.u32()?, fields.u64()?);
        let period = if layout.period { Some(fields.u64()?) } else { None };
        let switches = match layout.counts {
            Some(counts) => Some(fields.second_count(counts)?),
            None => None,
        };
        let callers = callers::read(&mut fields, layout.call_graph)?;
        let sample = PerfSample { mode, instruction_pointer, pid, tid, time, period, switches, callers };
        return Some(PerfRecord::Sample(sample));
    }
    if layout.number.is_some() {
        fields.cut_trailing_word()?;
    }
    let time = fields.trailing_time()?;
    Some(match kind {
        sys::PERF_RECORD_LOST => PerfRecord::Lost {
            count: {
                fields.u64()?;
                fields.u64()?
            },
        },
        sys::PERF_RECORD_LOST_SAMPLES => PerfRecord::Lost { count: fields.u64()? },
        sys::PERF_RECORD_THROTTLE => PerfRecord::Throttled { time: fields.u64()? },
        sys::PERF_RECORD_UNTHROTTLE => PerfRecord::Unthrottled { time: fields.u64()? },
        sys::PERF_RECORD_MMAP2 => {
            let (pid, _tid, start, length, offset) =
                (fields.u32()?, fields.u32()?, fields.u64()?, fields.u64()?, fields.u64()?);
            let device = (fields.u32()?, fields.u32()?);
            let (inode, _generation, _protection, _flags) =
                (fields.u64()?, fields.u64()?, fields.u32()?, fields.u32()?);
            let file = MappedFile { path: fields.text(), device, inode };
            let addresses = start..start.saturating_add(length);
            PerfRecord::Mapped { time, pid, mapping: Mapping { addresses, offset, file } }
        }
        sys::PERF_RECORD_COMM => {
            let executed = u32::from(misc) & sys::PERF_RECORD_MISC_COMM_EXEC != 0;
            let (pid, tid) = (fields.u32()?, fields.u32()?);
            PerfRecord::Named { time, pid, tid, name: fields.text(), executed }
        }
        sys::PERF_RECORD_FORK => {
            let (pid, parent, tid) = (fields.u32()?, fields.u32()?, fields.u32()?);
            PerfRecord::Forked { time, pid, tid, parent }
        }
        sys::PERF_RECORD_EXIT => {
            let (pid, _parent, tid) = (fields.u32()?, fields.u32()?, fields.u32()?);
            PerfRecord::Exited { time, pid, tid }
        }
        _ => return None,
    })
}

/// What is left of a record.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*value)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    /// What the second event of a group has counted (`PERF_FORMAT_GROUP`).
    fn second_count(&mut self, layout: CountLayout) -> Option<u64> {
        let (_events, _first) = (self.u64()?, self.u64()?);
        match layout {
            CountLayout::Value => self.u64(),
            CountLayout::ValueAndLost => {
                let (_lost, second, _lost_of_second) = (self.u64()?, self.u64()?, self.u64()?);
                Some(second)
            }
        }
    }

    /// Passes over so many bytes.
    pub(super) fn skip(&mut self, length: u64) -> Option<&'a [u8]> {
        let (skipped, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(skipped)
    }

    /// The number of the event at the end of all records but samples.
    fn cut_trailing_word(&mut self) -> Option<()> {
        self.0 = self.0.get(..self.0.len().checked_sub(8)?)?;
        Some(())
    }

    /// The time at the end of all records but samples, behind the thread; both are cut off.
    fn trailing_time(&mut self) -> Option<u64> {
        let (rest, time) = self.0.split_last_chunk()?;
        self.0 = rest.get(..rest.len().checked_sub(8)?)?;
        Some(u64::from_ne_bytes(*time))
    }

    /// A text up to its first zero.
    fn text(&self) -> String {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..end]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, misc: u16, words: &[u64]) -> Vec<u8> {
        let size = 8 + 8 * words.len() as u16;
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(misc.to_ne_bytes());
        bytes.extend(size.to_ne_bytes());
        words.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        bytes
    }

    fn parsed(bytes: &[u8]) -> Vec<PerfRecord> {
        let mut records = Vec::new();
        parse(bytes, SampleLayout::default(), &mut |record| records.push(record));
        records
    }

    const fn pair(low: u64, high: u64) -> u64 {
        low | high << 32
    }

    #[test]
    fn samples_and_what_stands_between_them() {
        let text = u64::from_ne_bytes(*b"worker\0\0");
        let bytes = [
            record(9, 5, &[0x1234, pair(7, 8), 1_000]),
            record(2, 0, &[99, 3, pair(7, 7), 1_100]),
            record(5, 0, &[1_150, 99, 99, pair(7, 7), 1_200]),
            record(3, 1 << 13, &[pair(7, 8), text, pair(7, 8), 1_300]),
            record(77, 0, &[]),
            record(7, 0, &[pair(9, 7), pair(9, 7), 1_390, pair(7, 7), 1_400]),
        ]
        .concat();
        let sample = PerfSample {
            mode: CpuMode::Guest,
            instruction_pointer: 0x1234,
            pid: 7,
            tid: 8,
            time: 1_000,
            period: None,
            switches: None,
            callers: Vec::new(),
        };
        let expected = [
            PerfRecord::Sample(sample),
            PerfRecord::Lost { count: 3 },
            PerfRecord::Throttled { time: 1_150 },
            PerfRecord::Named { time: 1_300, pid: 7, tid: 8, name: "worker".into(), executed: true },
            PerfRecord::Forked { time: 1_400, pid: 9, tid: 9, parent: 7 },
        ];
        assert_eq!(parsed(&bytes), expected);
    }

    #[test]
    fn what_the_kernel_counts_beside_a_sample() {
        let switches_of = |layout, words: &[u64]| {
            let mut records = Vec::new();
            parse(&record(9, 1, words), layout, &mut |record| records.push(record));
            match records.as_slice() {
                [PerfRecord::Sample(sample)] => Some((sample.period, sample.switches)),
                _ => None,
            }
        };
        let layout = |period, counts| SampleLayout { period, counts, ..SampleLayout::default() };
        let common = [0x1234, pair(7, 8), 1_000];
        let with = |more: &[u64]| [&common, more].concat();
        let value = Some(CountLayout::Value);
        let both = Some(CountLayout::ValueAndLost);
        assert_eq!(switches_of(layout(true, None), &with(&[77])), Some((Some(77), None)));
        assert_eq!(switches_of(layout(false, value), &with(&[2, 900, 5])), Some((None, Some(5))));
        assert_eq!(switches_of(layout(false, both), &with(&[2, 900, 1, 5, 0])), Some((None, Some(5))));
        assert_eq!(switches_of(layout(false, both), &with(&[2, 900, 1])), None);
    }

    /// Two events write to one buffer: the sampler, and what a program tells of.
    #[test]
    fn a_programs_records_are_told_from_samples() {
        let layout = SampleLayout { number: Some(99), ..SampleLayout::default() };
        let state = [&[0xffff_8880_0000_0000_u64, 2][..], &[7; 41], &[0; 6]].concat();
        let mut raw: Vec<u8> = (state.len() as u32 * 8 + 4).to_ne_bytes().to_vec();
        raw.extend(state.iter().flat_map(|word| word.to_ne_bytes()));
        raw.extend([0; 4]);
        let raw: Vec<u64> = raw.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        let bytes = [
            record(9, 1, &[&[98, pair(7, 8), 1_000][..], &raw].concat()),
            record(9, 5, &[99, 0x1234, pair(7, 8), 1_000]),
            record(2, 0, &[98, 3, pair(7, 7), 1_100, 98]),
        ]
        .concat();
        let mut records = Vec::new();
        parse(&bytes, layout, &mut |record| records.push(record));
        assert!(matches!(&records[0], PerfRecord::Vcpu(state) if state.vcpu_id == 2), "{records:?}");
        assert!(matches!(&records[1], PerfRecord::Sample(sample) if sample.instruction_pointer == 0x1234));
        assert_eq!(records[2..], [PerfRecord::Lost { count: 3 }]);
    }

    #[test]
    fn torn_and_absurd_records_end_quietly() {
        let whole = record(10, 2, &[pair(7, 8), 0x1000, 0x2000, 0, pair(8, 1), 55, 0, 5, pair(7, 8), 1_300]);
        assert_eq!(parsed(&whole).len(), 1);
        for cut in 0..whole.len() {
            assert_eq!(parsed(&whole[..cut]), []);
            let mut short = whole.clone();
            short[6..8].copy_from_slice(&(cut as u16).to_ne_bytes());
            parsed(&short);
        }
    }
}
