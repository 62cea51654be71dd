//! `xenoscope push`: a recording's samples, as pprof, to a server that keeps profiles of many hosts.
//!
//! The profiles go by `curl`, which is on every host that may send anything at all, with the host's certificates and
//! proxies.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    mem,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use analysis::{Counts, Visible};
use anyhow::{Context, anyhow, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use formats::{Processes, Stretch, write_pprof};
use profile::{
    EventId, Time,
    recording::{Completeness, EndReason, Recorded, Recording, Told},
};
use serde_json::{Value, json};
use tui::Growing;

use crate::{
    DEFAULT_RECORDING, control,
    export::find_event,
    output::next_of_series,
    record::{interrupted, seconds},
};

/// How long the server is waited for, in seconds.
const PATIENCE: &str = "20";

/// How much of a server's answer is shown, in characters.
const MOST_SAID: usize = 300;

/// Send a recording to Grafana Pyroscope or Parca, or one that is under way, piece by piece
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope push http://pyroscope:4040 -i web.xsr             a recording, a profile for every 15 s
  xenoscope push http://pyroscope:4040 --follow               what `xenoscope record` records now, as it comes
  xenoscope push http://parca:7070 --to parca --follow --label cluster=eu-1
  xenoscope push https://profiles.example.org --follow --header @/etc/xenoscope/token
                                                              a line `Authorization: Bearer …` in a file

Each profile has the labels service_name and host, each sample domain and mode; the outermost frame is the process. While
a recording is followed, what the server does not take is told and left out.")]
pub(crate) struct Args {
    /// Where the server is, without a path of its API: http://HOST:PORT
    server: String,

    /// Whose API it has
    #[arg(long, value_name = "SERVER", default_value = "pyroscope")]
    to: Server,

    /// The recording
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING, conflicts_with = "follow")]
    input: PathBuf,

    /// Send what another program records into a file, while it does, and into the files that follow it; without FILE, what
    /// `xenoscope record` records now
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    follow: Option<Option<PathBuf>>,

    /// How much time a profile stands for, in seconds
    #[arg(long, value_name = "S", default_value = "15", value_parser = seconds)]
    every: Duration,

    /// A label of all profiles; may be given more than once
    #[arg(short, long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,

    /// A header line of all requests, such as `X-Scope-OrgID: TENANT`, or @FILE with such lines
    #[arg(long = "header", value_name = "LINE|@FILE")]
    headers: Vec<String>,

    /// Send this event, where there are several; the first one otherwise
    #[arg(short, long, value_name = "NAME")]
    event: Option<String>,
}

/// A server's API.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Server {
    /// Grafana Pyroscope, or Grafana Alloy's pyroscope.receive_http
    Pyroscope,
    /// Parca
    Parca,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not of the form NAME=VALUE")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_plain) {
        return Err("a label's name is made of letters, digits and _".into());
    }
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let followed = match &args.follow {
        None => None,
        Some(Some(file)) => Some(file.clone()),
        Some(None) => Some(control::file_under_way().context(
            "no recording that is under way says where it goes: name its file, or is `xenoscope record` not running?",
        )?),
    };
    let mut sender = Sender { args: &args, sent: 0, failed: 0 };
    let Some(mut file) = followed else {
        sender.send_all(Recording::open(&args.input)?)?;
        return Ok(sender.finish());
    };
    let stop = interrupted()?;
    loop {
        let growing = Growing::open(&file, Arc::clone(&stop))?;
        let reason = sender.send_all(Recording::read(growing)?)?;
        // A file of a series says that another goes on where it ends.
        match next_of_series(&file).filter(|_| reason == Some(EndReason::Continued)) {
            Some(next) => file = next,
            None => return Ok(sender.finish()),
        }
    }
}

struct Sender<'a> {
    args: &'a Args,
    sent: u64,
    failed: u64,
}

/// The samples of one profile.
#[derive(Default)]
struct Window {
    /// Which one it is, from 0.
    index: u64,
    counts: Counts,
    is_empty: bool,
}

impl Sender<'_> {
    /// Sends a recording window by window; why it ended, if it tells.
    fn send_all(&mut self, mut recording: Recording<impl Read>) -> anyhow::Result<Option<EndReason>> {
        let event = find_event(&recording, self.args.event.as_deref())?;
        let mut recorded = Recorded::new(recording.header().clone());
        let mut window = Window { is_empty: true, ..Window::default() };
        let (started, every) = (recorded.header.started, self.args.every.as_nanos() as u64);
        let index = |time: &Time| time.0.saturating_sub(started.0) / every;
        loop {
            let told = recording.read_next()?;
            let is_last = told.is_last();
            if let Told::Samples(samples) = &told {
                let mut to = 0;
                for piece in samples.times().chunk_by(|a, b| index(a) == index(b)) {
                    let rows = to..to + piece.len();
                    to = rows.end;
                    self.begin(&mut window, index(&piece[0]), event, &recorded)?;
                    window.counts.add(&samples.range(rows), &recorded.tables);
                    window.is_empty = false;
                }
            }
            recorded.take(told, |_, _| ()).map_err(|damage| anyhow!("the recording is damaged: {damage}"))?;
            if is_last {
                self.begin(&mut window, u64::MAX, event, &recorded)?;
                break;
            }
            // Whatever was to come of a window that is over has come.
            if let Some(snapshot) = &recorded.snapshot {
                let now = index(&snapshot.time).max(window.index);
                self.begin(&mut window, now, event, &recorded)?;
            }
        }
        match recorded.completeness {
            Completeness::Whole(end) => Ok(Some(end.reason)),
            Completeness::Torn { .. } => Ok(None),
            Completeness::Damaged { damage, .. } => bail!("the recording is damaged: {damage}"),
        }
    }

    /// Begins another window, and sends the one that was.
    fn begin(
        &mut self,
        window: &mut Window,
        index: u64,
        event: EventId,
        recorded: &Recorded,
    ) -> anyhow::Result<()> {
        if index == window.index {
            return Ok(());
        }
        let over = mem::replace(window, Window { index, is_empty: true, ..Window::default() });
        if over.is_empty {
            return Ok(());
        }
        match self.send(&over, event, recorded) {
            Ok(()) => self.sent += 1,
            Err(error) if self.args.follow.is_some() => {
                self.failed += 1;
                eprintln!("xenoscope: {error:#}");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn send(&self, window: &Window, event: EventId, recorded: &Recorded) -> anyhow::Result<()> {
        let every = self.args.every.as_nanos() as u64;
        let Recorded { header, tables, .. } = recorded;
        let since_start = window.index * every;
        let stretch = Stretch {
            header,
            tables,
            event,
            counted: window.counts.of(event, tables),
            started_unix_ns: header.started_unix_ns + since_start,
            duration_ns: every.min(recorded.until.0.saturating_sub(header.started.0 + since_start)),
        };
        let mut profile = Vec::new();
        write_pprof(&stretch, Processes::Frame, &mut profile)?;
        let is_time = header.events[usize::from(event.0)].unit == "ns";
        let mut labels = BTreeMap::from([
            ("__name__", if is_time { "process_cpu" } else { "xenoscope" }),
            ("service_name", "xenoscope"),
            ("host", &header.host.hostname),
        ]);
        labels.extend(self.args.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let (path, body) = request(self.args.to, &labels, &profile);
        let url = format!("{}{path}", self.args.server.trim_end_matches('/'));
        post(&url, &self.args.headers, &body.to_string()).with_context(|| format!("not sent to {url}"))
    }

    fn finish(&self) -> ExitCode {
        eprintln!("xenoscope: {} profiles sent, {} not taken", self.sent, self.failed);
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The path and the body of the request that has a server take in a profile.
///
/// Pyroscope: Connect's `push.v1.PusherService/Push`. Parca: the HTTP form of `ProfileStoreService.WriteRaw`; addresses need
/// no symbols any more, and so are none of an image's that it would have to be asked for.
fn request(server: Server, labels: &BTreeMap<&str, &str>, profile: &[u8]) -> (&'static str, Value) {
    let labels: Vec<Value> =
        labels.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let samples = json!([{ "rawProfile": BASE64_STANDARD.encode(profile) }]);
    match server {
        Server::Pyroscope => {
            ("/push.v1.PusherService/Push", json!({ "series": [{ "labels": labels, "samples": samples }] }))
        }
        Server::Parca => (
            "/profiles/writeraw",
            json!({ "series": [{ "labels": { "labels": labels }, "samples": samples }], "normalized": true }),
        ),
    }
}

/// Sends a body, and fails unless it is taken.
fn post(url: &str, headers: &[String], body: &str) -> anyhow::Result<()> {
    let mut curl = Command::new("curl")
        .args(["--silent", "--show-error", "--proto", "=http,https", "--max-time", PATIENCE])
        .args(["--header", "Content-Type: application/json", "--data-binary", "@-"])
        .args(headers.iter().flat_map(|line| ["--header", line]))
        .args(["--write-out", "\n%{http_code}", "--", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("curl can't be run")?;
    // It reads all of it before it says anything. One that ends before that says why.
    let written = curl.stdin.take().expect("it was piped").write_all(body.as_bytes());
    let output = curl.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", Visible(String::from_utf8_lossy(&output.stderr).trim()));
    }
    written.context("curl did not read what it was to send")?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let (said, code) = answer.rsplit_once('\n').unwrap_or(("", &answer));
    let said: String = said.chars().take(MOST_SAID).collect();
    ensure!(code.starts_with('2'), "the server answers {code}: {}", Visible(said.trim()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_what_servers_take() {
        assert_eq!(label("cluster=eu-1=a").unwrap(), ("cluster".into(), "eu-1=a".into()));
        for wrong in ["", "cluster", "=x", "1a=x", "a-b=x", "a b=x"] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }
}
