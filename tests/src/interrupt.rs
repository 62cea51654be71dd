//! Lets a run that is interrupted come to an orderly end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static SIGNALS: OnceLock<Signals> = OnceLock::new();

struct Signals {
    /// No run is there to be ended: signals do what they always do.
    idle: Arc<AtomicBool>,
    arrived: Arc<AtomicBool>,
}

/// While it lives, SIGINT and SIGTERM are noted instead of ending the process.
#[derive(Debug)]
pub(crate) struct Interrupt(());

impl Interrupt {
    /// Begins to note signals.
    pub(crate) fn watch() -> Result<Interrupt> {
        let signals = match SIGNALS.get() {
            Some(signals) => signals,
            None => {
                let signals = Signals { idle: Arc::new(AtomicBool::new(true)), arrived: Arc::default() };
                for signal in [SIGINT, SIGTERM] {
                    flag::register_conditional_default(signal, Arc::clone(&signals.idle))?;
                    flag::register(signal, Arc::clone(&signals.arrived))?;
                }
                SIGNALS.get_or_init(|| signals)
            }
        };
        signals.arrived.store(false, Ordering::SeqCst);
        signals.idle.store(false, Ordering::SeqCst);
        Ok(Interrupt(()))
    }

    /// Whether a signal has arrived.
    pub(crate) fn arrived(&self) -> bool {
        SIGNALS.get().is_some_and(|signals| signals.arrived.load(Ordering::SeqCst))
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(signals) = SIGNALS.get() {
            signals.idle.store(true, Ordering::SeqCst);
        }
    }
}
