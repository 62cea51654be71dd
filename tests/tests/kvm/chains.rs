//! Are the call chains of guests the ones that there are, with nothing installed in them and no file given?

use lab::evidence::{chains, kernel_code::KernelCode};

use crate::host::{Booted, Host, host};

static BOOTED: Booted = Booted::new();

fn booted() -> &'static Host {
    host(&BOOTED, "kvm_chains")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn programs_have_their_one_true_chain_with_and_without_frame_pointers() {
    booted().step("record").ended(0);
    let observed = booted().observed("chains.xsr");
    observed.assert_balanced();
    for (guest, programs) in [("alpha", &["framed", "cpp"][..]), ("beta", &["frameless", "rust", "go"])] {
        for program in programs {
            chains::assert_paths(&observed, guest, program);
        }
    }
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn kernels_have_the_callers_that_there_are_down_to_the_process() {
    let observed = booted().observed("chains.xsr");
    let code = KernelCode::read(&booted().path("vmlinuz"), &booted().text("kallsyms"));
    chains::assert_kernel(&observed, "alpha", "syscalls", &code);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn the_hosts_frames_stand_above_those_whose_exit_led_to_them() {
    chains::assert_exits(&booted().observed("chains.xsr"), "beta");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn reports_tell_how_many_chains_are_whole_and_broken_ones_say_why() {
    let observed = booted().observed("chains.xsr");
    let whole = chains::assert_reported(&booted().report("chains.xsr"), &observed, "alpha", "framed");
    assert!(whole > 0.95, "{whole}");
    // Of so little of each stack most chains can't be whole.
    booted().step("short").ended(0);
    let observed = booted().observed("short.xsr");
    let broken = chains::assert_reported(&booted().report("short.xsr"), &observed, "alpha", "framed");
    assert!(broken < 0.5, "{broken}");
}
