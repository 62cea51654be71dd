//! Writes a recording of 1,000 domains with 100,000 functions: `cargo run -p xenoscope-tui --example crowd FILE SECONDS`.

#[path = "../benches/crowd/mod.rs"]
mod crowd;

use std::{env, fs::File, io::BufWriter};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [file, seconds] = [1, 2].map(|at| env::args().nth(at).ok_or("which file, and how many seconds?"));
    crowd::write(BufWriter::new(File::create(file?)?), 1_000, 100_000, seconds?.parse()?);
    Ok(())
}
