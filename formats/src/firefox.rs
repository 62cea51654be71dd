//! Firefox Profiler's processed profile (docs-developer/processed-profile-format.md there): a process for each domain, a
//! thread for each of its processes, a category for each mode.

use std::{
    collections::{HashMap, HashSet},
    io::{Read, Write},
};

use flate2::{Compression, write::GzEncoder};
use profile::{
    DomainId, EventId, Mode, ProcessId,
    recording::{Header, Place, PlaceId, Recording, Tables},
};
use serde_json::{Value, json};

use crate::{
    ExportError,
    place::{self, Named},
};

/// The version of the format that is written. The program brings older ones up to date itself.
const VERSION: u32 = 55;

/// What the categories are called, behind one for what has none.
const CATEGORIES: [(Mode, &str); 4] =
    [(Mode::Hypervisor, "red"), (Mode::Kernel, "orange"), (Mode::User, "green"), (Mode::Backend, "purple")];

/// Writes an event's samples, packed by gzip.
pub fn write_firefox<R: Read>(
    recording: Recording<R>,
    event: EventId,
    out: impl Write,
) -> Result<(), ExportError> {
    let header = recording.header().clone();
    let sampled = header.events.get(usize::from(event.0));
    let rate = sampled.map_or(1000.0, |event| event.rate_hz).max(1.0);
    let in_time = sampled.is_some_and(|event| event.unit == "ns");
    let mut making = Making::default();
    recording.for_all_samples(|samples, tables| {
        let rows = samples.lanes().iter().zip(samples.places()).zip(samples.times()).zip(samples.weights());
        for (((lane, place), time), weight) in rows {
            if tables.lanes()[*lane as usize].event == event {
                let since_ns = time.0.saturating_sub(header.started.0);
                making.sample(*place, since_ns, if in_time { *weight } else { 0 }, tables);
            }
        }
    })?;
    let mut packed = GzEncoder::new(out, Compression::default());
    write!(packed, "{{\"meta\":{},\"threads\":[", meta(&header, rate))?;
    for (index, thread) in making.in_order().into_iter().enumerate() {
        packed.write_all(if index == 0 { b"" } else { b"," })?;
        serde_json::to_writer(&mut packed, &thread.written())?;
    }
    packed.write_all(b"],\"libs\":[],\"pages\":[],\"profilerOverhead\":[],\"counters\":[]}")?;
    packed.finish()?.flush()?;
    Ok(())
}

fn meta(header: &Header, rate_hz: f64) -> Value {
    let category =
        |name: &str, color: &str| json!({"name": name, "color": color, "subcategories": ["Other"]});
    let modes = CATEGORIES.map(|(mode, color)| category(mode.as_str(), color));
    let categories: Vec<Value> = std::iter::once(category("Other", "grey")).chain(modes).collect();
    json!({
        "categories": categories,
        "debug": false,
        "extensions": {"length": 0, "baseURL": [], "id": [], "name": []},
        "interval": 1000.0 / rate_hz,
        "markerSchema": [],
        "oscpu": header.host.hypervisor,
        "pausedRanges": [],
        "preprocessedProfileVersion": VERSION,
        "processType": 0,
        "product": header.host.hostname,
        "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
        "sourceCodeIsNotOnSearchfox": true,
        "startTime": header.started_unix_ns as f64 / 1e6,
        "symbolicated": true,
        "usesOnlyOneStackType": true,
        "version": 24,
    })
}

#[derive(Default)]
struct Making {
    threads: Vec<Thread>,
    thread_of: HashMap<(Option<DomainId>, Option<ProcessId>), usize>,
    /// Of places: the thread, and the innermost of its stack.
    stack_of: HashMap<PlaceId, (usize, usize)>,
}

impl Making {
    fn sample(&mut self, id: PlaceId, since_ns: u64, cpu_ns: u64, tables: &Tables) {
        let (thread, stack) = match self.stack_of.get(&id) {
            Some(&known) => known,
            None => {
                let place = tables.place(id);
                let thread = self.thread(&place, tables);
                let made = (thread, self.threads[thread].stack(&place, tables));
                self.stack_of.insert(id, made);
                made
            }
        };
        self.threads[thread].samples.push((since_ns, stack, cpu_ns));
    }

    fn thread(&mut self, place: &Place, tables: &Tables) -> usize {
        *self.thread_of.entry((place.charged_to, place.process)).or_insert_with(|| {
            let number = place.charged_to.map(|id| tables.domain(id).number.to_string());
            self.threads.push(Thread {
                domain: place.charged_to,
                pid: number.unwrap_or_else(|| "hypervisor".to_owned()),
                process_name: place::domain(place, tables),
                name: place::process(place, tables).unwrap_or_else(|| "no process known".to_owned()),
                // Threads are told apart by number, and processes of different domains may have the same.
                number: self.threads.len() + 1,
                ..Thread::default()
            });
            self.threads.len() - 1
        })
    }

    /// The threads of a domain one after the other, as the format wants them.
    fn in_order(&mut self) -> Vec<&mut Thread> {
        let mut threads: Vec<&mut Thread> = self.threads.iter_mut().collect();
        threads.sort_by_key(|thread| (thread.domain.is_none(), thread.domain, thread.number));
        let mut domains = HashSet::new();
        for thread in &mut threads {
            thread.is_main = domains.insert(thread.domain);
        }
        threads
    }
}

/// A thread of the format, column by column.
#[derive(Default)]
struct Thread {
    domain: Option<DomainId>,
    pid: String,
    process_name: String,
    name: String,
    number: usize,
    /// It stands for the domain where that is folded up.
    is_main: bool,
    texts: Vec<String>,
    text_of: HashMap<String, usize>,
    /// Name and file, as texts.
    functions: Vec<(usize, Option<usize>)>,
    function_of: HashMap<(usize, Option<usize>), usize>,
    frames: Vec<Frame>,
    frame_of: HashMap<Frame, usize>,
    /// Caller and frame.
    stacks: Vec<(Option<usize>, usize)>,
    stack_of: HashMap<(Option<usize>, usize), usize>,
    /// Nanoseconds since the start, innermost stack, CPU time.
    samples: Vec<(u64, usize, u64)>,
}

/// A row of the table of frames.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Frame {
    function: usize,
    category: usize,
    line: Option<u32>,
    /// How many functions deep it was inlined.
    depth: u32,
}

impl Thread {
    fn stack(&mut self, place: &Place, tables: &Tables) -> usize {
        let frames: Vec<Named> = place::frames(place, tables).collect();
        let (mut stack, mut depth) = (None, 0);
        for named in frames.iter().rev() {
            depth = if named.inlined { depth + 1 } else { 0 };
            let frame = self.frame(named, depth);
            stack = Some(number(&mut self.stacks, &mut self.stack_of, (stack, frame)));
        }
        stack.expect("a chain has at least one frame")
    }

    fn frame(&mut self, named: &Named, depth: u32) -> usize {
        let text = match &named.module {
            Some(module) if named.is_function => &format!("{} ({module})", named.name),
            _ => &named.name,
        };
        let name = self.text(text);
        let file = named.source.as_ref().map(|(file, _)| self.text(file));
        let function = number(&mut self.functions, &mut self.function_of, (name, file));
        let category = CATEGORIES.iter().position(|(mode, _)| *mode == named.mode).map_or(0, |at| at + 1);
        let frame = Frame { function, category, line: named.line(), depth };
        number(&mut self.frames, &mut self.frame_of, frame)
    }

    fn text(&mut self, text: &str) -> usize {
        if let Some(&known) = self.text_of.get(text) {
            return known;
        }
        number(&mut self.texts, &mut self.text_of, text.to_owned())
    }

    fn written(&mut self) -> Value {
        // Of several CPUs, they need not come by time.
        self.samples.sort_by_key(|(time_ns, ..)| *time_ns);
        let before = std::iter::once(0).chain(self.samples.iter().map(|(time_ns, ..)| *time_ns));
        let deltas = self.samples.iter().zip(before).map(|((time_ns, ..), before)| time_ns - before);
        let deltas: Vec<f64> = deltas.map(|delta_ns| delta_ns as f64 / 1e6).collect();
        let (frames, functions, none) = (&self.frames, &self.functions, Vec::<u32>::new);
        json!({
            "name": self.name,
            "processName": self.process_name,
            "processType": "default",
            "isMainThread": self.is_main,
            "pid": self.pid,
            "tid": self.number,
            "processStartupTime": 0,
            "processShutdownTime": null,
            "registerTime": 0,
            "unregisterTime": null,
            "pausedRanges": [],
            "showMarkersInTimeline": false,
            "frameTable": {
                "length": frames.len(),
                "address": vec![-1; frames.len()],
                "inlineDepth": column(frames, |frame| frame.depth),
                "category": column(frames, |frame| frame.category),
                "subcategory": vec![0; frames.len()],
                "func": column(frames, |frame| frame.function),
                "nativeSymbol": vec![(); frames.len()],
                "innerWindowID": vec![0; frames.len()],
                "line": column(frames, |frame| frame.line),
                "column": vec![(); frames.len()],
            },
            "funcTable": {
                "length": functions.len(),
                "name": column(functions, |(name, _)| *name),
                "isJS": vec![false; functions.len()],
                "relevantForJS": vec![false; functions.len()],
                "resource": vec![-1; functions.len()],
                "fileName": column(functions, |(_, file)| *file),
                "lineNumber": vec![(); functions.len()],
                "columnNumber": vec![(); functions.len()],
            },
            "stackTable": {
                "length": self.stacks.len(),
                "prefix": column(&self.stacks, |(caller, _)| *caller),
                "frame": column(&self.stacks, |(_, frame)| *frame),
            },
            "samples": {
                "length": self.samples.len(),
                "weightType": "samples",
                "stack": column(&self.samples, |(_, stack, _)| *stack),
                "timeDeltas": deltas,
                "weight": vec![1; self.samples.len()],
                "threadCPUDelta": column(&self.samples, |(.., cpu_ns)| cpu_ns / 1000),
            },
            "stringArray": self.texts,
            "markers": {
                "length": 0, "category": none(), "data": none(), "endTime": none(), "name": none(), "phase": none(),
                "startTime": none(),
            },
            "nativeSymbols": {
                "length": 0, "address": none(), "functionSize": none(), "libIndex": none(), "name": none(),
            },
            "resourceTable": {"length": 0, "lib": none(), "name": none(), "host": none(), "type": none()},
        })
    }
}

fn column<T, C>(rows: &[T], cell: impl Fn(&T) -> C) -> Vec<C> {
    rows.iter().map(cell).collect()
}

/// The number of a row in a table that has each once.
fn number<T: Clone + Eq + std::hash::Hash>(
    table: &mut Vec<T>,
    known: &mut HashMap<T, usize>,
    row: T,
) -> usize {
    *known.entry(row).or_insert_with_key(|row| {
        table.push(row.clone());
        table.len() - 1
    })
}
