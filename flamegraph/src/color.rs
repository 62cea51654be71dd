//! Colours: a hue per mode, a shade per function.

use inferno::flamegraph::color::{Color, PaletteMap};
use profile::Mode;

/// What is nobody's code: the whole, and the domains.
const GROUP: Color = Color { r: 188, g: 192, b: 200 };

/// The palette of one picture: inferno asks for a frame's colour by its text.
#[derive(Debug)]
pub(crate) struct Palette(PaletteMap);

impl Palette {
    pub(crate) fn new() -> Self {
        let mut map = PaletteMap::default();
        // inferno's own name for the frame below all others.
        map.insert("", GROUP);
        Self(map)
    }

    /// Sees to it that the text of a frame gets its colour; a domain, which has several modes, gets a grey.
    pub(crate) fn enter(&mut self, text: &str, mode: Option<Mode>) {
        if self.0.get(text).is_none() {
            self.0.insert(text, shade(mode.map_or(GROUP, hue), text));
        }
    }

    pub(crate) fn as_mut(&mut self) -> &mut PaletteMap {
        &mut self.0
    }
}

/// Apart from each other for the colour-blind too: they differ in lightness as well.
fn hue(mode: Mode) -> Color {
    match mode {
        Mode::Hypervisor => Color { r: 214, g: 84, b: 72 },
        Mode::Kernel => Color { r: 240, g: 164, b: 64 },
        Mode::User => Color { r: 128, g: 196, b: 160 },
        Mode::Backend => Color { r: 150, g: 128, b: 208 },
    }
}

/// Lightens a colour by an amount that depends on the text alone, so that neighbours can be told apart and pictures
/// can be compared.
fn shade(color: Color, text: &str) -> Color {
    // FNV-1a: the standard library's hasher may change from one release to the next.
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // Of 100 parts of white at most 40, lest hues run into each other.
    let white = (hash >> 16) % 41;
    let lighten = |part: u8| (u32::from(part) + (255 - u32::from(part)) * white / 100) as u8;
    Color { r: lighten(color.r), g: lighten(color.g), b: lighten(color.b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_shade_of_its_modes_hue() {
        let kernel = |text| shade(hue(Mode::Kernel), text);
        assert_eq!(kernel("vfs_read"), kernel("vfs_read"));
        assert_ne!(kernel("vfs_read"), kernel("vfs_write"));
        assert_ne!(kernel("main"), shade(hue(Mode::User), "main"));
    }
}
