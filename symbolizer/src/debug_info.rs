//! Debug information (DWARF): which functions a compiler put at an address, and of which lines.

use std::{
    fs::File,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use addr2line::Loader;
use object::{LittleEndian, Object, ReadCache, read::elf::ElfFile64};
use profile::recording::SourceFrame;

use crate::demangle;

/// Inlining deeper than this is a forgery, or nothing that anybody could read.
const MAX_INLINED: usize = 256;

/// The debug information of one build.
pub struct DebugInfo {
    loader: Loader,
}

impl DebugInfo {
    /// Reads what a file says of itself; none where it says nothing, or nothing that can be understood.
    ///
    /// What several builds share (`dwz`) is looked for where distributions put it.
    pub fn open(file: &File) -> Option<Self> {
        let shared = {
            let cache = ReadCache::new(file);
            let elf = ElfFile64::<LittleEndian, _>::parse(&cache).ok()?;
            elf.section_by_name(".debug_info")?;
            let (name, _) = elf.gnu_debugaltlink().ok().flatten().unwrap_or_default();
            Some(PathBuf::from(str::from_utf8(name).ok()?)).filter(|path| path.is_absolute() && path.exists())
        };
        // It opens files by their names, and this one may have none by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let loader = Loader::new_with_sup(Path::new(&path), shared).ok()?;
        Some(Self { loader })
    }

    /// The functions whose code is at a linked address, innermost first: all but the last were inlined. Nothing where
    /// nothing is told.
    pub fn source(&self, address: u64) -> Vec<SourceFrame> {
        let mut source = Vec::new();
        let Ok(mut frames) = self.loader.find_frames(address) else { return source };
        while source.len() < MAX_INLINED
            && let Ok(Some(frame)) = frames.next()
        {
            let name = frame.function.as_ref().and_then(|function| function.raw_name().ok());
            let location = frame.location.as_ref();
            source.push(SourceFrame {
                function: name.map(|name| demangle(&name).into_owned()),
                file: location.and_then(|location| location.file).map(str::to_owned),
                line: location.and_then(|location| location.line).unwrap_or(0),
            });
        }
        source
    }
}
