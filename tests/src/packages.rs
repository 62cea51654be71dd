//! Stock Debian packages of any release, unpacked into the cache. Nothing is installed on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::command;
use crate::progress::say;
use crate::scenario::Release;
use crate::stanzas::{self, Stanza};

const MIRROR: &str = "http://deb.debian.org/debian/";
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security/";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Release {
    /// The release's code name.
    pub fn name(self) -> &'static str {
        match self {
            Release::Bullseye => "bullseye",
            Release::Bookworm => "bookworm",
            Release::Trixie => "trixie",
        }
    }
}

/// A package that was used, as it is written into a run's `packages.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The checksum of its archive, as the release's signed index has it and apt has checked it.
    pub sha256: String,
}

/// Packages with the libraries that they need, unpacked.
#[derive(Debug)]
pub(crate) struct PackageSet {
    /// The packages.
    pub(crate) packages: Vec<Package>,
    trees: Vec<PathBuf>,
}

impl PackageSet {
    /// Unpacks the packages called `wanted` and the libraries that they need. Of what the cache has, nothing is asked
    /// of the network.
    pub(crate) fn fetch(cache: &Cache, release: Release, wanted: &[String]) -> Result<PackageSet> {
        let wanted: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
        let mut hasher = DefaultHasher::new();
        wanted.hash(&mut hasher);
        let home = cache.folder(&format!("debian/{}", release.name()))?;
        let list = home.join(format!("set-{:016x}.json", hasher.finish()));
        if let Some(set) = PackageSet::cached(&home, &list) {
            return Ok(set);
        }
        let apt = PrivateApt::open(&home, release)?;
        let packages = apt.resolve(&wanted)?;
        apt.unpack(&packages, &home)?;
        fs::write(&list, serde_json::to_vec_pretty(&packages)?)?;
        PackageSet::cached(&home, &list).context("packages just unpacked are gone")
    }

    fn cached(home: &Path, list: &Path) -> Option<PackageSet> {
        let packages: Vec<Package> = serde_json::from_slice(&fs::read(list).ok()?).ok()?;
        let trees: Vec<PathBuf> = packages.iter().map(|package| tree(home, package)).collect();
        trees.iter().all(|tree| tree.is_dir()).then_some(PackageSet { packages, trees })
    }

    /// The first of `candidates`, paths in the packages without leading slash, that one of the packages has.
    pub(crate) fn find(&self, candidates: &[&str]) -> Option<PathBuf> {
        let places = candidates.iter().flat_map(|path| self.trees.iter().map(move |tree| tree.join(path)));
        places.into_iter().find(|place| place.exists())
    }

    /// The busybox of the packages, which serves as shell in all domains.
    pub(crate) fn busybox(&self) -> Result<Vec<u8>> {
        let path = self.find(&["bin/busybox", "usr/bin/busybox"]).context("busybox-static has no busybox")?;
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The files and folders in a folder of the packages.
    pub(crate) fn list(&self, folder: &str) -> Vec<PathBuf> {
        let folders = self.trees.iter().filter_map(|tree| fs::read_dir(tree.join(folder)).ok());
        let mut found: Vec<PathBuf> =
            folders.flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.sort();
        found
    }
}

fn tree(home: &Path, package: &Package) -> PathBuf {
    home.join("trees").join(format!("{}_{}", package.name, package.version))
}

/// apt with sources, state and cache of its own.
struct PrivateApt {
    release: Release,
    folder: PathBuf,
    config: PathBuf,
}

impl PrivateApt {
    /// Sets up the release's package lists, asking the mirror for them.
    fn open(home: &Path, release: Release) -> Result<PrivateApt> {
        let folder = home.join("apt");
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("sources.list"), sources(release, &Mirrors::of_this_machine()))?;
        let config = folder.join("apt.conf");
        fs::write(&config, configuration(&folder))?;
        let apt = PrivateApt { release, folder, config };
        say(format_args!("asking the mirror for the packages of {}", release.name()));
        apt.run("apt-get", &["update"]).context(
            "cannot fetch Debian's package lists: is the network there? `apt-get update` must work on this machine",
        )?;
        Ok(apt)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(&self.config)
            .arg("-q")
            .args(arguments)
            .current_dir(self.folder.join("archives"));
        let output = command::stdout(
            &mut command,
            "apt-get install apt (the lab takes its hosts from Debian packages)",
        )?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// What is known of packages by their names; those which do not exist are left out.
    fn show(&self, names: &BTreeSet<String>) -> Result<Vec<Stanza>> {
        let mut command = Command::new("apt-cache");
        command.arg("-c").arg(&self.config).args(["show", "--no-all-versions"]).args(names);
        // It fails when one of several names is that of no real package, and prints the others all the same.
        let output = command::output(&mut command, "apt-get install apt")?;
        Ok(stanzas::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The packages wanted, and the libraries that they need.
    fn resolve(&self, wanted: &BTreeSet<&str>) -> Result<Vec<Package>> {
        let mut chosen = BTreeMap::new();
        let mut asked = BTreeSet::new();
        let mut next: BTreeSet<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        while !next.is_empty() {
            let found = self.show(&next)?;
            asked.append(&mut next);
            for stanza in found {
                if wanted.contains(stanza.name.as_str()) || stanza.is_wanted_as_dependency() {
                    next.extend(stanza.depends().iter().filter(|&name| !asked.contains(name)).cloned());
                    chosen.insert(stanza.name.clone(), stanza);
                }
            }
        }
        if let Some(missing) = wanted.iter().find(|&&name| !chosen.contains_key(name)) {
            bail!("Debian {} has no package {missing}", self.release.name());
        }
        // Not even downloaded: mirrors are not always complete, and there is nothing in them.
        chosen.retain(|_, stanza| !stanza.is_meta());
        let package = |Stanza { name, version, sha256, .. }| Package { name, version, sha256 };
        Ok(chosen.into_values().map(package).collect())
    }

    /// Downloads and unpacks what is not there yet.
    fn unpack(&self, packages: &[Package], home: &Path) -> Result<()> {
        let missing: Vec<&Package> =
            packages.iter().filter(|package| !tree(home, package).is_dir()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        say(format_args!("downloading {} packages of {}", missing.len(), self.release.name()));
        let names: Vec<String> =
            missing.iter().map(|package| format!("{}={}", package.name, package.version)).collect();
        let arguments: Vec<&str> = ["download"].into_iter().chain(names.iter().map(String::as_str)).collect();
        self.run("apt-get", &arguments).context("cannot download Debian packages: is the network there?")?;
        say(format_args!("unpacking them"));
        for package in missing {
            let archive = self.archive(&package.name)?;
            let tree = tree(home, package);
            // Under another name first: what is interrupted must not be taken for complete.
            let unfinished = self.folder.join("unfinished");
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished)?;
            }
            let mut dpkg = Command::new("dpkg");
            command::stdout(dpkg.arg("-x").arg(&archive).arg(&unfinished), "apt-get install dpkg")?;
            fs::create_dir_all(home.join("trees"))?;
            fs::rename(&unfinished, &tree)?;
            fs::remove_file(&archive)?;
        }
        Ok(())
    }

    /// The one downloaded archive of a package: `NAME_VERSION_ARCHITECTURE.deb`.
    fn archive(&self, package: &str) -> Result<PathBuf> {
        let prefix = format!("{package}_");
        let entries = fs::read_dir(self.folder.join("archives"))?.filter_map(Result::ok);
        let mut archives = entries.map(|entry| entry.path());
        archives
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
            .with_context(|| format!("apt-get download left no archive of {package}"))
    }
}

/// Where this machine takes Debian's packages from.
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    fn of_this_machine() -> Mirrors {
        let format = ["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"];
        let targets =
            command::stdout(Command::new("apt-get").args(format), "apt-get install apt").unwrap_or_default();
        Mirrors::from_targets(&String::from_utf8_lossy(&targets))
    }

    /// `targets` has a line for each index: the repository's label and its address.
    fn from_targets(targets: &str) -> Mirrors {
        let labelled = |label: &str| {
            let mut targets = targets.lines().filter_map(|line| line.rsplit_once(' '));
            targets.find(|&(found, _)| found == label).map(|(_, uri)| uri.to_owned())
        };
        Mirrors {
            main: labelled("Debian").unwrap_or_else(|| MIRROR.to_owned()),
            security: labelled("Debian-Security").unwrap_or_else(|| SECURITY_MIRROR.to_owned()),
        }
    }
}

fn sources(release: Release, mirrors: &Mirrors) -> String {
    let release = release.name();
    // Without the keyring's package, the keys that this machine's apt trusts anyway have to do.
    let options = match Path::new(KEYRING).exists() {
        true => format!("[arch=amd64 signed-by={KEYRING}]"),
        false => "[arch=amd64]".to_owned(),
    };
    let Mirrors { main, security } = mirrors;
    format!("deb {options} {main} {release} main\ndeb {options} {security} {release}-security main\n")
}

/// Read after the machine's own configuration, which is kept for its proxies and the like.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Architecture "amd64";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{folder}";
Dir::State::Lists "{folder}/lists";
Dir::State::Status "{folder}/status";
Dir::Cache "{folder}";
Dir::Cache::Archives "{folder}/archives";
Dir::Cache::PkgCache "pkgcache.bin";
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_mirrors_are_used() {
        let targets = "nodistro https://deb.nodesource.com/node_20.x/\n\
            Debian-Security http://mirror/debian-security/\nDebian http://mirror/debian/\n";
        let mirrors = Mirrors::from_targets(targets);
        assert_eq!(
            (mirrors.main.as_str(), mirrors.security.as_str()),
            ("http://mirror/debian/", "http://mirror/debian-security/")
        );
        assert_eq!(Mirrors::from_targets("").main, MIRROR);
    }

    #[test]
    fn sources_are_those_of_the_release() {
        let sources = sources(Release::Trixie, &Mirrors::from_targets(""));
        assert!(sources.contains(&format!("{MIRROR} trixie main\n")), "{sources}");
        assert!(sources.contains(&format!("{SECURITY_MIRROR} trixie-security main\n")), "{sources}");
    }
}
