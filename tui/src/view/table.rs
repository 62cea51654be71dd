//! Tables: columns of fixed width and a last one that takes the rest.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    text::{Align, put_in},
    theme::Theme,
};

/// A column. One of no width takes what the others leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: u16,
    pub(super) align: Align,
}

/// The width of a column that is left out.
const LEFT_OUT: u16 = u16::MAX;

impl Column {
    /// Leaves it out unless there is room, or a reason, for it.
    pub(super) fn only_if(self, wanted: bool) -> Self {
        Self { width: if wanted { self.width } else { LEFT_OUT }, ..self }
    }
}

pub(super) const fn right(title: &'static str, width: u16) -> Column {
    Column { title, width, align: Align::Right }
}

pub(super) const fn left(title: &'static str, width: u16) -> Column {
    Column { title, width, align: Align::Left }
}

/// Where a table's columns are.
#[derive(Debug)]
pub(super) struct Table {
    area: Rect,
    columns: Vec<(Column, u16, u16)>,
}

impl Table {
    /// Lays out columns in the order of their places; those that do not fit are left out, the last ones first.
    pub(super) fn new(area: Rect, columns: &[Column]) -> Self {
        let there = columns.iter().filter(|column| column.width != LEFT_OUT);
        let fixed: u16 = there.map(|column| column.width + 1).sum();
        let rest = area.width.saturating_sub(fixed);
        let mut x = area.x;
        let mut placed = Vec::new();
        for &column in columns {
            if column.width == LEFT_OUT {
                placed.push((column, x, 0));
                continue;
            }
            let width = if column.width == 0 { rest + 1 } else { column.width };
            let width = width.min(area.right().saturating_sub(x));
            placed.push((column, x, width));
            x = (x + width + 1).min(area.right());
        }
        Self { area, columns: placed }
    }

    /// The room that rows have below the titles.
    pub(super) fn height(&self) -> usize {
        usize::from(self.area.height.saturating_sub(1))
    }

    pub(super) fn first_line(&self) -> u16 {
        self.area.y + 1
    }

    /// The titles; that of the column that the rows are sorted by stands out.
    pub(super) fn titles(&self, sorted: Option<&str>, theme: Theme, buffer: &mut Buffer) {
        for &(column, x, width) in &self.columns {
            let place = Rect { x, y: self.area.y, width, height: 1 };
            let style = match sorted == Some(column.title) {
                true => theme.title().patch(theme.button()),
                false => theme.title(),
            };
            put_in(buffer, place, column.title, column.align, style);
        }
    }

    pub(super) fn width(&self, column: usize) -> usize {
        usize::from(self.columns[column].2)
    }

    /// The column behind the last title.
    pub(super) fn titles_end(&self) -> u16 {
        self.columns.last().map_or(self.area.x, |(column, x, _)| x + column.title.len() as u16)
    }

    /// Where a cell of the row `line` is.
    pub(super) fn place(&self, column: usize, line: usize) -> Rect {
        let (_, x, width) = self.columns[column];
        Rect { x, y: self.first_line() + line as u16, width, height: 1 }
    }

    pub(super) fn cell(&self, buffer: &mut Buffer, column: usize, line: usize, text: &str, style: Style) {
        put_in(buffer, self.place(column, line), text, self.columns[column].0.align, style);
    }

    /// Shows that the cursor is on a row.
    pub(super) fn select(&self, buffer: &mut Buffer, line: usize, theme: Theme) {
        let y = self.first_line() + line as u16;
        buffer.set_style(Rect { y, height: 1, ..self.area }, theme.selected());
    }
}
