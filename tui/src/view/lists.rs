//! The lists: domains, processes, functions.

use std::cmp::Ordering;

use profile::Mode;
use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    table::{Column, Table, left, right},
    text::{grouped, harmless, percent, put},
    theme::Theme,
};
use crate::{
    screen::{Cursor, Screen, Sort, View},
    state::{FunctionId, Group, GroupId, RowId, RowView, Scope, State, Sums, part},
};

/// The domains, and below them the hottest functions of all.
pub(super) fn overview(state: &State, screen: &mut Screen, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let rows = state.rows().count().min(usize::from(u16::MAX) - 2) as u16;
    let most = match area.height {
        // No room for two lists.
        0..10 => area.height,
        10..16 => area.height / 2,
        _ => area.height * 3 / 5,
    };
    let height = (rows + 1).clamp(2, most.max(2)).min(area.height);
    domains(state, screen, theme, Rect { height, ..area }, buffer);
    let rest = Rect { y: area.y + height + 1, height: area.height.saturating_sub(height + 1), ..area };
    if rest.height > 1 {
        functions(state, screen, theme, rest, buffer, false);
    }
}

/// Nothing to see in a list, and why.
fn empty(theme: Theme, area: Rect, buffer: &mut Buffer, why: &str) {
    if area.height > 1 {
        put(buffer, area.x, area.y + 1, area.right(), why, theme.dim());
    }
}

/// The heavier first; what weighs the same stays in a fixed order.
fn by_weight<T: Ord>(a: u64, b: u64, otherwise: (T, T)) -> Ordering {
    b.cmp(&a).then_with(|| otherwise.0.cmp(&otherwise.1))
}

fn turned(order: Ordering, reverse: bool) -> Ordering {
    if reverse { order.reverse() } else { order }
}

/// The title of the column that a list is sorted by.
fn title_of(view: View, sort: Option<Sort>) -> Option<&'static str> {
    Some(match (view, sort?) {
        (View::Domains, Sort::Share) => "WINDOW",
        (View::Domains, Sort::Name) => "DOMAIN",
        (View::Processes, Sort::Name) => "PROCESS",
        (View::Functions, Sort::Share) => "SELF",
        (View::Functions, Sort::Name) => "FUNCTION",
        (_, Sort::Share) => "SHARE",
        (_, Sort::Now) => "NOW",
        (_, Sort::Total) => "TOTAL",
        (_, Sort::Change) => "CHANGE",
        (_, Sort::Name) => return None,
    })
}

/// What a column of the domains tells.
#[derive(Clone, Copy)]
enum Tells {
    Now,
    Window,
    Mode(Mode),
    Sparkline,
    Modes,
    Samples,
    Cpus,
    Waiting,
    Number,
    Kind,
    Name,
}

/// The columns that there is room for; the name always.
fn domain_columns(width: u16, waits: bool) -> Vec<(Tells, Column)> {
    let [hypervisor, kernel, user, backend] = Mode::ALL.map(Tells::Mode);
    let mut columns = vec![(Tells::Now, right("NOW", 5)), (Tells::Window, right("WINDOW", 6))];
    if width >= 60 {
        columns.extend([
            (hypervisor, right("HYP", 5)),
            (kernel, right("KERN", 5)),
            (user, right("USER", 5)),
            (backend, right("BACK", 5)),
        ]);
    }
    // As many seconds as there is room for.
    columns.push((Tells::Sparkline, left("SHARE", (width.saturating_sub(68) / 3).clamp(6, 60))));
    if width >= 120 {
        columns.push((Tells::Modes, left("MODES", 24)));
    }
    if width >= 72 {
        columns.extend([(Tells::Samples, right("SMP/S", 5)), (Tells::Cpus, right("CPUS", 5))]);
        if waits && width >= 90 {
            columns.push((Tells::Waiting, right("STEAL", 5)));
        }
        columns.extend([(Tells::Number, right("ID", 4)), (Tells::Kind, left("KIND", 4))]);
    }
    columns.push((Tells::Name, left("DOMAIN", 0)));
    columns
}

fn domains(state: &State, screen: &mut Screen, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let (tells, columns): (Vec<Tells>, Vec<Column>) =
        domain_columns(area.width, state.knows_waits()).into_iter().unzip();
    let table = Table::new(area, &columns);
    let (sort, reverse) = screen.sort();
    table.titles(title_of(View::Domains, sort), theme, buffer);
    let filter = &screen.filter;
    let mut rows: Vec<RowView<'_>> =
        state.rows().filter(|row| filter.is_empty() || row.name.contains(filter.as_str())).collect();
    let order = |a: &RowView<'_>, b: &RowView<'_>| {
        let order = match sort {
            Some(Sort::Now) => b.now.total_cmp(&a.now).then(a.id.cmp(&b.id)),
            Some(Sort::Name) => (a.name, a.id).cmp(&(b.name, b.id)),
            _ => by_weight(a.sums.weight, b.sums.weight, (a.id, b.id)),
        };
        turned(order, reverse)
    };
    if rows.is_empty() {
        empty(theme, area, buffer, "no domain is called so");
    }
    let all = rows.len();
    let seen = screen.rows.page(&mut rows, table.height(), |row| row.id, order);
    for (line, row) in seen.iter().enumerate() {
        for (column, &tells) in tells.iter().enumerate() {
            if let Tells::Modes = tells {
                modes_bar(&table, column, line, row, theme, buffer);
            } else {
                let (text, style) = domain_cell(state, row, tells, table.width(column), theme);
                table.cell(buffer, column, line, &text, style);
            }
        }
    }
    screen.seen.row = seen.get(screen.rows.at - screen.rows.top).map(|row| row.id);
    if screen.view == View::Domains && !seen.is_empty() {
        table.select(buffer, screen.rows.at - screen.rows.top, theme);
    }
    screen.areas.list = Some((table.first_line(), table.height() as u16));
    more(&table, seen.len(), all, screen.rows.top, theme, buffer, area);
}

fn domain_cell(
    state: &State,
    row: &RowView<'_>,
    tells: Tells,
    width: usize,
    theme: Theme,
) -> (String, Style) {
    let (plain, strong) = match row.alive {
        true => (Style::new(), theme.bold()),
        false => (theme.dim(), theme.dim()),
    };
    let unknown = || "-".to_owned();
    match tells {
        Tells::Now => (percent(row.now), strong),
        Tells::Window => (percent(row.share), strong),
        Tells::Mode(mode) => {
            let weight = row.sums.modes[mode as usize];
            let style = if weight > 0 { theme.mode(mode) } else { theme.dim() };
            (percent(part(weight, state.busy())), style)
        }
        Tells::Sparkline => {
            let parts = state.sparkline(row.id, width as u64);
            (parts.map(|part| theme.spark(part)).collect(), theme.dim())
        }
        // Drawn cell by cell.
        Tells::Modes => (String::new(), plain),
        Tells::Samples => (format!("{:.0}", row.sums.samples as f64 / state.covered_s().max(1.0)), plain),
        Tells::Cpus => (row.cpus.map_or_else(unknown, |cpus| format!("{cpus:.2}")), plain),
        Tells::Waiting => (row.waiting.map_or_else(unknown, percent), plain),
        Tells::Number => (row.number.map_or_else(unknown, |number| number.to_string()), plain),
        Tells::Kind => (row.number.map_or_else(unknown, |_| row.kind.to_string()), plain),
        Tells::Name if row.alive => (harmless(row.name, width, theme), strong),
        Tells::Name => (harmless(&format!("{} (gone)", row.name), width, theme), strong),
    }
}

/// A bar as long as the share, of the colours of its modes.
fn modes_bar(
    table: &Table,
    column: usize,
    line: usize,
    row: &RowView<'_>,
    theme: Theme,
    buffer: &mut Buffer,
) {
    let place = table.place(column, line);
    let cells = f64::from(place.width) * row.share;
    let mut x = place.x;
    let mut before = 0.0;
    for mode in Mode::ALL {
        before += part(row.sums.modes[mode as usize], row.sums.weight) * cells;
        let end = (place.x + before.round() as u16).min(place.right());
        while x < end {
            put(buffer, x, place.y, end, theme.bar(mode).encode_utf8(&mut [0; 4]), theme.mode(mode));
            x += 1;
        }
    }
}

/// Which part of a long list is seen.
fn more(table: &Table, seen: usize, all: usize, top: usize, theme: Theme, buffer: &mut Buffer, area: Rect) {
    let text = format!(" {}-{} of {} ", top + 1, top + seen, grouped(all as u64));
    let x = area.right().saturating_sub(text.len() as u16);
    if seen < all && x >= table.titles_end() {
        put(buffer, x, table.first_line() - 1, area.right(), &text, theme.dim());
    }
}

/// The processes in scope.
pub(super) fn processes(state: &State, screen: &mut Screen, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let (roomy, wide) = (area.width >= 60, area.width >= 100);
    let table = Table::new(
        area,
        &[
            right("SHARE", 6),
            right("HYP", 5).only_if(roomy),
            right("KERN", 5).only_if(roomy),
            right("USER", 5).only_if(roomy),
            right("BACK", 5).only_if(roomy),
            right("SMP/S", 5).only_if(roomy),
            left("DOMAIN", (area.width / 6).clamp(8, 20)),
            left("PROCESS", if wide { 32 } else { 0 }),
            left("CONTROL GROUP", 0).only_if(wide),
        ],
    );
    let (sort, reverse) = screen.sort();
    table.titles(title_of(screen.view, sort), theme, buffer);
    let row = match screen.scope {
        Scope::Machine => None,
        Scope::Row(row) | Scope::Group(row, _) => Some(row),
    };
    let whole = row.map_or(state.busy(), |row| state.row(row).sums.weight);
    let filter = &screen.filter;
    let mut groups: Vec<(GroupId, RowId, Group, Sums)> = state
        .groups(row)
        .filter(|(_, _, group, _)| filter.is_empty() || state.group_name(*group).0.contains(filter.as_str()))
        .collect();
    if groups.is_empty() {
        empty(theme, area, buffer, "nothing ran here in this window");
    }
    let order = |a: &(GroupId, RowId, Group, Sums), b: &(GroupId, RowId, Group, Sums)| {
        let order = match sort {
            Some(Sort::Name) => (state.group_name(a.2).0, a.0).cmp(&(state.group_name(b.2).0, b.0)),
            _ => by_weight(a.3.weight, b.3.weight, (a.0, b.0)),
        };
        turned(order, reverse)
    };
    let all = groups.len();
    let seen = screen.groups.page(&mut groups, table.height(), |group| group.0, order);
    let seconds = state.covered_s().max(1.0);
    for (line, (_, row, group, sums)) in seen.iter().enumerate() {
        table.cell(buffer, 0, line, &percent(part(sums.weight, whole)), theme.bold());
        for (column, mode) in (1..).zip(Mode::ALL) {
            let weight = sums.modes[mode as usize];
            let style = if weight > 0 { theme.mode(mode) } else { theme.dim() };
            table.cell(buffer, column, line, &percent(part(weight, whole)), style);
        }
        table.cell(buffer, 5, line, &format!("{:.0}", sums.samples as f64 / seconds), Style::new());
        table.cell(buffer, 6, line, &harmless(state.row(*row).name, table.width(6), theme), Style::new());
        let (name, container) = state.group_name(*group);
        table.cell(buffer, 7, line, &harmless(&name, table.width(7), theme), theme.bold());
        let container = harmless(container.unwrap_or("-"), table.width(8), theme);
        table.cell(buffer, 8, line, &container, theme.dim());
    }
    screen.seen.group = seen.get(screen.groups.at - screen.groups.top).map(|group| group.0);
    if !seen.is_empty() {
        table.select(buffer, screen.groups.at - screen.groups.top, theme);
    }
    screen.areas.list = Some((table.first_line(), table.height() as u16));
    more(&table, seen.len(), all, screen.groups.top, theme, buffer, area);
}

/// The functions in scope.
pub(super) fn functions_view(
    state: &State,
    screen: &mut Screen,
    theme: Theme,
    area: Rect,
    buffer: &mut Buffer,
) {
    functions(state, screen, theme, area, buffer, true);
    screen.areas.list = Some((area.y + 1, area.height.saturating_sub(1)));
}

/// A function as lists order it.
#[derive(Clone, Copy)]
struct Item {
    id: FunctionId,
    value: f64,
}

fn functions(state: &State, screen: &mut Screen, theme: Theme, area: Rect, buffer: &mut Buffer, focus: bool) {
    let machine = screen.scope == Scope::Machine;
    let (roomy, wide) = (area.width >= 60, area.width >= 100);
    let table = Table::new(
        area,
        &[
            right("SELF", 6),
            right("TOTAL", 6),
            right("CHANGE", 7).only_if(roomy),
            left("DOMAIN", if wide { 20 } else { 10 }).only_if(machine),
            left("MODE", if wide { 10 } else { 4 }).only_if(roomy),
            left("MODULE", if wide { 24 } else { 12 }).only_if(roomy),
            left("FUNCTION", 0),
        ],
    );
    let (sort, reverse) = if focus { screen.sort() } else { (Some(Sort::Share), false) };
    table.titles(title_of(View::Functions, sort).filter(|_| focus), theme, buffer);
    let whole = state.in_scope().weight;
    let before = state.in_scope_before();
    let change = |own: u64, was: u64| (before > 0).then(|| part(own, whole) - part(was, before));
    let mut items: Vec<Item> = state
        .functions()
        .filter(|function| (function.total > 0) && screen.matches.passes(function.id))
        .map(|function| {
            let value = match sort {
                Some(Sort::Total) => function.total as f64,
                Some(Sort::Change) => change(function.own, function.before).map_or(0.0, f64::abs),
                _ => function.own as f64,
            };
            Item { id: function.id, value }
        })
        .collect();
    if items.is_empty() {
        let why =
            if screen.filter.is_empty() { "no samples in this window" } else { "no function is called so" };
        empty(theme, area, buffer, why);
    }
    let order = |a: &Item, b: &Item| {
        let order = match sort {
            Some(Sort::Name) => (state.function_name(a.id), a.id).cmp(&(state.function_name(b.id), b.id)),
            _ => b.value.total_cmp(&a.value).then(a.id.cmp(&b.id)),
        };
        turned(order, reverse)
    };
    let all = items.len();
    let mut first = Cursor::default();
    let cursor = if focus { &mut screen.functions } else { &mut first };
    let seen = cursor.page(&mut items, table.height(), |item| item.id, order);
    for (line, item) in seen.iter().enumerate() {
        let function = state.function(item.id);
        table.cell(buffer, 0, line, &percent(part(function.own, whole)), theme.bold());
        table.cell(buffer, 1, line, &percent(part(function.total, whole)), Style::new());
        let (text, style) = match change(function.own, function.before) {
            Some(change) if change.abs() >= 0.0005 => {
                (format!("{:+.1}%", change * 100.0), if change > 0.0 { theme.bold() } else { theme.dim() })
            }
            Some(_) => ("=".to_owned(), theme.dim()),
            None => ("-".to_owned(), theme.dim()),
        };
        table.cell(buffer, 2, line, &text, style);
        let row = function.key.row;
        table.cell(buffer, 3, line, &harmless(state.row(row).name, table.width(3), theme), Style::new());
        let mode = function.key.function.mode;
        table.cell(
            buffer,
            4,
            line,
            &mode.as_str()[..table.width(4).min(mode.as_str().len())],
            theme.mode(mode),
        );
        let (name, module) = state.function_name(item.id);
        let module = harmless(module.unwrap_or("-"), table.width(5), theme);
        table.cell(buffer, 5, line, &module, theme.dim());
        table.cell(buffer, 6, line, &harmless(&name, table.width(6), theme), theme.bold());
    }
    if focus {
        let line = screen.functions.at - screen.functions.top;
        screen.seen.function = seen.get(line).map(|item| item.id);
        if !seen.is_empty() {
            table.select(buffer, line, theme);
        }
    }
    let top = if focus { screen.functions.top } else { 0 };
    more(&table, seen.len(), all, top, theme, buffer, area);
}
