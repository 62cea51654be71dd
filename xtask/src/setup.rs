//! Puts on this machine what building and testing need, or says how.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process;

/// The Xen payload is built for it.
const PAYLOAD_TARGET: &str = "x86_64-unknown-none";

/// What is looked for, a program or a file, and the Debian package that has it.
const NEEDED: [(&str, &str); 11] = [
    ("cc", "gcc"),
    ("c++", "g++"),
    ("go", "golang-go"),
    ("ld", "binutils"),
    ("clang", "clang"),
    ("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setpriv", "util-linux"),
    ("gzip", "gzip"),
    ("xz", "xz-utils"),
    ("mke2fs", "e2fsprogs"),
];

/// Makes sure that everything is there.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing_packages(&NEEDED, present);
    if !missing.is_empty() {
        install(&missing)?;
    }
    ensure_target()
}

fn missing_packages<'a>(needed: &[(&str, &'a str)], present: impl Fn(&str) -> bool) -> Vec<&'a str> {
    needed.iter().filter(|(wanted, _)| !present(wanted)).map(|&(_, package)| package).collect()
}

/// Whether a file is there, or a program is on the path. Debian keeps some programs where only root's path leads.
fn present(wanted: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into));
    Path::new(wanted).is_absolute() && Path::new(wanted).exists()
        || !Path::new(wanted).is_absolute() && folders.into_iter().any(|folder| folder.join(wanted).exists())
}

fn install(packages: &[&str]) -> Result<()> {
    let mends = format!("apt-get install {}", packages.join(" "));
    if !present("apt-get") {
        bail!("missing on this machine, in Debian's names: {}", packages.join(", "));
    }
    // Root needs no sudo; sudo must not ask for a password here.
    let prefix: &[&str] =
        match (succeeds("sh", &["-c", "test $(id -u) = 0"]), succeeds("sudo", &["-n", "true"])) {
            (true, _) => &["env"],
            (false, true) => &["sudo", "-n", "env"],
            (false, false) => bail!("missing on this machine: run `sudo {mends}`"),
        };
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(arguments);
        process::run(&mut command)
    };
    // A fresh machine has no lists of packages, or old ones.
    let installed = apt_get(&["update"])
        .and_then(|()| apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat()));
    if installed.is_err() {
        bail!("cannot install what is missing: run `apt-get update` and `{mends}` as root");
    }
    Ok(())
}

fn ensure_target() -> Result<()> {
    let installed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .current_dir(process::workspace())
        .output();
    // Without rustup, the compiler's packager has seen to the target or cargo will complain.
    let Ok(installed) = installed else { return Ok(()) };
    if String::from_utf8_lossy(&installed.stdout).lines().any(|target| target == PAYLOAD_TARGET) {
        return Ok(());
    }
    process::run(
        Command::new("rustup").args(["target", "add", PAYLOAD_TARGET]).current_dir(process::workspace()),
    )
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_named_by_their_packages() {
        let missing = missing_packages(&NEEDED, |wanted| wanted != "xz" && wanted != "cc");
        assert_eq!(missing, ["gcc", "xz-utils"]);
    }

    #[test]
    fn programs_and_files_are_found() {
        assert!(present("sh"));
        assert!(present("/proc/self/exe"));
        assert!(!present("no-such-program"));
        assert!(!present("/no/such/file"));
    }
}
