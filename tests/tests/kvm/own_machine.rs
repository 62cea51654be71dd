//! A Linux machine without guests, this one: its processes, their names, and the books.

use std::{thread, time::Duration};

use profile::{DomainId, Mode};

use crate::{
    bootstrap, figures,
    observed::Observed,
    recorder::{Load, Recorder, program, signal},
};

/// Longer than anything that the loads do as a whole.
const BLOCK_NS: u64 = 100_000_000;

/// The exit code of a failure of the recorder's, where there is a command.
const OWN_FAILURE: i32 = 125;

fn host(observed: &Observed) -> DomainId {
    observed.domain("host")
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn functions_have_the_share_that_their_program_gives_them() {
    let Some(recorder) = Recorder::new() else { return };
    let load = Load::start("hot.c", &["-DNAME=local"]);
    let output = recorder.record(&["-F", "1000", "--duration", "8"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let observed = recorder.observed();
    observed.assert_balanced();
    let all = ["hot", "warm", "cool"].map(|function| format!("local_{function}"));
    for (function, truth) in all.iter().zip([0.7, 0.2, 0.1]) {
        let blocks = observed.blocks(host(&observed), &all, function, BLOCK_NS);
        let (share, error) = (bootstrap::share(&blocks), bootstrap::standard_error(&blocks));
        let measured = format!("{:.2} ± {:.2} % of {:.0} %", share * 100.0, error * 100.0, truth * 100.0);
        figures::figure(function, &measured);
        assert!((share - truth).abs() < 4.0 * error, "{function}: {measured}");
    }
    let report = recorder.report();
    let process = report.domain("host").processes.iter().find(|process| process.pid == Some(load.pid()));
    let process = process.expect("the program is among the processes");
    assert!(process.name.as_deref().is_some_and(|name| name.starts_with("hot-")), "{process:?}");
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let container = process.container.as_deref().expect("every process has a group");
    assert!(own.lines().any(|line| line.ends_with(container)), "{container} is not among {own}");
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn the_samples_stand_for_the_time_that_the_kernel_accounts() {
    let Some(recorder) = Recorder::new() else { return };
    let _load = Load::start("hot.c", &["-DNAME=local"]);
    recorder.record(&["-F", "1000", "--duration", "8"]);
    let report = recorder.report();
    let host = report.domain("host");
    let (sampled, accounted) = (host.weight as f64 / 1e9, host.cpu_s.unwrap());
    figures::figure("seconds of CPU time, sampled", format_args!("{sampled:.2}"));
    figures::figure("seconds of CPU time, accounted by the kernel", format_args!("{accounted:.2}"));
    assert!((sampled / accounted - 1.0).abs() < 0.05, "{sampled} s sampled, {accounted} s accounted");
}

/// Each life is shorter than the time between two looks at the rings.
#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn programs_that_live_for_a_moment_have_their_names() {
    let Some(recorder) = Recorder::new() else { return };
    let fresh = program("syscalls.c", &["-DNAME=fresh"]);
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do timeout 0.04 {}; done",
        fresh.display()
    );
    let output = recorder.record(&["-F", "4000", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(124), "the command's own status is passed on");
    let observed = recorder.observed();
    let name = |sample: &_| observed.process_name(sample).unwrap_or_default().to_owned();
    let user: Vec<_> = observed
        .samples_of(host(&observed))
        .filter(|sample| sample.mode == Mode::User && name(sample).starts_with("syscalls-"))
        .collect();
    let lives: std::collections::BTreeSet<_> = user.iter().map(|sample| sample.process).collect();
    let named = user.iter().filter(|sample| observed.function(sample).is_some()).count();
    figures::figure("lives of 40 ms that were seen", format_args!("{} of 20", lives.len()));
    figures::figure("their user samples that have names", format_args!("{named} of {}", user.len()));
    assert!(lives.len() >= 15, "{} lives", lives.len());
    assert!(named as f64 >= 0.99 * user.len() as f64, "{named} of {} are named", user.len());
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn what_a_collector_that_stood_still_lost_is_counted() {
    let Some(recorder) = Recorder::new() else { return };
    let mut process = recorder.start(&["-F", "1000", "--ring-size", "4K", "--duration", "5"]);
    thread::sleep(Duration::from_secs(1));
    signal(&process, "STOP");
    thread::sleep(Duration::from_secs(2));
    signal(&process, "CONT");
    assert!(process.wait().unwrap().success());
    let observed = recorder.observed();
    observed.assert_balanced();
    let lost: u64 = observed.accounts().iter().map(|(_, account)| account.lost_total()).sum();
    figures::figure("samples lost in two seconds of standing still", lost);
    assert!(lost > 500, "{lost} samples were lost");
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn nothing_is_lost_at_four_kilohertz() {
    let Some(recorder) = Recorder::new() else { return };
    let loads = [Load::start("hot.c", &["-DNAME=local"]), Load::start("syscalls.c", &["-DNAME=calls"])];
    recorder.record(&["-F", "4000", "--duration", "8"]);
    drop(loads);
    let observed = recorder.observed();
    observed.assert_balanced();
    let lost: u64 = observed.accounts().iter().map(|(_, account)| account.lost_total()).sum();
    figures::figure("samples at 4 kHz on all CPUs", observed.samples.len());
    assert_eq!(lost, 0, "samples were lost");
    assert!(!recorder.report().notes_say("news of processes were lost"));
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn a_killed_collector_leaves_what_it_had() {
    let Some(recorder) = Recorder::new() else { return };
    let mut process = recorder.start(&["-F", "1000"]);
    thread::sleep(Duration::from_secs(4));
    process.kill().unwrap();
    process.wait().unwrap();
    let report = recorder.report();
    assert!(!report.complete && report.event().samples > 0, "{} samples", report.event().samples);
}

#[test]
#[ignore = "samples this machine: cargo xtask test"]
fn users_without_privileges_get_their_command_or_an_explanation() {
    let Some(recorder) = Recorder::new() else { return };
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    let paranoid: i32 = paranoid.trim().parse().unwrap();
    if paranoid < 1 {
        println!("skipped: everybody may sample this machine (kernel.perf_event_paranoid is {paranoid})");
        return;
    }
    for arguments in [&["-a", "--duration", "1"][..], &["--duration", "1"], &["-a", "--", "true"]] {
        let output = recorder.record_unprivileged(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        // Beside a command, whose own status is passed on, a failure of ours has a number of its own.
        let failed = if arguments.contains(&"--") { OWN_FAILURE } else { 1 };
        assert_eq!(output.status.code(), Some(failed), "{error}");
        assert!(error.contains("cap_perfmon") && error.contains(&format!("is {paranoid})")), "{error}");
    }
    let hot = recorder.copy_of(&program("hot.c", &["-DNAME=local"]));
    let command = ["-F", "1000", "--", "timeout", "2", hot.to_str().unwrap()];
    let output = recorder.record_unprivileged(&command);
    if paranoid > 2 {
        assert_eq!(output.status.code(), Some(OWN_FAILURE), "nothing at all is allowed");
        return;
    }
    assert_eq!(output.status.code(), Some(124), "{}", String::from_utf8_lossy(&output.stderr));
    let observed = recorder.observed();
    observed.assert_balanced();
    let programs = observed.samples.iter().filter(|sample| sample.mode == Mode::User);
    let names: Vec<_> = programs.map(|sample| observed.function(sample).unwrap_or_default()).collect();
    let hot = names.iter().filter(|name| **name == "local_hot").count();
    figures::figure(
        "samples of an unprivileged user's command",
        format_args!("{hot} of {} in local_hot", names.len()),
    );
    assert!(hot as f64 > 0.6 * names.len() as f64 && names.len() > 200, "{hot} of {}", names.len());
    assert!(recorder.report().notes_say("only the command was sampled"));
}
