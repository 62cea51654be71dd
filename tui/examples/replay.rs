//! Shows a recording: `cargo run -p xenoscope-tui --example replay FILE`, or one that grows: `… FILE follow`. The least that the
//! dashboard needs; what it does when a part of the program crashes can be seen by asking for a function's code (3, a).

use std::{
    env,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use profile::recording::Recording;
use tui::{CodeWanted, Ended, Feed, FeedOptions, Growing, Limits, Pace, ReadCode, RunOptions, Screen, Theme};

struct Crashing;

impl ReadCode for Crashing {
    fn read(&mut self, wanted: &CodeWanted) -> Result<Vec<u8>, String> {
        panic!("asked for the code at {:#x}", wanted.start)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = env::args().nth(1).ok_or("which recording?")?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let follows = env::args().nth(2).is_some_and(|how| how == "follow");
    let pace = (!follows).then_some(Pace { speed: None, paused: false });
    let options = FeedOptions { limits: Limits::default(), window_s: 10, pace };
    let end = |ended: Option<Ended>| ended.unwrap_or_else(|| Ended::Badly("it was cut".into()));
    let until = Arc::new(AtomicBool::new(false));
    let feed = if follows {
        let path = PathBuf::from(file);
        let open = {
            let until = Arc::clone(&until);
            move || Recording::read(Growing::open(&path, until)?)
        };
        Feed::start(until, options, open, end)?
    } else {
        Feed::start(until, options, move || Recording::open(file), end)?
    };
    let options = RunOptions {
        theme: Theme::of_environment(|name| env::var(name).ok()),
        mouse: true,
        refresh: Duration::from_millis(100),
        folder: PathBuf::from("."),
    };
    let result = tui::run(&feed, &mut Screen::new("REPLAY"), options, Box::new(Crashing), &stop);
    feed.finish();
    Ok(result?)
}
