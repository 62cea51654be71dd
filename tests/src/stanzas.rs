//! Reads what `apt-cache show` prints: which packages there are, and which libraries they need.

/// What the lab wants to know of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stanza {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
    section: String,
    /// The first of each group of alternatives.
    depends: Vec<String>,
}

impl Stanza {
    /// The packages needed to run or boot what is in this one, as far as their names tell.
    ///
    /// Maintainer scripts are not run and nothing is configured, so that all but libraries and the
    /// kernels behind meta packages can be left out.
    pub(crate) fn depends(&self) -> &[String] {
        &self.depends
    }

    /// Whether the package is worth having when another one depends on it.
    pub(crate) fn is_wanted_as_dependency(&self) -> bool {
        let library = match self.section.as_str() {
            "libs" | "oldlibs" => true,
            // Some libraries went astray (bullseye's libdaxctl1).
            "libdevel" => self.name.starts_with("lib") && !self.name.ends_with("-dev"),
            _ => false,
        };
        library || is_kernel(&self.name)
    }

    /// Whether it is an empty package that stands for the newest kernel of its kind.
    pub(crate) fn is_meta(&self) -> bool {
        is_kernel(&self.name) && self.depends.iter().any(|name| is_kernel(name))
    }
}

fn is_kernel(package: &str) -> bool {
    package.starts_with("linux-image-")
}

/// Reads all stanzas of a text; those without name, version or checksum are left out.
pub(crate) fn parse(text: &str) -> Vec<Stanza> {
    text.split("\n\n").filter_map(stanza).collect()
}

fn stanza(text: &str) -> Option<Stanza> {
    let field = |key: &str| {
        let line =
            text.lines().find(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))?;
        Some(line[key.len() + 1..].trim())
    };
    let relations = ["Pre-Depends", "Depends"].into_iter().filter_map(field);
    Some(Stanza {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        sha256: field("SHA256")?.to_owned(),
        section: field("Section").unwrap_or_default().to_owned(),
        depends: relations.flat_map(|list| list.split(',')).filter_map(first_alternative).collect(),
    })
}

/// `a (>= 1) | b` → `a`; `python3:any` → `python3`.
fn first_alternative(group: &str) -> Option<String> {
    let name = group.trim().split(['|', ' ', '(', ':']).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Package: xen-utils-4.17\nVersion: 4.17.7-1\nSection: admin\n\
        Depends: libc6 (>= 2.35), python3:any, debconf (>= 0.5) | debconf-2.0, libyajl2\n\
        Description: tools\n Depends: not this\nSHA256: ab12\n\n\
        Package: libyajl2\nVersion: 2.1\nPre-Depends: dpkg\nSection: libs\nSHA256: cd34\n\n\
        Package: no-checksum\nVersion: 1\n";

    #[test]
    fn stanzas_and_what_they_depend_on() {
        let stanzas = parse(TEXT);
        assert_eq!(stanzas.len(), 2);
        assert_eq!((stanzas[0].name.as_str(), stanzas[0].sha256.as_str()), ("xen-utils-4.17", "ab12"));
        assert_eq!(stanzas[0].depends(), ["libc6", "python3", "debconf", "libyajl2"]);
        assert_eq!(stanzas[1].depends(), ["dpkg"]);
    }

    #[test]
    fn libraries_and_kernels_are_wanted() {
        let stanzas = parse(TEXT);
        assert!(!stanzas[0].is_wanted_as_dependency());
        assert!(stanzas[1].is_wanted_as_dependency());
        let kernel =
            &parse("Package: linux-image-6.1.0-1-amd64\nVersion: 1\nSection: kernel\nSHA256: 1\n")[0];
        assert!(kernel.is_wanted_as_dependency() && !kernel.is_meta());
        let meta = "Package: linux-image-amd64\nVersion: 1\nDepends: linux-image-6.1.0-1-amd64\nSHA256: 1\n";
        assert!(parse(meta)[0].is_meta());
    }
}
