//! `xenoscope top`: the machine as it is now, or a recording as it was.

mod code;
mod live;

use std::{
    env,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use analysis::Aggregate;
use anyhow::{Context, bail};
use profile::recording::Recording;
use tui::{Colors, Ended, Feed, FeedOptions, Growing, Limits, Pace, RunOptions, Screen, Theme};

use self::code::{LiveCode, NoCode};
use crate::{
    control,
    record::{interrupted, seconds},
    report,
    sampling::{Sampling, bytes},
};

/// Show where the machine's time goes now, by domain, process, function and instruction
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope top                                   what runs now; ? shows the keys
  xenoscope top --domain web -F 500               one domain
  xenoscope top --follow xenoscope.xsr            beside a running `xenoscope record`
  xenoscope top --replay web.xsr --speed 10       a recording, ten times as fast; runs anywhere
  xenoscope top --once --json | jq '.events[0].domains[] | {name, share}'
                                                  two seconds of it for scripts, as `report --json`

Enter drills in: domain, processes, functions, callers, instructions; Esc goes back. The second line always tells how many
samples come, how many were lost, what they cost, and what this way of sampling can't see. NO_COLOR is heeded.")]
pub(crate) struct Args {
    #[command(flatten)]
    sampling: Sampling,

    /// Show a recording instead of the machine
    #[arg(long, value_name = "FILE", conflicts_with = "Sampling")]
    replay: Option<PathBuf>,

    /// How many times as fast as it was, or max for as fast as it can be read
    #[arg(long, value_name = "TIMES|max", default_value = "1", value_parser = speed, requires = "replay")]
    speed: Speed,

    /// Show what another program records into a file, while it does; without FILE, what `xenoscope record` records now. On
    /// Xen, where only one can sample, that is what happens anyway while somebody records
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with_all = ["Sampling", "replay"])]
    follow: Option<Option<PathBuf>>,

    /// Show the last so many seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    window: u64,

    /// Keep so many seconds to look back at
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=86400))]
    history: u64,

    /// Keep no more samples than fit into this memory; older ones go first
    #[arg(long, value_name = "BYTES", default_value = "128M", value_parser = bytes)]
    memory: u64,

    /// Draw so often, in seconds
    #[arg(long, value_name = "S", default_value = "0.25", value_parser = seconds)]
    refresh: Duration,

    /// Print a report instead of drawing: of --duration seconds, or of the whole recording
    #[arg(long)]
    once: bool,

    /// Print it as JSON (schema 1)
    #[arg(long, requires = "once")]
    json: bool,

    /// What is reported on
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds, requires = "once")]
    duration: Duration,

    /// How many colours the terminal has [default: what its environment says]
    #[arg(long, value_name = "COLORS")]
    colors: Option<ColorsArg>,

    /// The terminal's background is light
    #[arg(long)]
    light: bool,

    /// Show nothing but ASCII
    #[arg(long)]
    ascii: bool,

    /// Leave the mouse to the terminal
    #[arg(long)]
    no_mouse: bool,
}

/// How many colours.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ColorsArg {
    /// None
    Never,
    /// Sixteen
    #[value(name = "16")]
    Sixteen,
    /// 256
    #[value(name = "256")]
    Indexed,
    /// All
    True,
}

/// How fast a replay goes.
#[derive(Clone, Copy, Debug)]
struct Speed(Option<f64>);

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed(None));
    }
    let times: Option<f64> = text.trim_end_matches('x').parse().ok();
    match times {
        Some(times) if times > 0.0 && times.is_finite() => Ok(Speed(Some(times))),
        _ => Err("not a positive number, nor max".into()),
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stop = interrupted()?;
    let follow = followed(&args)?;
    if args.once {
        return once(&args, follow.as_deref(), &stop);
    }
    let variable = |name: &str| env::var(name).ok();
    if env::var("TERM").is_ok_and(|term| term == "dumb") {
        bail!("this terminal (TERM=dumb) can't be drawn on; --once prints a report instead");
    }
    let theme = theme(&args, Theme::of_environment(variable));
    let limits = Limits { slices: args.history.max(args.window), bytes: args.memory as usize };
    let mut options = FeedOptions { limits, window_s: args.window, pace: None };
    let of_file = |found: Option<Ended>| {
        found.unwrap_or_else(|| {
            Ended::Badly("the recording ends without an end: its writer was killed".into())
        })
    };
    let end = Arc::new(AtomicBool::new(false));
    let (feed, code, origin): (Feed, Box<dyn tui::ReadCode>, String) = match (&args.replay, &follow) {
        (Some(path), _) => {
            options.pace = Some(Pace { speed: args.speed.0, paused: false });
            let file = path.clone();
            // What can be wrong with it is told before anything is drawn.
            let recording = Recording::open(file)?;
            let feed = Feed::start(Arc::clone(&end), options, || Ok(recording), of_file)?;
            (feed, Box::new(NoCode), format!("REPLAY {}", short(path)))
        }
        (None, Some(path)) => {
            let (file, until) = (path.clone(), Arc::clone(&end));
            let open = move || Recording::read(Growing::open(&file, until)?);
            let feed = Feed::start(Arc::clone(&end), options, open, of_file)?;
            (feed, Box::new(LiveCode::here()), format!("FOLLOW {}", short(path)))
        }
        (None, None) => {
            let (feed, code) = live::start(&args.sampling, Arc::clone(&end), options)?;
            (feed, Box::new(code), "LIVE".to_owned())
        }
    };
    let mut screen = Screen::new(origin);
    let options =
        RunOptions { theme, mouse: !args.no_mouse, refresh: args.refresh, folder: env::current_dir()? };
    let result = tui::run(&feed, &mut screen, options, code, &stop);
    // The terminal is given back: what is still to be done is told in the usual way.
    let ended = feed.finish();
    result?;
    match ended {
        Some(Ended::Badly(why)) if args.replay.is_none() => bail!("{}", analysis::Visible(&why)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn theme(args: &Args, theme: Theme) -> Theme {
    let colors = args.colors.map_or(theme.colors, |colors| match colors {
        ColorsArg::Never => Colors::None,
        ColorsArg::Sixteen => Colors::Ansi,
        ColorsArg::Indexed => Colors::Indexed,
        ColorsArg::True => Colors::True,
    });
    Theme { colors, light: args.light || theme.light, ascii: args.ascii || theme.ascii }
}

fn short(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The file that somebody else records into, if that is what is shown.
fn followed(args: &Args) -> anyhow::Result<Option<PathBuf>> {
    match &args.follow {
        Some(Some(path)) => Ok(Some(path.clone())),
        Some(None) => Ok(Some(control::file_under_way().context(
            "no recording that is under way says where it goes: name its file, or is `xenoscope record` not running?",
        )?)),
        None if args.replay.is_some() => Ok(None),
        None => Ok(control::file_under_way().filter(|_| one_samples_at_a_time())),
    }
}

fn one_samples_at_a_time() -> bool {
    let host = hv_shim::detect().and_then(|hypervisor| hypervisor.host());
    host.is_ok_and(|host| host.hypervisor.starts_with("Xen"))
}

/// A report instead of a picture.
fn once(args: &Args, follow: Option<&Path>, stop: &Arc<AtomicBool>) -> anyhow::Result<ExitCode> {
    let report = match (&args.replay, follow) {
        (Some(path), _) => Aggregate::of(Recording::open(path)?)?.report(),
        (None, Some(path)) => {
            // What is there by then.
            let (duration, timer) = (args.duration, Arc::clone(stop));
            thread::spawn(move || {
                thread::sleep(duration);
                timer.store(true, Ordering::Relaxed);
            });
            of(Growing::open(path, Arc::clone(stop))?)?
        }
        (None, None) => of(&*live::record(&args.sampling, Arc::clone(stop), args.duration)?)?,
    };
    report::finish(report::print(&report, args.json, false, report::LIMIT))
}

fn of(recording: impl Read) -> anyhow::Result<analysis::Report> {
    Ok(Aggregate::of(Recording::read(recording)?)?.report())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_go_at_any_speed() {
        assert_eq!(speed("10").unwrap().0, Some(10.0));
        assert_eq!(speed("0.5x").unwrap().0, Some(0.5));
        assert_eq!(speed("max").unwrap().0, None);
        for wrong in ["", "0", "-1", "inf", "fast"] {
            assert!(speed(wrong).is_err(), "{wrong}");
        }
    }
}
