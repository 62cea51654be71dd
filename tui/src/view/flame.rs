//! The scope as flames that hang down: each cell's width is its weight, and what it calls is below it.

use ratatui::{buffer::Buffer, layout::Rect, style::Modifier};

use super::{
    text::{harmless, percent, put},
    theme::{Colors, Theme},
};
use crate::{
    screen::Screen,
    state::{NodeId, State, part},
};

/// Draws the flames, and what the chosen one is.
pub(super) fn draw(state: &State, screen: &mut Screen, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let root = screen.flame_root.or_else(|| state.root(screen.scope));
    let Some(root) = root.filter(|root| state.weight(*root) > 0) else {
        put(buffer, area.x, area.y, area.right(), "nothing ran here in this window", theme.dim());
        return;
    };
    let chosen = screen.flame.filter(|node| state.weight(*node) > 0).unwrap_or(root);
    screen.flame = Some(chosen);
    let (name, mode) = state.node_name(chosen);
    let weight = state.weight(chosen);
    let said = format!(
        "{} of what is shown, {} of all  ",
        percent(part(weight, state.weight(root))),
        percent(part(weight, state.busy()))
    );
    let x = put(buffer, area.x, area.y, area.right(), &said, theme.bold());
    let room = usize::from(area.right().saturating_sub(x));
    let style = mode.map_or_else(|| theme.bold(), |mode| theme.mode(mode));
    put(buffer, x, area.y, area.right(), &harmless(&name, room, theme), style);

    let flames = Rect { y: area.y + 1, height: area.height - 1, ..area };
    let whole = f64::from(flames.width) / state.weight(root) as f64;
    let mut pending: Vec<(NodeId, f64, u16, bool)> = vec![(root, 0.0, 0, false)];
    while let Some((node, from, depth, odd)) = pending.pop() {
        if depth >= flames.height {
            continue;
        }
        let width = state.weight(node) as f64 * whole;
        let (left, right) = (from.round() as u16, ((from + width).round() as u16).min(flames.width));
        if left >= right {
            continue;
        }
        let y = flames.y + depth;
        cell(state, node, (flames.x + left, flames.x + right, y), odd, node == chosen, theme, buffer);
        screen.areas.flames.push((flames.x + left, flames.x + right, y, node));
        let mut at = from;
        for (child, odd) in state.children(node).into_iter().zip([false, true].into_iter().cycle()) {
            let width = state.weight(child) as f64 * whole;
            // Those that follow are lighter still.
            if width < 0.3 {
                break;
            }
            pending.push((child, at, depth + 1, odd));
            at += width;
        }
    }
}

fn cell(
    state: &State,
    node: NodeId,
    (left, right, y): (u16, u16, u16),
    odd: bool,
    chosen: bool,
    theme: Theme,
    buffer: &mut Buffer,
) {
    let (name, mode) = state.node_name(node);
    let mut style = theme.flame(mode, odd);
    if chosen {
        style = style.add_modifier(Modifier::REVERSED).add_modifier(Modifier::BOLD);
    }
    buffer.set_style(Rect { x: left, y, width: right - left, height: 1 }, style);
    if right - left < 3 && theme.colors != Colors::None {
        return;
    }
    let border = if theme.ascii { "|" } else { "▏" };
    let x = put(buffer, left, y, right, border, style);
    let room = usize::from(right.saturating_sub(x));
    if room >= 3 {
        put(buffer, x, y, right, &harmless(&name, room, theme), style);
    }
}
