//! Symbol files that the user named for domains.

use std::{cell::Cell, str::FromStr};

use anyhow::Context;
use profile::Domain;
use symbolizer::{Executable, ImageFile, SymbolTable, Symbolizer};

/// What kernels are called as modules.
const KERNEL: &str = "vmlinux";

/// A domain and a file: `NAME=FILE`.
#[derive(Clone, Debug)]
pub(crate) struct GuestImage {
    domain: String,
    file: ImageFile,
}

impl FromStr for GuestImage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((domain, file)) if !domain.is_empty() && !file.is_empty() => {
                let file = file.parse().map_err(|error| format!("{error}"))?;
                Ok(Self { domain: domain.to_owned(), file })
            }
            _ => Err("not of the form NAME=FILE".into()),
        }
    }
}

/// The files' contents.
pub(crate) struct Images {
    named: Vec<Loaded>,
}

struct Loaded {
    domain: String,
    content: Content,
    used: Cell<bool>,
}

enum Content {
    Kernel(SymbolTable),
    Executable(Executable),
}

impl Images {
    /// Reads all files.
    pub(crate) fn load(kernels: &[GuestImage], executables: &[GuestImage]) -> anyhow::Result<Self> {
        let read = |image: &GuestImage| {
            let of = || format!("the symbols of {}", image.domain);
            symbolizer::load(&image.file).with_context(of)
        };
        let kernels = kernels.iter().map(|image| Ok((image, Content::Kernel(read(image)?.into_kernel()))));
        let executables = executables.iter().map(|image| {
            let file = || format!("{} can't be used", image.file.path.display());
            Ok((image, Content::Executable(read(image)?.into_executable().with_context(file)?)))
        });
        let loaded = |(image, content): (&GuestImage, Content)| Loaded {
            domain: image.domain.clone(),
            content,
            used: Cell::new(false),
        };
        let all = kernels.chain(executables).map(|image| image.map(loaded));
        Ok(Self { named: all.collect::<anyhow::Result<_>>()? })
    }

    /// Gives a symbolizer what there is for a domain. Returns whether the user named its kernel.
    pub(crate) fn give(&self, domain: &Domain, symbolizer: &mut Symbolizer) -> anyhow::Result<bool> {
        let number = domain.number.to_string();
        let mut has_kernel = false;
        for image in self.named.iter().filter(|image| image.domain == domain.name || image.domain == number) {
            image.used.set(true);
            match &image.content {
                Content::Kernel(table) => {
                    symbolizer.set_kernel(domain.id, KERNEL, table.clone());
                    has_kernel = true;
                }
                Content::Executable(executable) => {
                    symbolizer.add_executable(domain.id, executable.clone())?;
                }
            }
        }
        Ok(has_kernel)
    }

    /// The domains that were named and never seen.
    pub(crate) fn unused(&self) -> impl Iterator<Item = &str> {
        self.named.iter().filter(|image| !image.used.get()).map(|image| image.domain.as_str())
    }
}
