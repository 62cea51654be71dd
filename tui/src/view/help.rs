//! The keys, on one screen.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    text::{bytes, grouped, put},
    theme::Theme,
};
use crate::state::State;

const KEYS: [(&str, &str); 16] = [
    ("1-7, Tab", "domains, processes, functions, callers, code, flame, log"),
    ("arrows hjkl", "move; PgUp PgDn, g and G to the ends; mouse: click, wheel"),
    ("Enter", "drill in: domain, processes, functions, callers"),
    ("Esc, Backspace", "back"),
    ("a", "the function's instructions"),
    ("/", "show only names with a text; empty shows all"),
    ("s, r", "sort by the next column, turn the order around"),
    ("e", "the next event, where several are sampled"),
    ("W", "window: 5, 10, 30, 60, 300 s"),
    ("f", "freeze, and go on; what comes meanwhile is kept"),
    ("[ ] { }", "look back and forth, by 1 s and by 10 s"),
    ("+ -", "draw more or less often"),
    ("space, < >", "replay: pause, slower, faster"),
    ("w", "write the window as a recording"),
    ("F", "write a flame graph (SVG) of the domain or of all"),
    ("m, Ctrl-L, q", "mouse on or off, draw anew, quit"),
];

pub(super) fn draw(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let mut y = area.y;
    for (keys, what) in KEYS {
        put(buffer, area.x, y, area.right(), keys, theme.bold());
        put(buffer, area.x + 16, y, area.right(), what, Style::new());
        y += 1;
    }
    let memory = state.memory();
    let said = format!(
        "memory: {} samples of {} s in {}, index {}, names {}",
        grouped(state.samples() as u64),
        state.history_s(),
        bytes(memory.samples),
        bytes(memory.index),
        bytes(memory.tables),
    );
    put(buffer, area.x, y.min(area.bottom() - 1), area.right(), &said, theme.dim());
}
