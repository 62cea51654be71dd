//! State to buffer: everything that is drawn.
//!
//! Comes in: the [`State`], the [`Screen`], a [`Theme`]. Goes out: cells. What it costs does not depend on how much the
//! state holds beyond what is seen, but for one look at each row of the list that is shown.

mod code;
mod flame;
mod help;
mod lists;
mod log;
mod status;
mod table;
mod text;
mod theme;

use ratatui::{buffer::Buffer, layout::Rect};

pub use self::theme::{Colors, Theme};
use crate::{
    screen::{Screen, View},
    state::{Scope, State},
    view::text::{harmless, put},
};

/// Below this nothing can be told: it is said, together with what must never be hidden.
const SMALLEST: (u16, u16) = (40, 10);

/// Draws everything. Without a state, sampling has not begun yet.
pub fn draw(state: Option<&mut State>, screen: &mut Screen, theme: Theme, buffer: &mut Buffer) {
    let area = buffer.area;
    screen.areas = Default::default();
    (screen.size, screen.stale) = (area, false);
    if area.width == 0 || area.height == 0 {
        return;
    }
    let Some(state) = state else {
        status::waiting(screen, theme, buffer);
        return;
    };
    screen.follow(state);
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        status::too_small(state, screen, theme, buffer);
        return;
    }
    let top = status::header(state, screen, theme, buffer);
    let body = Rect { y: top, height: area.height - top - 1, ..area };
    if screen.help {
        help::draw(state, theme, body, buffer);
    } else {
        match screen.view {
            View::Domains => lists::overview(state, screen, theme, body, buffer),
            View::Processes => lists::processes(state, screen, theme, body, buffer),
            View::Functions => lists::functions_view(state, screen, theme, body, buffer),
            View::Callers => code::callers(state, screen, theme, body, buffer),
            View::Code => code::instructions(state, screen, theme, body, buffer),
            View::Flame => flame::draw(state, screen, theme, body, buffer),
            View::Log => log::draw(state, screen, theme, body, buffer),
        }
    }
    footer(screen, theme, buffer);
}

/// What the scope is called: untrusted, made harmless.
fn scope_name(state: &State, scope: Scope, width: usize, theme: Theme) -> String {
    let row = |id, width| harmless(state.row(id).name, width, theme);
    match scope {
        Scope::Machine => "all domains".to_owned(),
        Scope::Row(id) => row(id, width),
        Scope::Group(id, group) => {
            let row = row(id, width / 2);
            let rest = width.saturating_sub(row.chars().count() + 3);
            format!("{row} > {}", harmless(&state.group_name(group).0, rest, theme))
        }
    }
}

/// The last line: what is being typed, what is to be said, or which keys there are.
fn footer(screen: &Screen, theme: Theme, buffer: &mut Buffer) {
    let area = buffer.area;
    let y = area.bottom() - 1;
    if screen.typing {
        let x = put(buffer, area.x, y, area.right(), "/", theme.bold());
        let text = harmless(&screen.filter, usize::from(area.right() - x).saturating_sub(1), theme);
        let x = put(buffer, x, y, area.right(), &text, theme.bold());
        put(buffer, x, y, area.right(), " ", theme.button());
        return;
    }
    if let Some(message) = &screen.message {
        let text = harmless(message, usize::from(area.width), theme);
        put(buffer, area.x, y, area.right(), &text, theme.bold());
        return;
    }
    let mut keys: Vec<(&str, &str)> =
        vec![("?", "help"), ("q", "quit"), ("Enter", "into"), ("Esc", "back"), ("/", "filter")];
    match screen.view {
        View::Domains | View::Processes | View::Functions => keys.push(("s", "sort")),
        View::Callers => keys.push(("a", "code")),
        View::Code | View::Flame | View::Log => {}
    }
    keys.extend([("f", "freeze"), ("w", "write"), ("F", "flame graph"), ("W", "window")]);
    if screen.pace.is_some() {
        keys.extend([("space", "pause"), ("< >", "speed")]);
    }
    let mut x = area.x;
    for (key, what) in keys {
        if usize::from(area.right().saturating_sub(x)) < key.len() + what.len() + 3 {
            break;
        }
        x = put(buffer, x, y, area.right(), key, theme.button());
        x = put(buffer, x, y, area.right(), &format!(" {what}  "), theme.dim());
    }
}
