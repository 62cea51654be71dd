//! The terminal: taken over, and given back whatever happens.

use std::{
    io::{self, BufWriter, Stdout, Write},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{DisableMouseCapture, EnableMouseCapture},
        execute,
        terminal::{
            BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
            disable_raw_mode, enable_raw_mode,
        },
    },
    layout::{Position, Rect},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// Whether the terminal is taken over.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether some thread has panicked: what it has said is not to be drawn over.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// A frame goes out in one piece.
const FRAME: usize = 64 << 10;

/// A terminal that is ours until this is dropped, or any thread panics.
pub(crate) struct Taken {
    pub(crate) terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    mouse: bool,
}

impl Taken {
    pub(crate) fn take(mouse: bool) -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                PANICKED.store(true, Ordering::SeqCst);
                give_back();
                before(info);
            }));
        });
        let backend = CrosstermBackend::new(BufWriter::with_capacity(FRAME, io::stdout()));
        let mut taken = Self { terminal: Terminal::new(backend)?, mouse };
        taken.enter()?;
        Ok(taken)
    }

    /// Takes the terminal, for the first time or after it was given back.
    pub(crate) fn enter(&mut self) -> io::Result<()> {
        TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        self.set_mouse(self.mouse)?;
        self.terminal.hide_cursor()?;
        self.redraw()
    }

    /// Draws everything anew with the next frame. [`Terminal::clear`] would ask the terminal where its cursor is, which not
    /// every serial line has an answer to.
    pub(crate) fn redraw(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }

    pub(crate) fn mouse(&self) -> bool {
        self.mouse
    }

    pub(crate) fn set_mouse(&mut self, mouse: bool) -> io::Result<()> {
        self.mouse = mouse;
        match mouse {
            true => execute!(io::stdout(), EnableMouseCapture),
            false => execute!(io::stdout(), DisableMouseCapture),
        }
    }

    /// Draws a frame; terminals that can show it at once do.
    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut ratatui::buffer::Buffer)) -> io::Result<()> {
        execute!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(|frame| draw(frame.buffer_mut()))?;
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Waits until the terminal tells something, or a signal comes, or for so long.
///
/// Fails when nobody has the terminal any more: where crossterm waits, it then reads nothing for ever.
pub(crate) fn wait(longest: Duration) -> io::Result<()> {
    let out = io::stdout();
    let mut terminal = [PollFd::new(&out, PollFlags::IN)];
    let longest = Timespec::try_from(longest).map_err(io::Error::other)?;
    match poll(&mut terminal, Some(&longest)) {
        // Its size may have changed.
        Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) if terminal[0].revents().contains(PollFlags::HUP) => Err(io::ErrorKind::BrokenPipe.into()),
        Ok(_) => Ok(()),
    }
}

/// Whether some thread has panicked since the terminal was taken.
pub(crate) fn panicked() -> bool {
    PANICKED.load(Ordering::SeqCst)
}

/// Gives the terminal back, if it is taken. It may be gone by now: there is nothing to do about that.
pub(crate) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let mut out = io::stdout();
        let _ = execute!(out, EndSynchronizedUpdate, DisableMouseCapture, LeaveAlternateScreen, Show);
        let _ = out.flush();
        let _ = disable_raw_mode();
    }
}
