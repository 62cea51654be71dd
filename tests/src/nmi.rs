//! Injects non-maskable interrupts, which stand in for those of a performance counter that QEMU does not have.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

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
    let mut replies = BufReader::new(qmp.try_clone()?);
    let mut qmp = qmp;
    replies.read_line(&mut String::new())?; // QEMU's greeting
    execute(&mut qmp, &mut replies, "qmp_capabilities")?;
    let start = Instant::now();
    let period = Duration::from_secs_f64(1.0 / hz);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        execute(&mut qmp, &mut replies, "inject-nmi")?;
        count += 1;
        // Not by the clock: after a pause there must be no burst of interrupts to make up for it.
        thread::sleep(period);
    }
    Ok(Injected { count, duration: start.elapsed() })
}

fn execute(qmp: &mut impl Write, replies: &mut impl BufRead, command: &str) -> Result<()> {
    writeln!(qmp, "{{\"execute\":\"{command}\"}}")?;
    loop {
        let mut line = String::new();
        if replies.read_line(&mut line)? == 0 {
            bail!("QEMU has ended");
        }
        match is_reply(&line)? {
            Some(Ok(())) => return Ok(()),
            Some(Err(refusal)) => bail!("QEMU refuses {command}: {refusal}"),
            None => {}
        }
    }
}

/// A reply to a command; `None` when the line tells of an event.
fn is_reply(line: &str) -> Result<Option<Result<(), String>>> {
    let message: Value = serde_json::from_str(line)?;
    if let Some(error) = message.get("error") {
        return Ok(Some(Err(error["desc"].as_str().unwrap_or("without a reason").to_owned())));
    }
    Ok(message.get("return").map(|_| Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_from_events() {
        assert_eq!(is_reply(r#"{"return": {}}"#).unwrap(), Some(Ok(())));
        assert_eq!(is_reply(r#"{"event": "RTC_CHANGE", "data": {}}"#).unwrap(), None);
        let refusal = is_reply(r#"{"error": {"class": "GenericError", "desc": "no"}}"#).unwrap();
        assert_eq!(refusal, Some(Err("no".to_owned())));
    }
}
