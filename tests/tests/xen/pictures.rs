//! Are the pictures there, and do they show what was recorded?

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{accuracy::loads, observed::Observed};

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn there_is_a_picture_of_the_machine_and_one_of_each_domain() {
    loads().step("pictures").ended(0);
    let files = fs::read_dir(loads().path("domains")).unwrap().map(|entry| entry.unwrap().file_name());
    let files: BTreeSet<String> = files.map(|name| name.into_string().unwrap()).collect();
    let expected: BTreeSet<String> =
        ["Domain-0.svg", "alpha.svg", "beta.svg", "gamma.svg", "eta.svg"].map(str::to_owned).into();
    assert!(files.is_superset(&expected), "{files:?}");
    // Xen may have worked for itself, or not.
    assert!(files.difference(&expected).all(|name| name == "hypervisor.svg"), "{files:?}");
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn hot_functions_are_as_wide_as_their_share() {
    loads().step("pictures").ended(0);
    let observed = loads().observed("loads.xsr");
    let machine = picture("machine.svg");
    let all: u64 = observed.samples.iter().map(|sample| sample.weight).sum();
    for guest in ["alpha", "gamma", "eta"] {
        let own = picture(&format!("domains/{guest}.svg"));
        let domain: u64 = observed.samples_of(observed.domain(guest)).map(|sample| sample.weight).sum();
        assert_width(&machine, guest, domain as f64 / all as f64);
        for function in ["hot", "warm", "cool"] {
            let name = format!("{guest}_{function}");
            let weight = weight(&observed, guest, &name);
            assert_width(&machine, &name, weight as f64 / all as f64);
            assert_width(&own, &name, weight as f64 / domain as f64);
        }
        let other = if guest == "alpha" { "gamma_warm" } else { "alpha_warm" };
        assert!(!own.contains_key(other), "{guest}'s picture shows {other}");
    }
}

fn weight(observed: &Observed, guest: &str, function: &str) -> u64 {
    let samples = observed.samples_of(observed.domain(guest));
    samples.filter(|sample| observed.function(sample) == Some(function)).map(|sample| sample.weight).sum()
}

/// Fails unless a frame of this name is as wide as it must be, of the whole picture.
fn assert_width(picture: &BTreeMap<String, f64>, name: &str, share: f64) {
    let width = picture.get(name).unwrap_or_else(|| panic!("no {name} in the picture"));
    // The picture has four places behind the point of a percentage.
    assert!((width - share).abs() < 1e-5, "{name} is {width} wide, not {share}");
}

/// The frames of a picture by name, and how wide they are of the whole.
fn picture(path: &str) -> BTreeMap<String, f64> {
    let text = loads().text(path);
    assert!(text.starts_with("<?xml") && text.trim_end().ends_with("</svg>"), "{path} is no SVG");
    frames(&text)
}

fn frames(svg: &str) -> BTreeMap<String, f64> {
    let mut frames = BTreeMap::new();
    for frame in svg.split("<g><title>").skip(1) {
        let (title, rest) = frame.split_once("</title>").expect("a title ends");
        let name = title.rsplit_once(" (").map_or(title, |(name, _)| name);
        let width = rest.split_once(" width=\"").and_then(|(_, rest)| rest.split_once("%\""));
        let (width, _) = width.expect("a frame has a width");
        *frames.entry(name.to_owned()).or_default() += width.parse::<f64>().expect("a number") / 100.0;
    }
    frames
}

#[test]
fn frames_are_read() {
    let svg = "<svg><g><title>a_hot (300 ns, 0.59%)</title><rect x=\"0.0000%\" y=\"77\" width=\"0.5949%\" height=\"15\"/></g>\
        <g><title>all (9 ns, 100%)</title><rect x=\"0%\" y=\"1\" width=\"100%\"/></g></svg>";
    let frames = frames(svg);
    assert!((frames["a_hot"] - 0.005949).abs() < 1e-9);
    assert_eq!(frames["all"], 1.0);
}
