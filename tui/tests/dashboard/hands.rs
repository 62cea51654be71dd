//! What keys and the mouse do.

use ratatui::{
    buffer::Buffer,
    crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
    layout::Rect,
};
use tui::{Action, Colors, Scope, Screen, State, Theme, View, draw, handle};

use crate::machine::{state, usual};

fn show(state: &mut State, screen: &mut Screen) -> Buffer {
    let mut buffer = Buffer::empty(Rect { x: 0, y: 0, width: 80, height: 24 });
    draw(Some(state), screen, Theme { colors: Colors::None, light: false, ascii: true }, &mut buffer);
    buffer
}

fn key(code: KeyCode) -> Event {
    Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

/// Presses keys one after the other, each after a look at the screen; ⏎ is Enter, ⎋ is Esc.
pub(crate) fn press(keys: &str, state: &mut State, screen: &mut Screen) -> Action {
    let mut action = Action::None;
    for c in keys.chars() {
        show(state, screen);
        let code = match c {
            '⏎' => KeyCode::Enter,
            '⎋' => KeyCode::Esc,
            c => KeyCode::Char(c),
        };
        action = handle(&key(code), Some(state), screen);
    }
    show(state, screen);
    action
}

fn usually() -> (State, Screen) {
    (state(&usual(0)), Screen::new("LIVE"))
}

#[test]
fn one_drills_down_and_comes_back() {
    let (mut state, mut screen) = usually();
    let alpha = state.rows().find(|row| row.name == "alpha").unwrap().id;
    press("⏎", &mut state, &mut screen);
    assert_eq!((screen.view(), state.scope()), (View::Processes, Scope::Row(alpha)));
    press("⏎", &mut state, &mut screen);
    assert_eq!(screen.view(), View::Functions);
    assert!(matches!(state.scope(), Scope::Group(row, _) if row == alpha));
    let heaviest = state.functions().max_by_key(|function| function.own).unwrap();
    assert_eq!(state.function_name(heaviest.id), ("compute".to_owned(), Some("server")));
    press("⏎", &mut state, &mut screen);
    assert_eq!(screen.view(), View::Callers);
    press("a", &mut state, &mut screen);
    assert_eq!(screen.view(), View::Code);
    press("⎋⎋⎋⎋", &mut state, &mut screen);
    assert_eq!((screen.view(), state.scope()), (View::Domains, Scope::Machine));
    press("⎋", &mut state, &mut screen);
    assert_eq!(screen.view(), View::Domains, "there is nothing before the first view");
}

#[test]
fn digits_and_tab_switch_and_the_cursor_says_of_what() {
    let (mut state, mut screen) = usually();
    for (digit, view) in ('1'..).zip(View::ALL) {
        // Callers and code are of the function at the cursor.
        press(&format!("3{digit}"), &mut state, &mut screen);
        assert_eq!(screen.view(), view);
    }
    press("1j3", &mut state, &mut screen);
    let Scope::Row(row) = state.scope() else { panic!("{:?}", state.scope()) };
    assert_eq!(state.row(row).name, "beta", "the second row");
    press("1", &mut state, &mut screen);
    handle(&key(KeyCode::Tab), Some(&mut state), &mut screen);
    assert_eq!(screen.view(), View::Processes);
    handle(&key(KeyCode::BackTab), Some(&mut state), &mut screen);
    assert_eq!(screen.view(), View::Domains);
}

#[test]
fn a_filter_is_typed_and_taken_back() {
    let (mut state, mut screen) = usually();
    let shows = |state: &mut State, screen: &mut Screen, text: &str| {
        let buffer = show(state, screen);
        let cells: String = buffer.content.iter().map(|cell| cell.symbol()).collect();
        cells.contains(text)
    };
    assert!(shows(&mut state, &mut screen, "compute"));
    press("3/vfs", &mut state, &mut screen);
    assert!(shows(&mut state, &mut screen, "vfs_read") && !shows(&mut state, &mut screen, "compute"));
    press("⏎", &mut state, &mut screen);
    assert!(shows(&mut state, &mut screen, "/vfs"), "a filter that is in force is shown");
    press("q", &mut state, &mut screen);
    press("/⎋", &mut state, &mut screen);
    assert!(shows(&mut state, &mut screen, "compute"));
}

#[test]
fn what_is_not_the_states_is_handed_on() {
    let (mut state, mut screen) = usually();
    for (keys, action) in [
        ("q", Action::Quit),
        ("w", Action::Write),
        ("F", Action::Picture),
        ("m", Action::Mouse),
        ("+", Action::Refresh { faster: true }),
        ("<", Action::Speed { faster: false }),
    ] {
        assert_eq!(press(keys, &mut state, &mut screen), action, "{keys}");
    }
    let interrupt = Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert_eq!(handle(&interrupt, None, &mut screen), Action::Quit, "also before the first samples");
    assert_eq!(press("/q", &mut state, &mut screen), Action::None, "what is typed is text");
}

#[test]
fn a_click_chooses_and_a_second_goes_in() {
    let (mut state, mut screen) = usually();
    let click = |row, column| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        Event::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
    };
    let buffer = show(&mut state, &mut screen);
    let line = |y: u16| (0..80).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    let dom0 = (0..24).find(|y| line(*y).contains("Domain-0")).unwrap();
    handle(&click(dom0, 5), Some(&mut state), &mut screen);
    show(&mut state, &mut screen);
    assert_eq!(screen.view(), View::Domains);
    handle(&click(dom0, 5), Some(&mut state), &mut screen);
    show(&mut state, &mut screen);
    let Scope::Row(row) = state.scope() else { panic!("{:?}", state.scope()) };
    assert_eq!((screen.view(), state.row(row).name), (View::Processes, "Domain-0"));
    let tabs = (0..24).find(|y| line(*y).contains("1 domains")).unwrap();
    handle(&click(tabs, 2), Some(&mut state), &mut screen);
    assert_eq!(screen.view(), View::Domains);
    for kind in [MouseEventKind::ScrollDown, MouseEventKind::ScrollUp] {
        let event = MouseEvent { kind, column: 70, row: 23, modifiers: KeyModifiers::NONE };
        handle(&Event::Mouse(event), Some(&mut state), &mut screen);
    }
}

#[test]
fn the_past_is_looked_at() {
    let (mut state, mut screen) = usually();
    let beta = |state: &State| state.rows().find(|row| row.name == "beta").unwrap().share;
    let now = beta(&state);
    press("W", &mut state, &mut screen);
    assert_eq!(state.window_s(), 30);
    state.set_window(2);
    let latest = beta(&state);
    assert!(latest > now, "it grew: {latest} {now}");
    press("f{", &mut state, &mut screen);
    assert_eq!(state.frozen_s(), Some(10));
    assert!(beta(&state) < now);
    press("f", &mut state, &mut screen);
    assert_eq!((state.frozen_s(), beta(&state)), (None, latest));
}

/// Keys come faster than frames where text is pasted, or where drawing takes its time.
#[test]
fn what_a_filter_hides_is_not_entered() {
    let (mut state, mut screen) = usually();
    // The first row is alpha's.
    show(&mut state, &mut screen);
    for c in "/beta\n\n".chars() {
        let code = if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
        handle(&key(code), Some(&mut state), &mut screen);
    }
    show(&mut state, &mut screen);
    let Scope::Row(row) = state.scope() else { panic!("{:?}", state.scope()) };
    assert_eq!((screen.view(), state.row(row).name), (View::Processes, "beta"));

    // Of what is hidden altogether, nothing is entered.
    let (mut state, mut screen) = usually();
    show(&mut state, &mut screen);
    for code in ['/', 'z', '\n', '\n'].map(|c| if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) }) {
        handle(&key(code), Some(&mut state), &mut screen);
    }
    assert_eq!((screen.view(), state.scope()), (View::Domains, Scope::Machine));
}

#[test]
fn keys_between_frames_go_on_from_each_other() {
    let (mut state, mut screen) = usually();
    show(&mut state, &mut screen);
    for code in [KeyCode::Down, KeyCode::Enter] {
        handle(&key(code), Some(&mut state), &mut screen);
    }
    show(&mut state, &mut screen);
    let Scope::Row(row) = state.scope() else { panic!("{:?}", state.scope()) };
    assert_eq!(state.row(row).name, "beta", "the second row");
}
