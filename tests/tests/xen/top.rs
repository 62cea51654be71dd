//! Does the dashboard show what runs, on a terminal of dom0's, while guests come, boot anew and go?

use lab::evidence::shown::{Shown, assert_shows};

use crate::host::{Booted, Host, host};

static BOOTED: Booted = Booted::new();

fn watched() -> &'static Host {
    host(&BOOTED, "top")
}

fn shown(name: &str) -> Shown {
    Shown::read(&watched().path(name), 100, 30)
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_busiest_guest_is_shown_down_to_its_instructions() {
    let shown = shown("top.tty");
    shown.assert_drilled_down("alpha", "alpha");
    assert_shows(&shown.at("first"), &["Domain-0", "hypervisor"]);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn guests_that_come_boot_anew_and_go_are_told() {
    let shown = shown("top.tty");
    assert_shows(&shown.at("created"), &["born", "delta (number"]);
    let rebooted = shown.at("rebooted");
    println!("{rebooted}");
    assert_shows(&rebooted, &["rebooted", "is there again", "died"]);
    assert!(shown.at("destroyed").matches("died").count() > rebooted.matches("died").count());
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn nothing_stays_behind_on_the_terminal_nor_in_the_hypervisor() {
    let step = watched().step("top").ended(0);
    assert!(step.stdout.contains("ended 0") && step.stdout.contains("terminal as before"), "{}", step.stdout);
    assert!(shown("top.tty").is_given_back());
    step.left_nothing_loaded();
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_hypervisors_console_stays_clean() {
    crate::consoles::assert_clean(&watched().text("console/xen.log"));
}
