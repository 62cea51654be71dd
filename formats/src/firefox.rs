//! Firefox Profiler's processed profile: a process for each domain, a thread for each of its processes, a category for each
//! mode.

use std::{
    collections::HashMap,
    io::{Read, Write},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use fxprof_processed_profile::{
    CategoryColor, CategoryHandle, CpuDelta, Frame, FrameFlags, FrameInfo, ProcessHandle, Profile,
    ReferenceTimestamp, SamplingInterval, StackHandle, ThreadHandle, Timestamp,
};
use profile::{
    DomainId, EventId, Mode, ProcessId, Time,
    recording::{Place, PlaceId, Recording, Tables},
};

use crate::{ExportError, place};

/// Writes an event's samples, packed by gzip.
pub fn write_firefox<R: Read>(
    recording: Recording<R>,
    event: EventId,
    out: impl Write,
) -> Result<(), ExportError> {
    let header = recording.header().clone();
    let sampled = header.events.get(usize::from(event.0));
    let rate = sampled.map_or(1000.0, |event| event.rate_hz).max(1.0);
    let began =
        ReferenceTimestamp::from_duration_since_unix_epoch(Duration::from_nanos(header.started_unix_ns));
    let mut profile = Profile::new(&header.host.hostname, began, SamplingInterval::from_hz(rate as f32));
    profile.set_product(&header.tool);
    profile.set_os_name(&header.host.hypervisor);
    let categories = [
        (Mode::Hypervisor, CategoryColor::Red),
        (Mode::Kernel, CategoryColor::Orange),
        (Mode::User, CategoryColor::Green),
        (Mode::Backend, CategoryColor::Purple),
    ];
    let categories = categories.map(|(mode, color)| (mode, profile.add_category(mode.as_str(), color)));
    let in_time = sampled.is_some_and(|event| event.unit == "ns");
    let mut making = Making {
        profile,
        categories,
        started: header.started,
        processes: HashMap::new(),
        threads: HashMap::new(),
        stacks: HashMap::new(),
    };
    recording.for_all_samples(|samples, tables| {
        let rows = samples.lanes().iter().zip(samples.places()).zip(samples.times()).zip(samples.weights());
        for (((lane, place), time), weight) in rows {
            if tables.lanes()[*lane as usize].event == event {
                making.sample(*place, *time, *weight, in_time, tables);
            }
        }
    })?;
    let mut packed = GzEncoder::new(out, Compression::default());
    serde_json::to_writer(&mut packed, &making.profile)?;
    packed.finish()?.flush()?;
    Ok(())
}

struct Making {
    profile: Profile,
    categories: [(Mode, CategoryHandle); 4],
    started: Time,
    processes: HashMap<Option<DomainId>, ProcessHandle>,
    threads: HashMap<(Option<DomainId>, Option<ProcessId>), ThreadHandle>,
    stacks: HashMap<PlaceId, (ThreadHandle, Option<StackHandle>)>,
}

impl Making {
    fn sample(&mut self, id: PlaceId, time: Time, weight: u64, in_time: bool, tables: &Tables) {
        let (thread, stack) = match self.stacks.get(&id) {
            Some(&known) => known,
            None => {
                let made = self.place(&tables.place(id), tables);
                self.stacks.insert(id, made);
                made
            }
        };
        let at = Timestamp::from_nanos_since_reference(time.0.saturating_sub(self.started.0));
        let delta = if in_time { CpuDelta::from_nanos(weight) } else { CpuDelta::ZERO };
        self.profile.add_sample(thread, at, stack, delta, 1);
    }

    fn place(&mut self, place: &Place, tables: &Tables) -> (ThreadHandle, Option<StackHandle>) {
        let thread = self.thread(place, tables);
        let mut frames: Vec<FrameInfo> = Vec::new();
        for named in place::frames(place, tables) {
            let text = match &named.module {
                Some(module) if named.is_function => format!("{} ({module})", named.name),
                _ => named.name,
            };
            let category = self.categories.iter().find(|(mode, _)| *mode == named.mode);
            let category_pair = category.map_or(CategoryHandle::OTHER, |(_, category)| *category).into();
            let frame = Frame::Label(self.profile.intern_string(&text));
            frames.push(FrameInfo { frame, category_pair, flags: FrameFlags::empty() });
        }
        frames.reverse();
        (thread, self.profile.intern_stack_frames(thread, frames.into_iter()))
    }

    fn thread(&mut self, place: &Place, tables: &Tables) -> ThreadHandle {
        let key = (place.charged_to, place.process);
        if let Some(&known) = self.threads.get(&key) {
            return known;
        }
        let start = Timestamp::from_nanos_since_reference(0);
        let process = match self.processes.get(&place.charged_to) {
            Some(&known) => known,
            None => {
                let number = place.charged_to.map_or(u32::MAX, |id| tables.domain(id).number);
                let made = self.profile.add_process(&place::domain(place, tables), number, start);
                self.processes.insert(place.charged_to, made);
                made
            }
        };
        // Threads are told apart by number, and processes of different domains may have the same.
        let number = self.threads.len() as u32 + 1;
        let thread = self.profile.add_thread(process, number, start, false);
        let name = place::process(place, tables).unwrap_or_else(|| "no process known".to_owned());
        self.profile.set_thread_name(thread, &name);
        self.threads.insert(key, thread);
        thread
    }
}
