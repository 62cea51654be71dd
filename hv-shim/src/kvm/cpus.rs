//! Which CPUs there are: the lists below `/sys/devices/system/cpu`.

use std::{fs, io};

use crate::ShimError;

/// More than any kernel can be built for (NR_CPUS).
const MOST: u32 = 1 << 16;

/// The CPUs that run now.
pub(super) fn online() -> Result<Vec<u32>, ShimError> {
    list("online")
}

/// The CPUs that could be made to run.
pub(super) fn present() -> Result<Vec<u32>, ShimError> {
    list("present")
}

fn list(which: &str) -> Result<Vec<u32>, ShimError> {
    let path = format!("/sys/devices/system/cpu/{which}");
    let text = fs::read_to_string(&path).map_err(ShimError::io(format!("reading {path}")))?;
    parse(&text).ok_or_else(|| {
        let error = io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no list of CPUs"));
        ShimError::Io { what: format!("reading {path}"), error }
    })
}

/// `0-3,8`: ranges and numbers, ascending.
fn parse(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST || first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse("0\n"), Some(vec![0]));
        assert_eq!(parse("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse(""), Some(vec![]));
        assert_eq!(parse("0-"), None);
        assert_eq!(parse("3-1"), None);
        assert_eq!(parse("0-4294967295"), None);
    }
}
