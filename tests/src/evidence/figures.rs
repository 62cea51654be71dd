//! Figures in the log, in a form that is easily found, and those that the program prints.

use std::fmt::Display;

/// Prints a figure.
pub fn figure(name: impl Display, value: impl Display) {
    println!("figure: {name} = {value}");
}

/// Prints a figure that is a share.
pub fn share(name: impl Display, share: f64) {
    figure(name, format_args!("{:.2} %", share * 100.0));
}

/// How many samples a shim had taken, each time that `doctor` told it.
pub fn taken(doctor: &str) -> Vec<u64> {
    let told = doctor.lines().filter_map(|line| line.split_once(" samples taken"));
    told.map(|(before, _)| before.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}
