//! Is what is captured of stacks what is there, and nothing that the guest could not read?

use serde_json::Value;

use crate::{
    consoles, figures,
    host::{Host, scenario},
};

fn captured(host: &Host, file: &str) -> Value {
    serde_json::from_str(&host.text(file)).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn stacks_are_what_is_there_and_hostile_pointers_lead_nowhere() {
    let scenario = scenario("stacks").unwrap();
    let host = Host::run_with("stacks", &scenario, vec![lab::stretches().unwrap()]).unwrap();
    for step in ["off", "stacks", "frames", "stress"] {
        host.step(step).ended(0);
    }
    consoles::assert_clean(&host.text("console/xen.log"));
    // The guests have the numbers from 1 on, in the order in which they were started.
    let guests = 1..=scenario.guests.len() as u64;
    let stacks = captured(&host, "stacks.json");
    for guest in guests.clone() {
        let domain = &stacks["domains"][guest.to_string()];
        let (pattern, broken) = (number(&domain["pattern"]), number(&domain["broken"]));
        figures::figure(
            format_args!("domain {guest}: words of a known stack, and wrong ones among them"),
            format_args!("{pattern}, {broken}"),
        );
        assert!(pattern > 10_000 && broken == 0, "{domain}");
        let (same, different) = (number(&domain["same"]), number(&domain["different"]));
        assert!(same > 10_000 && different == 0, "compared with the guest's memory: {domain}");
    }
    for file in ["stacks.json", "stress.json"] {
        let captured = captured(&host, file);
        for (guest, domain) in captured["domains"].as_object().unwrap() {
            assert_eq!(number(&domain["broken"]), 0, "{file}, {guest}: {domain}");
            assert_eq!(number(&domain["hostile_with_bytes"]), 0, "{file}, {guest}: {domain}");
        }
        let hostile: u64 =
            guests.clone().map(|guest| number(&captured["domains"][guest.to_string()]["hostile"])).sum();
        assert!(hostile > 50, "{file}: {hostile} samples of a hostile stack pointer");
    }
    for file in ["off.json", "stacks.json", "frames.json", "stress.json"] {
        let captured = captured(&host, file);
        let of_all = |what: &str| -> u64 {
            let accounts = captured["accounts"].as_array().unwrap();
            accounts.iter().map(|account| number(&account[what])).sum()
        };
        let (taken, lost) = (of_all("taken"), of_all("lost"));
        figures::figure(format_args!("{file}: samples, and lost ones"), format_args!("{taken}, {lost}"));
        // Where dom0 can't run for a while, rings of whole stacks are soon full.
        let handed_over = number(&captured["samples"]);
        assert_eq!(
            (handed_over, handed_over + lost),
            (of_all("written"), taken),
            "{file}: {}",
            captured["accounts"]
        );
        assert!(handed_over > taken / 2, "{file}: {lost} of {taken} are lost");
        let bytes: u64 =
            captured["domains"].as_object().unwrap().values().map(|it| number(&it["bytes"])).sum();
        figures::figure(
            format_args!("{file}: nanoseconds and bytes of stacks a sample"),
            format_args!("{}, {}", of_all("own_ns") / taken, bytes / taken),
        );
    }
}
