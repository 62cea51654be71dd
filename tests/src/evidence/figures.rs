//! Figures in the log, in a form that is easily found.

use std::fmt::Display;

/// Prints a figure.
pub fn figure(name: impl Display, value: impl Display) {
    println!("figure: {name} = {value}");
}

/// Prints a figure that is a share.
pub fn share(name: impl Display, share: f64) {
    figure(name, format_args!("{:.2} %", share * 100.0));
}
