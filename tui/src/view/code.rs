//! One function: who calls it and whom it calls, and its instructions.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    table::{Table, left, right},
    text::{harmless, percent, put},
    theme::Theme,
};
use crate::{
    screen::Screen,
    state::{FunctionId, Neighbour, State, part},
};

/// The function that is looked at, or that there is none.
fn subject(
    state: &State,
    screen: &Screen,
    theme: Theme,
    area: Rect,
    buffer: &mut Buffer,
) -> Option<FunctionId> {
    let why = match screen.subject.map(|key| state.find_function(key)) {
        Some(Some(id)) => {
            let function = state.function(id);
            let whole = state.in_scope().weight;
            let (name, module) = state.function_name(id);
            let x = put(buffer, area.x, area.y, area.right(), "self ", theme.dim());
            let x = put(buffer, x, area.y, area.right(), &percent(part(function.own, whole)), theme.bold());
            let x = put(buffer, x, area.y, area.right(), " total ", theme.dim());
            let x = put(buffer, x, area.y, area.right(), &percent(part(function.total, whole)), theme.bold());
            let text = format!("  {} ", module.unwrap_or("-"));
            let room = usize::from(area.right().saturating_sub(x));
            let x = put(buffer, x, area.y, area.right(), &harmless(&text, room, theme), theme.dim());
            let mode = function.key.function.mode;
            let room = usize::from(area.right().saturating_sub(x));
            put(
                buffer,
                x,
                area.y,
                area.right(),
                &harmless(&name, room, theme),
                theme.mode(mode).patch(theme.bold()),
            );
            return Some(id);
        }
        Some(None) => "this function is not in the samples that are kept",
        None => "choose a function: 3, then Enter",
    };
    put(buffer, area.x, area.y, area.right(), why, theme.dim());
    None
}

/// Who calls the function above, whom it calls below.
pub(super) fn callers(state: &State, screen: &mut Screen, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let Some(id) = subject(state, screen, theme, area, buffer) else { return };
    let (callers, callees) = state.neighbours(id);
    let total = state.function(id).total;
    let body = Rect { y: area.y + 1, height: area.height - 1, ..area };
    let titles = ["CALLED BY", "CALLS"];
    // Both lists are one to the cursor.
    let lines: Vec<(usize, Neighbour)> =
        callers.iter().map(|n| (0, *n)).chain(callees.iter().map(|n| (1, *n))).collect();
    let height = usize::from(body.height).saturating_sub(2);
    let mut order: Vec<usize> = (0..lines.len()).collect();
    let seen = screen.neighbours.page(&mut order, height, |at| *at, usize::cmp).to_vec();
    let table = |y: u16, title| {
        Table::new(
            Rect { y, height: 1, ..area },
            &[right("OF IT", 6), left("MODULE", (area.width / 5).clamp(10, 24)), left(title, 0)],
        )
    };
    let mut y = body.y;
    let mut shown = None;
    screen.areas.list = None;
    for at in seen {
        let (list, neighbour) = lines[at];
        if shown != Some(list) {
            table(y, titles[list]).titles(None, theme, buffer);
            (y, shown) = (y + 1, Some(list));
        }
        let (name, module, style) = match neighbour.function {
            Some(id) => {
                let (name, module) = state.function_name(id);
                let mode = state.function(id).key.function.mode;
                (name, module.unwrap_or("-").to_owned(), theme.mode(mode))
            }
            None => ("[the outer end of the chains]".to_owned(), "-".to_owned(), theme.dim()),
        };
        let row = table(y - 1, "");
        row.cell(buffer, 0, 0, &percent(part(neighbour.weight, total)), theme.bold());
        row.cell(buffer, 1, 0, &harmless(&module, row.width(1), theme), theme.dim());
        row.cell(buffer, 2, 0, &harmless(&name, row.width(2), theme), style);
        if at == screen.neighbours.at {
            row.select(buffer, 0, theme);
        }
        y += 1;
    }
    if callees.is_empty() && y < body.bottom() {
        let text = "calls nothing in these samples";
        put(buffer, area.x, y, area.right(), text, theme.dim());
    }
}

/// Its instructions, each with the share of the function's samples that were interrupted there.
pub(super) fn instructions(
    state: &State,
    screen: &mut Screen,
    theme: Theme,
    area: Rect,
    buffer: &mut Buffer,
) {
    let Some(id) = subject(state, screen, theme, area, buffer) else { return };
    let own = state.function(id).own;
    let code = screen.code.as_ref().filter(|(key, _)| Some(*key) == screen.subject).map(|(_, code)| code);
    let base = code.map_or(0, |code| code.base);
    let mut lines: Vec<(u64, &str, u64)> = match code {
        Some(code) => code.instructions.iter().map(|(offset, text)| (*offset, text.as_str(), 0)).collect(),
        None => Vec::new(),
    };
    for (offset, weight) in state.offsets(id) {
        // An offset inside an instruction is that instruction's.
        match lines.partition_point(|line| line.0 <= offset).checked_sub(1) {
            Some(at) if !lines[at].1.is_empty() => lines[at].2 = lines[at].2.wrapping_add(weight),
            at => lines.insert(at.map_or(0, |at| at + 1), (offset, "", weight)),
        }
    }
    let said = match code {
        None => Some("the instructions are being read …".to_owned()),
        Some(code) => code.why_not.clone(),
    };
    let mut top = area.y + 1;
    if let Some(said) = said {
        put(buffer, area.x, top, area.right(), &harmless(&said, area.width.into(), theme), theme.dim());
        top += 1;
    }
    let body = Rect { y: top, height: area.bottom().saturating_sub(top), ..area };
    let bar = (area.width / 8).clamp(6, 20);
    let table = Table::new(
        body,
        &[right("SELF", 6), left("", bar), right("OFFSET", 7), left("ADDRESS", 18), left("INSTRUCTION", 0)],
    );
    table.titles(None, theme, buffer);
    let heaviest = lines.iter().map(|line| line.2).max().unwrap_or(0);
    if screen.code_line.key.is_none() && !screen.code_line.moved {
        // Begin at what weighs most.
        screen.code_line.at = lines.iter().position(|line| line.2 == heaviest).unwrap_or(0);
        let half = table.height() / 2;
        screen.code_line.top = screen.code_line.at.saturating_sub(half);
    }
    let mut order: Vec<usize> = (0..lines.len()).collect();
    let seen = screen.code_line.page(&mut order, table.height(), |at| *at, usize::cmp).to_vec();
    for (line, at) in seen.iter().enumerate() {
        let (offset, text, weight) = lines[*at];
        let share = part(weight, own);
        let strong = if weight > 0 && weight == heaviest { theme.warning() } else { theme.bold() };
        if weight > 0 {
            table.cell(buffer, 0, line, &percent(share), strong);
            let full = if theme.ascii { "#" } else { "█" };
            let cells = (share * f64::from(bar)).round() as usize;
            table.cell(
                buffer,
                1,
                line,
                &full.repeat(cells),
                theme.mode(state.function(id).key.function.mode),
            );
        }
        table.cell(buffer, 2, line, &format!("+{offset:#x}"), theme.dim());
        table.cell(buffer, 3, line, &format!("{:#x}", base.wrapping_add(offset)), theme.dim());
        let style = if weight > 0 { theme.bold() } else { Style::new() };
        table.cell(buffer, 4, line, &harmless(text, table.width(4), theme), style);
    }
    if let Some(line) = seen.iter().position(|at| *at == screen.code_line.at) {
        table.select(buffer, line, theme);
    }
    screen.areas.list = Some((table.first_line(), table.height() as u16));
}
