//! Writes inputs to begin with into `corpus/`.

use std::{fs, io};

fn main() -> io::Result<()> {
    for (target, seed) in xenoscope_fuzz::seeds() {
        let folder = format!("corpus/{target}");
        fs::create_dir_all(&folder)?;
        fs::write(format!("{folder}/seed"), seed)?;
    }
    Ok(())
}
