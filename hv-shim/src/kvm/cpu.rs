//! A CPU of a session: its two events, what was read of their buffers, and its books.

use std::io;

use profile::Time;

use super::{
    bpf::Capture,
    changes::change,
    charge::{Books, Converter},
    idle::IdleCode,
    perf::{Counter, Pace, PerfEvent, Setting},
    records::{self, PerfRecord},
    ring::Ring,
    vcpus::Vcpus,
};
use crate::Record;

/// How large the buffers of a CPU are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffers {
    pub(super) samples: usize,
    /// For news of processes.
    changes: usize,
}

impl Buffers {
    pub(super) fn new(samples: usize) -> Self {
        Self { samples, changes: 128 << 10 }
    }

    /// Half of that, where it is worth it: users without privileges may lock some memory only, and a little on every CPU is
    /// better than much on one.
    pub(super) fn smaller(self) -> Option<Self> {
        const LEAST: usize = 8 << 10;
        let Self { samples, changes } = self;
        (samples > LEAST).then(|| Self { samples: samples / 2, changes: (changes / 2).max(LEAST) })
    }
}

/// A CPU, and its books for as long as the session lasts.
pub(super) struct Cpu {
    pub(super) number: u32,
    /// None while it is offline.
    pub(super) events: Option<Events>,
    pub(super) books: Books,
    /// What was read before sampling ended, to be handed out with the rest.
    pub(super) backlog: Vec<Record>,
}

/// What samples a CPU, and what tells of processes there.
pub(super) struct Events {
    pub(super) sampler: PerfEvent,
    samples: Ring,
    /// What a program's records are of; they are in the sampler's buffer.
    guests: Option<PerfEvent>,
    news: PerfEvent,
    changes: Ring,
}

pub(super) fn hertz(rate_hz: f64) -> u64 {
    (rate_hz.round() as u64).max(1)
}

pub(super) fn period(rate_hz: f64) -> u64 {
    (1e9 / rate_hz) as u64
}

/// A period of the clock, even over ±20 % of its mean. That is a little longer than the rate's period: over a stretch of
/// time, short periods make more samples than long ones save (the mean of 1/x over 0.8 to 1.2 is 1.0137).
pub(super) fn random_period(rate_hz: f64) -> u64 {
    let mean = period(rate_hz / 1.0137);
    mean - mean / 5 + fastrand::u64(0..=mean * 2 / 5)
}

impl Events {
    pub(super) fn open(
        setting: Setting,
        cpu: u32,
        counter: Counter,
        rate_hz: f64,
        buffers: Buffers,
        capture: Option<&Capture>,
    ) -> io::Result<Self> {
        let pace = match counter {
            Counter::Cycles => Pace::Hertz(hertz(rate_hz)),
            Counter::Clock => Pace::Period(random_period(rate_hz)),
        };
        let sampler = setting.sampler(cpu, counter, pace)?;
        let news = setting.changes(cpu)?;
        let samples = Ring::map(&sampler, buffers.samples)?;
        let guests = match capture {
            Some(capture) => Some(attach(capture, setting, cpu, &sampler)?),
            None => None,
        };
        Ok(Self { samples, guests, changes: Ring::map(&news, buffers.changes)?, sampler, news })
    }

    pub(super) fn enable(&self) -> io::Result<()> {
        // News first: a process that is born between the two would have no name.
        self.news.enable()?;
        self.guests.as_ref().map_or(Ok(()), PerfEvent::enable)?;
        self.sampler.enable()
    }

    /// How many samples were lost, by the kernel's own count: of a sample that the program tells of, one of its two
    /// records finds no room, and if that is the first the other is not written.
    pub(super) fn lost(&self) -> Option<u64> {
        let of_program = self.guests.as_ref().map_or(Some(0), PerfEvent::lost)?;
        Some(self.sampler.lost()? + of_program)
    }
}

/// Has a program tell of guests ahead of the samples of a CPU.
fn attach(capture: &Capture, setting: Setting, cpu: u32, sampler: &PerfEvent) -> io::Result<PerfEvent> {
    let output = setting.program_output(cpu)?;
    output.write_to_buffer_of(sampler)?;
    capture.write_to(cpu, output.descriptor())?;
    sampler.set_program(capture.program())?;
    Ok(output)
}

impl Cpu {
    /// Reads both rings into the backlog, in the order of their times.
    pub(super) fn read(
        &mut self,
        bytes: &mut Vec<u8>,
        vcpus: &Vcpus,
        idle: Option<&IdleCode>,
        setting: Setting,
        rate_hz: f64,
    ) {
        let Some(events) = &mut self.events else { return };
        // Samples first: whatever news they need is in the other ring by now.
        bytes.clear();
        events.samples.take(bytes);
        let samples = bytes.len();
        events.changes.take(bytes);
        let (samples, news) = bytes.split_at(samples);

        let (books, backlog) = (&mut self.books, &mut self.backlog);
        let begin = backlog.len();
        records::parse(news, events.news.layout(), &mut |record| match record {
            PerfRecord::Lost { count } => books.lost_changes += count,
            record => backlog.extend(change(record)),
        });
        let changes = backlog.len();
        let mut known = vcpus.lock();
        let mut convert = Converter { books, known: &mut known, idle, setting, mean_ns: period(rate_hz) };
        records::parse(samples, events.sampler.layout(), &mut |record| {
            backlog.extend(convert.convert(record).map(Record::Sample));
        });
        if changes > begin {
            // Both parts are in order; the sort merges them and keeps news before samples of the same time.
            backlog[begin..].sort_by_key(Record::time);
        }
    }

    /// Puts records of one time where they belong.
    pub(super) fn add(&mut self, records: Vec<Record>, time: Time) {
        let place = self.backlog.partition_point(|record| record.time() <= time);
        self.backlog.splice(place..place, records);
    }
}
