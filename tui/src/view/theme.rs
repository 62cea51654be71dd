//! Colours and characters, as far as the terminal has them.

use profile::Mode;
use ratatui::style::{Color, Modifier, Style};

/// How many colours there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colors {
    /// None: `NO_COLOR`, or the terminal has none.
    None,
    /// The sixteen of old.
    Ansi,
    /// 256.
    Indexed,
    /// All.
    True,
}

/// How things look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colours.
    pub colors: Colors,
    /// Whether the background is light.
    pub light: bool,
    /// Whether only ASCII may be shown.
    pub ascii: bool,
}

impl Theme {
    /// What the terminal's environment says. `variable` is [`std::env::var`], or a test's.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let is = |name: &str, wanted: &[&str]| {
            variable(name).is_some_and(|value| wanted.iter().any(|wanted| value.contains(wanted)))
        };
        let colors = if variable("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            Colors::None
        } else if is("COLORTERM", &["truecolor", "24bit"]) {
            Colors::True
        } else if is("TERM", &["256color", "direct"]) {
            Colors::Indexed
        } else if is("TERM", &["vt100", "vt102", "vt220", "dumb"]) {
            Colors::None
        } else {
            Colors::Ansi
        };
        // rxvt and others tell foreground;background, of which 7 and 15 are white.
        let background = variable("COLORFGBG");
        let light = background.is_some_and(|value| matches!(value.rsplit(';').next(), Some("7" | "15")));
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| variable(name).filter(|v| !v.is_empty()));
        let utf8 = locale.is_some_and(|value| {
            let value = value.to_ascii_uppercase();
            value.contains("UTF-8") || value.contains("UTF8")
        });
        Self { colors, light, ascii: !utf8 || is("TERM", &["vt100", "vt102", "vt220"]) }
    }

    fn color(self, ansi: Color, dark: (u8, (u8, u8, u8)), light: (u8, (u8, u8, u8))) -> Option<Color> {
        let (index, (r, g, b)) = if self.light { light } else { dark };
        match self.colors {
            Colors::None => None,
            Colors::Ansi => Some(ansi),
            Colors::Indexed => Some(Color::Indexed(index)),
            Colors::True => Some(Color::Rgb(r, g, b)),
        }
    }

    /// The colour of a mode: that of the flame graphs, as far as the terminal has it.
    pub(crate) fn mode_color(self, mode: Mode) -> Option<Color> {
        match mode {
            Mode::Hypervisor => self.color(Color::Red, (203, (240, 96, 84)), (160, (190, 40, 30))),
            Mode::Kernel => self.color(Color::Yellow, (214, (238, 170, 60)), (130, (160, 96, 0))),
            Mode::User => self.color(Color::Green, (113, (116, 196, 106)), (28, (30, 120, 30))),
            Mode::Backend => self.color(Color::Magenta, (176, (206, 130, 218)), (127, (150, 40, 160))),
        }
    }

    pub(crate) fn mode(self, mode: Mode) -> Style {
        self.mode_color(mode).map_or_else(Style::new, |color| Style::new().fg(color))
    }

    /// A flame's cell, text on its mode's colour; `odd` tells neighbours apart.
    pub(crate) fn flame(self, mode: Option<Mode>, odd: bool) -> Style {
        let background = match mode {
            Some(mode) => self.mode_color(mode),
            None => self.color(Color::Cyan, (109, (130, 170, 180)), (110, (150, 190, 200))),
        };
        let Some(background) = background else {
            return if odd { Style::new().add_modifier(Modifier::UNDERLINED) } else { Style::new() };
        };
        let background = match background {
            Color::Rgb(r, g, b) if odd => Color::Rgb(r - r / 8, g - g / 8, b - b / 8),
            other => other,
        };
        let text = if self.light && self.colors != Colors::Ansi { Color::White } else { Color::Black };
        Style::new().bg(background).fg(text)
    }

    pub(crate) fn title(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        self.color(Color::Cyan, (117, (135, 206, 250)), (25, (20, 80, 150)))
            .map_or(style, |color| style.fg(color))
    }

    pub(crate) fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(crate) fn dim(self) -> Style {
        let gray = self.color(Color::DarkGray, (245, (140, 140, 140)), (242, (100, 100, 100)));
        gray.map_or_else(|| Style::new().add_modifier(Modifier::DIM), |color| Style::new().fg(color))
    }

    /// What must not be missed.
    pub(crate) fn warning(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        let style = self.mode_color(Mode::Kernel).map_or(style, |color| style.fg(color));
        if self.colors == Colors::None { style.add_modifier(Modifier::REVERSED) } else { style }
    }

    /// What has gone wrong.
    pub(crate) fn error(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD).add_modifier(Modifier::REVERSED);
        self.mode_color(Mode::Hypervisor).map_or(style, |color| style.fg(color))
    }

    /// The row that the cursor is on: where there are colours, those of its cells stay.
    pub(crate) fn selected(self) -> Style {
        match (self.colors, self.light) {
            (Colors::None | Colors::Ansi, _) => {
                Style::new().fg(Color::Reset).add_modifier(Modifier::REVERSED)
            }
            (Colors::Indexed, false) => Style::new().bg(Color::Indexed(238)),
            (Colors::Indexed, true) => Style::new().bg(Color::Indexed(253)),
            (Colors::True, false) => Style::new().bg(Color::Rgb(54, 62, 82)),
            (Colors::True, true) => Style::new().bg(Color::Rgb(208, 222, 246)),
        }
    }

    /// A key, a tab: something to press.
    pub(crate) fn button(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// What is cut ends so.
    pub(crate) fn ellipsis(self) -> char {
        if self.ascii { '~' } else { '…' }
    }

    /// A part of the full height, for a sparkline.
    pub(crate) fn spark(self, part: Option<f64>) -> char {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const SIGNS: [char; 8] = ['_', '_', '.', '-', '=', '+', '*', '#'];
        let Some(part) = part else { return ' ' };
        let step = ((part * 8.0) as usize).min(7);
        if part <= 0.0 {
            if self.ascii { '_' } else { '▁' }
        } else if self.ascii {
            SIGNS[step]
        } else {
            BLOCKS[step]
        }
    }

    /// A cell of a bar that stands for a mode: without colours, the mode's letter.
    pub(crate) fn bar(self, mode: Mode) -> char {
        match mode {
            _ if self.colors != Colors::None && !self.ascii => '█',
            Mode::Hypervisor => 'h',
            Mode::Kernel => 'k',
            Mode::User => 'u',
            Mode::Backend => 'b',
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theme(variables: &[(&str, &str)]) -> Theme {
        let found =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| v.to_string());
        Theme::of_environment(found)
    }

    #[test]
    fn the_environment_says_what_the_terminal_can_do() {
        let utf8 = ("LANG", "C.UTF-8");
        let of = |variables: &[(&str, &str)]| theme(variables).colors;
        assert_eq!(of(&[utf8, ("TERM", "xterm-256color")]), Colors::Indexed);
        assert_eq!(of(&[utf8, ("TERM", "xterm-256color"), ("COLORTERM", "truecolor")]), Colors::True);
        assert_eq!(of(&[utf8, ("TERM", "linux")]), Colors::Ansi);
        assert_eq!(of(&[("TERM", "vt220")]), Colors::None);
        assert_eq!(of(&[("TERM", "xterm-256color"), ("NO_COLOR", "1")]), Colors::None);
        assert!(theme(&[("TERM", "vt100"), utf8]).ascii);
        assert!(theme(&[("LC_ALL", "POSIX"), utf8]).ascii);
        assert!(!theme(&[utf8]).ascii);
        assert!(theme(&[("COLORFGBG", "0;15")]).light);
        assert!(!theme(&[("COLORFGBG", "15;0")]).light);
    }
}
