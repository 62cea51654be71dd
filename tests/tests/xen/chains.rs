//! Are the call chains of guests the ones that there are, with nothing installed in them and no file given?
//!
//! Not among the tests of every run: in most of its boots a hardware guest has ended in a triple fault so far. The emulator
//! is known to do that (docs/lab.md); that capturing stacks has no part in it has not been shown.

use lab::evidence::{chains, kernel_code::KernelCode};

use crate::{
    consoles,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();

const GUESTS: [&str; 3] = ["alpha", "gamma", "eta"];

fn booted() -> &'static Host {
    host(&BOOTED, "chains")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_programs_have_their_one_true_chain_in_each_kind_of_guest() {
    booted().step("record").ended(0);
    consoles::assert_clean(&booted().text("console/xen.log"));
    let observed = booted().observed("chains.xsr");
    observed.assert_balanced();
    for guest in GUESTS {
        for program in ["framed", "frameless"] {
            chains::assert_paths(&observed, guest, program);
        }
    }
    for (guest, program) in [("alpha", "cpp"), ("alpha", "go"), ("gamma", "rust")] {
        chains::assert_paths(&observed, guest, program);
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_kernels_have_the_callers_that_there_are_down_to_the_process() {
    let observed = booted().observed("chains.xsr");
    let code = KernelCode::read(&booted().path("vmlinuz"), &booted().text("kallsyms"));
    for guest in GUESTS {
        chains::assert_kernel(&observed, guest, "syscalls", &code);
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_xens_frames_stand_above_those_whose_exit_led_to_them() {
    let observed = booted().observed("chains.xsr");
    for guest in ["gamma", "eta"] {
        chains::assert_exits(&observed, guest);
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_reports_tell_how_many_chains_are_whole_and_broken_ones_say_why() {
    let (report, observed) = (booted().report("chains.xsr"), booted().observed("chains.xsr"));
    for guest in GUESTS {
        chains::assert_reported(&report, &observed, guest, "framed");
    }
}
