//! Is a guest that moves while it is recorded told as one, with its names and its chains?

use lab::evidence::chains;
use profile::{DomainId, Mode, recording::Move};

use crate::{
    consoles, figures,
    host::{Booted, Host, host},
    lifecycle::visits,
    observed::Observed,
};

static BOOTED: Booted = Booted::new();

/// The host with guests that move, and with one that keeps dom0 busy.
pub(crate) fn moves() -> &'static Host {
    host(&BOOTED, "moves")
}

/// Each guest, its program, and how often it moved.
const MOVED: [(&str, &str, usize); 2] = [("alpha", "frameless", 1), ("beta", "framed", 2)];

/// What a guest was, one after the other.
fn stays(observed: &Observed, guest: &str) -> Vec<DomainId> {
    let all = observed.recorded.tables.domains().filter(|domain| domain.name == guest);
    all.map(|domain| domain.id).collect()
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_guest_that_is_saved_and_restored_and_then_not_saved_stays_one() {
    let step = visits().step("moved").ended(0);
    assert!(!step.stdout.contains("was saved"), "{}", step.stdout);
    let (observed, report) = (visits().observed("moved.xsr"), visits().report("moved.xsr"));
    observed.assert_balanced();
    let stays = stays(&observed, "alpha");
    assert_eq!(
        (stays.len(), report.domain("alpha").moves.len()),
        (2, 1),
        "{:?}",
        report.domain("alpha").moves
    );
    figures::figure(
        "alpha ran nowhere for, s",
        format_args!("{:.1}", report.domain("alpha").moves[0].away_s),
    );
    for &stay in &stays {
        let samples = observed.once_named(stay, Mode::User);
        let own = |name: &str| name.starts_with("alpha_");
        let right = samples.iter().filter(|sample| observed.function(sample).is_some_and(own)).count();
        figures::figure(
            format_args!("samples of {stay:?} in alpha's program"),
            format_args!("{right} of {}", samples.len()),
        );
        assert!(right > 100 && right * 100 >= samples.len() * 95, "{stay:?}: {right} of {}", samples.len());
    }
    assert_eq!(observed.recorded.tables.gone(stays[1]), None, "it was not saved");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_guests_that_are_saved_or_migrated_stay_one_row() {
    moves().step("moves").ended(0);
    consoles::assert_clean(&moves().text("console/xen.log"));
    let (observed, report) = (moves().observed("moves.xsr"), moves().report("moves.xsr"));
    observed.assert_balanced();
    for (guest, program, times) in MOVED {
        let row = report.domain(guest);
        assert_eq!(row.moves.len(), times, "{guest}: {:?}", row.moves);
        for moved in &row.moves {
            figures::figure(format_args!("{guest} ran nowhere for, s"), format_args!("{:.1}", moved.away_s));
            assert!(moved.to > moved.from && moved.away_s > 0.0, "{guest}: {moved:?}");
        }
        let processes = row.processes.iter().filter(|process| process.name.as_deref() == Some(program));
        assert_eq!(processes.count(), 1, "{guest}: {:?}", row.processes);
        let noted = report.notes.iter().filter(|note| note.text.starts_with(&format!("{guest} was moved")));
        assert_eq!(noted.count(), times, "{:?}", report.notes);
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_a_guest_has_its_names_and_chains_wherever_it_is_and_none_in_between() {
    let observed = moves().observed("moves.xsr");
    for (guest, program, times) in MOVED {
        let stays = stays(&observed, guest);
        assert_eq!(stays.len(), times + 1, "{guest}");
        for &stay in &stays {
            chains::assert_paths_of(&observed, stay, program);
        }
        for (pair, moved) in stays.windows(2).zip(moves_of(&observed, &stays)) {
            assert_eq!((moved.from, moved.to), (pair[0], pair[1]));
            // What Xen does when the guest asks to be suspended comes after its last own instruction.
            let last = observed.own_samples_of(pair[0]).map(|sample| sample.time).max().unwrap();
            let first = observed.own_samples_of(pair[1]).map(|sample| sample.time).min().unwrap();
            let gap_s = first.0.checked_sub(last.0).expect("it was never in two places") as f64 / 1e9;
            figures::figure(format_args!("{guest}, s between two samples"), format_args!("{gap_s:.1}"));
            assert!(last <= moved.left, "{guest} ran when it had left: {last:?}, {moved:?}");
        }
    }
}

fn moves_of<'a>(observed: &'a Observed, stays: &'a [DomainId]) -> impl Iterator<Item = &'a Move> {
    observed.recorded.tables.moves().filter(|moved| stays.contains(&moved.to))
}

/// One migration and two saves failed: the guests were never anything else.
#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_moves_that_fail_are_none() {
    let step = moves().step("moves").ended(0);
    let migrated = step.stdout.contains("beta was migrated") && !step.stdout.contains("alpha was migrated");
    assert!(migrated && !step.stdout.contains("was saved"), "{}", step.stdout);
    assert!(step.stderr.contains("Migration failed"), "{}", step.stderr);
    let observed = moves().observed("moves.xsr");
    for (guest, ..) in MOVED {
        let last = *stays(&observed, guest).last().unwrap();
        let destroyed = observed.recorded.tables.gone(last).expect("it was destroyed in the end");
        let end = observed.samples_of(last).map(|sample| sample.time).max().unwrap();
        let before_end_s = destroyed.0.saturating_sub(end.0) as f64 / 1e9;
        figures::figure(format_args!("{guest} ran until so many s before it was destroyed"), before_end_s);
        assert!(before_end_s < 2.0, "{guest} was lost when it was not saved");
    }
}
