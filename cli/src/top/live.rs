//! Sampling for the dashboard: a recording without a file.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use collector::{Options, Progress};
use hv_shim::Hypervisor;
use profile::{
    Domain,
    recording::{EndReason, Recording},
};
use symbolizer::Symbolizer;
use tui::{Ended, Feed, FeedOptions};

use super::code::LiveCode;
use crate::{images::Images, sampling::Sampling};

/// How long a sample waits at most until it is shown: ten times as often as a file is written.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// A session that goes on until it is told to end.
struct Session {
    images: Images,
    stop: Arc<AtomicBool>,
    duration: Option<Duration>,
    deadline: Option<Instant>,
}

impl Progress for Session {
    fn started(&mut self) -> io::Result<()> {
        self.deadline = self.duration.map(|duration| Instant::now() + duration);
        Ok(())
    }

    fn should_end(&mut self) -> Option<EndReason> {
        if self.stop.load(Ordering::Relaxed) {
            return Some(EndReason::Interrupted);
        }
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline).then_some(EndReason::Duration)
    }

    fn so_far(&mut self, _samples: u64, _lost: u64, _elapsed: Duration) {}

    fn symbols(&mut self, domain: &Domain, symbolizer: &mut Symbolizer) -> Result<bool, String> {
        self.images.give(domain, symbolizer).map_err(|error| format!("{error:#}"))
    }
}

fn prepare(
    sampling: &Sampling,
    stop: Arc<AtomicBool>,
    duration: Option<Duration>,
) -> anyhow::Result<(Box<dyn Hypervisor>, Options, Session)> {
    let options = Options { flush_every: FLUSH_EVERY, ..sampling.options(&[], false)? };
    let hypervisor = hv_shim::detect()?;
    let images = sampling.images()?;
    Ok((hypervisor, options, Session { images, stop, duration, deadline: None }))
}

/// Begins to sample, in a thread of its own.
pub(super) fn start(
    sampling: &Sampling,
    stop: Arc<AtomicBool>,
    feed: FeedOptions,
) -> anyhow::Result<(Feed, LiveCode)> {
    let (mut hypervisor, mut options, mut session) = prepare(sampling, Arc::clone(&stop), None)?;
    if let Some(looking) = &mut options.look_into_guests {
        looking.watched = true;
    }
    let code = LiveCode::of(&*hypervisor);
    let (reader, writer) = io::pipe().context("no pipe could be opened")?;
    let collector = thread::Builder::new()
        .name("collector".into())
        .spawn(move || collector::record(&mut *hypervisor, &options, writer, &mut session))
        .context("no thread could be started")?;
    let end = move |_| match collector.join() {
        Ok(Ok(_)) => Ended::Well("sampling has ended".into()),
        Ok(Err(error)) => Ended::Badly(format!("sampling has failed: {:#}", anyhow::Error::new(error))),
        Err(_) => Ended::Badly("the collector has crashed".into()),
    };
    let feed = Feed::start(stop, feed, || Recording::read(reader), end)?;
    Ok((feed, code))
}

/// Samples for a time, into memory.
pub(super) fn record(
    sampling: &Sampling,
    stop: Arc<AtomicBool>,
    duration: Duration,
) -> anyhow::Result<Vec<u8>> {
    let (mut hypervisor, options, mut session) = prepare(sampling, stop, Some(duration))?;
    let mut recording = Vec::new();
    collector::record(&mut *hypervisor, &options, &mut recording, &mut session).context("sampling failed")?;
    Ok(recording)
}
