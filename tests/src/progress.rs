//! Tells on standard error how far long work has come.

use std::fmt::Arguments;
use std::sync::LazyLock;
use std::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Prints a line with the time since the lab's first one.
pub(crate) fn say(what: Arguments<'_>) {
    eprintln!("lab {:6.1} s  {what}", START.elapsed().as_secs_f64());
}
