//! Rows with names, as compact as they are handed on: all names lie in one string.

use std::fmt;

/// Rows, each with a name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Named<T> {
    /// Each with where its name ends in `text`; it begins where that of the row before ends.
    rows: Vec<(T, u32)>,
    text: String,
}

impl<T> fmt::Debug for Named<T> {
    /// A summary: they are too many to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows", self.rows.len())
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), text: String::new() }
    }
}

impl<T: Copy> Named<T> {
    pub(crate) fn with_capacity(rows: usize, text: usize) -> Self {
        Self { rows: Vec::with_capacity(rows), text: String::with_capacity(text) }
    }

    /// What rows take in memory.
    pub(crate) fn bytes(rows: usize, text: usize) -> u64 {
        (rows * size_of::<(T, u32)>() + text) as u64
    }

    /// Adds a row; all text together is less than 4 GiB.
    pub(crate) fn push(&mut self, row: T, name: &str) {
        self.push_parts(row, std::iter::once(name));
    }

    /// Adds a row whose name is made of parts.
    pub(crate) fn push_parts<'a>(&mut self, row: T, parts: impl Iterator<Item = &'a str>) {
        self.text.extend(parts);
        self.rows.push((row, self.text.len() as u32));
    }

    /// How long all names are together.
    pub(crate) fn text_len(&self) -> usize {
        self.text.len()
    }

    pub(crate) fn rows_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.rows.iter_mut().map(|(row, _)| row)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (T, &str)> + Clone {
        let mut start = 0;
        self.rows.iter().map(move |&(row, end)| {
            let name = self.text.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            (row, name)
        })
    }
}
