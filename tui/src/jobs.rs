//! What takes time and must not hold up the view: reading code, writing files, drawing pictures.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
};

use analysis::Aggregate;
use crossbeam_channel::{Receiver, Sender, bounded};
use flamegraph::Pictures;
use profile::{EventId, recording::Recording};

use crate::{
    disassembly::{CodeWanted, ReadCode, disassemble},
    screen::Code,
    state::RowFunction,
};

/// Something to be done.
pub(crate) enum Job {
    /// Read and disassemble a function.
    Code(RowFunction, Vec<CodeWanted>),
    /// Write a recording.
    Write(Vec<u8>),
    /// Draw a flame graph of a recording's event, of one domain or of all.
    Picture { recording: Vec<u8>, event: EventId, domain: Option<String> },
}

/// Something that was done.
pub(crate) enum Done {
    Code(RowFunction, Code),
    Said(String),
}

/// A thread that does one thing after the other.
pub(crate) struct Jobs {
    todo: Sender<Job>,
    done: Receiver<Done>,
}

impl Jobs {
    pub(crate) fn start(mut reader: Box<dyn ReadCode>, folder: PathBuf) -> io::Result<Self> {
        let (todo, jobs) = bounded::<Job>(4);
        let (results, done) = bounded(4);
        thread::Builder::new().name("jobs".into()).spawn(move || {
            for job in jobs {
                let result = match job {
                    Job::Code(function, wanted) => Done::Code(function, disassemble(&wanted, &mut *reader)),
                    Job::Write(bytes) => Done::Said(save(&folder, "xsr", &bytes)),
                    Job::Picture { recording, event, domain } => {
                        Done::Said(match picture(&recording, event, domain.as_deref()) {
                            Ok(svg) => save(&folder, "svg", &svg),
                            Err(why) => format!("no flame graph: {why}"),
                        })
                    }
                };
                if results.send(result).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { todo, done })
    }

    /// Hands a job over; false if there are too many already.
    pub(crate) fn give(&self, job: Job) -> bool {
        self.todo.try_send(job).is_ok()
    }

    pub(crate) fn done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }
}

fn picture(recording: &[u8], event: EventId, domain: Option<&str>) -> Result<Vec<u8>, String> {
    let aggregate = Aggregate::of(Recording::read(recording).map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())?;
    let report = aggregate.report();
    let place = report.events.get(usize::from(event.0)).ok_or("there are no events")?;
    let pictures = Pictures::new(&report, place, aggregate.stacks(event));
    match domain {
        Some(domain) => {
            let row = place.find_domain(domain).map_err(|error| error.to_string())?;
            pictures.domain(row)
        }
        None => pictures.machine(),
    }
    .map_err(|error| error.to_string())
}

/// Writes a file of its own, for its owner alone; says which, or why not.
fn save(folder: &Path, extension: &str, bytes: &[u8]) -> String {
    for number in 1.. {
        let path = folder.join(format!("xenoscope-top-{number}.{extension}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match file.and_then(|mut file| file.write_all(bytes)) {
            Ok(()) => return format!("wrote {}", path.display()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return format!("could not write {}: {error}", path.display()),
        }
    }
    unreachable!("there are more numbers than files")
}
