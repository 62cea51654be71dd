//! What untrusted names become in a picture and in a file's name.

use std::collections::HashSet;

use analysis::{DomainReport, Visible};
use profile::Mode;

/// The longest part of a name that goes into a file's name.
const MAX_FILE_NAME: usize = 64;

/// Which domain goes to which file, in the order of `domains`: `web.svg`. Characters that could leave the folder,
/// hide the file or pass for an option do not survive; of names that are alike then, later ones get a number.
pub fn file_names(domains: &[DomainReport]) -> Vec<String> {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let stem = |name: &str| {
        let stem: String = name.chars().map(safe).take(MAX_FILE_NAME).collect();
        let stem = stem.trim_start_matches(['.', '-']);
        if stem.is_empty() { "domain".to_owned() } else { stem.to_owned() }
    };
    distinct(domains.iter().map(|domain| stem(&domain.name)), |name, n| format!("{name}-{n}"))
        .into_iter()
        .map(|name| name + ".svg")
        .collect()
}

/// How the domains are called at the roots of a picture: different domains differ.
pub(crate) fn domain_labels(domains: &[DomainReport]) -> Vec<String> {
    distinct(domains.iter().map(|domain| group(&domain.name)), |name, n| format!("{name} ({n})"))
}

/// The text of a function or process: inferno takes the annotation off again, but tells frames apart by it, so that
/// a function's colour can depend on its mode.
pub(crate) fn function(name: &str, mode: Mode) -> String {
    let annotation = match mode {
        Mode::Hypervisor => "_[w]",
        Mode::Kernel => "_[k]",
        Mode::User => "_[j]",
        Mode::Backend => "_[i]",
    };
    frame(name) + annotation
}

/// The text of a frame without an annotation: none that inferno would take for one, or its line for a comment.
fn group(name: &str) -> String {
    let text = frame(name);
    let text = text.trim();
    let mut text = match text.strip_prefix('#') {
        Some(rest) => format!(r"\u{{23}}{rest}"),
        None => text.to_owned(),
    };
    if text.is_empty() {
        text.push_str("[unnamed]");
    }
    if ["_[k]", "_[w]", "_[i]", "_[j]"].iter().any(|annotation| text.ends_with(annotation)) {
        text.pop();
        text.push_str(r"\u{5d}");
    }
    text
}

/// A text without the character that separates frames: folded stacks have no escape for it.
fn frame(name: &str) -> String {
    Visible(name).to_string().replace(';', ":")
}

/// Gives a number to those that are like an earlier one; capitals do not make a difference on every file system.
fn distinct(names: impl Iterator<Item = String>, numbered: fn(&str, usize) -> String) -> Vec<String> {
    let mut taken = HashSet::new();
    names
        .map(|name| {
            let mut candidate = name.clone();
            for n in 2.. {
                if taken.insert(candidate.to_lowercase()) {
                    break;
                }
                candidate = numbered(&name, n);
            }
            candidate
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        let names = names.iter().map(|name| name.to_string());
        file_names(&names.map(named).collect::<Vec<_>>())
    }

    fn named(name: String) -> DomainReport {
        DomainReport {
            id: None,
            name,
            uuid: None,
            kind: profile::DomainKind::Hvm,
            samples: 0,
            weight: 0,
            share: 0.0,
            modes: analysis::Modes::default(),
            named: analysis::Named::default(),
            complete_chains: Default::default(),
            functions: Vec::new(),
            processes: Vec::new(),
            cpu_s: None,
            vcpus: Vec::new(),
            exits: Vec::new(),
            moves: Vec::new(),
        }
    }

    #[test]
    fn names_stay_in_their_folder() {
        assert_eq!(
            files(&["web", "../../etc/passwd", "-rf", ".."]),
            ["web.svg", "_.._etc_passwd.svg", "rf.svg", "domain.svg"]
        );
        assert_eq!(files(&[&"x".repeat(300)])[0].len(), 68);
    }

    #[test]
    fn names_that_are_alike_get_numbers() {
        assert_eq!(
            files(&["a b", "a/b", "A_B", "a_b-2"]),
            ["a_b.svg", "a_b-2.svg", "A_B-3.svg", "a_b-2-2.svg"]
        );
        let labels = domain_labels(&["web", "web", ""].map(|name| named(name.to_owned())));
        assert_eq!(labels, ["web", "web (2)", "[unnamed]"]);
    }

    #[test]
    fn labels_cannot_pass_for_syntax() {
        assert_eq!(group("# a;b\n"), r"\u{23} a:b\n");
        assert_eq!(group("mail_[k]"), r"mail_[k\u{5d}");
        assert_eq!(function("f 12_[j]", Mode::Kernel), "f 12_[j]_[k]");
    }
}
