//! pprof: the messages of `profile.proto` (github.com/google/pprof), packed by gzip.

use std::{collections::HashMap, io::Write};

use analysis::{Aggregate, Counted};
use flate2::{Compression, write::GzEncoder};
use profile::{
    EventId, ImageOffset, Mode,
    recording::{Header, Tables},
};
use prost::Message;

use crate::{
    ExportError,
    place::{self, Named},
};

/// Message `Profile`.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

/// Message `ValueType`.
#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

/// Message `Sample`.
#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

/// Message `Label`.
#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

/// Message `Mapping`.
#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

/// Message `Location`.
#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

/// Message `Line`.
#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

/// Message `Function`.
#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// The samples of an event in a stretch of time.
#[derive(Debug)]
pub struct Stretch<'a> {
    /// How the recording was made.
    pub header: &'a Header,
    /// What `counted` refers to.
    pub tables: &'a Tables,
    /// The event.
    pub event: EventId,
    /// Its samples.
    pub counted: Vec<Counted>,
    /// When the stretch begins, in ns since 1970.
    pub started_unix_ns: u64,
    /// How long it is.
    pub duration_ns: u64,
}

impl<'a> Stretch<'a> {
    /// The whole of a recording.
    pub fn of(aggregate: &'a Aggregate, event: EventId) -> Self {
        let recorded = aggregate.recorded();
        let (header, tables) = (&recorded.header, &recorded.tables);
        let duration_ns = recorded.until.0.saturating_sub(header.started.0);
        let counted = aggregate.counted(event);
        Self { header, tables, event, counted, started_unix_ns: header.started_unix_ns, duration_ns }
    }
}

/// Where a profile says of which process a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// In a label of the sample, with its number.
    Label,
    /// In its outermost frame, without: for servers that make a series of each value of a label.
    Frame,
}

/// Writes a profile: values `samples` and the event's own, labels `domain`, `mode` and `process`.
pub fn write_pprof(stretch: &Stretch, processes: Processes, out: impl Write) -> Result<(), ExportError> {
    let mut packed = GzEncoder::new(out, Compression::default());
    packed.write_all(&encode(stretch, processes).encode_to_vec())?;
    packed.finish()?.flush()?;
    Ok(())
}

fn encode(stretch: &Stretch, processes: Processes) -> Profile {
    let &Stretch { header, tables, .. } = stretch;
    let mut made = Making::default();
    made.text("");
    let sampled = header.events.get(usize::from(stretch.event.0));
    let (name, unit) = sampled.map_or(("samples", "count"), |event| (&event.name, &event.unit));
    // What others call it, and what the selectors of servers can be asked for.
    let (name, unit) = match unit {
        "ns" => ("cpu".to_owned(), "nanoseconds"),
        _ => (name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"), unit),
    };
    let counts = ValueType { r#type: made.text("samples"), unit: made.text("count") };
    let weights = ValueType { r#type: made.text(&name), unit: made.text(unit) };
    let keys = ["domain", "mode", "process"].map(|key| made.text(key));
    let mut sample = Vec::new();
    for counted in &stretch.counted {
        let place = &counted.place;
        let frames: Vec<Named> = place::frames(place, tables).collect();
        // What was inlined is a line of the location that it was inlined into.
        let locations = frames.chunk_by(|inner, _| inner.inlined);
        let mut location_id: Vec<u64> = locations.map(|frames| made.location(frames)).collect();
        let mut process = place::process(place, tables);
        if processes == Processes::Frame {
            process = None;
            location_id.extend(place::program(place, tables).map(|name| made.root(name)));
        }
        let texts = [Some(place::domain(place, tables)), Some(place.mode.to_string()), process];
        let labels = keys.into_iter().zip(texts);
        let label = labels.filter_map(|(key, text)| Some(Label { key, str: made.text(&text?) })).collect();
        let value = [counted.samples, counted.weight].map(|number| number.try_into().unwrap_or(i64::MAX));
        sample.push(Sample { location_id, value: value.to_vec(), label });
    }
    let rate = sampled.filter(|_| unit == "nanoseconds").map_or(0.0, |event| event.rate_hz);
    Profile {
        default_sample_type: weights.r#type,
        period: if rate > 0.0 { (1e9 / rate) as i64 } else { 0 },
        period_type: Some(weights.clone()),
        comment: vec![made.text(&header.tool)],
        sample_type: vec![counts, weights],
        sample,
        time_nanos: stretch.started_unix_ns as i64,
        duration_nanos: stretch.duration_ns as i64,
        mapping: made.mapping,
        location: made.location,
        function: made.function,
        string_table: made.texts,
    }
}

/// Tables that grow with what is referred to. Numbers of mappings, locations and functions count from 1.
#[derive(Default)]
struct Making {
    texts: Vec<String>,
    text_of: HashMap<String, i64>,
    mapping: Vec<Mapping>,
    mapping_of: HashMap<String, u64>,
    location: Vec<Location>,
    /// By their lines, innermost first.
    location_of: HashMap<Vec<Named>, u64>,
    function: Vec<Function>,
    function_of: HashMap<(String, Option<String>), u64>,
}

impl Making {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(&known) = self.text_of.get(text) {
            return known;
        }
        let id = self.texts.len() as i64;
        self.texts.push(text.to_owned());
        self.text_of.insert(text.to_owned(), id);
        id
    }

    /// A place in code: the function that has it, behind those that were inlined there.
    fn location(&mut self, frames: &[Named]) -> u64 {
        if let Some(&known) = self.location_of.get(frames) {
            return known;
        }
        let outermost = frames.last().expect("chunks are not empty");
        let mapping_id = outermost.module.as_deref().map_or(0, |module| self.mapping(module));
        if let Some(mapping) = self.mapping.get_mut((mapping_id as usize).wrapping_sub(1)) {
            let lines = frames.iter().any(|frame| frame.source.is_some());
            mapping.has_filenames |= lines;
            mapping.has_line_numbers |= lines;
            mapping.has_inline_frames |= lines;
        }
        let lines = frames
            .iter()
            .map(|frame| Line { function_id: self.function(frame), line: frame.line().map_or(0, i64::from) });
        let line = lines.collect();
        let id = self.location.len() as u64 + 1;
        self.location.push(Location { id, mapping_id, address: outermost.address, line });
        self.location_of.insert(frames.to_vec(), id);
        id
    }

    /// A frame that only names what all others are part of.
    fn root(&mut self, name: String) -> u64 {
        self.location(&[Named {
            name,
            is_function: false,
            module: None,
            mode: Mode::User,
            address: 0,
            offset: ImageOffset(0),
            source: None,
            inlined: false,
        }])
    }

    fn mapping(&mut self, module: &str) -> u64 {
        if let Some(&known) = self.mapping_of.get(module) {
            return known;
        }
        let id = self.mapping.len() as u64 + 1;
        let filename = self.text(module);
        self.mapping.push(Mapping { id, filename, has_functions: true, ..Mapping::default() });
        self.mapping_of.insert(module.to_owned(), id);
        id
    }

    fn function(&mut self, frame: &Named) -> u64 {
        let key = (frame.name.clone(), frame.file().map(str::to_owned));
        if let Some(&known) = self.function_of.get(&key) {
            return known;
        }
        let id = self.function.len() as u64 + 1;
        let name = self.text(&frame.name);
        let filename = frame.file().map_or(0, |file| self.text(file));
        self.function.push(Function { id, name, system_name: name, filename });
        self.function_of.insert(key, id);
        id
    }
}
