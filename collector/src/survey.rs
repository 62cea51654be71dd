//! What can be told of a domain now, without sampling it.

use std::{ffi::OsString, fs, sync::atomic::AtomicBool};

use hv_shim::{DomainState, Hypervisor};
use profile::DomainKind;

use crate::{
    confined::messages::{About, Answer, FoundKernel, FoundTask, Lack, Resident},
    guests::Process,
};

/// Where Linux is linked to run unless it is moved.
const LINKED: u64 = 0xffff_ffff_8100_0000;

/// What can be told of a domain. All texts are the domain's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Its kernel.
    pub kernel: Option<KernelSurvey>,
    /// Its processes: their numbers and what its kernel calls them.
    pub processes: Vec<(u32, String)>,
    /// The files with code that they have mapped. Not told of dom0 and the host, whose files can all be read.
    pub files: Vec<FileSurvey>,
    /// What can't be told, and why.
    pub lacks: Vec<String>,
}

/// A domain's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSurvey {
    /// Its version, as in `6.1.0-37-cloud-amd64`.
    pub release: String,
    /// Which build of it, in hexadecimal.
    pub build_id: Option<String>,
    /// How far from where it was linked it runs.
    pub slide: Option<u64>,
    /// Its own symbols and those of its modules.
    pub symbols: usize,
    /// How many modules are loaded.
    pub modules: usize,
}

/// A file that a guest's processes have mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSurvey {
    /// Its path.
    pub path: String,
    /// Which build of it, in hexadecimal.
    pub build_id: Option<String>,
    /// Which of its functions have names.
    pub named: NamedFunctions,
}

/// Which functions of a file can be named by what of it is in the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamedFunctions {
    /// None.
    None,
    /// Those that other files may call.
    Dynamic,
    /// Some.
    Some,
    /// All that the file itself has names for.
    All,
}

/// Looks into a domain. `command` starts a process that calls [`serve`](crate::serve), as for [`record`](crate::record()).
pub fn survey(hypervisor: &dyn Hypervisor, command: &[OsString], domain: &DomainState) -> Survey {
    let mut survey = Survey::default();
    let result = match domain.kind {
        DomainKind::Hypervisor => Ok(()),
        DomainKind::Dom0 | DomainKind::Host => survey.own(hypervisor),
        _ => survey.guest(hypervisor, command, domain),
    };
    survey.lacks.extend(result.err());
    survey
}

impl Survey {
    /// The system that this runs in.
    fn own(&mut self, hypervisor: &dyn Hypervisor) -> Result<(), String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let symbols = hypervisor.own_kernel().symbols().map_err(|error| error.to_string())?;
        let text = symbols.lines().find_map(|line| line.strip_suffix(" T _text"));
        let text = text.and_then(|digits| u64::from_str_radix(digits, 16).ok()).filter(|&text| text != 0);
        if text.is_none() {
            self.lacks.push("the addresses in /proc/kallsyms are hidden from this user".into());
        }
        self.kernel = Some(KernelSurvey {
            release: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            build_id: None,
            slide: text.map(|text| text.wrapping_sub(LINKED)),
            symbols: symbols.lines().count(),
            modules: read("/proc/modules").unwrap_or_default().lines().count(),
        });
        let folders = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
        let process = |folder: fs::DirEntry| {
            let pid = folder.file_name().to_str()?.parse().ok()?;
            // Threads of the kernel have no program.
            fs::read_link(folder.path().join("exe")).ok()?;
            Some((pid, fs::read_to_string(folder.path().join("comm")).ok()?.trim_end().to_owned()))
        };
        self.processes = folders.filter_map(|folder| process(folder.ok()?)).collect();
        self.processes.sort_unstable();
        Ok(())
    }

    fn guest(
        &mut self,
        hypervisor: &dyn Hypervisor,
        command: &[OsString],
        domain: &DomainState,
    ) -> Result<(), String> {
        let memories = hypervisor.memories().ok_or("this hypervisor does not show its guests' memory")?;
        let root = memories.root(domain.number, domain.kind);
        let root = root.ok_or("where its page tables are is not known without samples of it")?;
        let memory = memories.open(domain.number, domain.kind).ok_or("its memory can't be looked into")?;
        let mut process =
            Process::start(command, false).map_err(|error| format!("no process to look: {error}"))?;
        let alive = AtomicBool::new(false);
        let mut ask = |about| {
            let answer = process.ask(about, &*memory, &alive);
            answer.map_err(|error| format!("the process that looked into it died: {error}"))
        };
        if let Answer::Kernel(found) = ask(About::Kernel(root.0))? {
            let found = found?;
            self.lacks.extend(found.lacks.iter().map(lack));
            self.kernel = Some(KernelSurvey::of(&found));
        }
        if let Answer::Everything(Ok(found)) = ask(About::Everything)? {
            self.processes =
                found.processes.into_iter().map(|FoundTask { pid, name, .. }| (pid, name)).collect();
            self.files = found
                .files
                .into_iter()
                .map(|file| FileSurvey {
                    path: file.path,
                    build_id: file.build_id.as_deref().map(symbolizer::hexadecimal),
                    named: file.resident.into(),
                })
                .collect();
        }
        Ok(())
    }
}

impl KernelSurvey {
    fn of(found: &FoundKernel) -> Self {
        Self {
            release: found.release.clone(),
            build_id: found.build_id.as_deref().map(symbolizer::hexadecimal),
            slide: found.slide,
            symbols: found.all_symbols as usize + found.loaded.len(),
            modules: found.modules as usize,
        }
    }
}

impl From<Resident> for NamedFunctions {
    fn from(resident: Resident) -> Self {
        match resident {
            Resident::Nothing => Self::None,
            Resident::Dynamic => Self::Dynamic,
            Resident::Some => Self::Some,
            Resident::All => Self::All,
        }
    }
}

fn lack((lack, why): &(Lack, String)) -> String {
    let what = match lack {
        Lack::Modules => "its modules",
        Lack::GeneratedCode => "code that its kernel generated",
        Lack::Processes => "its processes",
    };
    format!("{what}: {why}")
}
