//! A scenario: which hypervisor to boot, with which guests, and what to do in its control domain. `docs/lab.md` has the
//! format.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use crate::files::FileEntry;
use crate::own_keys;

/// What a scenario's file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The hypervisor to boot.
    pub hypervisor: Hypervisor,
    /// The machine that QEMU plays.
    #[serde(default)]
    pub machine: Machine,
    /// Xen's control domain.
    #[serde(default)]
    pub dom0: Dom0,
    /// KVM's host, which is its control domain.
    #[serde(default)]
    pub host: Host,
    /// The guests, in the order in which they are started.
    #[serde(default, rename = "guest")]
    pub guests: Vec<Guest>,
    /// What is done in the control domain, one after the other.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
    /// What is brought back from the control domain.
    #[serde(default)]
    pub collect: Collect,
    /// Interrupts injected while some of the steps run.
    pub nmi: Option<Nmi>,
    /// The folder that the paths in the scenario start from.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// The hypervisor to boot.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hypervisor {
    /// Which hypervisor.
    pub kind: HypervisorKind,
    /// The Debian release that it, its tools and the control domain's kernel are taken from.
    pub release: Release,
    /// What is added to Xen's command line.
    #[serde(default)]
    pub args: String,
}

/// A hypervisor that the lab can boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HypervisorKind {
    /// Xen, with a Linux dom0.
    Xen,
    /// KVM, in a Linux host.
    Kvm,
}

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// Debian 11: Xen 4.14, Linux 5.10.
    Bullseye,
    /// Debian 12: Xen 4.17, Linux 6.1.
    Bookworm,
    /// Debian 13: Xen 4.20, Linux 6.12.
    Trixie,
}

/// The machine that QEMU plays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    /// QEMU's CPU model.
    pub cpu: String,
    /// Physical CPUs.
    pub cpus: u32,
    /// Memory.
    pub memory_mib: u32,
    /// Time is counted in instructions, of 2 to this many nanoseconds each.
    pub icount: Option<u8>,
    /// Whether it is counted what each CPU executes.
    pub count_instructions: bool,
}

impl Default for Machine {
    fn default() -> Self {
        // An AMD family 10h: hypervisors find SVM with nested paging there, and nothing that QEMU emulates only by half.
        Machine {
            cpu: "phenom,+svm".to_owned(),
            cpus: 2,
            memory_mib: 2048,
            icount: None,
            count_instructions: false,
        }
    }
}

/// Xen's control domain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dom0 {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory.
    pub memory_mib: u32,
    /// The physical CPUs that its virtual CPUs may run on; all when empty.
    pub pin: Vec<u32>,
    /// What is added to its kernel's command line.
    pub kernel_args: String,
    /// Files put into it.
    pub files: Vec<FileEntry>,
    /// Shell lines run before the guests are started.
    pub init: Vec<String>,
    /// Modules of its kernel that are loaded there besides.
    pub modules: Vec<String>,
    /// Whether it has QEMU although no guest is fully virtualized: it also serves disks.
    pub qemu: bool,
}

impl Default for Dom0 {
    fn default() -> Self {
        Dom0 {
            vcpus: 1,
            memory_mib: 768,
            pin: Vec::new(),
            kernel_args: String::new(),
            files: Vec::new(),
            init: Vec::new(),
            modules: Vec::new(),
            qemu: false,
        }
    }
}

/// KVM's host. Its CPUs and its memory are the machine's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// What is added to its kernel's command line.
    pub kernel_args: String,
    /// Files put into it.
    pub files: Vec<FileEntry>,
    /// Shell lines run before the guests are started.
    pub init: Vec<String>,
    /// Programs of its Debian release that are wanted there.
    pub tools: Vec<Tool>,
    /// Modules of its kernel that are loaded there besides.
    pub modules: Vec<String>,
}

/// A program that a KVM host has on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// Linux's own profiler.
    Perf,
}

/// A guest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Its name, also of its folder `/guests/NAME` in the control domain.
    pub name: Spanned<String>,
    /// How it is virtualized.
    pub kind: Spanned<GuestKind>,
    /// The Debian package that its kernel is taken from.
    #[serde(default = "cloud_kernel")]
    pub kernel: String,
    /// The Debian release of that package; the hypervisor's if none is given.
    pub release: Option<Release>,
    /// What is added to its kernel's command line.
    #[serde(default)]
    pub kernel_args: String,
    /// Virtual CPUs.
    #[serde(default = "one")]
    pub vcpus: u32,
    /// Memory.
    #[serde(default = "guest_memory")]
    pub memory_mib: u32,
    /// The physical CPUs that its virtual CPUs may run on; all when empty.
    #[serde(default)]
    pub pin: Vec<u32>,
    /// Files put into it.
    #[serde(default)]
    pub files: Vec<FileEntry>,
    /// Modules of its kernel that are put into it, for `insmod /lab/modules/NAME.ko`, with those that they depend on.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Shell lines that its init runs.
    #[serde(default)]
    pub init: Vec<String>,
    /// Where its root file system is.
    #[serde(default)]
    pub disk: Disk,
    /// Lines added to a Xen guest's `xl.cfg`.
    #[serde(default)]
    pub xl: Vec<String>,
    /// Whether a KVM guest's VMM is left without the guest's name and UUID and without names of its threads.
    #[serde(default)]
    pub anonymous: bool,
    /// What a KVM guest's VMM is told besides.
    #[serde(default)]
    pub vmm: Vec<String>,
    /// Whether it is running when the first step begins; else a step may create it.
    #[serde(default = "yes")]
    pub start: bool,
    /// Whether steps restart it although it was running when the first one began.
    #[serde(default)]
    pub restarts: bool,
}

/// How a guest is virtualized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// Paravirtualized: no help from the CPU.
    Pv,
    /// Hardware-virtualized without a device model.
    Pvh,
    /// Hardware-virtualized with a device model.
    Hvm,
    /// On KVM.
    Kvm,
}

impl GuestKind {
    /// The hypervisor that has guests of this kind.
    fn hypervisor(self) -> HypervisorKind {
        match self {
            GuestKind::Pv | GuestKind::Pvh | GuestKind::Hvm => HypervisorKind::Xen,
            GuestKind::Kvm => HypervisorKind::Kvm,
        }
    }
}

impl Guest {
    /// Whether it is fully virtualized, by a device model in dom0.
    pub(crate) fn is_hvm(&self) -> bool {
        *self.kind.get_ref() == GuestKind::Hvm
    }
}

/// Where a guest's root file system is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disk {
    /// In memory.
    #[default]
    Initramfs,
    /// On an ext4 disk image that the control domain serves.
    Ext4,
}

/// Something done in the control domain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name, unique in the scenario.
    pub name: Spanned<String>,
    /// Shell lines.
    pub run: String,
    /// How long it may take.
    #[serde(default = "a_minute")]
    pub timeout_s: u64,
    /// The exit status that makes it a success.
    #[serde(default)]
    pub expect_exit: i32,
    /// What becomes of the scenario when it fails.
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl Step {
    /// How long it may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
}

/// What becomes of a scenario when a step fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The steps that follow are left out.
    #[default]
    Stop,
    /// The steps that follow are run all the same; the scenario has failed nevertheless.
    Continue,
}

/// What is brought back from the control domain.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collect {
    /// Absolute paths in the control domain, with the shell's wildcards.
    #[serde(default)]
    pub files: Vec<Spanned<String>>,
}

/// Interrupts injected while some of the steps run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nmi {
    /// The steps.
    pub steps: Vec<Spanned<String>>,
    /// How many a second.
    pub hz: Spanned<f64>,
}

fn cloud_kernel() -> String {
    "linux-image-cloud-amd64".to_owned()
}

fn one() -> u32 {
    1
}

fn guest_memory() -> u32 {
    128
}

fn yes() -> bool {
    true
}

fn a_minute() -> u64 {
    60
}

impl HypervisorKind {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            HypervisorKind::Xen => "Xen",
            HypervisorKind::Kvm => "KVM",
        }
    }

    /// What its control domain is called, and so its console's log.
    pub(crate) fn control_domain(self) -> &'static str {
        match self {
            HypervisorKind::Xen => "dom0",
            HypervisorKind::Kvm => "host",
        }
    }
}

impl Scenario {
    /// Reads a scenario's file.
    pub fn load(path: &Path) -> Result<Scenario> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the scenario {}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Scenario::parse(&text, folder).with_context(|| format!("in the scenario {}", path.display()))
    }

    /// Understands a scenario's text; its relative paths start from `folder`.
    pub fn parse(text: &str, folder: PathBuf) -> Result<Scenario> {
        let mut scenario: Scenario = toml::from_str(text)?;
        scenario.folder = folder;
        let checked = own_keys::check(DeTable::parse(text)?.get_ref(), scenario.hypervisor.kind)
            .and_then(|()| scenario.check());
        checked.map_err(|(span, what)| anyhow::anyhow!("line {}: {what}", line_of(text, &span)))?;
        Ok(scenario)
    }

    /// How many interrupts a second are injected while a step runs.
    pub fn nmi_hz(&self, step: &Step) -> Option<f64> {
        let nmi = self.nmi.as_ref()?;
        nmi.steps.iter().any(|name| name.get_ref() == step.name.get_ref()).then_some(*nmi.hz.get_ref())
    }

    /// What the types alone do not rule out.
    fn check(&self) -> Result<(), (Range<usize>, String)> {
        check_names("guest", self.guests.iter().map(|guest| &guest.name))?;
        check_names("step", self.steps.iter().map(|step| &step.name))?;
        for guest in &self.guests {
            if ["xen", "dom0", "host"].contains(&guest.name.get_ref().as_str()) {
                let what = format!("guest.name: {:?} has a console already", guest.name.get_ref());
                return Err((guest.name.span(), what));
            }
            if guest.kind.get_ref().hypervisor() != self.hypervisor.kind {
                let what =
                    format!("guest.kind of {:?}: the hypervisor has no such guests", guest.name.get_ref());
                return Err((guest.kind.span(), what));
            }
        }
        for pattern in &self.collect.files {
            if !pattern.get_ref().starts_with('/') || pattern.get_ref().contains(char::is_whitespace) {
                let what =
                    format!("collect.files: {:?} is not an absolute path without spaces", pattern.get_ref());
                return Err((pattern.span(), what));
            }
        }
        match &self.nmi {
            Some(nmi) => self.check_nmi(nmi),
            None => Ok(()),
        }
    }

    fn check_nmi(&self, nmi: &Nmi) -> Result<(), (Range<usize>, String)> {
        for name in &nmi.steps {
            if !self.steps.iter().any(|step| step.name.get_ref() == name.get_ref()) {
                return Err((name.span(), format!("nmi.steps: there is no step {:?}", name.get_ref())));
            }
        }
        let hz = *nmi.hz.get_ref();
        if !(hz > 0.0 && hz <= 100_000.0) {
            return Err((nmi.hz.span(), format!("nmi.hz: {hz} is not between 0 and 100000")));
        }
        Ok(())
    }
}

/// Names become file names and words of shell commands.
fn check_names<'a>(
    key: &str,
    names: impl Iterator<Item = &'a Spanned<String>>,
) -> Result<(), (Range<usize>, String)> {
    let mut seen = BTreeSet::new();
    for name in names {
        let text = name.get_ref();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.starts_with('-') || !text.chars().all(plain) {
            return Err((
                name.span(),
                format!("{key}.name: {text:?} is not made of letters, digits, '-' and '_'"),
            ));
        }
        if !seen.insert(text) {
            return Err((name.span(), format!("{key}.name: {text:?} is there twice")));
        }
    }
    Ok(())
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text[..span.start].matches('\n').count() + 1
}

#[cfg(test)]
#[path = "scenario_tests.rs"]
mod tests;
