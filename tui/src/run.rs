//! The loop: what was fed is drawn, what is pressed is done.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use ratatui::crossterm::event;

use crate::{
    disassembly::{CodeWanted, ReadCode},
    feed::Feed,
    jobs::{Done, Job, Jobs},
    keys::{Action, handle},
    screen::{Ended, Screen, View},
    state::{RowFunction, Scope, State},
    terminal::{self, Taken},
    view::{Theme, draw},
};

/// How often signals are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is live tells something every second. Where it has not for so long, that is said.
const SILENCE: Duration = Duration::from_secs(5);

/// How often it is drawn, the most and the least.
const FASTEST: Duration = Duration::from_millis(100);
const SLOWEST: Duration = Duration::from_secs(10);

/// For how long after the start it is drawn as often as may be: guests and their names are coming in.
const BEGINNING: Duration = Duration::from_secs(3);

/// What the terminal is given.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Colours and characters.
    pub theme: Theme,
    /// Whether the mouse is taken.
    pub mouse: bool,
    /// How often it is drawn, unless a key is pressed.
    pub refresh: Duration,
    /// Where files are written.
    pub folder: PathBuf,
}

/// The dashboard could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nobody would see it.
    #[error("standard output is not a terminal; --once prints a report instead")]
    NoTerminal,
    /// The terminal does not do what terminals do.
    #[error("the terminal can't be used")]
    Terminal(#[source] io::Error),
    /// A thread panicked.
    #[error("a part of the program has crashed")]
    Crashed,
}

/// Shows what is fed until the user or a signal, which sets `stop`, ends it. The terminal is given back in any case.
pub fn run(
    feed: &Feed,
    screen: &mut Screen,
    options: RunOptions,
    code: Box<dyn ReadCode>,
    stop: &AtomicBool,
) -> Result<(), RunError> {
    if !io::stdout().is_terminal() {
        return Err(RunError::NoTerminal);
    }
    let jobs = Jobs::start(code, options.folder.clone()).map_err(RunError::Terminal)?;
    let taken = Taken::take(options.mouse).map_err(RunError::Terminal)?;
    let refresh = options.refresh;
    let mut dashboard = Dashboard {
        feed,
        screen,
        theme: options.theme,
        refresh,
        taken,
        jobs,
        asked: None,
        heard: Heard::new(),
    };
    let result = dashboard.run(stop).map_err(RunError::Terminal);
    drop(dashboard);
    if terminal::panicked() { Err(RunError::Crashed) } else { result }
}

struct Dashboard<'a> {
    feed: &'a Feed,
    screen: &'a mut Screen,
    theme: Theme,
    refresh: Duration,
    taken: Taken,
    jobs: Jobs,
    /// The function whose code was asked for last.
    asked: Option<RowFunction>,
    heard: Heard,
}

/// When the source was heard of last.
struct Heard {
    revision: Option<u64>,
    at: Instant,
}

impl Heard {
    fn new() -> Self {
        Self { revision: None, at: Instant::now() }
    }

    fn silent_s(&self) -> Option<u64> {
        let silent = self.at.elapsed();
        (self.revision.is_some() && silent > SILENCE).then_some(silent.as_secs())
    }
}

impl Dashboard<'_> {
    fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let started = Instant::now();
        let mut drawn: Option<(Instant, u64, Option<u64>)> = None;
        let mut pressed = true;
        while !stop.load(Ordering::Relaxed) && !terminal::panicked() {
            let ended = self.look();
            let (revision, silent) = (self.heard.revision.unwrap_or(0), self.heard.silent_s());
            let begins = started.elapsed() < BEGINNING;
            let refresh = if begins { FASTEST.min(self.refresh) } else { self.refresh };
            let is_due = match drawn {
                None => true,
                Some((at, shown, said)) => {
                    at.elapsed() >= refresh && ((shown, said) != (revision, silent) || ended)
                }
            };
            if pressed || is_due {
                self.draw()?;
                drawn = Some((Instant::now(), revision, silent));
            }
            pressed = self.finish_jobs();
            self.ask_for_code();
            terminal::wait(LOOK_EVERY.min(self.refresh))?;
            // All that waits, before the next frame.
            while event::poll(Duration::ZERO)? {
                let event = event::read()?;
                pressed = true;
                let action = handle(&event, self.feed.fed().state.as_mut(), self.screen);
                if !self.act(action)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Looks how the source does. Returns whether that is news.
    fn look(&mut self) -> bool {
        let crashed = self.feed.crashed();
        let fed = self.feed.fed();
        let revision = fed.state.as_ref().map(State::revision);
        if self.heard.revision != revision {
            self.heard = Heard { revision, at: Instant::now() };
        }
        let ended = match (&fed.ended, self.heard.silent_s()) {
            (Some(ended), _) => Some(ended.clone()),
            (None, _) if crashed => Some(Ended::Badly("the reader of samples has crashed".into())),
            (None, Some(silent)) if fed.pace.is_none() => {
                Some(Ended::Badly(format!("nothing new for {silent} s: has what samples died?")))
            }
            _ => None,
        };
        self.screen.set_pace(fed.pace);
        let is_news = self.screen.ended != ended;
        self.screen.set_ended(ended);
        is_news
    }

    fn draw(&mut self) -> io::Result<()> {
        let Self { feed, screen, theme, taken, .. } = self;
        // Nobody is kept from the state while the terminal takes its time.
        taken.draw(|buffer| draw(feed.fed().state.as_mut(), screen, *theme, buffer))
    }

    /// Does what a key asks for; returns whether to go on.
    fn act(&mut self, action: Action) -> io::Result<bool> {
        match action {
            Action::None => {}
            Action::Quit => return Ok(false),
            Action::Redraw => self.taken.redraw()?,
            Action::Suspend => {
                terminal::give_back();
                signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP)?;
                self.taken.enter()?;
            }
            Action::Mouse => {
                let mouse = !self.taken.mouse();
                self.taken.set_mouse(mouse)?;
                self.screen.say(if mouse { "the mouse chooses" } else { "the mouse is the terminal's" });
            }
            Action::Refresh { faster } => {
                let next = if faster { self.refresh / 2 } else { self.refresh * 2 };
                self.refresh = next.clamp(FASTEST, SLOWEST);
                self.screen.say(format!("drawn every {} ms", self.refresh.as_millis()));
            }
            Action::Pause => {
                if let Some(pace) = &mut self.feed.fed().pace {
                    pace.paused = !pace.paused;
                }
            }
            Action::Speed { faster } => {
                if let Some(pace) = &mut self.feed.fed().pace {
                    let speed = pace.speed.unwrap_or(64.0) * if faster { 2.0 } else { 0.5 };
                    pace.speed = (speed <= 64.0).then(|| speed.max(1.0 / 16.0));
                }
            }
            Action::Write => {
                if let Some(recording) = self.export() {
                    self.give(Job::Write(recording));
                }
            }
            Action::Picture => {
                if let Some(recording) = self.export() {
                    let fed = self.feed.fed();
                    let Some(state) = &fed.state else { return Ok(true) };
                    let domain = match self.screen.scope {
                        Scope::Machine => None,
                        // By number: names need not be unique.
                        Scope::Row(row) | Scope::Group(row, _) => {
                            let row = state.row(row);
                            Some(row.number.map_or_else(|| row.name.to_owned(), |number| number.to_string()))
                        }
                    };
                    let event = state.event();
                    drop(fed);
                    self.give(Job::Picture { recording, event, domain });
                }
            }
        }
        Ok(true)
    }

    fn export(&mut self) -> Option<Vec<u8>> {
        let exported = self.feed.fed().state.as_ref()?.export();
        match exported {
            Ok(recording) => Some(recording),
            Err(error) => {
                self.screen.say(format!("the window can't be written: {error}"));
                None
            }
        }
    }

    fn give(&mut self, job: Job) {
        let text =
            if self.jobs.give(job) { "writing …" } else { "still busy with what was asked for before" };
        self.screen.say(text);
    }

    /// Takes what was done meanwhile; returns whether there is anything.
    fn finish_jobs(&mut self) -> bool {
        let mut any = false;
        while let Some(done) = self.jobs.done() {
            match done {
                Done::Code(function, code) => self.screen.set_code(function, code),
                Done::Said(text) => self.screen.say(text),
            }
            any = true;
        }
        any
    }

    fn ask_for_code(&mut self) {
        let Some(subject) = self.screen.subject.filter(|_| self.screen.view() == View::Code) else {
            self.asked = None;
            return;
        };
        if self.asked == Some(subject) {
            return;
        }
        let fed = self.feed.fed();
        let wanted =
            fed.state.as_ref().and_then(|state| Some(CodeWanted::of(state, state.find_function(subject)?)));
        drop(fed);
        if let Some(wanted) = wanted
            && self.jobs.give(Job::Code(subject, wanted))
        {
            self.asked = Some(subject);
        }
    }
}
