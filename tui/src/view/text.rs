//! Text in cells: untrusted names made harmless, cut to what fits.

use std::fmt::Write;

use analysis::Visible;
use ratatui::{buffer::Buffer, layout::Rect, style::Style};
use unicode_width::UnicodeWidthChar;

use super::theme::Theme;

/// On which side of its column a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A text that somebody else chose, in at most `width` columns. What a terminal would obey, hide or turn around is
/// escaped; no more of the text is looked at than is shown.
pub(crate) fn harmless(text: &str, width: usize, theme: Theme) -> String {
    let mut shown = String::new();
    let mut columns = 0;
    let mut buffer = [0; 4];
    let mut piece = String::new();
    // Where the text would have to be cut if it turns out not to fit.
    let mut cut = 0;
    for c in text.chars() {
        piece.clear();
        if is_right_to_left(c) || (theme.ascii && !c.is_ascii()) {
            piece.extend(c.escape_unicode());
        } else {
            write!(piece, "{}", Visible(c.encode_utf8(&mut buffer)))
                .expect("strings take all that is written");
        }
        let wide = piece.chars().map(|c| c.width().unwrap_or(0)).sum::<usize>();
        if columns + wide > width {
            shown.truncate(cut);
            if width > 0 {
                shown.push(theme.ellipsis());
            }
            return shown;
        }
        shown.push_str(&piece);
        columns += wide;
        if columns < width {
            cut = shown.len();
        }
    }
    shown
}

/// Characters of scripts that are written from right to left: a terminal that knows of that would let them reach over
/// to the columns beside them.
fn is_right_to_left(c: char) -> bool {
    matches!(u32::from(c), 0x590..=0x8ff | 0xfb1d..=0xfdff | 0xfe70..=0xfeff | 0x10800..=0x10fff | 0x1e800..=0x1efff)
}

/// How many columns a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Draws text that is ours, cut to the line; returns the column behind it.
pub(crate) fn put(buffer: &mut Buffer, x: u16, y: u16, end: u16, text: &str, style: Style) -> u16 {
    if x >= end || y >= buffer.area.bottom() {
        return x.min(end);
    }
    buffer.set_stringn(x, y, text, usize::from(end - x), style).0
}

/// Draws text in a column of its own.
pub(crate) fn put_in(buffer: &mut Buffer, column: Rect, text: &str, align: Align, style: Style) {
    let free = usize::from(column.width).saturating_sub(columns(text)) as u16;
    let indent = if align == Align::Right { free } else { 0 };
    put(buffer, column.x + indent, column.y, column.right(), text, style);
}

/// A share as a percentage, in five columns.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 99.95 { format!("{percent:.0}%") } else { format!("{percent:.1}%") }
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A size in the unit that it fills.
pub(crate) fn bytes(count: usize) -> String {
    match count {
        0..0x2800 => format!("{count} B"),
        0x2800..0xa0_0000 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::theme::Colors;

    const PLAIN: Theme = Theme { colors: Colors::None, light: false, ascii: false };

    #[test]
    fn names_can_neither_steer_nor_hide_nor_turn_around() {
        assert_eq!(harmless("a\u{1b}[2Jb\u{202e}", 80, PLAIN), r"a\u{1b}[2Jb\u{202e}");
        assert_eq!(harmless("\u{5d0}x", 80, PLAIN), r"\u{5d0}x");
        assert_eq!(harmless("Größe", 80, Theme { ascii: true, ..PLAIN }), r"Gr\u{f6}\u{df}e");
    }

    #[test]
    fn what_does_not_fit_is_cut_at_a_character() {
        assert_eq!(harmless("abcdef", 6, PLAIN), "abcdef");
        assert_eq!(harmless("abcdef", 5, PLAIN), "abcd…");
        assert_eq!(harmless("🦀🦀🦀", 5, PLAIN), "🦀🦀…");
        assert_eq!(harmless("🦀🦀🦀", 4, PLAIN), "🦀…");
        assert_eq!(harmless("abc", 0, PLAIN), "");
        assert!(columns(&harmless(&"\u{1b}🦀x".repeat(10_000), 40, PLAIN)) <= 40);
    }
}
