//! A recorder that goes on and on: its series of files, its socket, its unit, and who looks on meanwhile.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lab::evidence::{host::xenoscope, observed::Observed, report::Report, shown::Shown};
use profile::recording::{Completeness, EndReason};

use crate::{
    figures,
    recorder::{Load, Recorder, program, signal},
};

/// What is waited for comes, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(100));
    }
}

/// The program, told to ask the socket of this recorder.
fn ask(recorder: &Recorder, arguments: &[&str]) -> Output {
    let mut command = Command::new(lab::xenoscope().unwrap());
    recorder.own_socket(command.args(arguments)).output().unwrap()
}

/// Where the recording that is under way goes.
fn status_file(recorder: &Recorder) -> Option<String> {
    let status = ask(recorder, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
    status["samples"].as_u64().filter(|samples| *samples > 0)?;
    Some(status["file"].as_str()?.to_owned())
}

fn end_of(observed: &Observed) -> EndReason {
    match &observed.recorded.completeness {
        Completeness::Whole(end) => end.reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn a_series_keeps_its_last_files_and_is_pushed_meanwhile() {
    let Some(recorder) = Recorder::new() else { return };
    let _load = Load::start("hot.c", &["-DNAME=local"]);
    let taken = Arc::new(AtomicUsize::new(0));
    let server = taking_server(Arc::clone(&taken));
    let mut process = recorder.start(&["-F", "4000", "--max-size", "32K", "--rotate", "2"]);
    let first = wait_for("the recording", || status_file(&recorder));
    assert!(first.ends_with("recording-00001.xsr"), "{first}");
    let mut pusher = Command::new(lab::xenoscope().unwrap())
        .args(["push", &server, "--follow", &first, "--every", "1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who asks is told which file it is now.
    let fourth = first.replace("00001", "00004");
    wait_for("the fifth file", || status_file(&recorder).filter(|file| *file > fourth));
    assert!(ask(&recorder, &["mark", "the end is near"]).status.success());
    let last = wait_for("the file", || status_file(&recorder));
    thread::sleep(Duration::from_secs(2));
    assert!(ask(&recorder, &["stop"]).status.success());
    assert!(process.wait().unwrap().success());
    assert!(!ask(&recorder, &["status"]).status.success(), "the socket went with it");
    let mut files: Vec<PathBuf> = fs::read_dir(recorder.folder())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xsr"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files[1].to_str().unwrap() >= last.as_str(), "{files:?}, {last}");
    let read: Vec<Observed> = files.iter().map(|file| Observed::read(file)).collect();
    assert_eq!(end_of(&read[0]), EndReason::Continued);
    assert_eq!(end_of(&read[1]), EndReason::Interrupted);
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().permissions().mode() & 0o777 == 0o600));
    for file in &files {
        let report = xenoscope(&["report", "--json", "-i", file.to_str().unwrap()]);
        let report = Report::parse(&report.stdout);
        assert!(!report.notes_say("the books of"), "{file:?}: {:?}", report.notes);
    }
    // The one goes on where the other ends: no sample is in both, and none in neither.
    for cpu in read[0].samples.iter().map(|sample| sample.cpu).collect::<std::collections::BTreeSet<_>>() {
        let numbers = |observed: &Observed| {
            let own = observed.samples.iter().filter(|sample| sample.cpu == cpu);
            own.map(|sample| sample.sequence).collect::<Vec<_>>()
        };
        let (before, after) = (numbers(&read[0]), numbers(&read[1]));
        if let (Some(last), Some(first)) = (before.iter().max(), after.iter().min()) {
            assert!(first > last, "CPU {}: {first} comes after {last}", cpu.0);
        }
    }
    let output = wait_for("the pusher's end", || pusher.try_wait().unwrap());
    let mut said = String::new();
    pusher.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(output.success(), "{said}");
    let profiles = taken.load(Ordering::Relaxed);
    figures::figure("profiles pushed of a recording under way", profiles);
    assert!(profiles >= 4 && said.contains(&format!("{profiles} profiles sent, 0 not taken")), "{said}");
}

/// A server that takes every profile, and counts them.
fn taking_server(taken: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                match line.trim_end().split_once(": ") {
                    Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                        length = value.parse().unwrap();
                    }
                    Some((name, _)) if name.eq_ignore_ascii_case("expect") => {
                        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
                    }
                    _ if line.trim_end().is_empty() => break,
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(body["series"][0]["samples"][0]["rawProfile"].is_string(), "{body}");
            taken.fetch_add(1, Ordering::Relaxed);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").unwrap();
        }
    });
    url
}

/// A group that nobody here is in, and a user who is in no group.
const GROUP: u32 = 64_123;
const USER: u32 = 64_124;

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn a_groups_members_reach_the_socket_and_others_do_not() {
    let Some(recorder) = Recorder::new() else { return };
    if chown(recorder.folder(), None, Some(GROUP)).is_err() {
        println!("skipped: only root can give a socket to a group");
        return;
    }
    fs::set_permissions(recorder.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let client = recorder.copy_of(&lab::xenoscope().unwrap());
    let mut process = recorder.start(&["-F", "100", "--control-group", &GROUP.to_string()]);
    wait_for("the recording", || status_file(&recorder));
    let ask_as = |group: u32, arguments: &[&str]| {
        let mut command = Command::new(&client);
        recorder.own_socket(command.args(arguments)).uid(USER).gid(group).output().unwrap()
    };
    let refused = ask_as(USER, &["mark", "a stranger's"]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("are you of its group?"), "{error}");
    assert!(ask_as(GROUP, &["mark", "a member's"]).status.success());
    assert!(ask_as(GROUP, &["stop"]).status.success());
    assert!(process.wait().unwrap().success());
    let marks = recorder.observed().recorded.marks;
    assert_eq!(marks.iter().map(|mark| mark.name.as_str()).collect::<Vec<_>>(), ["a member's"]);
}

/// The unit as it is shipped.
fn unit() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/systemd/xenoscope.service"))
        .unwrap()
}

/// Where the unit expects the program.
const INSTALLED: &str = "/usr/bin/xenoscope";

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let Some(recorder) = Recorder::new() else { return };
    let file = recorder.folder().join("xenoscope.service");
    let program = lab::xenoscope().unwrap();
    fs::write(&file, unit().replace(INSTALLED, program.to_str().unwrap())).unwrap();
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&file).output() else {
        println!("skipped: there is no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("xenoscope.service:"), "{said}");
}

/// What it runs, with the folders that systemd would make.
#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn the_units_command_records_until_it_is_told_to_end() {
    let Some(recorder) = Recorder::new() else { return };
    let unit = unit();
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert!(unit.contains("\nKillSignal=SIGINT\n"));
    let (logs, group) = ("/var/log/xenoscope", "--control-group xenoscope");
    assert!(command.contains(logs) && command.ends_with(group), "{command}");
    let command = command.replace(logs, recorder.folder().to_str().unwrap()).replace(group, "");
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some(INSTALLED));
    let mut recording = Command::new(lab::xenoscope().unwrap());
    let mut process = recorder.own_socket(recording.args(words)).stderr(Stdio::null()).spawn().unwrap();
    let file = wait_for("the recording", || status_file(&recorder));
    signal(&process, "INT");
    assert!(process.wait().unwrap().success());
    let observed = Observed::read(Path::new(&file));
    assert_eq!(end_of(&observed), EndReason::Interrupted);
    assert!(!observed.samples.is_empty());
}

/// The dashboard on a terminal of 100 by 30 that `programs/terminal.c` plays.
struct Watched {
    terminal: Child,
    folder: PathBuf,
}

impl Watched {
    fn start(recorder: &Recorder, name: &str, arguments: &[&str]) -> Self {
        let folder = recorder.folder().join(name);
        fs::create_dir(&folder).unwrap();
        let orders = folder.join("orders");
        assert!(Command::new("mkfifo").arg(&orders).status().unwrap().success());
        let mut command = Command::new(program("terminal.c", &[]));
        command
            .args(["100", "30"])
            .arg(folder.join("tty"))
            .arg(&orders)
            .arg(lab::xenoscope().unwrap())
            .arg("top")
            .args(arguments)
            .envs([("TERM", "xterm-256color"), ("LANG", "C.UTF-8")])
            .stdout(Stdio::piped());
        let terminal = recorder.own_socket(&mut command).spawn().unwrap();
        Self { terminal, folder }
    }

    /// Waits until all of these texts are on the screen together.
    fn shows(&self, texts: &[&str]) {
        let file = self.folder.join("tty");
        let shown = || file.exists().then(|| Shown::read(&file, 100, 30));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if shown().and_then(|shown| shown.first(texts)).is_some() {
                return;
            }
            let last = || shown().map(|shown| shown.last()).unwrap_or_default();
            assert!(Instant::now() < deadline, "no {texts:?} in\n{}", last());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses keys.
    fn press(&self, keys: &str) {
        let mut orders = fs::OpenOptions::new().write(true).open(self.folder.join("orders")).unwrap();
        writeln!(orders, "keys {keys}").unwrap();
    }

    /// Quits; the terminal is as it was.
    fn quit(mut self) {
        self.press("q");
        let mut said = String::new();
        self.terminal.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("ended 0") && said.contains("terminal as before"), "{said}");
        assert!(Shown::read(&self.folder.join("tty"), 100, 30).is_given_back());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A terminal that goes takes with it what runs on it.
        let _ = self.terminal.kill();
        let _ = self.terminal.wait();
    }
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn dashboards_look_on_beside_a_recorder_and_replay_what_it_wrote() {
    let Some(recorder) = Recorder::new() else { return };
    let _load = Load::start("hot.c", &["-DNAME=local"]);
    let mut process = recorder.start(&["-F", "1000"]);
    let file = wait_for("the recording", || status_file(&recorder));
    let by_file = Watched::start(&recorder, "by-file", &["--follow", &file]);
    let by_socket = Watched::start(&recorder, "by-socket", &["--follow"]);
    for watched in [&by_file, &by_socket] {
        watched.shows(&["FOLLOW recording.xsr", "lost 0", "local_hot", "host"]);
    }
    assert!(ask(&recorder, &["mark", "seen by both"]).status.success());
    for watched in [&by_file, &by_socket] {
        watched.press("7");
        watched.shows(&["mark", "seen by both"]);
    }
    assert!(ask(&recorder, &["stop"]).status.success());
    assert!(process.wait().unwrap().success());
    for watched in [by_file, by_socket] {
        watched.shows(&["the recording ends here"]);
        watched.quit();
    }
    // They read the file, and nothing that the recorder would have to wait for.
    recorder.observed().assert_balanced();
    for speed in ["max", "16"] {
        let replay = Watched::start(&recorder, speed, &["--replay", &file, "--speed", speed]);
        replay.shows(&["REPLAY recording.xsr", "local_hot"]);
        replay.shows(&["the recording ends here"]);
        replay.quit();
    }
}
