//! Are the call chains of guests the ones that there are, with nothing installed in them and no file given?

use lab::evidence::{chains, kernel_code::KernelCode};

use crate::{
    consoles,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();
static BOOTED_HVM: Booted = Booted::new();

fn booted() -> &'static Host {
    host(&BOOTED, "chains")
}

/// With a guest that takes long to boot.
fn booted_hvm() -> &'static Host {
    host(&BOOTED_HVM, "chains_hvm")
}

fn assert_kernel(host: &Host, guest: &str) {
    let code = KernelCode::read(&host.path("vmlinuz"), &host.text("kallsyms"));
    chains::assert_kernel(&host.observed("chains.xsr"), guest, "syscalls", &code);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_programs_of_paravirtualized_guests_have_their_one_true_chain() {
    booted().step("record").ended(0);
    consoles::assert_clean(&booted().text("console/xen.log"));
    let observed = booted().observed("chains.xsr");
    observed.assert_balanced();
    for program in ["framed", "frameless", "cpp", "go"] {
        chains::assert_paths(&observed, "alpha", program);
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_programs_of_hardware_guests_have_their_one_true_chain() {
    let observed = booted().observed("chains.xsr");
    for program in ["framed", "frameless", "rust"] {
        chains::assert_paths(&observed, "gamma", program);
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_kernels_have_the_callers_that_there_are_down_to_the_process() {
    for guest in ["alpha", "gamma"] {
        assert_kernel(booted(), guest);
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_xens_frames_stand_above_those_that_led_to_them() {
    chains::assert_below_hypervisor(&booted().observed("chains.xsr"), "alpha", "syscalls");
    booted().step("exits").ended(0);
    chains::assert_exits(&booted().observed("exits.xsr"), "epsilon");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_reports_tell_how_many_chains_are_whole_and_broken_ones_say_why() {
    let (report, observed) = (booted().report("chains.xsr"), booted().observed("chains.xsr"));
    for guest in ["alpha", "gamma"] {
        chains::assert_reported(&report, &observed, guest, "framed");
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_chains_of_guests_with_firmware_are_as_true() {
    booted_hvm().step("record").ended(0);
    let observed = booted_hvm().observed("chains.xsr");
    observed.assert_balanced();
    for program in ["framed", "frameless"] {
        chains::assert_paths(&observed, "eta", program);
    }
    assert_kernel(booted_hvm(), "eta");
}
