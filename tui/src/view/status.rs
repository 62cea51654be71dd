//! The lines that are always there: where this is, and what the figures below them are worth.

use ratatui::buffer::Buffer;

use profile::Source;

use super::{
    scope_name,
    text::{grouped, harmless, percent, put},
    theme::Theme,
};
use crate::{
    screen::{Ended, Screen, View},
    state::State,
};

/// Draws the lines above the view; returns the first line below them.
pub(super) fn header(state: &State, screen: &mut Screen, theme: Theme, buffer: &mut Buffer) -> u16 {
    let area = buffer.area;
    let (mut y, end) = (area.y, area.right());
    first_line(state, screen, theme, buffer);
    y += 1;
    let pieces = figures(state);
    let together: usize = pieces.iter().map(|(text, _)| text.chars().count() + 2).sum();
    let bias = bias(state, usize::from(area.width), together);
    let mut x = area.x;
    for (text, style) in pieces {
        let style = if style { theme.warning() } else { ratatui::style::Style::new() };
        if usize::from(end - x) < text.chars().count() {
            (x, y) = (area.x, y + 1);
        }
        x = put(buffer, x, y, end, &text, style);
        x = put(buffer, x, y, end, "  ", ratatui::style::Style::new());
    }
    if usize::from(end - x) < bias.chars().count() {
        (x, y) = (area.x, y + 1);
    }
    put(buffer, x, y, end, &harmless(&bias, usize::from(end - x), theme), theme.dim());
    y += 1;
    if let Some(ended) = &screen.ended {
        let (text, style) = match ended {
            Ended::Well(text) => (text, theme.bold()),
            Ended::Badly(text) => (text, theme.error()),
        };
        put(buffer, area.x, y, end, &harmless(text, usize::from(area.width), theme), style);
        y += 1;
    }
    tabs(state, screen, theme, buffer, y);
    y + 1
}

fn first_line(state: &State, screen: &Screen, theme: Theme, buffer: &mut Buffer) {
    let area = buffer.area;
    let (y, end) = (area.y, area.right());
    let x = put(buffer, area.x, y, end, "xenoscope ", theme.title());
    let (mark, loud) = mark(state, screen);
    let style = if loud { theme.warning() } else { theme.bold() };
    let x = put(buffer, x, y, end, &harmless(&mark, usize::from(end - x), theme), style);
    let host = &state.header().host;
    let window = format!(
        "  {} s window{}  {}: {}, {} CPUs",
        state.window_s(),
        state.rates().idle.map(|idle| format!(", {} idle", percent(idle))).unwrap_or_default(),
        host.hostname,
        host.hypervisor,
        host.cpus
    );
    put(buffer, x, y, end, &harmless(&window, usize::from(end - x), theme), ratatui::style::Style::new());
}

/// What is seen: the present, the past, or a file; and whether that must not be missed.
fn mark(state: &State, screen: &Screen) -> (String, bool) {
    let elapsed = clock(state.elapsed_ns());
    let mut mark = match screen.pace {
        Some(pace) => {
            let speed = pace.speed.map_or_else(|| "unpaced".to_owned(), |speed| format!("x{speed}"));
            format!("{} {speed}{} at {elapsed}", screen.origin, if pace.paused { " PAUSED" } else { "" })
        }
        None => format!("{} {elapsed}", screen.origin),
    };
    if let Some(behind) = state.frozen_s() {
        mark += &format!(" FROZEN, {behind} s ago of {}", state.history_s());
    }
    (mark, state.frozen_s().is_some())
}

/// Rate, loss and overhead, and which of them is not as it should be.
fn figures(state: &State) -> Vec<(String, bool)> {
    let rates = state.rates();
    let event = &state.header().events.get(usize::from(state.event().0));
    let name = event.map_or("", |event| &event.name);
    let rate = match rates.taken_hz {
        Some(hz) => format!("{} {}/s", name, grouped(hz.round() as u64)),
        None => format!("{name} -/s"),
    };
    let lost = if rates.lost == 0 {
        "lost 0".to_owned()
    } else {
        let share = if rates.taken == 0 { 0.0 } else { rates.lost as f64 / rates.taken as f64 };
        let now = if rates.losing > 0.0 { format!(", now {}", percent(rates.losing)) } else { String::new() };
        format!("lost {} ({}{now})", grouped(rates.lost), percent(share))
    };
    let overhead = match rates.overhead {
        Some(overhead) => format!("overhead {:.2}%", overhead * 100.0),
        None => "overhead not measured".to_owned(),
    };
    let mut figures = vec![(rate, false), (lost, rates.lost > 0), (overhead, false)];
    if let behind @ 1.. = state.behind_s() {
        figures.push((format!("{behind} s behind: samples wait for names"), false));
    }
    figures
}

/// What the way of sampling can't see, as long as there is room for the whole of it; else in few words.
fn bias(state: &State, width: usize, taken: usize) -> String {
    let Some(source) = state.source() else { return String::new() };
    let whole = format!("{source}: {}", source.bias());
    if whole.chars().count() + taken <= width { whole } else { format!("{source}: {}", in_short(source)) }
}

fn in_short(source: Source) -> &'static str {
    match source {
        Source::Timer => "code with interrupts off counts where they come on",
        Source::Pmu => "skid of a few instructions; blind while halted",
        Source::CpuClock => "code with interrupts off counts where they come on",
        Source::Xenoprof => "no time or CPU; HVM addresses may be older",
        Source::VcpuPoll => "blind to the hypervisor; its time is the guest's",
        Source::ExitTrace => "what else ran meanwhile is in an exit's time",
    }
}

fn tabs(state: &State, screen: &mut Screen, theme: Theme, buffer: &mut Buffer, y: u16) {
    let area = buffer.area;
    let end = area.right();
    let mut x = area.x;
    screen.areas.tabs_line = y;
    for (number, view) in (1..).zip(View::ALL) {
        let title = match area.width {
            // As much as leaves room for what is looked at.
            0..72 if view != screen.view => number.to_string(),
            72..100 if view != screen.view => format!("{number} {}", view.short_title()),
            _ => format!("{number} {}", view.title()),
        };
        let style = if view == screen.view { theme.button() } else { theme.dim() };
        let from = x;
        x = put(buffer, x, y, end, &format!(" {title} "), style);
        screen.areas.tabs.push((from, x, view));
    }
    let room = usize::from(end - x);
    let filter = match screen.filter.is_empty() || screen.typing {
        true => String::new(),
        false => format!("  /{}", screen.filter),
    };
    let of_scope = room.saturating_sub(1 + filter.chars().count()).max(room / 2);
    let mut said = format!(" {}{filter}", scope_name(state, screen.scope, of_scope, theme));
    let (sort, reverse) = screen.sort();
    if let Some(sort) = sort {
        let way = if reverse { ", turned around" } else { "" };
        let sorted = format!("  by {}{way}", format!("{sort:?}").to_lowercase());
        // The title of that column stands out in any case.
        if said.chars().count() + sorted.len() <= room {
            said += &sorted;
        }
    }
    put(buffer, x, y, end, &harmless(&said, usize::from(end.saturating_sub(x)), theme), theme.bold());
}

/// Before the first word of the source.
pub(super) fn waiting(screen: &Screen, theme: Theme, buffer: &mut Buffer) {
    let area = buffer.area;
    put(buffer, area.x, area.y, area.right(), "xenoscope", theme.title());
    let (text, style) = match &screen.ended {
        Some(Ended::Badly(text)) => (text.clone(), theme.error()),
        Some(Ended::Well(text)) => (text.clone(), theme.bold()),
        None => (format!("{}: waiting for the first samples …", screen.origin), theme.bold()),
    };
    let y = area.y + area.height / 2;
    put(buffer, area.x, y, area.right(), &harmless(&text, usize::from(area.width), theme), style);
    put(buffer, area.x, area.bottom() - 1, area.right(), "q quit", theme.dim());
}

/// Rate, loss, overhead and bias, and that there is no room for anything else.
pub(super) fn too_small(state: &State, screen: &Screen, theme: Theme, buffer: &mut Buffer) {
    let area = buffer.area;
    let mut lines = vec![("too small: 40x10 at least".to_owned(), theme.warning())];
    if let Some(Ended::Badly(text)) = &screen.ended {
        lines.push((text.clone(), theme.error()));
    }
    for (text, warn) in figures(state) {
        lines.push((text, if warn { theme.warning() } else { ratatui::style::Style::new() }));
    }
    lines.push((bias(state, 0, 0), theme.dim()));
    for (y, (text, style)) in (area.y..area.bottom()).zip(lines) {
        put(buffer, area.x, y, area.right(), &harmless(&text, usize::from(area.width), theme), style);
    }
}

/// A time as on a clock.
fn clock(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}
