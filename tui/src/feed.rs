//! From a recording to the state, in a thread of its own: the view never waits for what is read, and who samples never
//! waits for the view.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use profile::recording::{EndReason, Recording, RecordingError, Told};

use crate::{
    screen::{Ended, Pace},
    state::{Kind, Limits, State},
};

/// How often it is looked whether a file has grown, or a replay may go on.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A piece of a replay is no longer than this: more would show as a jerk.
const PIECE_NS: u64 = 100_000_000;

/// What is shared between whoever reads and whoever shows.
#[derive(Debug, Default)]
pub struct Fed {
    /// What is known, once there is something.
    pub state: Option<State>,
    /// That nothing more comes, and why.
    pub ended: Option<Ended>,
    /// How a replay goes.
    pub pace: Option<Pace>,
}

/// A recording on its way into the state.
#[derive(Debug)]
pub struct Feed {
    fed: Arc<Mutex<Fed>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How samples are fed.
#[derive(Clone, Copy, Debug)]
pub struct FeedOptions {
    /// How much is kept.
    pub limits: Limits,
    /// The length of the window, in seconds.
    pub window_s: u64,
    /// Set for a replay.
    pub pace: Option<Pace>,
}

impl Feed {
    /// Begins to read what `open` opens. `end` is asked, once nothing more comes, for how it ended: it may wait for whoever
    /// was writing.
    pub fn start<R: Read + 'static>(
        stop: Arc<AtomicBool>,
        options: FeedOptions,
        open: impl FnOnce() -> Result<Recording<R>, RecordingError> + Send + 'static,
        end: impl FnOnce(Option<Ended>) -> Ended + Send + 'static,
    ) -> io::Result<Self> {
        let fed = Arc::new(Mutex::new(Fed { pace: options.pace, ..Fed::default() }));
        let reader = Reader { fed: Arc::clone(&fed), stop: Arc::clone(&stop), options };
        let thread = thread::Builder::new().name("feed".into()).spawn(move || {
            let found = reader.read(open);
            let ended = end(found);
            let mut fed = lock(&reader.fed);
            if let (Some(state), Ended::Badly(text)) = (&mut fed.state, &ended) {
                state.remark(Kind::End, text.clone());
            }
            fed.ended = Some(ended);
        })?;
        Ok(Self { fed, stop, thread: Some(thread) })
    }

    /// What is known now. Hold it no longer than it takes to draw.
    pub fn fed(&self) -> MutexGuard<'_, Fed> {
        lock(&self.fed)
    }

    /// Ends reading, waits until whoever wrote has ended, and says how.
    pub fn finish(mut self) -> Option<Ended> {
        self.stop.store(true, Ordering::Relaxed);
        // One that panicked has said so already.
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        let ended = lock(&self.fed).ended.take();
        if panicked { Some(Ended::Badly("the reader of samples has crashed".into())) } else { ended }
    }

    /// Whether the thread that reads is no more although it never said so.
    pub(crate) fn crashed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished) && self.fed().ended.is_none()
    }
}

/// A state that a thread has left in the middle of a change can still be looked at.
fn lock(fed: &Mutex<Fed>) -> MutexGuard<'_, Fed> {
    fed.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Reader {
    fed: Arc<Mutex<Fed>>,
    stop: Arc<AtomicBool>,
    options: FeedOptions,
}

impl Reader {
    /// Reads to the end; none if the recording has none of its own.
    fn read<R: Read>(&self, open: impl FnOnce() -> Result<Recording<R>, RecordingError>) -> Option<Ended> {
        let mut recording = match open() {
            Ok(recording) => recording,
            Err(error) => return Some(Ended::Badly(in_words(&error))),
        };
        let header = recording.header().clone();
        let mut clock = Clock { shown: header.started.0 as f64, at: Instant::now() };
        let state = State::new(header, self.options.limits, self.options.window_s);
        lock(&self.fed).state = Some(state);
        loop {
            let told = match recording.read_next() {
                Ok(told) => told,
                Err(error) => return Some(Ended::Badly(in_words(&error))),
            };
            let is_last = told.is_last();
            let end = match &told {
                Told::End(end) if end.reason == EndReason::Continued => {
                    Some(Ended::Well("the recording goes on in another file".into()))
                }
                Told::End(_) => Some(Ended::Well("the recording ends here".into())),
                Told::Damage { damage, .. } => {
                    Some(Ended::Badly(format!("the recording is damaged: {damage}")))
                }
                _ => None,
            };
            for piece in self.pieces(told) {
                if !self.wait(&piece, &mut clock) {
                    return None;
                }
                let mut fed = lock(&self.fed);
                let state = fed.state.as_mut().expect("it was put there above");
                if let Err(damage) = state.take(piece) {
                    return Some(Ended::Badly(format!("the recording is damaged: {damage}")));
                }
            }
            if is_last {
                return end;
            }
        }
    }

    /// What a replay shows one after the other.
    fn pieces(&self, told: Told) -> Vec<Told> {
        match told {
            Told::Samples(samples) if self.options.pace.is_some() => {
                let mut from = 0;
                let pieces = samples.times().chunk_by(|a, b| a.0 / PIECE_NS == b.0 / PIECE_NS).map(|piece| {
                    let rows = from..from + piece.len();
                    from = rows.end;
                    Told::Samples(samples.range(rows))
                });
                pieces.collect()
            }
            told => vec![told],
        }
    }

    /// Waits until it is time for a piece of a replay. Returns whether to go on.
    fn wait(&self, piece: &Told, clock: &mut Clock) -> bool {
        let due = match piece {
            Told::Samples(samples) => samples.times().last().copied(),
            Told::Snapshot(snapshot) => Some(snapshot.time),
            _ => None,
        };
        loop {
            // What is live is read to its end: whoever writes would wait for ever otherwise.
            let Some(pace) = lock(&self.fed).pace else { return true };
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            let Some(due) = due else { return true };
            let now = Instant::now();
            let passed = (now - clock.at).as_nanos() as f64;
            clock.at = now;
            match pace {
                Pace { paused: true, .. } => {}
                Pace { speed: Some(speed), .. } => clock.shown += passed * speed,
                Pace { speed: None, .. } => clock.shown = clock.shown.max(due.0 as f64),
            }
            if clock.shown >= due.0 as f64 && !pace.paused {
                return true;
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// The moment that a replay has come to.
struct Clock {
    shown: f64,
    at: Instant,
}

fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// A file that is read while it grows: where it ends for now, reading waits.
#[derive(Debug)]
pub struct Growing {
    file: File,
    path: PathBuf,
    at: u64,
    stop: Arc<AtomicBool>,
}

impl Growing {
    /// Opens it, waiting until it is there.
    pub fn open(path: &Path, stop: Arc<AtomicBool>) -> Result<Self, RecordingError> {
        loop {
            match File::open(path) {
                Ok(file) => return Ok(Self { file, path: path.to_owned(), at: 0, stop }),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !stop.load(Ordering::Relaxed) => {
                    thread::sleep(LOOK_EVERY);
                }
                Err(source) => {
                    return Err(RecordingError::Open { file: path.display().to_string(), source });
                }
            }
        }
    }
}

impl Read for Growing {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.file.read(bytes)?;
            if read > 0 || bytes.is_empty() {
                self.at += read as u64;
                return Ok(read);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(0);
            }
            if self.file.metadata()?.len() < self.at {
                let why = format!("{} was cut while it was read", self.path.display());
                return Err(io::Error::other(why));
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}
