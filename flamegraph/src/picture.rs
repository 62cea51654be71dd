//! Drawing, by inferno.

use std::{collections::BTreeMap, fmt::Write, io};

use analysis::{EventReport, Layer, Report, Stack, Visible};
use inferno::flamegraph::{Options, TextTruncateDirection, color::BackgroundColor, from_lines};
use profile::Source;

use crate::{color::Palette, label};

/// Frames of less than so many percent of the width are left out: at 1200 pixels they are hardly a pixel wide, and
/// they would make the files of big profiles a hundred times larger.
const MIN_WIDTH_PERCENT: f64 = 0.1;

/// The pictures of one event.
#[derive(Debug)]
pub struct Pictures<'a> {
    event: &'a EventReport,
    hostname: String,
    /// What the subtitles say before and after the number of samples.
    taken_how: String,
    /// See [`taken_how`](Self::taken_how).
    counted: String,
    labels: Vec<String>,
    stacks: Vec<Stack>,
}

/// A picture could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// There is nothing to see.
    #[error("there are no samples of {of}")]
    NoSamples {
        /// What was to be drawn.
        of: String,
    },
    /// The weights cannot be added up.
    #[error("the weights of {of} are too large to be drawn")]
    TooHeavy {
        /// What was to be drawn.
        of: String,
    },
    /// The drawing failed.
    #[error("could not draw {of}")]
    Draw {
        /// What was to be drawn.
        of: String,
        /// Why.
        source: io::Error,
    },
}

impl<'a> Pictures<'a> {
    /// Prepares the pictures of `event`, which is one of `report`'s, from its stacks.
    pub fn new(report: &Report, event: &'a EventReport, stacks: impl IntoIterator<Item = Stack>) -> Self {
        Self {
            event,
            hostname: Visible(&report.host.hostname).to_string(),
            taken_how: taken_how(report, event),
            counted: counted(report, event),
            labels: label::domain_labels(&event.domains),
            stacks: stacks.into_iter().collect(),
        }
    }

    /// The whole machine, its domains at the roots.
    pub fn machine(&self) -> Result<Vec<u8>, PictureError> {
        let rooted = self.stacks.iter().map(|stack| (Some(&*self.labels[stack.domain]), stack));
        self.draw("all domains", &self.event.samples.to_string(), rooted)
    }

    /// One domain, given by its index in [`EventReport::domains`].
    pub fn domain(&self, index: usize) -> Result<Vec<u8>, PictureError> {
        let own = self.stacks.iter().filter(|stack| stack.domain == index);
        let samples = format!("{} of {}", self.event.domains[index].samples, self.event.samples);
        self.draw(&self.labels[index], &samples, own.map(|stack| (None, stack)))
    }

    /// What changed in the whole machine since a baseline, which is scaled to weigh as much: red grew, blue shrank.
    pub fn difference(&self, baseline: &Self) -> Result<Vec<u8>, PictureError> {
        let of = || "the difference".to_owned();
        if self.event.weight == 0 || baseline.event.weight == 0 {
            return Err(PictureError::NoSamples { of: of() });
        }
        let scale = self.event.weight as f64 / baseline.event.weight as f64;
        let mut stacks: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        for (side, pictures, scale) in [(0, baseline, scale), (1, self, 1.0)] {
            for stack in &pictures.stacks {
                let line = fold(Some(&pictures.labels[stack.domain]), stack, &mut Palette::new());
                let (frames, _) = line.rsplit_once(' ').expect("a folded stack ends with its weight");
                let weights = stacks.entry(frames.to_owned()).or_default();
                weights[side] = weights[side].saturating_add((stack.weight as f64 * scale).round() as u64);
            }
        }
        let lines: Vec<String> =
            stacks.iter().map(|(frames, [before, after])| format!("{frames} {before} {after}")).collect();
        let mut options = self.options("all domains, against a baseline", &self.event.samples.to_string());
        let mut svg = Vec::new();
        from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
            .map_err(|source| PictureError::Draw { of: of(), source })?;
        Ok(svg)
    }

    fn options<'o>(&self, subject: &str, samples: &str) -> Options<'o> {
        let mut options = Options::default();
        options.title = format!("{}: {subject}", self.hostname);
        options.subtitle = Some(format!("{}: {samples} {}", self.taken_how, self.counted));
        options.count_name = Visible(&self.event.unit).to_string();
        options.min_width = MIN_WIDTH_PERCENT;
        options.bgcolors = Some(BackgroundColor::Grey);
        options.text_truncate_direction = TextTruncateDirection::Right;
        options
    }

    fn draw<'s>(
        &self,
        subject: &str,
        samples: &str,
        stacks: impl Iterator<Item = (Option<&'s str>, &'s Stack)>,
    ) -> Result<Vec<u8>, PictureError> {
        let of = || subject.to_owned();
        let mut palette = Palette::new();
        let mut total = 0u64;
        let mut lines = Vec::new();
        for (root, stack) in stacks {
            total = total.checked_add(stack.weight).ok_or_else(|| PictureError::TooHeavy { of: of() })?;
            lines.push(fold(root, stack, &mut palette));
        }
        if total == 0 {
            return Err(PictureError::NoSamples { of: of() });
        }
        let mut options = self.options(subject, samples);
        options.palette_map = Some(palette.as_mut());
        let mut svg = Vec::new();
        from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
            .map_err(|source| PictureError::Draw { of: of(), source })?;
        Ok(svg)
    }
}

/// A stack as a line of inferno's; its frames' colours are entered.
fn fold(root: Option<&str>, stack: &Stack, palette: &mut Palette) -> String {
    let mut line = String::new();
    if let Some(root) = root {
        palette.enter(root, None);
        line.push_str(root);
    }
    for Layer { name, mode } in &stack.layers {
        let text = label::function(name, *mode);
        palette.enter(&text, Some(*mode));
        if !line.is_empty() {
            line.push(';');
        }
        line.push_str(&text);
    }
    write!(line, " {}", stack.weight).expect("strings take all that is written");
    line
}

/// How the samples came about.
pub(crate) fn taken_how(report: &Report, event: &EventReport) -> String {
    let EventReport { name, rate_hz, source, .. } = event;
    let rate = if *rate_hz > 0.0 { format!(" at {rate_hz} Hz") } else { String::new() };
    format!("{:.1} s of {}{rate} from {source}", report.duration_s, Visible(name))
}

/// What was counted, and how much of it there should have been besides.
pub(crate) fn counted(report: &Report, event: &EventReport) -> String {
    if event.source == Source::ExitTrace {
        return "exits".to_owned();
    }
    let lost: u64 = event.lost.values().fold(0, |sum, &count| sum.saturating_add(count));
    let loss = match event.taken {
        Some(taken) => format!("{lost} of {taken} lost"),
        None => "loss unknown".to_owned(),
    };
    format!("samples, {loss}{}", if report.complete { "" } else { ", not finished" })
}
