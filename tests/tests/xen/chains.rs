//! Are the call chains of guests the ones that there are, with nothing installed in them and no file given?
//!
//! Hardware guests are not among the tests of every run: the emulator brings down too many of them (docs/lab.md).

use lab::evidence::{chains, kernel_code::KernelCode};

use crate::{
    consoles,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();
static BOOTED_PVH: Booted = Booted::new();
static BOOTED_HVM: Booted = Booted::new();

fn booted() -> &'static Host {
    host(&BOOTED, "chains")
}

fn booted_pvh() -> &'static Host {
    host(&BOOTED_PVH, "chains_pvh")
}

fn booted_hvm() -> &'static Host {
    host(&BOOTED_HVM, "chains_hvm")
}

fn assert_paths(host: &Host, guest: &str, programs: &[&str]) {
    host.step("record").ended(0);
    consoles::assert_clean(&host.text("console/xen.log"));
    let observed = host.observed("chains.xsr");
    observed.assert_balanced();
    for program in programs {
        chains::assert_paths(&observed, guest, program);
    }
}

fn assert_kernel(host: &Host, guest: &str) {
    let code = KernelCode::read(&host.path("vmlinuz"), &host.text("kallsyms"));
    chains::assert_kernel(&host.observed("chains.xsr"), guest, "syscalls", &code);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn programs_have_their_one_true_chain() {
    assert_paths(booted(), "alpha", &["framed", "frameless", "cpp", "go"]);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn kernels_have_the_callers_that_there_are_down_to_the_process() {
    assert_kernel(booted(), "alpha");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn xens_frames_stand_above_those_that_led_to_them() {
    chains::assert_below_hypervisor(&booted().observed("chains.xsr"), "alpha", "syscalls");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn reports_tell_how_many_chains_are_whole_and_broken_ones_say_why() {
    let (report, observed) = (booted().report("chains.xsr"), booted().observed("chains.xsr"));
    chains::assert_reported(&report, &observed, "alpha", "framed");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_chains_of_hardware_guests_are_as_true() {
    assert_paths(booted_pvh(), "gamma", &["framed", "frameless", "rust"]);
    assert_kernel(booted_pvh(), "gamma");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_xens_frames_stand_above_those_whose_exit_led_to_them() {
    booted_pvh().step("exits").ended(0);
    chains::assert_exits(&booted_pvh().observed("exits.xsr"), "epsilon");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_chains_of_guests_with_firmware_are_as_true() {
    assert_paths(booted_hvm(), "eta", &["framed", "frameless"]);
    assert_kernel(booted_hvm(), "eta");
}
