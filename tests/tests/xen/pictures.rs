//! Are the pictures there, and do they show what was recorded?

use std::{collections::BTreeSet, fs};

use crate::accuracy::loads;

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn there_is_a_picture_of_the_machine_and_one_of_each_domain() {
    loads().step("pictures").ended(0);
    let machine = picture("machine.svg");
    for name in ["alpha_hot", "gamma_hot", "beta", "Domain-0"] {
        assert!(machine.contains(name), "the machine's picture has no {name}");
    }
    let files = fs::read_dir(loads().path("domains")).unwrap().map(|entry| entry.unwrap().file_name());
    let files: BTreeSet<String> = files.map(|name| name.into_string().unwrap()).collect();
    let expected: BTreeSet<String> =
        ["Domain-0.svg", "alpha.svg", "beta.svg", "gamma.svg"].map(str::to_owned).into();
    assert!(files.is_superset(&expected), "{files:?}");
    // Xen may have worked for itself, or not.
    assert!(files.difference(&expected).all(|name| name == "hypervisor.svg"), "{files:?}");
    let alpha = picture("domains/alpha.svg");
    assert!(alpha.contains("alpha_warm") && !alpha.contains("gamma_warm"));
}

fn picture(path: &str) -> String {
    let text = loads().text(path);
    assert!(text.starts_with("<?xml") && text.trim_end().ends_with("</svg>"), "{path} is no SVG");
    text
}
