//! The socket by which a recording that is under way is told and asked: `mark NAME`, `status`, `stop`, a line each. The
//! answer is a line of JSON, and the end.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

/// Neither side waits longer for the other.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// No request is longer.
pub(crate) const MAX_REQUEST: u64 = 4096;

/// Where the socket is unless the user says otherwise: root's in `/run`, others' where their session keeps such.
pub(crate) fn default_path() -> Option<PathBuf> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let folder = match env::var_os("RUNTIME_DIRECTORY") {
        Some(folder) => PathBuf::from(folder),
        None if is_root => PathBuf::from("/run/xenoscope"),
        None => PathBuf::from(env::var_os("XDG_RUNTIME_DIR")?).join("xenoscope"),
    };
    Some(folder.join("control.sock"))
}

/// The file of the recording that is under way, if there is one that says so.
pub(crate) fn file_under_way() -> Option<PathBuf> {
    let answer = ask(&default_path()?, "status").ok()?;
    Some(PathBuf::from(answer["file"].as_str()?))
}

/// Which recording is meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Peer {
    /// The socket of the recording [default: root's /run/xenoscope/control.sock, others' in $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
}

impl Peer {
    /// Sends a request and returns the answer.
    pub(crate) fn ask(&self, request: &str) -> anyhow::Result<Value> {
        let path = match &self.control {
            Some(path) => path.clone(),
            None => default_path().context("there is no folder for the socket: name it with --control")?,
        };
        ask(&path, request).with_context(|| {
            format!(
                "no recording answers at {}: is `xenoscope record` running, and are you of its group?",
                path.display()
            )
        })
    }
}

fn ask(path: &Path, request: &str) -> anyhow::Result<Value> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(&stream, "{request}")?;
    let mut answer = String::new();
    BufReader::new(&stream).take(1 << 16).read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    match answer["error"].as_str() {
        Some(error) => bail!("{error}"),
        None => Ok(answer),
    }
}

/// Mark a moment in the recording that is under way: a phase begins
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope mark warm-up                              until the next mark
  tail -f console.log | xenoscope mark --lines 'phase: '
                                                      a guest that can only write to its console marks its phases

`xenoscope cut --mark NAME` takes a phase out of the recording.")]
pub(crate) struct MarkArgs {
    /// What the phase is called
    #[arg(required_unless_present = "lines")]
    name: Option<String>,

    /// Read lines from standard input, and mark with what follows PREFIX in those that have it
    #[arg(long, value_name = "PREFIX", conflicts_with = "name")]
    lines: Option<String>,

    #[command(flatten)]
    peer: Peer,
}

pub(crate) fn mark(args: MarkArgs) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.name {
        args.peer.ask(&request(name))?;
        return Ok(ExitCode::SUCCESS);
    }
    let prefix = args.lines.unwrap_or_default();
    for line in io::stdin().lock().split(b'\n') {
        let line = line.context("could not read standard input")?;
        let line = String::from_utf8_lossy(&line);
        if let Some((_, name)) = line.split_once(&prefix) {
            args.peer.ask(&request(name))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A request for a mark. The name may come from a guest: a line, and no longer than one may be.
fn request(name: &str) -> String {
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(200).collect();
    format!("mark {name}")
}

/// Say how the recording that is under way gets on
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  xenoscope status --json | jq .samples")]
pub(crate) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    peer: Peer,
}

pub(crate) fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let answer = args.peer.ask("status")?;
    let mut out = anstream::stdout().lock();
    match args.json {
        true => writeln!(out, "{answer:#}")?,
        false => writeln!(
            out,
            "{} s, {} samples, {} lost: {}",
            answer["elapsed_s"],
            answer["samples"],
            answer["lost"],
            analysis::Visible(answer["file"].as_str().unwrap_or_default())
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

/// End the recording that is under way, as Ctrl-C does
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  xenoscope stop")]
pub(crate) struct StopArgs {
    #[command(flatten)]
    peer: Peer,
}

pub(crate) fn stop(args: StopArgs) -> anyhow::Result<ExitCode> {
    args.peer.ask("stop")?;
    Ok(ExitCode::SUCCESS)
}
