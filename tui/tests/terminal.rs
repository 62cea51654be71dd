//! The dashboard on a real terminal, a pseudoterminal that answers no questions: it is given back whatever happens.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use profile::{
    Chain, CodeAddress, Domain, DomainId, DomainKind, Event, EventId, Frame, ImageOffset, Mode, Origin,
    PhysCpu, Sample, Source, Space, Time,
    recording::{End, EndReason, Header, Host, Writer},
};
use rustix::{
    fs::OFlags,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};
use tempfile::TempDir;

/// What is waited for comes, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A second in which one guest's function ran.
fn recording() -> Vec<u8> {
    let header = Header {
        tool: String::new(),
        started_unix_ns: 0,
        started: Time(0),
        host: Host {
            hypervisor: "Xen 4.17.7".into(),
            build_id: None,
            kernel: String::new(),
            hostname: "lab".into(),
            cpus: 1,
        },
        events: vec![Event {
            name: "cpu-clock".into(),
            unit: "ns".into(),
            source: Source::Timer,
            rate_hz: 100.0,
        }],
        command: None,
        options: BTreeMap::new(),
    };
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    let id = DomainId(0);
    let (kind, from) = (DomainKind::Pvh, Time(0));
    writer.domain(Domain { id, number: 7, name: "alpha".into(), uuid: None, kind, vcpus: 1, from });
    let [function, module] = ["spin", "vmlinux"].map(|name| Some(writer.name(name)));
    let address = CodeAddress::InstructionPointer(0x1000);
    let frame = Frame {
        space: Space::Kernel(id),
        address,
        function,
        module,
        offset: ImageOffset(0x10),
        origin: Origin::default(),
    };
    let frame = writer.frame(frame);
    let chain = writer.chain(Chain { caller: None, frame });
    for sequence in 0..100 {
        writer.sample(Sample {
            time: Time(sequence * 10_000_000),
            cpu: PhysCpu(0),
            vcpu: None,
            charged_to: Some(id),
            process: None,
            mode: Mode::Kernel,
            event: EventId(0),
            weight: 10_000_000,
            sequence,
            chain,
        });
    }
    writer.finish(End { time: Time(999_000_000), reason: EndReason::Duration }).unwrap()
}

/// A terminal with the dashboard on it.
struct Session {
    child: Child,
    terminal: Option<File>,
    /// The side that the program has: its settings are looked at.
    other: OwnedFd,
    before: Termios,
    output: Receiver<Vec<u8>>,
    hang_up: Arc<AtomicBool>,
    screen: vt100::Parser,
    folder: TempDir,
}

impl Session {
    fn start() -> Self {
        Self::with(&recording(), &[])
    }

    fn with(recording: &[u8], arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("alpha.xsr");
        std::fs::write(&file, recording).unwrap();
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let other = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        let size = Winsize { ws_col: 80, ws_row: 24, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let before = tcgetattr(&other).unwrap();
        let stdio = || Stdio::from(other.try_clone().unwrap());
        let child = Command::new(example())
            .arg(&file)
            .args(arguments)
            .current_dir(folder.path())
            .envs([("TERM", "xterm-256color"), ("LANG", "C.UTF-8")])
            .env_remove("NO_COLOR")
            .env_remove("LC_ALL")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let terminal = File::from(terminal);
        let mut reader = terminal.try_clone().unwrap();
        let (sender, output) = mpsc::channel();
        let hang_up = Arc::new(AtomicBool::new(false));
        let hung_up = Arc::clone(&hang_up);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It ends with an error when nobody has the other side any more.
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() || hung_up.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let screen = vt100::Parser::new(24, 80, 0);
        Self { child, terminal: Some(terminal), other, before, output, hang_up, screen, folder }
    }

    /// Closes the terminal, as when a connection breaks off.
    fn hang_up(&mut self) {
        self.hang_up.store(true, Ordering::Relaxed);
        // Who reads it notices with what is shown next.
        self.press("?");
        while self.output.recv().is_ok() {}
        self.terminal = None;
    }

    fn show(&mut self) -> String {
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(50)) {
            self.screen.process(&bytes);
        }
        self.screen.screen().contents()
    }

    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.show().contains(text) {
            assert!(Instant::now() < deadline, "no {text} in\n{}", self.screen.screen().contents());
        }
    }

    fn press(&mut self, keys: &str) {
        self.terminal.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            self.show();
        }
    }

    /// Waits for the end, after which everything must be as before.
    fn is_given_back(&mut self) -> ExitStatus {
        let status = self.wait();
        self.show();
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{}", screen.contents());
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        let after = tcgetattr(&self.other).unwrap();
        let settings = |termios: &Termios| {
            (termios.input_modes, termios.output_modes, termios.local_modes, termios.control_modes)
        };
        assert_eq!(settings(&after), settings(&self.before));
        status
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Examples lie beside the tests that are built with them.
fn example() -> PathBuf {
    let test = env::current_exe().unwrap();
    let example = test.parent().unwrap().with_file_name("examples").join("replay");
    assert!(example.exists(), "not built: cargo build -p xenoscope-tui --example replay");
    example
}

#[test]
fn the_terminal_is_given_back_at_the_end() {
    let mut session = Session::start();
    session.wait_for("alpha");
    session.wait_for("spin");
    assert!(session.screen.screen().alternate_screen());
    session.press("\r");
    session.wait_for("2 processes");
    session.press("q");
    assert!(session.is_given_back().success());
}

#[test]
fn the_terminal_is_given_back_after_signals() {
    for signal in [Signal::TERM, Signal::HUP] {
        let mut session = Session::start();
        session.wait_for("alpha");
        session.signal(signal);
        assert!(session.is_given_back().success());
    }
}

#[test]
fn the_terminal_is_given_back_after_a_crash_which_is_told() {
    let mut session = Session::start();
    session.wait_for("spin");
    session.press("3");
    session.wait_for("3 functions");
    session.press("a");
    assert!(!session.is_given_back().success());
    let screen = session.screen.screen().contents();
    assert!(screen.contains("asked for the code at 0xff0"), "{screen}");
    assert!(screen.contains("Crashed"), "{screen}");
}

/// Nobody is left to give it back to, and nothing stays behind, whether a signal tells of it or not.
#[test]
fn it_ends_with_its_terminal() {
    let mut session = Session::start();
    session.wait_for("alpha");
    session.hang_up();
    session.wait();
}

#[test]
fn a_new_size_is_followed() {
    let mut session = Session::start();
    session.wait_for("alpha");
    let size = Winsize { ws_col: 120, ws_row: 30, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(session.terminal.as_ref().unwrap(), size).unwrap();
    session.screen.screen_mut().set_size(30, 120);
    session.signal(Signal::WINCH);
    session.wait_for("MODES");
    session.press("q");
    session.is_given_back();
}

/// What is written is for its owner alone, and can be read again.
#[test]
fn a_window_is_written() {
    let mut session = Session::start();
    session.wait_for("spin");
    session.press("w");
    session.wait_for("xenoscope-top-1.xsr");
    session.press("F");
    session.wait_for("xenoscope-top-1.svg");
    let file = session.folder.path().join("xenoscope-top-1.xsr");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let recording = profile::recording::Recording::open(&file).unwrap();
    let mut samples = 0;
    recording.for_each_sample(|_, _| samples += 1).unwrap();
    assert_eq!(samples, 100);
    let svg = std::fs::read_to_string(session.folder.path().join("xenoscope-top-1.svg")).unwrap();
    assert!(svg.contains("spin"));
}

/// Of a recorder that is no more, the last word stays.
#[test]
fn a_recording_without_an_end_is_told() {
    let whole = recording();
    let mut session = Session::with(&whole[..whole.len() - 8], &[]);
    session.wait_for("it was cut");
    session.wait_for("spin");
    session.press("q");
    assert!(session.is_given_back().success());
}

#[test]
fn a_recorder_that_is_silent_is_told_and_so_is_that_it_goes_on() {
    let whole = recording();
    let cut = whole.len() - 8;
    let mut session = Session::with(&whole[..cut], &["follow"]);
    session.wait_for("spin");
    session.wait_for("nothing new for");
    let file = session.folder.path().join("alpha.xsr");
    let mut growing = std::fs::OpenOptions::new().append(true).open(file).unwrap();
    growing.write_all(&whole[cut..]).unwrap();
    session.wait_for("the recording ends here");
    session.press("q");
    assert!(session.is_given_back().success());
}

#[test]
fn a_followed_file_that_is_cut_is_told() {
    let whole = recording();
    let mut session = Session::with(&whole[..whole.len() - 8], &["follow"]);
    session.wait_for("spin");
    let file = session.folder.path().join("alpha.xsr");
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(16).unwrap();
    session.wait_for("alpha.xsr was cut");
    session.press("q");
    assert!(session.is_given_back().success());
}
