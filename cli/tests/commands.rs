//! The command as a user runs it.

mod folder;

use std::fs;

use folder::{command, folder, stderr, stdout, xenoscope};

#[test]
fn the_report_as_text() {
    let folder = folder();
    let expected = r"
Host      lab: Xen 4.17.7, kernel 6.1.0-25-amd64, 2 CPUs
Duration  2.0 s
Note      the symbols of db could not be read (at 0.5 s)

Event     cpu-clock at 99 Hz per CPU, source timer
Bias      interrupt-driven: code that runs with interrupts off is charged to the instruction that
          turns them on; a sample that is overdue when its CPU goes idle is charged to the vCPU that
          ran last, as the function xenoscope_overdue: its place is not known
Samples   10
Idle      3.0 s of CPU time (75.0%)
Lost      2 of 1,012 samples taken, 0.2%: ring-full 2; 1,000 filtered

Domains, in percent of the machine's busy time
  SHARE  HYPERVISOR  KERNEL   USER  BACKEND  SAMPLES  CPU S  ID  KIND        DOMAIN
  70.0%        0.0%    0.0%  40.0%    30.0%        7    0.5   3  pvh         we\u{1b}[31mb
  20.0%        0.0%   20.0%   0.0%     0.0%        2      -   0  dom0        Domain-0
  10.0%       10.0%    0.0%   0.0%     0.0%        1      -   -  hypervisor  hypervisor

Busiest processes, in percent of the machine's busy time
  SHARE  KERNEL   USER  DOMAIN         PID  PROCESS     CONTAINER
  40.0%    0.0%  40.0%  we\u{1b}[31mb    9  ngin\u{7}x  -

Hottest functions, in percent of the machine's busy time
   SELF  TOTAL  DOMAIN         MODE     MODULE       FUNCTION
  40.0%  40.0%  we\u{1b}[31mb  user     nginx        ngx_http\u{9b}_parse
  30.0%  30.0%  we\u{1b}[31mb  backend  xen_netback  xenvif_tx
  20.0%  20.0%  Domain-0       kernel   vmlinux      schedule
  … and 1 more (--limit)

vCPUs by how long they waited for a CPU, in percent of their time
  WAITING  RUNNING  BLOCKED  VCPU  DOMAIN
    25.0%    25.0%    50.0%     0  we\u{1b}[31mb
     0.0%    12.5%    87.5%     0  Domain-0

Costliest VM exits: the time until the guest was entered again
     MS  EXITS  MEAN US  LONGEST US  REASON  DOMAIN         MODE    MODULE   FUNCTION
  900.0     20  45000.0     90000.0  hlt     we\u{1b}[31mb  kernel  vmlinux  default_idle
   30.0  1,500     20.0      3000.0  npf     we\u{1b}[31mb  kernel  vmlinux  iowrite\u{7}16
";
    assert_eq!(stdout(&xenoscope(folder.path(), &["report", "--limit", "3"])), expected.trim_start());
}

/// Why a guest was left stands on what it was doing; that it had nothing to do is no cost.
#[test]
fn exits_are_drawn_by_function_and_reason() {
    let folder = folder();
    for output in ["exits.svg", "exits.html"] {
        assert!(xenoscope(folder.path(), &["flamegraph", "--exits", "-o", output]).status.success());
        let picture = fs::read_to_string(folder.path().join(output)).unwrap();
        assert!(picture.contains("2.0 s of VM exits from exit-trace: 1500 exits"), "{picture}");
        assert!(picture.contains("npf") && !picture.contains("hlt"), "{picture}");
    }
}

#[test]
fn the_report_on_one_domain() {
    let folder = folder();
    let text = stdout(&xenoscope(folder.path(), &["report", "--domain", "3"]));
    assert!(text.contains("in percent of the domain's time\n"), "{text}");
    assert!(text.contains("  57.1%  57.1%  we"), "{text}");
    assert!(!text.contains("Domain-0"), "{text}");
}

#[test]
fn the_report_as_json() {
    let folder = folder();
    let json = stdout(&xenoscope(folder.path(), &["report", "--json", "--domain", "Domain-0"]));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["events"][0]["lost"]["ring-full"], 2);
    assert_eq!(report["events"][0]["domains"].as_array().unwrap().len(), 1);
    assert_eq!(report["events"][0]["domains"][0]["share"], 0.2);
}

#[test]
fn colours_are_for_terminals() {
    let folder = folder();
    assert!(!stdout(&xenoscope(folder.path(), &["report"])).contains('\u{1b}'));
    let forced = command(folder.path(), &["report"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(stdout(&forced).contains("\u{1b}[32m"));
    assert!(!stdout(&forced).contains("\u{1b}[31mb"), "a guest's name must not steer the terminal");
}

#[test]
fn unknown_domains_are_answered_with_the_known() {
    let folder = folder();
    for verb in ["report", "flamegraph"] {
        let output = xenoscope(folder.path(), &[verb, "--domain", "mail"]);
        assert_eq!(output.status.code(), Some(1));
        let error = stderr(&output);
        assert!(
            error.starts_with("xenoscope: error: no domain \"mail\" in this recording; there are: "),
            "{error}"
        );
        assert!(error.contains("Domain-0 (0)"), "{error}");
    }
}

#[test]
fn errors_name_the_file_and_the_cause() {
    let folder = folder();
    let output = xenoscope(folder.path(), &["report", "-i", "absent.xsr"]);
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(error.starts_with("xenoscope: error: could not open absent.xsr: No such file"), "{error}");
    assert_eq!(xenoscope(folder.path(), &["report", "--limit", "many"]).status.code(), Some(2));
}

#[test]
fn a_wrong_event_is_told_in_a_line_before_anything_is_touched() {
    let folder = folder();
    for (arguments, words) in [
        (&["-e", "cycls"][..], "there is no event \"cycls\"; near it: cycles"),
        (&["-e", "cpu/event=0x76"], "no second slash"),
        (&["-e", "cycles:x"], "'x' is no modifier"),
        (&["-e", "cpu-clock,cycles"], "cpu-clock is sampled by the timer"),
    ] {
        let output = xenoscope(folder.path(), &[&["record", "-o", "none.xsr"], arguments].concat());
        assert_eq!(output.status.code(), Some(1));
        let error = stderr(&output);
        assert!(error.contains(words) && error.lines().count() == 1, "{error}");
        assert!(!folder.path().join("none.xsr").exists());
    }
}

#[test]
fn a_torn_recording_is_read_and_said_to_be_torn() {
    let folder = folder();
    let file = folder.path().join("xenoscope.xsr");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
    let text = stdout(&xenoscope(folder.path(), &["report"]));
    assert!(text.contains("Duration  2.0 s, up to where the recording is cut\n"), "{text}");
    assert!(text.contains("Samples   10\n"), "{text}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let folder = folder();
    for args in [&["report"][..], &["report", "--json"], &["flamegraph", "-o", "-"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(folder.path(), args).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), &*stderr(&output)), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn flame_graphs_go_where_they_are_told() {
    let folder = folder();
    assert!(xenoscope(folder.path(), &["flamegraph"]).status.success());
    let machine = fs::read_to_string(folder.path().join("xenoscope.svg")).unwrap();
    assert!(machine.contains("csched2_schedule") && machine.contains("Domain-0"));

    let named = stdout(&xenoscope(folder.path(), &["flamegraph", "--event", "cpu-clock", "-o", "-"]));
    assert_eq!(named, machine);
    let unknown = xenoscope(folder.path(), &["flamegraph", "--event", "cycles"]);
    assert!(stderr(&unknown).contains("no event cycles; it has cpu-clock"), "{}", stderr(&unknown));

    let domain = stdout(&xenoscope(folder.path(), &["flamegraph", "--domain", "3", "-o", "-"]));
    assert!(domain.contains("xenvif_tx") && !domain.contains("csched2_schedule"));

    let each = xenoscope(folder.path(), &["flamegraph", "--per-domain", "--output-dir", "svg"]);
    assert!(each.status.success(), "{}", stderr(&each));
    let mut files: Vec<_> =
        fs::read_dir(folder.path().join("svg")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["Domain-0.svg", "hypervisor.svg", "we__31mb.svg"]);
}

#[test]
fn what_nobody_could_see_is_not_drawn() {
    let folder = folder();
    let replay = ["top", "--replay", "xenoscope.xsr"];
    let output = xenoscope(folder.path(), &replay);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "xenoscope: error: standard output is not a terminal; --once prints a report instead\n"
    );
    let output = command(folder.path(), &replay).env("TERM", "dumb").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("TERM=dumb"), "{}", stderr(&output));
    assert!(
        stdout(&xenoscope(folder.path(), &["top", "--replay", "xenoscope.xsr", "--once"]))
            .contains("Domains")
    );
}
