//! Exchange with other tools.
//!
//! Comes in: a recording, sample by sample or counted ([`Aggregate`](analysis::Aggregate)); or a `perf.data`. Goes out: folded
//! stacks, pprof, Firefox Profiler's processed profile, speedscope's JSON, text as `perf script` writes it, CSV, Parquet,
//! stacks as they were copied; or a recording. Not here: pictures, terminals, the network; and no `unsafe`.
//!
//! What a guest chose is text, and each format's own escaping is what keeps it that.
#![forbid(unsafe_code)]

mod csv;
mod firefox;
mod folded;
mod import;
mod parquet;
mod perf_file;
mod place;
mod pprof;
mod script;
mod speedscope;
mod stacks;
mod table;

use std::io;

pub use self::{
    csv::write_csv,
    firefox::write_firefox,
    folded::write_folded,
    import::{ImportError, Imported, KernelSymbols, import_perf},
    parquet::{ParquetError, write_parquet},
    pprof::{Processes, Stretch, write_pprof},
    script::write_script,
    speedscope::write_speedscope,
    stacks::write_stacks,
};

/// An export could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording could not be read.
    #[error(transparent)]
    Recording(#[from] profile::recording::RecordingError),
    /// The export could not be written.
    #[error("could not write the export")]
    Write(#[from] io::Error),
    /// The export could not be written as JSON.
    #[error("could not write the export")]
    Json(#[from] serde_json::Error),
    /// Parquet's writer failed.
    #[error("could not write the Parquet file")]
    Parquet(#[from] ParquetError),
}
