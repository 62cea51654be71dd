//! Untrusted text, made fit to be shown.

use std::fmt::{self, Write};

/// Shows a text that a guest or its operator chose: what could steer a terminal, hide, or turn the direction of
/// writing (control and format characters, invisible ones, line breaks) appears as an escape such as `\u{1b}`.
///
/// Markup is left alone: whoever writes XML or HTML escapes that as well.
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a>(pub &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' | '\'' | '"' => f.write_char(c),
            c => write!(f, "{}", c.escape_debug()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_more_than_be_read_is_escaped() {
        let text = "a\u{1b}[2J\r\nb\u{202e}c\u{7f}\u{9b}\u{200b}\u{2028}\0";
        let visible = r"a\u{1b}[2J\r\nb\u{202e}c\u{7f}\u{9b}\u{200b}\u{2028}\0";
        assert_eq!(Visible(text).to_string(), visible);
    }

    #[test]
    fn what_is_only_read_stays() {
        let text = r#"<T as core::fmt::Debug>::fmt::{closure#0} "x" \ 'y' Größe 内核"#;
        assert_eq!(Visible(text).to_string(), text);
    }
}
