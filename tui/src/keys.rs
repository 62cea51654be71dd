//! What keys and the mouse do.

use profile::EventId;
use ratatui::{
    buffer::Buffer,
    crossterm::event::{
        Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
    },
};

use crate::{
    screen::{Screen, View},
    state::{Scope, State},
    view::{Colors, Theme, draw},
};

/// The lengths that the window is changed to, in seconds.
const WINDOWS: [u64; 5] = [5, 10, 30, 60, 300];

/// What is to be done outside of screen and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// End.
    Quit,
    /// Stop as shells stop programs, until one is wanted again.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Take the mouse, or let the terminal have it.
    Mouse,
    /// Draw more often, or less.
    Refresh {
        /// Which.
        faster: bool,
    },
    /// Let a replay stand still or go on.
    Pause,
    /// Let a replay go faster or slower.
    Speed {
        /// Which.
        faster: bool,
    },
    /// Write what is in the window as a recording.
    Write,
    /// Draw a flame graph of what is in the window.
    Picture,
}

/// Does what a key, the mouse or a new size asks for.
pub fn handle(event: &Event, state: Option<&mut State>, screen: &mut Screen) -> Action {
    let action = match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => press(*key, state, screen),
        Event::Mouse(mouse) => {
            if let Some(state) = state {
                catch_up(state, screen);
                point(*mouse, state, screen);
            }
            Action::None
        }
        _ => return Action::None,
    };
    screen.stale = true;
    action
}

/// Puts the cursors on what they would be on if it had been drawn since the last key: keys may come faster than frames.
fn catch_up(state: &mut State, screen: &mut Screen) {
    if screen.stale {
        let theme = Theme { colors: Colors::None, light: false, ascii: true };
        draw(Some(state), screen, theme, &mut Buffer::empty(screen.size));
    }
}

fn press(key: KeyEvent, state: Option<&mut State>, screen: &mut Screen) -> Action {
    screen.message = None;
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Action::Quit,
            KeyCode::Char('z') => Action::Suspend,
            KeyCode::Char('l') => Action::Redraw,
            _ => Action::None,
        };
    }
    if screen.typing {
        type_filter(key.code, screen);
        return Action::None;
    }
    match key.code {
        KeyCode::Char('q') => return Action::Quit,
        KeyCode::Char('m') => return Action::Mouse,
        KeyCode::Char('+' | '=') => return Action::Refresh { faster: true },
        KeyCode::Char('-') => return Action::Refresh { faster: false },
        _ => {}
    }
    let Some(state) = state else { return Action::None };
    if screen.help {
        screen.help = false;
        return Action::None;
    }
    screen.follow(state);
    if matches!(
        key.code,
        KeyCode::Enter
            | KeyCode::Right
            | KeyCode::Tab
            | KeyCode::BackTab
            | KeyCode::Char('l' | 'a' | '1'..='7')
    ) {
        catch_up(state, screen);
    }
    match key.code {
        KeyCode::Char('?') | KeyCode::F(1) => screen.help = true,
        KeyCode::Char('w') => return Action::Write,
        KeyCode::Char('F') => return Action::Picture,
        KeyCode::Char(' ') if screen.pace.is_some() => return Action::Pause,
        KeyCode::Char(' ' | 'p' | 'f') => state.freeze(state.frozen_s().is_none()),
        KeyCode::Char('<') => return Action::Speed { faster: false },
        KeyCode::Char('>') => return Action::Speed { faster: true },
        KeyCode::Char('[') => state.look(-1),
        KeyCode::Char(']') => state.look(1),
        KeyCode::Char('{') => state.look(-10),
        KeyCode::Char('}') => state.look(10),
        KeyCode::Char('W') => {
            let next = WINDOWS.into_iter().find(|window| *window > state.window_s());
            state.set_window(next.unwrap_or(WINDOWS[0]));
        }
        KeyCode::Char('e') => {
            let many = state.header().events.len().max(1) as u16;
            state.set_event(EventId((state.event().0 + 1) % many));
        }
        KeyCode::Char('/') => screen.typing = true,
        KeyCode::Char('s') => screen.next_sort(),
        KeyCode::Char('r') => screen.reverse_sort(),
        KeyCode::Char('a') => annotate(state, screen),
        KeyCode::Char(digit @ '1'..='7') => {
            switch(View::ALL[digit as usize - '1' as usize], state, screen);
        }
        KeyCode::Tab => turn(1, state, screen),
        KeyCode::BackTab => turn(View::ALL.len() - 1, state, screen),
        KeyCode::Enter => enter(state, screen),
        KeyCode::Esc | KeyCode::Backspace => leave(state, screen),
        KeyCode::Up | KeyCode::Char('k') => step(state, screen, -1),
        KeyCode::Down | KeyCode::Char('j') => step(state, screen, 1),
        KeyCode::PageUp => step(state, screen, -page(screen)),
        KeyCode::PageDown => step(state, screen, page(screen)),
        KeyCode::Left | KeyCode::Char('h') if screen.view == View::Flame => sideways(state, screen, false),
        KeyCode::Right | KeyCode::Char('l') if screen.view == View::Flame => sideways(state, screen, true),
        KeyCode::Left | KeyCode::Char('h') => leave(state, screen),
        KeyCode::Right | KeyCode::Char('l') => enter(state, screen),
        KeyCode::Home | KeyCode::Char('g') => jump(screen, 0),
        KeyCode::End | KeyCode::Char('G') => jump(screen, usize::MAX),
        _ => {}
    }
    screen.follow(state);
    Action::None
}

fn type_filter(code: KeyCode, screen: &mut Screen) {
    /// No name that is looked for is longer.
    const LONGEST: usize = 200;
    match code {
        KeyCode::Enter => screen.typing = false,
        KeyCode::Esc => {
            screen.typing = false;
            screen.filter.clear();
        }
        KeyCode::Backspace => {
            screen.filter.pop();
        }
        KeyCode::Char(c) if screen.filter.len() < LONGEST => screen.filter.push(c),
        _ => {}
    }
}

fn page(screen: &Screen) -> isize {
    screen.areas.list.map_or(10, |(_, height)| height.saturating_sub(1).max(1) as isize)
}

fn step(state: &State, screen: &mut Screen, rows: isize) {
    match screen.view {
        View::Domains => screen.rows.step(rows),
        View::Processes => screen.groups.step(rows),
        View::Functions => screen.functions.step(rows),
        View::Callers => screen.neighbours.step(rows),
        View::Code => screen.code_line.step(rows),
        View::Log => screen.log_line.step(rows),
        View::Flame => {
            let Some(node) = screen.flame else { return };
            let next = match rows < 0 {
                true => state.parent(node).filter(|_| Some(node) != screen.flame_root),
                false => state.children(node).first().copied(),
            };
            screen.flame = next.or(screen.flame);
        }
    }
}

fn sideways(state: &State, screen: &mut Screen, right: bool) {
    let Some(node) = screen.flame else { return };
    let Some(parent) = state.parent(node) else { return };
    let siblings = state.children(parent);
    let Some(at) = siblings.iter().position(|sibling| *sibling == node) else { return };
    let next = if right { at.saturating_add(1) } else { at.wrapping_sub(1) };
    screen.flame = siblings.get(next).copied().or(screen.flame);
}

fn jump(screen: &mut Screen, at: usize) {
    match screen.view {
        View::Domains => screen.rows.jump(at),
        View::Processes => screen.groups.jump(at),
        View::Functions => screen.functions.jump(at),
        View::Callers => screen.neighbours.jump(at),
        View::Code => {
            screen.code_line.jump(at);
            screen.code_line.moved = true;
        }
        View::Log => screen.log_line.jump(at),
        View::Flame => screen.flame = screen.flame_root,
    }
}

fn enter(state: &State, screen: &mut Screen) {
    match screen.view {
        View::Domains => {
            let Some(row) = screen.row_at_cursor(state) else { return };
            screen.go(View::Processes);
            screen.scope = Scope::Row(row);
            screen.groups = Default::default();
        }
        View::Processes => {
            let Some((row, group)) = screen.group_at_cursor(state) else { return };
            screen.go(View::Functions);
            screen.scope = Scope::Group(row, group);
            screen.functions = Default::default();
        }
        View::Functions => {
            let Some(id) = screen.function_at_cursor() else { return };
            screen.go(View::Callers);
            screen.look_at(state.function(id).key);
        }
        View::Callers => match screen.neighbour_at_cursor(state) {
            Some(id) => screen.look_at_next(state.function(id).key),
            None => annotate(state, screen),
        },
        View::Flame => screen.flame_root = screen.flame.or(screen.flame_root),
        View::Code | View::Log => {}
    }
}

fn annotate(state: &State, screen: &mut Screen) {
    match screen.view {
        View::Functions => {
            let Some(id) = screen.function_at_cursor() else { return };
            screen.go(View::Code);
            screen.look_at(state.function(id).key);
        }
        View::Callers if screen.subject.is_some() => {
            screen.go(View::Code);
            screen.code_line = Default::default();
        }
        _ => {}
    }
}

fn leave(state: &State, screen: &mut Screen) {
    if screen.view == View::Flame && screen.flame_root.is_some() {
        let above = screen.flame_root.and_then(|root| state.parent(root));
        screen.flame_root = above.filter(|above| Some(*above) != state.root(screen.scope));
        return;
    }
    if !screen.back() && !screen.filter.is_empty() {
        screen.filter.clear();
    }
}

/// Goes to another view of what is looked at: one that needs a function takes the one at the cursor.
fn switch(view: View, state: &State, screen: &mut Screen) {
    if matches!(view, View::Callers | View::Code) && screen.view == View::Functions {
        if let Some(id) = screen.function_at_cursor() {
            screen.go(view);
            screen.look_at(state.function(id).key);
        }
        return;
    }
    let scope = match (view, screen.view) {
        // The first view is of the whole machine.
        (View::Domains, _) => Scope::Machine,
        (_, View::Domains) if screen.rows.moved => {
            screen.row_at_cursor(state).map_or(screen.scope, Scope::Row)
        }
        _ => screen.scope,
    };
    screen.go(view);
    screen.scope = scope;
    if view == View::Flame {
        (screen.flame, screen.flame_root) = (None, None);
    }
}

fn turn(by: usize, state: &State, screen: &mut Screen) {
    let next = (screen.view as usize + by) % View::ALL.len();
    switch(View::ALL[next], state, screen);
}

fn point(mouse: MouseEvent, state: &mut State, screen: &mut Screen) {
    screen.follow(state);
    match mouse.kind {
        MouseEventKind::ScrollUp => step(state, screen, -3),
        MouseEventKind::ScrollDown => step(state, screen, 3),
        MouseEventKind::Down(MouseButton::Left) => {
            let (x, y) = (mouse.column, mouse.row);
            if y == screen.areas.tabs_line {
                let tab = screen.areas.tabs.iter().find(|(from, to, _)| (*from..*to).contains(&x));
                if let Some((_, _, view)) = tab.copied() {
                    switch(view, state, screen);
                }
            } else if screen.view == View::Flame {
                let hit = |(from, to, line, _): &&(u16, u16, u16, _)| *line == y && (*from..*to).contains(&x);
                let hit = screen.areas.flames.iter().find(hit).map(|flame| flame.3);
                // A second click goes in.
                match hit {
                    Some(node) if screen.flame == Some(node) => screen.flame_root = Some(node),
                    Some(node) => screen.flame = Some(node),
                    None => {}
                }
            } else if let Some((first, height)) = screen.areas.list
                && (first..first.saturating_add(height)).contains(&y)
            {
                click(usize::from(y - first), state, screen);
            }
        }
        MouseEventKind::Down(MouseButton::Right) => leave(state, screen),
        _ => {}
    }
    screen.follow(state);
}

/// Puts the cursor on a line; goes in where it was there already.
fn click(line: usize, state: &State, screen: &mut Screen) {
    let (at, top) = match screen.view {
        View::Domains => (screen.rows.at, screen.rows.top),
        View::Processes => (screen.groups.at, screen.groups.top),
        View::Functions => (screen.functions.at, screen.functions.top),
        View::Code => (screen.code_line.at, screen.code_line.top),
        View::Log => (screen.log_line.at, screen.log_line.top),
        View::Callers | View::Flame => return,
    };
    match top + line == at {
        true => enter(state, screen),
        false => step(state, screen, (top + line) as isize - at as isize),
    }
}
