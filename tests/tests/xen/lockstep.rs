//! Is a guest that works in step with a clock of the sampler's own rate seen as it is?

use crate::{accuracy, figures, host::Host};

/// What the program says of itself: seconds of CPU, and of wall time.
struct Told {
    cpu_s: f64,
    wall_s: f64,
}

/// Percentage points between what the guest's own kernel charged to the program, and what was sampled of the guest:
/// its kernel's and Xen's work for it comes on top of the former.
const LEAST_SHARE_SEEN: f64 = 0.9;

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_guest_in_step_with_the_sampler_is_neither_hidden_nor_blown_up() {
    let host = accuracy::loads();
    let report = host.report("lockstep.xsr");
    accuracy::assert_shares(&report);

    let guest = report.domain("lockstep");
    let observed = host.observed("lockstep.xsr");
    let duration = (observed.recorded.until.0 - observed.recorded.header.started.0) as f64;
    let sampled = guest.weight as f64 / duration;
    let told = told(host);
    let charged = told.cpu_s / told.wall_s;
    figures::share("lockstep, of one CPU, sampled", sampled);
    figures::share("lockstep, of one CPU, by its own getrusage", charged);
    let work = observed.samples_of(observed.domain("lockstep"));
    let work: u64 =
        work.filter(|sample| observed.function(sample) == Some("phaselock_work")).map(|s| s.weight).sum();
    figures::share("phaselock_work, of one CPU, sampled", work as f64 / duration);
    assert!(sampled > LEAST_SHARE_SEEN * charged, "{sampled} of a CPU was sampled, {charged} used");
    assert!(work > 0, "the function that works was never seen");
}

/// The lines that the program wrote while it was recorded.
fn told(host: &Host) -> Told {
    let step = host.step("lockstep").ended(0);
    let counts =
        step.stdout.lines().find_map(|line| line.strip_prefix("lines ")).expect("the numbers of lines");
    let counts: Vec<usize> = counts.split(' ').map(|count| count.parse().unwrap()).collect();
    let console = host.text("console/lockstep.log");
    let lines = console.lines().filter_map(|line| line.split_once("phaselock: cpu ").map(|(_, rest)| rest));
    let numbers = |line: &str| -> Vec<f64> { line.split(' ').filter_map(|word| word.parse().ok()).collect() };
    let during = lines.skip(counts[0]).take(counts[1] - counts[0]).map(numbers);
    during.fold(Told { cpu_s: 0.0, wall_s: 0.0 }, |sum, line| Told {
        cpu_s: sum.cpu_s + line[0],
        wall_s: sum.wall_s + line[1],
    })
}
