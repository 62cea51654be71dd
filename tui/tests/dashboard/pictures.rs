//! Each view, and each state that it can be in, as it is drawn on a small terminal and on a large one.
//! `INSTA_UPDATE=always cargo test -p xenoscope-tui` makes new pictures; look at each before it is committed.

use profile::{DomainKind, Mode, Space};
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, layout::Rect};
use tui::{Code, Colors, Ended, Pace, Screen, State, Theme, draw};

use crate::{
    hands::press,
    machine::{Machine, Where, at, state, usual},
};

const THEME: Theme = Theme { colors: Colors::True, light: false, ascii: false };

fn picture(
    state: Option<&mut State>,
    screen: &mut Screen,
    theme: Theme,
    (width, height): (u16, u16),
) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(state, screen, theme, frame.buffer_mut())).unwrap();
    terminal.backend().to_string()
}

/// The pictures of a name on both terminals.
fn both(name: &str, drawn: impl Fn((u16, u16)) -> String) {
    insta::assert_snapshot!(name, drawn((80, 24)));
    insta::assert_snapshot!(format!("{name}_large"), drawn((200, 60)));
}

/// What is drawn after some keys.
fn after(keys: &str, size: (u16, u16)) -> String {
    let (mut state, mut screen) = (state(&usual(0)), Screen::new("LIVE"));
    press(keys, &mut state, &mut screen);
    picture(Some(&mut state), &mut screen, THEME, size)
}

#[test]
fn domains() {
    both("domains", |size| after("", size));
}

#[test]
fn processes() {
    both("processes", |size| after("⏎", size));
}

#[test]
fn functions() {
    both("functions", |size| after("⏎⏎", size));
}

#[test]
fn callers() {
    both("callers", |size| after("⏎⏎j⏎", size));
}

#[test]
fn code() {
    both("code", |size| {
        let (mut state, mut screen) = (state(&usual(0)), Screen::new("LIVE"));
        press("⏎⏎a", &mut state, &mut screen);
        let compute = state.functions().max_by_key(|function| function.own).unwrap();
        let instructions =
            [(0, "push rbp"), (0x1a, "imul rax, rax"), (0x2c, "add rcx, rax"), (0x2f, "jne short 0x1a")];
        let instructions = instructions.map(|(offset, text)| (offset, text.to_owned())).to_vec();
        screen.set_code(compute.key, Code { base: 0x40_1000, instructions, why_not: None });
        picture(Some(&mut state), &mut screen, THEME, size)
    });
}

#[test]
fn code_that_cannot_be_read() {
    both("code_that_cannot_be_read", |size| {
        let (mut state, mut screen) = (state(&usual(0)), Screen::new("REPLAY usual.xsr"));
        press("⏎⏎a", &mut state, &mut screen);
        let compute = state.functions().max_by_key(|function| function.own).unwrap();
        let why_not = Some("code is read while it runs".to_owned());
        screen.set_code(compute.key, Code { base: 0x40_1000, instructions: Vec::new(), why_not });
        picture(Some(&mut state), &mut screen, THEME, size)
    });
}

#[test]
fn flame() {
    both("flame", |size| after("6", size));
}

#[test]
fn flame_of_a_domain() {
    both("flame_of_a_domain", |size| after("⏎6jjl", size));
}

#[test]
fn log() {
    both("log", |size| after("7", size));
}

#[test]
fn help() {
    both("help", |size| after("?", size));
}

#[test]
fn filtered() {
    both("filtered", |size| after("3/vm", size));
}

#[test]
fn without_colours_and_in_ascii() {
    let (mut state, mut screen) = (state(&usual(0)), Screen::new("LIVE"));
    let theme = Theme { colors: Colors::None, light: false, ascii: true };
    insta::assert_snapshot!(picture(Some(&mut state), &mut screen, theme, (140, 24)));
}

#[test]
fn empty() {
    both("empty", |size| {
        let mut machine = Machine::new();
        machine.snapshot(at(999), 0, &[]);
        let (mut state, mut screen) = (state(&machine.finish(at(1000))), Screen::new("LIVE"));
        picture(Some(&mut state), &mut screen, THEME, size)
    });
}

#[test]
fn before_the_first_samples() {
    both("before_the_first_samples", |size| picture(None, &mut Screen::new("LIVE"), THEME, size));
}

#[test]
fn sampling_that_never_began() {
    both("sampling_that_never_began", |size| {
        let mut screen = Screen::new("LIVE");
        screen.set_ended(Some(Ended::Badly(
            "sampling has failed: another collector samples this machine".into(),
        )));
        picture(None, &mut screen, THEME, size)
    });
}

#[test]
fn narrow() {
    insta::assert_snapshot!(after("", (40, 10)));
}

#[test]
fn too_small() {
    insta::assert_snapshot!(after("", (30, 6)));
}

#[test]
fn lossy() {
    both("lossy", |size| {
        let (mut state, mut screen) = (state(&usual(400)), Screen::new("LIVE"));
        picture(Some(&mut state), &mut screen, THEME, size)
    });
}

#[test]
fn frozen() {
    both("frozen", |size| after("f{", size));
}

#[test]
fn paused_replay() {
    both("paused_replay", |size| {
        let (mut state, mut screen) = (state(&usual(0)), Screen::new("REPLAY usual.xsr"));
        screen.set_pace(Some(Pace { speed: Some(4.0), paused: true }));
        picture(Some(&mut state), &mut screen, THEME, size)
    });
}

#[test]
fn error() {
    both("error", |size| {
        let (mut state, mut screen) = (state(&usual(0)), Screen::new("LIVE"));
        screen.set_ended(Some(Ended::Badly("sampling has failed: the hypervisor is gone".into())));
        picture(Some(&mut state), &mut screen, THEME, size)
    });
}

/// Names that would steer the terminal, hide, turn around, or push everything else out of the window.
#[test]
fn hostile_names() {
    let mut machine = Machine::new();
    let names = [
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "🦀🦀🦀 crab",
        "\u{202e}txt.exe",
        "שלום",
        &"long".repeat(2500),
        "\r\n\t\0",
    ];
    for (id, name) in (0..).zip(names) {
        let domain = machine.domain(id, id + 1, name, DomainKind::Hvm, at(1));
        let process = machine.process(id, domain, id, name);
        let chain = machine.chain(Space::User(domain, process), name, &[(name, 1)]);
        for step in 0..10 + u64::from(id) {
            let place = Where { domain: Some(domain), process: Some(process), mode: Mode::User, chain };
            machine.sample(at(step), place);
        }
    }
    let mut state = state(&machine.finish(at(1000)));
    let mut all = String::new();
    for keys in ["", "2", "3", "34", "35", "6", "7"] {
        let mut screen = Screen::new("LIVE");
        press(keys, &mut state, &mut screen);
        let drawn = picture(Some(&mut state), &mut screen, THEME, (100, 24));
        // Nothing that a terminal would obey, nor anything without a width.
        let is_harmless = |c: char| c == '\n' || !c.is_control() && !"\u{200b}\u{202e}\u{2066}".contains(c);
        assert!(drawn.chars().all(is_harmless), "{drawn}");
        assert!(!drawn.contains('ש'), "{drawn}");
        all += &drawn;
    }
    insta::assert_snapshot!(all);
}

/// No size makes it panic.
#[test]
fn all_sizes() {
    let recording = usual(400);
    for keys in ["", "2", "3", "3⏎", "3a", "6", "7", "?", "/x"] {
        let (mut state, mut screen) = (state(&recording), Screen::new("LIVE"));
        press(keys, &mut state, &mut screen);
        for width in (0..16).chain([39, 40, 41, 60, 80, 100, 300]) {
            for height in (0..14).chain([24, 50]) {
                let mut buffer = Buffer::empty(Rect { x: 0, y: 0, width, height });
                draw(Some(&mut state), &mut screen, THEME, &mut buffer);
            }
        }
    }
}
