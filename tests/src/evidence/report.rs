//! What the tests read of a report's JSON.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A report.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// Whether the recording was finished.
    pub complete: bool,
    /// What its reader must know.
    pub notes: Vec<Note>,
    events: Vec<Event>,
}

/// A remark.
#[derive(Debug, Deserialize)]
pub struct Note {
    /// A sentence.
    pub text: String,
}

/// What was sampled.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// What it is called.
    pub name: String,
    /// How the samples were taken.
    pub source: String,
    /// How many were due.
    pub taken: Option<u64>,
    /// NMIs that somebody else's work caused.
    pub foreign_nmis: Option<u64>,
    /// The rate asked for, or what it came down to.
    pub rate_hz: f64,
    /// The part of the CPUs' time that sampling took.
    pub overhead: Option<f64>,
    /// How many there are.
    pub samples: u64,
    /// How many were left out.
    pub filtered: Option<u64>,
    /// How many were lost, by cause.
    pub lost: BTreeMap<String, u64>,
    /// CPU time in which the sampler was silent.
    pub quiet_s: Option<f64>,
    /// The rows.
    pub domains: Vec<Domain>,
}

/// A row.
#[derive(Debug, Deserialize)]
pub struct Domain {
    /// Whose.
    pub name: String,
    /// How it is virtualized.
    pub kind: String,
    /// Its UUID.
    pub uuid: Option<String>,
    /// How many samples are charged to it.
    pub samples: u64,
    /// What its samples stand for.
    pub weight: u64,
    /// The weight by mode.
    pub modes: BTreeMap<String, u64>,
    /// The part of the weight whose call chains have no gap, by mode.
    pub complete_chains: BTreeMap<String, f64>,
    /// Its functions, most self weight first.
    pub functions: Vec<Function>,
    /// Its processes, heaviest first.
    pub processes: Vec<Process>,
    /// The CPU time that the hypervisor accounts to it.
    pub cpu_s: Option<f64>,
    /// What each of its vCPUs did with its time.
    pub vcpus: Vec<Vcpu>,
    /// Why they left it, what took longest first.
    pub exits: Vec<Exit>,
    /// From where to where it was moved.
    pub moves: Vec<Move>,
}

/// That it was moved.
#[derive(Debug, Deserialize)]
pub struct Move {
    /// The number that it had.
    pub from: u32,
    /// The one that it has since.
    pub to: u32,
    /// For how long it ran nowhere.
    pub away_s: f64,
}

/// What a vCPU did with its time, in seconds.
#[derive(Debug, Deserialize)]
pub struct Vcpu {
    /// Its index.
    pub vcpu: u32,
    /// On a CPU.
    pub running_s: f64,
    /// Without one.
    pub waiting_s: f64,
    /// With nothing to run.
    pub blocked_s: f64,
}

/// VM exits for one reason.
#[derive(Debug, Deserialize)]
pub struct Exit {
    /// Why.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// Until the guest was entered again, of all.
    pub total_s: f64,
    /// What the guest was doing, what took longest first.
    pub functions: Vec<ExitFunction>,
}

/// VM exits for one reason from one function.
#[derive(Debug, Deserialize)]
pub struct ExitFunction {
    /// What it is called.
    pub name: String,
    /// In which mode it ran.
    pub mode: String,
    /// How often.
    pub count: u64,
}

/// A function.
#[derive(Debug, Deserialize)]
pub struct Function {
    /// What it is called.
    pub name: String,
    /// The image that it lies in.
    pub module: Option<String>,
    /// In which mode it ran.
    pub mode: String,
    /// The weight of its own samples.
    #[serde(rename = "self")]
    pub self_weight: u64,
}

/// A process.
#[derive(Debug, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: Option<u32>,
    /// Its name.
    pub name: Option<String>,
    /// Its control group.
    pub container: Option<String>,
    /// What its samples stand for.
    pub weight: u64,
}

impl Report {
    /// Reads the JSON.
    pub fn parse(json: &[u8]) -> Self {
        serde_json::from_slice(json)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(json)))
    }

    /// The one event that there is.
    pub fn event(&self) -> &Event {
        assert_eq!(self.events.len(), 1, "events");
        &self.events[0]
    }

    /// The only row of a name.
    pub fn domain(&self, name: &str) -> &Domain {
        let mut rows = self.event().domains.iter().filter(|domain| domain.name == name);
        let row = rows.next().unwrap_or_else(|| panic!("no row of {name}"));
        assert!(rows.next().is_none(), "two rows of {name}");
        row
    }

    /// The rows of domains, without that of the hypervisor's own work.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.event().domains.iter().filter(|domain| domain.kind != "hypervisor")
    }

    /// Whether one of the notes has these words in it.
    pub fn notes_say(&self, words: &str) -> bool {
        self.notes.iter().any(|note| note.text.contains(words))
    }
}

/// A domain's share of the samples of all domains, and of the CPU time that the hypervisor accounts to them.
pub struct Shares<'a> {
    /// Whose.
    pub domain: &'a str,
    /// Of the samples.
    pub sampled: f64,
    /// Of the time.
    pub accounted: f64,
}

impl Report {
    /// The shares of all domains, of what ran on their own vCPUs: on Xen, backends run on dom0's.
    pub fn shares(&self) -> Vec<Shares<'_>> {
        let accounted = |domain: &Domain| domain.cpu_s.expect("a whole recording has accounts");
        let all_weight: u64 = self.domains().map(|domain| domain.weight).sum();
        let on_xen = self.domains().any(|domain| domain.kind == "dom0");
        let backends: u64 = self.domains().map(|domain| domain.modes["backend"]).sum();
        let on_vcpus = |row: &Domain| match row.kind.as_str() {
            "dom0" => row.weight + backends,
            _ if on_xen => row.weight - row.modes["backend"],
            _ => row.weight,
        };
        let all_time: f64 = self.domains().map(accounted).sum();
        let rows = self.domains().map(|row| Shares {
            domain: &row.name,
            sampled: on_vcpus(row) as f64 / all_weight as f64,
            accounted: accounted(row) / all_time,
        });
        rows.collect()
    }
}
