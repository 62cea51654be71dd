//! What the user looks at: the view, the cursor in each list, what is sorted and filtered by.

use std::cmp::Ordering;

use ratatui::layout::Rect;

use crate::state::{FunctionId, Group, GroupId, NodeId, RowFunction, RowId, Scope, State};

/// A view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The domains, and the hottest functions of all.
    Domains,
    /// The processes in scope.
    Processes,
    /// The functions in scope.
    Functions,
    /// Who calls a function, and whom it calls.
    Callers,
    /// A function's instructions.
    Code,
    /// The scope as flames.
    Flame,
    /// What happened.
    Log,
}

impl View {
    /// All of them, by their keys from 1 on.
    pub const ALL: [Self; 7] =
        [Self::Domains, Self::Processes, Self::Functions, Self::Callers, Self::Code, Self::Flame, Self::Log];

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Domains => "domains",
            Self::Processes => "processes",
            Self::Functions => "functions",
            Self::Callers => "callers",
            Self::Code => "code",
            Self::Flame => "flame",
            Self::Log => "log",
        }
    }

    /// Its title where there is little room.
    pub(crate) fn short_title(self) -> &'static str {
        match self {
            Self::Domains => "dom",
            Self::Processes => "proc",
            Self::Functions => "func",
            Self::Callers => "call",
            Self::Code | Self::Flame | Self::Log => self.title(),
        }
    }

    /// The columns that its list can be sorted by.
    pub(crate) fn sorts(self) -> &'static [Sort] {
        match self {
            Self::Domains => &[Sort::Share, Sort::Now, Sort::Name],
            Self::Processes => &[Sort::Share, Sort::Name],
            Self::Functions => &[Sort::Share, Sort::Total, Sort::Change, Sort::Name],
            Self::Callers | Self::Code | Self::Flame | Self::Log => &[],
        }
    }
}

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Share,
    Now,
    Total,
    Change,
    Name,
}

/// A place in a list. It stays on its row while the rows change places, once it has been moved; until then it is on
/// the first, whichever that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<K> {
    pub(crate) at: usize,
    pub(crate) key: Option<K>,
    pub(crate) top: usize,
    /// It was moved: what is at `at` now is what it stays on.
    pub(crate) moved: bool,
}

impl<K> Default for Cursor<K> {
    fn default() -> Self {
        Self { at: 0, key: None, top: 0, moved: false }
    }
}

impl<K: Copy + PartialEq> Cursor<K> {
    pub(crate) fn step(&mut self, rows: isize) {
        self.at = self.at.saturating_add_signed(rows);
        (self.moved, self.key) = (true, None);
    }

    pub(crate) fn jump(&mut self, at: usize) {
        (self.at, self.moved, self.key) = (at, at > 0, None);
    }

    /// Puts the rows that are seen in order, and nothing else: a page of a hundred thousand costs no sorting of all.
    ///
    /// Returns the rows from [`Self::top`] on, as many as fit into `height`.
    pub(crate) fn page<'a, T>(
        &mut self,
        items: &'a mut [T],
        height: usize,
        key: impl Fn(&T) -> K,
        order: impl Fn(&T, &T) -> Ordering,
    ) -> &'a [T] {
        if let Some(held) = self.key {
            match items.iter().find(|item| key(item) == held) {
                Some(held) => self.at = items.iter().filter(|item| order(item, held).is_lt()).count(),
                None => self.key = None,
            }
        }
        self.at = self.at.min(items.len().saturating_sub(1));
        let last_top = items.len().saturating_sub(height);
        let lowest = (self.at + 1).saturating_sub(height);
        self.top = self.top.clamp(lowest, self.at.max(lowest)).min(last_top);
        if self.top > 0 && self.top < items.len() {
            items.select_nth_unstable_by(self.top, &order);
        }
        let seen = &mut items[self.top..];
        if height < seen.len() {
            seen.select_nth_unstable_by(height, &order);
        }
        let end = height.min(seen.len());
        let seen = &mut seen[..end];
        seen.sort_unstable_by(order);
        self.key = match self.moved {
            true => seen.get(self.at - self.top).map(key),
            false => None,
        };
        seen
    }
}

/// The instructions of a function, or why there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// Where the offset 0 of what was sampled is.
    pub base: u64,
    /// Offset and text, in the order of the offsets.
    pub instructions: Vec<(u64, String)>,
    /// Why there are none.
    pub why_not: Option<String>,
}

/// Where to come back to.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub(crate) view: View,
    pub(crate) scope: Scope,
    pub(crate) subject: Option<RowFunction>,
}

/// What is known of the replay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// How many times faster than it was; none for as fast as it can be read.
    pub speed: Option<f64>,
    /// Whether it stands still.
    pub paused: bool,
}

/// What the user looks at.
#[derive(Debug)]
pub struct Screen {
    pub(crate) view: View,
    pub(crate) trail: Vec<Stop>,
    pub(crate) scope: Scope,
    /// The function whose callers and code are shown.
    pub(crate) subject: Option<RowFunction>,
    pub(crate) rows: Cursor<RowId>,
    pub(crate) groups: Cursor<GroupId>,
    pub(crate) functions: Cursor<FunctionId>,
    pub(crate) neighbours: Cursor<usize>,
    pub(crate) code_line: Cursor<usize>,
    pub(crate) log_line: Cursor<usize>,
    pub(crate) flame: Option<NodeId>,
    pub(crate) flame_root: Option<NodeId>,
    /// By view, an index into [`View::sorts`]; and whether that is turned around.
    sorts: [(usize, bool); View::ALL.len()],
    pub(crate) filter: String,
    pub(crate) typing: bool,
    pub(crate) help: bool,
    /// What is said for a moment.
    pub(crate) message: Option<String>,
    /// Where the samples come from: `live`, or a file.
    pub(crate) origin: String,
    /// Set for a replay.
    pub(crate) pace: Option<Pace>,
    /// What went wrong with the source, or that it is over.
    pub(crate) ended: Option<Ended>,
    pub(crate) code: Option<(RowFunction, Code)>,
    /// How large it was drawn last.
    pub(crate) size: Rect,
    /// Something was done since: what the cursors are on, and what is where, has to be found out anew.
    pub(crate) stale: bool,
    /// What was drawn where, for the mouse.
    pub(crate) areas: Areas,
    /// What the cursors were on when they were drawn.
    pub(crate) seen: Seen,
    pub(crate) matches: Matches,
    /// Of the state that ids were taken from.
    generation: u64,
}

/// How the source came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it should.
    Well(String),
    /// It should have gone on.
    Badly(String),
}

/// What the cursors were on.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) row: Option<RowId>,
    pub(crate) group: Option<GroupId>,
    pub(crate) function: Option<FunctionId>,
}

/// What was drawn where.
#[derive(Debug, Default)]
pub(crate) struct Areas {
    /// The list with the cursor: its first line, and how many.
    pub(crate) list: Option<(u16, u16)>,
    /// The tabs: from column to column, on the line.
    pub(crate) tabs: Vec<(u16, u16, View)>,
    pub(crate) tabs_line: u16,
    /// Cells of flames.
    pub(crate) flames: Vec<(u16, u16, u16, NodeId)>,
}

/// Which functions pass the filter: looked at once each.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    text: String,
    known: Vec<bool>,
}

impl Matches {
    /// Whether a function passes.
    pub(crate) fn passes(&self, id: FunctionId) -> bool {
        self.text.is_empty() || self.known.get(id.at()).copied().unwrap_or(false)
    }

    fn update(&mut self, state: &State, text: &str, forget: bool) {
        if forget || self.text != text {
            self.known.clear();
            text.clone_into(&mut self.text);
        }
        if !text.is_empty() {
            let new = self.known.len()..state.function_count();
            self.known.extend(new.map(|at| state.function_matches(FunctionId(at as u32), text)));
        }
    }
}

impl Screen {
    /// The first view of samples from `origin`.
    pub fn new(origin: impl Into<String>) -> Self {
        Self {
            view: View::Domains,
            trail: Vec::new(),
            scope: Scope::Machine,
            subject: None,
            rows: Cursor::default(),
            groups: Cursor::default(),
            functions: Cursor::default(),
            neighbours: Cursor::default(),
            code_line: Cursor::default(),
            log_line: Cursor::default(),
            flame: None,
            flame_root: None,
            sorts: Default::default(),
            filter: String::new(),
            typing: false,
            help: false,
            message: None,
            origin: origin.into(),
            pace: None,
            ended: None,
            code: None,
            size: Rect::ZERO,
            stale: false,
            areas: Areas::default(),
            seen: Seen::default(),
            matches: Matches::default(),
            generation: 0,
        }
    }

    /// The view that is shown.
    pub fn view(&self) -> View {
        self.view
    }

    /// Tells how a replay goes.
    pub fn set_pace(&mut self, pace: Option<Pace>) {
        self.pace = pace;
    }

    /// Tells that the source has ended, and how.
    pub fn set_ended(&mut self, ended: Option<Ended>) {
        self.ended = ended;
    }

    /// Says something for a moment.
    pub fn say(&mut self, message: impl Into<String>) {
        self.message = Some(message.into());
    }

    /// Takes the instructions of a function.
    pub fn set_code(&mut self, function: RowFunction, code: Code) {
        self.code = Some((function, code));
    }

    /// Brings what refers to the state up to date with it, before anything is drawn or done.
    pub(crate) fn follow(&mut self, state: &mut State) {
        state.set_scope(self.scope);
        let forget = self.generation != state.generation();
        if forget {
            self.generation = state.generation();
            (self.groups.key, self.functions.key) = (None, None);
            (self.flame, self.flame_root) = (None, None);
            self.seen = Seen::default();
        }
        self.matches.update(state, &self.filter, forget);
    }

    pub(crate) fn sort(&self) -> (Option<Sort>, bool) {
        let (at, reverse) = self.sorts[self.view as usize];
        (self.view.sorts().get(at).copied(), reverse)
    }

    pub(crate) fn next_sort(&mut self) {
        let many = self.view.sorts().len().max(1);
        let (at, _) = &mut self.sorts[self.view as usize];
        *at = (*at + 1) % many;
    }

    pub(crate) fn reverse_sort(&mut self) {
        self.sorts[self.view as usize].1 ^= true;
    }

    /// Goes to a view, from which one can come back.
    pub(crate) fn go(&mut self, view: View) {
        if view != self.view {
            self.trail.push(Stop { view: self.view, scope: self.scope, subject: self.subject });
            self.view = view;
        }
    }

    pub(crate) fn back(&mut self) -> bool {
        match self.trail.pop() {
            Some(Stop { view, scope, subject }) => {
                (self.view, self.scope, self.subject) = (view, scope, subject);
                true
            }
            None => false,
        }
    }

    pub(crate) fn look_at(&mut self, function: RowFunction) {
        self.subject = Some(function);
        (self.neighbours, self.code_line) = Default::default();
    }

    /// The same with another function, from which one can come back.
    pub(crate) fn look_at_next(&mut self, function: RowFunction) {
        self.trail.push(Stop { view: self.view, scope: self.scope, subject: self.subject });
        self.look_at(function);
    }

    pub(crate) fn row_at_cursor(&self, state: &State) -> Option<RowId> {
        self.seen.row.filter(|row| state.rows().any(|known| known.id == *row))
    }

    pub(crate) fn group_at_cursor(&self, state: &State) -> Option<(RowId, Group)> {
        let wanted = self.seen.group?;
        state.groups(None).find(|(id, ..)| *id == wanted).map(|(_, row, group, _)| (row, group))
    }

    pub(crate) fn function_at_cursor(&self) -> Option<FunctionId> {
        self.seen.function
    }

    pub(crate) fn neighbour_at_cursor(&self, state: &State) -> Option<FunctionId> {
        let (callers, callees) = state.neighbours(state.find_function(self.subject?)?);
        callers.iter().chain(&callees).nth(self.neighbours.at)?.function
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(cursor: &mut Cursor<u32>, items: &[u32], height: usize) -> Vec<u32> {
        let mut items = items.to_vec();
        cursor.page(&mut items, height, |item| *item, |a, b| b.cmp(a)).to_vec()
    }

    #[test]
    fn a_page_is_what_sorting_all_would_show() {
        let items: Vec<u32> = (0..1000).map(|n| n * 7919 % 1000).collect();
        let mut cursor = Cursor::default();
        assert_eq!(page(&mut cursor, &items, 3), [999, 998, 997]);
        cursor.step(500);
        assert_eq!(page(&mut cursor, &items, 3), [501, 500, 499]);
        cursor.jump(usize::MAX);
        assert_eq!(page(&mut cursor, &items, 3), [2, 1, 0]);
        assert_eq!(page(&mut cursor, &[], 3), [0u32; 0]);
    }

    #[test]
    fn a_moved_cursor_stays_on_its_row() {
        let mut cursor = Cursor::default();
        page(&mut cursor, &[5, 4, 3], 10);
        cursor.step(1);
        page(&mut cursor, &[5, 4, 3], 10);
        assert_eq!((cursor.at, cursor.key), (1, Some(4)));
        page(&mut cursor, &[9, 8, 4, 3], 10);
        assert_eq!((cursor.at, cursor.key), (2, Some(4)));
        page(&mut cursor, &[9, 8], 10);
        assert_eq!((cursor.at, cursor.key), (1, Some(8)), "the row is gone: what is there now is held");
    }

    #[test]
    fn a_cursor_that_was_not_moved_stays_first() {
        let mut cursor = Cursor::default();
        page(&mut cursor, &[5, 4], 10);
        page(&mut cursor, &[9, 5, 4], 10);
        assert_eq!((cursor.at, cursor.key), (0, None));
    }
}
