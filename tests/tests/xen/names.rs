//! Are guests' kernels, processes and functions named rightly, with no file of theirs given?
//!
//! In the emulator looking into a guest takes seconds, a hundred times what it takes elsewhere: what is judged are the
//! samples from the first named one on.

use serde_json::Value;

use crate::{
    host::{Host, scenario},
    kernels::{self, Named},
    programs::{self, Symbols},
    reuse,
};

/// Stripped; what was stripped off is in the store of symbols.
const STRIPPED: &str = "bare";

/// Runs the scenario with one of its guests, and judges the names of its kernel, which is of some release, and of these
/// programs.
fn assert_named(guest: &str, release: &str, programs: &[&str]) -> Named {
    let mut scenario = scenario("names").unwrap();
    scenario.guests.retain(|other| other.name.get_ref() == guest);
    let host = Host::run(&format!("names-{guest}"), &scenario).unwrap();
    host.step("record").ended(0);
    let observed = host.observed("names.xsr");
    observed.assert_balanced();

    let survey = survey(&host, guest);
    let named = kernels::assert_named(&host, &observed, guest, &host.text("symbols/kallsyms"));
    let kernel = &survey["kernel"];
    assert!(kernel["release"].as_str().unwrap().starts_with(release), "{kernel}");
    assert_eq!(kernel["slide"], format!("{:#x}", named.slide));

    let files = survey["files"].as_array().unwrap();
    programs::assert_named(&host, &observed, guest, programs, |image| {
        let path = host.path(format!("symbols/{image}"));
        let is_it = |file: &&Value| file["path"].as_str().unwrap().rsplit('/').next() == Some(image);
        match files.iter().find(is_it) {
            _ if image == STRIPPED => Symbols::All(path),
            Some(file) if file["named"] == "all" => Symbols::All(path),
            Some(_) => Symbols::Some(path),
            None => Symbols::None,
        }
    });
    reuse::assert_right(&observed, guest);
    named
}

/// What `domains --verbose` tells of a guest's memory.
fn survey(host: &Host, guest: &str) -> Value {
    let told: Value = serde_json::from_str(&host.step("look").ended(0).stdout).unwrap();
    let mut rows = told["domains"].as_array().unwrap().iter();
    rows.find(|row| row["name"] == guest).unwrap()["survey"].clone()
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn a_paravirtualized_guest_with_a_module_and_a_stripped_program() {
    let named = assert_named("alpha", "5.10.", &["hot", "syscalls", "cpp", "bare"]);
    assert!(named.in_modules.get("overlay").is_some_and(|samples| *samples > 10), "{:?}", named.in_modules);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_a_guest_with_a_device_model_whose_kernel_lies_where_it_likes_and_whose_root_is_a_disk() {
    assert_named("eta", "6.1.", &["hot", "syscalls", "cpp"]);
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn long_a_hardware_guest_whose_kernel_has_page_tables_of_its_own() {
    assert_named("gamma", "6.12.", &["syscalls", "rust", "go"]);
}
