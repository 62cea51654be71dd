//! `xenoscope enrich`: a recording with what debug information adds.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use profile::recording::{Recording, Selection, SourceCode, SourceFrame, Tables};
use symbolizer::{DebugInfo, SymbolFiles, SymbolStore};

use crate::{DEFAULT_RECORDING, copy, sampling};

/// Add inlined functions and lines of source to a recording
///
/// Debug information (DWARF) is found by the build ids of what was sampled in user space: among the files given here and
/// what `xenoscope symbols add` has kept, below /usr/lib/debug, and, if that is allowed, at a server. All else in the
/// recording stays as it is, and every command reads the copy as it reads the original.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope enrich -o full.xsr                             what this host has of debug information
  xenoscope enrich --file target/release/app -o full.xsr   a program that was not stripped
  DEBUGINFOD_URLS=https://debuginfod.debian.net xenoscope enrich --debuginfod -o full.xsr
  xenoscope report -i full.xsr --call-tree                 inlined functions stand in it like others")]
pub(crate) struct Args {
    /// The recording
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    input: PathBuf,

    /// Where the enriched recording goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// A program or library with debug information, or what was stripped off one; may be given more than once
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Ask the servers in DEBUGINFOD_URLS for debug information that is nowhere else
    #[arg(long)]
    debuginfod: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let known = Recording::open(&args.input)?.for_all_samples(|_, _| ())?;
    let builds = builds(&known.tables);
    if builds.is_empty() {
        bail!(
            "{}: no build id of what was sampled is in it: processes were not looked into, or their files have none",
            args.input.display()
        );
    }
    let information = Information::find(&args, builds.keys())?;
    let missing = builds.iter().filter(|(build_id, _)| !information.builds.contains_key(*build_id));
    let missing: Vec<String> = missing.map(|(build_id, module)| format!("  {build_id}  {module}")).collect();
    let found = information.builds.len();
    if found == 0 {
        bail!(
            "there is no debug information of any of these builds; `--file` and `xenoscope symbols add` take files, \
             `--debuginfod` asks a server\n{}",
            missing.join("\n")
        );
    }
    let selection = Selection { source: Some(&information), ..Selection::default() };
    copy::whole(&args.input, &args.output, &known.header, &selection)?;
    let Count { places, with_lines, inlined } = information.count.into_inner();
    eprintln!(
        "xenoscope: debug information of {found} of {} builds: lines for {with_lines} of {places} places, {inlined} \
         inlined functions",
        builds.len()
    );
    if !missing.is_empty() {
        eprintln!("xenoscope: none of\n{}", missing.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The build ids of what was sampled, each with what it is called.
fn builds(tables: &Tables) -> BTreeMap<String, String> {
    let frames = tables.all_frames().iter();
    let built = frames.filter_map(|frame| Some((frame.origin.linked?.build_id, frame.module?)));
    built.map(|(id, module)| (tables.name(id).to_owned(), tables.name(module).to_owned())).collect()
}

/// The debug information that there is.
struct Information {
    builds: HashMap<String, DebugInfo>,
    count: RefCell<Count>,
}

/// What came of it.
#[derive(Default)]
struct Count {
    places: usize,
    with_lines: usize,
    inlined: usize,
}

impl Information {
    fn find<'a>(args: &Args, wanted: impl Iterator<Item = &'a String>) -> anyhow::Result<Self> {
        let mut files = SymbolFiles::new(SymbolStore::of_user());
        if args.debuginfod {
            files.add_servers(&sampling::debuginfod_urls()?);
        }
        let mut builds = HashMap::new();
        for path in &args.files {
            let (build_id, information) = of_file(path)?;
            builds.insert(build_id, information);
        }
        for build_id in wanted {
            let bytes = symbolizer::from_hexadecimal(build_id);
            if let Some(bytes) = bytes.filter(|_| !builds.contains_key(build_id)) {
                let same = files.candidates(&[], "", &bytes).filter(|file| is_of_build(file, &bytes));
                if let Some(information) = same.into_iter().find_map(|file| DebugInfo::open(&file)) {
                    builds.insert(build_id.clone(), information);
                }
            }
        }
        Ok(Self { builds, count: RefCell::default() })
    }
}

impl SourceCode for Information {
    fn frames(&self, build_id: &str, address: u64) -> Vec<SourceFrame> {
        let frames = self.builds.get(build_id).map_or_else(Vec::new, |build| build.source(address));
        let mut count = self.count.borrow_mut();
        count.places += 1;
        count.with_lines += usize::from(frames.first().is_some_and(|frame| frame.line > 0));
        count.inlined += frames.len().saturating_sub(1);
        frames
    }
}

fn of_file(path: &Path) -> anyhow::Result<(String, DebugInfo)> {
    let of = || path.display().to_string();
    let file = File::open(path).with_context(of)?;
    let Some(Some(build_id)) = symbolizer::build_id(&file) else {
        bail!("{} is no ELF file, or has no build id (`ld --build-id`)", path.display());
    };
    let information = DebugInfo::open(&file);
    let information = information.with_context(|| format!("{} has no debug information (`cc -g`)", of()))?;
    Ok((symbolizer::hexadecimal(&build_id), information))
}

fn is_of_build(file: &File, build_id: &[u8]) -> bool {
    symbolizer::build_id(file).flatten().is_some_and(|id| id == build_id)
}
