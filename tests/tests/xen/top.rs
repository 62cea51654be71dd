//! Does the dashboard show what runs, on a terminal of dom0's, while guests come, boot anew and go?

use lab::evidence::shown::Shown;

use crate::{
    figures,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();

fn watched() -> &'static Host {
    host(&BOOTED, "top")
}

fn shown(name: &str) -> Shown {
    Shown::read(&watched().path(name), 100, 30)
}

fn assert_shows(screen: &str, texts: &[&str]) {
    for text in texts {
        assert!(screen.contains(text), "no {text} in\n{screen}");
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_busiest_guest_is_shown_down_to_its_instructions() {
    let shown = shown("top.tty");
    let guest = shown.first(&["alpha"]).expect("the guest is never shown");
    let function = shown.first(&["alpha", "alpha_hot"]).expect("its function is never shown");
    figures::figure("the busiest guest is shown after, ms", guest);
    figures::figure("its busiest function, named by its memory, after, ms", function);
    let first = shown.at("first");
    println!("{first}");
    assert_shows(&first, &["LIVE", "lost 0", "overhead", "Domain-0", "hypervisor"]);
    let line_of = |text: &str| first.lines().position(|line| line.contains(text)).unwrap_or(usize::MAX);
    assert_eq!(line_of("alpha"), line_of("NOW WINDOW") + 1, "{first}");
    assert_shows(&shown.at("processes"), &["hot ["]);
    assert_shows(&shown.at("functions"), &["alpha_hot", "alpha_warm", "alpha_cool"]);
    let code = shown.at("code");
    println!("{code}");
    // The loop in hot.c adds to a variable in memory; its instructions are the guest's memory's.
    assert_shows(&code, &["5 code", "alpha_hot", "INSTRUCTION", "add", "xor"]);
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
