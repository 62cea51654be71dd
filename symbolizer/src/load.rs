//! Files that a user named: the one place here that does input and output.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    str::FromStr,
};

use object::ReadCache;

use crate::{Image, Linked, ParseError, SymbolizerError, elf};

/// Kernels list some 150 thousand symbols in less than 10 MiB.
const MAX_LIST: u64 = 256 << 20;

/// A file with an image, written `FILE` or, where it is position-independent, `FILE@0xBASE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// The file.
    pub path: PathBuf,
    /// Where its first byte is mapped.
    pub base: Option<u64>,
}

impl FromStr for ImageFile {
    type Err = SymbolizerError;

    fn from_str(text: &str) -> Result<Self, SymbolizerError> {
        // Files may have an `@` in their names, so that only `@0x` begins a base.
        let Some((path, digits)) = text.rsplit_once("@0x") else {
            return Ok(Self { path: text.into(), base: None });
        };
        let base = u64::from_str_radix(digits, 16).map_err(|_| SymbolizerError::BadLoadBase(text.into()))?;
        Ok(Self { path: path.into(), base: Some(base) })
    }
}

impl From<&Path> for ImageFile {
    /// A file without a base, whatever its name contains.
    fn from(path: &Path) -> Self {
        Self { path: path.into(), base: None }
    }
}

/// Reads an image of any known format, told by its content; it is called by the last part of its path.
///
/// Lists may come from a pipe (`<(ssh guest cat /proc/kallsyms)`).
pub fn load(image: &ImageFile) -> Result<Image, SymbolizerError> {
    let file = || image.path.clone();
    match read(image) {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(problem)) => Err(SymbolizerError::Content { file: file(), problem }),
        Err(source) => Err(SymbolizerError::Read { file: file(), source }),
    }
}

/// Reads the ELF file that a process has mapped, at the addresses that it was linked to.
pub fn load_linked(file: File) -> Result<Linked, ParseError> {
    Linked::parse(&ReadCache::new(file))
}

/// The build id of an ELF file: none inside where it has none, none at all where it is no such file. Whoever reads the file
/// next reads it from its beginning.
pub fn build_id(mut file: &File) -> Option<Option<Vec<u8>>> {
    let id = elf::build_id(&ReadCache::new(file));
    file.rewind().ok()?;
    id
}

fn read(image: &ImageFile) -> io::Result<Result<Image, ParseError>> {
    let mut file = File::open(&image.path)?;
    let mut bytes = Vec::new();
    (&mut file).take(4).read_to_end(&mut bytes)?;
    if elf::is_elf(&bytes) {
        let name = image.path.file_name().unwrap_or(image.path.as_os_str()).to_string_lossy();
        let elf = elf::parse(&ReadCache::new(file), image.base);
        return Ok(elf.map(|elf| Image::from_elf(&name, elf)));
    }
    file.take(MAX_LIST).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LIST {
        return Ok(Err(ParseError::TooLarge("more than 256 MiB of text")));
    }
    Ok(Image::from_list(&bytes, image.base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_follows_the_last_at_sign() {
        let parse = |text: &str| text.parse::<ImageFile>();
        let file = |path: &str, base| ImageFile { path: path.into(), base };
        assert_eq!(parse("/bin/app").unwrap(), file("/bin/app", None));
        assert_eq!(parse("app@2.0").unwrap(), file("app@2.0", None));
        assert_eq!(parse("app@2.0@0x55a0c0de0000").unwrap(), file("app@2.0", Some(0x55a0_c0de_0000)));
        assert!(
            matches!(parse("app@0xhere"), Err(SymbolizerError::BadLoadBase(text)) if text == "app@0xhere")
        );
    }
}
