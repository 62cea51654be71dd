//! What happened, the newest first.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    table::{Table, left, right},
    text::{harmless, put},
    theme::Theme,
};
use crate::{
    screen::Screen,
    state::{Entry, Kind, State},
};

pub(super) fn draw(state: &State, screen: &mut Screen, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let table = Table::new(area, &[right("AT", 9), left("WHAT", 9), left("", 0)]);
    table.titles(None, theme, buffer);
    let filter = &screen.filter;
    let passes = |entry: &&Entry| filter.is_empty() || entry.text.contains(filter.as_str());
    let entries: Vec<&Entry> = state.log().newest_first().filter(passes).collect();
    if entries.is_empty() {
        put(buffer, area.x, area.y + 1, area.right(), "nothing has happened", theme.dim());
    }
    // Long remarks go on over several lines.
    let width = table.width(2).max(1);
    let lines: Vec<(Option<&Entry>, String)> = entries
        .iter()
        .flat_map(|entry| {
            let text = harmless(&entry.text, 4 * width, theme);
            let pieces = wrapped(&text, width);
            pieces
                .into_iter()
                .enumerate()
                .map(|(at, piece)| ((at == 0).then_some(*entry), piece))
                .collect::<Vec<_>>()
        })
        .collect();
    let mut order: Vec<usize> = (0..lines.len()).collect();
    let seen = screen.log_line.page(&mut order, table.height(), |at| *at, usize::cmp).to_vec();
    for (line, at) in seen.iter().enumerate() {
        let (entry, text) = &lines[*at];
        if let Some(entry) = entry {
            let style = match entry.kind {
                Kind::Loss | Kind::Throttled | Kind::Clock => theme.warning(),
                Kind::Note => theme.dim(),
                _ => theme.bold(),
            };
            table.cell(buffer, 0, line, &format!("{:.1} s", state.since_start(entry.time)), theme.dim());
            table.cell(buffer, 1, line, entry.kind.as_str(), style);
        }
        table.cell(buffer, 2, line, text, Style::new());
    }
    if let Some(line) = seen.iter().position(|at| *at == screen.log_line.at) {
        table.select(buffer, line, theme);
    }
    screen.areas.list = Some((table.first_line(), table.height() as u16));
}

/// Lines of at most `width` characters, broken between words where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().expect("there is a first line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        let line = lines.last_mut().expect("there is a first line");
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("", 7), [""]);
    }
}
