//! The dashboard on recordings that are known to the last sample.

mod counting;
mod hands;
mod machine;
mod pictures;
