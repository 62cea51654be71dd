//! Injects non-maskable interrupts, which stand in for those of a performance counter that QEMU does not have.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::qmp::Qmp;

/// Interrupts being injected, until this is dropped.
#[derive(Debug)]
pub(crate) struct Injector {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Injected>>>,
}

/// How many interrupts were injected, in how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Injected {
    pub(crate) count: u64,
    pub(crate) duration: Duration,
}

impl Injector {
    /// Begins to inject `hz` interrupts a second through QEMU's machine protocol.
    pub(crate) fn start(qmp: UnixStream, hz: f64) -> Injector {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Injector { stop, thread: Some(thread::spawn(move || inject(qmp, hz, &told))) }
    }

    /// Ends it, and tells what was done.
    pub(crate) fn stop(mut self) -> Result<Injected> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(injected)) => injected,
            _ => bail!("injecting interrupts has panicked"),
        }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn inject(qmp: UnixStream, hz: f64, stop: &AtomicBool) -> Result<Injected> {
    let mut qmp = Qmp::open(qmp)?;
    let start = Instant::now();
    let period = Duration::from_secs_f64(1.0 / hz);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        qmp.execute("inject-nmi", &Value::Null)?;
        count += 1;
        // Not by the clock: after a pause there must be no burst of interrupts to make up for it.
        thread::sleep(period);
    }
    Ok(Injected { count, duration: start.elapsed() })
}
