//! What a terminal showed: the output that `programs/terminal.c` wrote down, played to a terminal emulator.

use std::{fs, path::Path};

use super::figures;

/// A session on a terminal.
pub struct Shown {
    pieces: Vec<Piece>,
    columns: u16,
    rows: u16,
}

enum Piece {
    Output { ms: u64, bytes: Vec<u8> },
    Mark(String),
}

impl Shown {
    /// Reads what was written down; the terminal's size is not in there.
    pub fn read(path: &Path, columns: u16, rows: u16) -> Self {
        let file = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut pieces = Vec::new();
        let mut rest = &file[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            rest = &rest[end + 1..];
            let mut words = line.splitn(3, ' ');
            let (kind, ms) = (words.next().unwrap_or(""), words.next().and_then(|ms| ms.parse().ok()));
            let (Some(ms), Some(text)) = (ms, words.next()) else { panic!("not an entry: {line}") };
            match kind {
                "mark" => pieces.push(Piece::Mark(text.to_owned())),
                "out" => {
                    let length: usize = text.parse().unwrap();
                    let whole = rest.len() > length;
                    let (bytes, later) = rest.split_at(length.min(rest.len()));
                    pieces.push(Piece::Output { ms, bytes: bytes.to_vec() });
                    rest = if whole { &later[1..] } else { &[] };
                }
                other => panic!("not an entry: {other}"),
            }
        }
        Self { pieces, columns, rows }
    }

    fn play(&self, mut each: impl FnMut(&Piece, &vt100::Parser) -> bool) {
        let mut terminal = vt100::Parser::new(self.rows, self.columns, 0);
        for piece in &self.pieces {
            if let Piece::Output { bytes, .. } = piece {
                terminal.process(bytes);
            }
            if each(piece, &terminal) {
                break;
            }
        }
    }

    /// What was on the screen when a mark was set.
    pub fn at(&self, mark: &str) -> String {
        let mut seen = None;
        self.play(|piece, terminal| {
            let is_it = matches!(piece, Piece::Mark(text) if text == mark);
            if is_it {
                seen = Some(terminal.screen().contents());
            }
            is_it
        });
        seen.unwrap_or_else(|| panic!("there is no mark {mark}"))
    }

    /// What was on the screen at the end.
    pub fn last(&self) -> String {
        let mut seen = String::new();
        self.play(|_, terminal| {
            seen = terminal.screen().contents();
            false
        });
        seen
    }

    /// When all of these texts were on the screen together for the first time, in milliseconds.
    pub fn first(&self, texts: &[&str]) -> Option<u64> {
        let mut found = None;
        self.play(|piece, terminal| {
            let Piece::Output { ms, .. } = piece else { return false };
            let contents = terminal.screen().contents();
            if texts.iter().all(|text| contents.contains(text)) {
                found = Some(*ms);
            }
            found.is_some()
        });
        found
    }

    /// The first screen between two marks that had all of these texts together.
    pub fn between(&self, from: &str, until: &str, texts: &[&str]) -> Option<String> {
        let (mut is_between, mut found) = (false, None);
        self.play(|piece, terminal| {
            match piece {
                Piece::Mark(text) if text == from => is_between = true,
                Piece::Mark(text) if text == until => return true,
                _ => {}
            }
            let contents = if is_between { terminal.screen().contents() } else { return false };
            found = texts.iter().all(|text| contents.contains(text)).then_some(contents);
            found.is_some()
        });
        found
    }

    /// Fails unless the dashboard leads from a guest, the busiest, to the instructions of the hottest function of a program of
    /// hot.c's: on the screens at the marks `first`, `processes`, `functions` and `code`.
    pub fn assert_drilled_down(&self, guest: &str, program: &str) {
        let [hot, warm, cool] = ["hot", "warm", "cool"].map(|function| format!("{program}_{function}"));
        let shown = self.first(&[guest]).expect("the guest is never shown");
        let named = self.first(&[guest, &hot]).expect("its function is never shown");
        figures::figure("the busiest guest is shown after, ms", shown);
        figures::figure("its busiest function, named by its memory, after, ms", named);
        let first = self.at("first");
        println!("{first}");
        assert_shows(&first, &["LIVE", "lost 0", "overhead"]);
        assert_eq!(line_of(&first, guest), line_of(&first, "NOW WINDOW") + 1, "{first}");
        assert_shows(&self.at("processes"), &["hot ["]);
        assert_shows(&self.at("functions"), &[&hot, &warm, &cool]);
        let code = self.at("code");
        println!("{code}");
        // The loop in hot.c, from the guest's memory.
        assert_shows(&code, &["5 code", &hot, "INSTRUCTION", "add", "imul", "xor"]);
    }

    /// Whether the main screen was given back, with its cursor.
    pub fn is_given_back(&self) -> bool {
        let mut given_back = false;
        self.play(|_, terminal| {
            let screen = terminal.screen();
            given_back = !screen.alternate_screen() && !screen.hide_cursor();
            false
        });
        given_back
    }
}

/// Fails unless a screen has all of these texts.
pub fn assert_shows(screen: &str, texts: &[&str]) {
    for text in texts {
        assert!(screen.contains(text), "no {text} in\n{screen}");
    }
}

/// The first line of a screen that has a text; the last there can be if none has it.
pub fn line_of(screen: &str, text: &str) -> usize {
    screen.lines().position(|line| line.contains(text)).unwrap_or(usize::MAX)
}
