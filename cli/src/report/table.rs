//! Tables: columns aligned, colours where the stream lets them through.

use std::io::{self, Write};

use analysis::Visible;
use anstyle::Style;

const GAP: &str = "  ";

/// On which side of its column a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A text in a table.
#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::new() }
    }

    /// A text that somebody else chose.
    pub(crate) fn untrusted(text: &str) -> Self {
        Self::new(Visible(text).to_string())
    }

    /// Cuts what is longer than `width`, so that one long name does not push all columns out of the window.
    pub(crate) fn at_most(mut self, width: usize) -> Self {
        if self.width() > width {
            self.text = self.text.chars().take(width - 1).chain(['…']).collect();
        }
        self
    }

    pub(crate) fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Rows of cells below the titles of their columns.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(columns: [(&'static str, Align); N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: [Cell; N]) {
        self.rows.push(cells);
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let titles = self.columns.map(|(title, _)| Cell::new(title).styled(Style::new().bold()));
        let rows = || [&titles].into_iter().chain(&self.rows);
        let widths: [usize; N] =
            std::array::from_fn(|column| rows().map(|row| row[column].width()).max().unwrap_or(0));
        for row in rows() {
            for (column, (cell, (_, align))) in row.iter().zip(self.columns).enumerate() {
                let padding = " ".repeat(widths[column] - cell.width());
                let (before, after) = match align {
                    Align::Right => (&*padding, ""),
                    // Nothing stands to the right of the last column.
                    Align::Left if column + 1 == N => ("", ""),
                    Align::Left => ("", &*padding),
                };
                let Cell { text, style } = cell;
                write!(out, "{GAP}{before}{style}{text}{style:#}{after}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
