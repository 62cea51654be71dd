//! The one pass over a recording: equal samples are counted together, and everything else is made from the counts.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
};

use profile::{
    ChainId, DomainId, EventId, Frame, Mode, PhysCpu, ProcessId,
    recording::{self, Completeness, EndReason, Move, Recorded, Recording, RecordingError, Tables},
};

use crate::{
    books::{self, Books, Sequence},
    counted::Counts,
    exits::{self, ExitsByDomain},
    functions::functions,
    processes::processes,
    report::{
        DomainReport, EventReport, HostReport, Modes, MoveReport, Named, NoteReport, Report, seconds, share,
    },
    rows::{Row, rows},
};

/// All that the samples of one kind have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) event: EventId,
    pub(crate) charged_to: Option<DomainId>,
    pub(crate) process: Option<ProcessId>,
    pub(crate) mode: Mode,
    pub(crate) chain: ChainId,
}

/// How many samples there are, and what they stand for.
///
/// Weights come from a file, so they are added without overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) samples: u64,
    pub(crate) weight: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.weight = self.weight.saturating_add(other.weight);
    }

    pub(crate) fn sum(tallies: impl IntoIterator<Item = Self>) -> Self {
        tallies.into_iter().fold(Self::default(), |mut sum, tally| {
            sum.add(tally);
            sum
        })
    }
}

/// A recording, counted.
#[derive(Debug)]
pub struct Aggregate {
    pub(crate) recorded: Recorded,
    pub(crate) tallies: HashMap<Place, Tally>,
    pub(crate) exits: ExitsByDomain,
    sequences: BTreeMap<PhysCpu, Sequence>,
}

impl Aggregate {
    /// Reads a recording through. Memory grows with its distinct call chains, not with its samples.
    pub fn of<R: Read>(recording: Recording<R>) -> Result<Self, RecordingError> {
        let mut counts = Counts::default();
        let mut sequences: BTreeMap<PhysCpu, Sequence> = BTreeMap::new();
        let recorded = recording.for_all_samples(|samples, tables| {
            let lanes = tables.lanes();
            counts.add(samples, tables);
            let mut by_lane = vec![Sequence::default(); lanes.len()];
            for (lane, &sequence) in samples.lanes().iter().zip(samples.sequences()) {
                by_lane[*lane as usize].add(sequence);
            }
            for (lane, sequence) in lanes.iter().zip(by_lane) {
                sequences.entry(lane.cpu).or_default().join(sequence);
            }
        })?;
        let mut tallies = HashMap::new();
        for event in (0..=u16::MAX).map(EventId).take(recorded.header.events.len()) {
            for counted in counts.of(event, &recorded.tables) {
                let recording::Place { charged_to, process, mode, chain } = counted.place;
                let tally = Tally { samples: counted.samples, weight: counted.weight };
                tallies.insert(Place { event, charged_to, process, mode, chain }, tally);
            }
        }
        Ok(Self { exits: exits::by_domain(&recorded), recorded, tallies, sequences })
    }

    /// Everything that is said of the recording.
    pub fn report(&self) -> Report {
        let recorded = &self.recorded;
        let host = &recorded.header.host;
        Report {
            schema: 1,
            duration_s: self.since_start(recorded.until.0),
            host: HostReport {
                hypervisor: host.hypervisor.clone(),
                build_id: host.build_id.clone(),
                kernel: host.kernel.clone(),
                hostname: host.hostname.clone(),
                cpus: host.cpus,
            },
            events: (0..=u16::MAX)
                .map(EventId)
                .take(recorded.header.events.len())
                .map(|id| self.event(id))
                .collect(),
            complete: matches!(recorded.completeness, Completeness::Whole(_)),
            notes: self.notes(),
        }
    }

    fn event(&self, id: EventId) -> EventReport {
        let event = &self.recorded.header.events[usize::from(id.0)];
        let books = Books::of(self.recorded.snapshot.as_ref());
        let rows = rows(self, id);
        let total = Tally::sum(rows.iter().map(|row| row.total));
        let domains: Vec<DomainReport> = rows.iter().map(|row| self.domain(row, total.weight)).collect();
        let mut modes = Modes::default();
        for domain in &domains {
            Mode::ALL.into_iter().for_each(|mode| modes.add(mode, domain.modes.get(mode)));
        }
        EventReport {
            name: event.name.clone(),
            unit: event.unit.clone(),
            source: event.source,
            bias: event.source.bias(),
            rate_hz: rate(event.rate_hz, books.taken_hz, self.recorded.header.events.len()),
            samples: total.samples,
            weight: total.weight,
            idle_s: books.idle_s,
            filtered: books.filtered,
            lost: books.lost,
            modes,
            domains,
            taken: books.taken,
            quiet_s: books.quiet_s,
            masked_s: books.masked_s,
            foreign_nmis: books.foreign_nmis,
            overhead: books.overhead,
            cpus: books.cpus,
        }
    }

    fn domain(&self, row: &Row, busy: u64) -> DomainReport {
        let tables = &self.recorded.tables;
        let mut modes = Modes::default();
        let mut named = Modes::default();
        for &(place, tally) in &row.places {
            modes.add(place.mode, tally.weight);
            if tables.frame(tables.chain(place.chain).frame).function.is_some() {
                named.add(place.mode, tally.weight);
            }
        }
        let named_share = |mode| match modes.get(mode) {
            0 => None,
            whole => Some(share(named.get(mode), whole)),
        };
        DomainReport {
            id: row.id,
            name: row.name.clone(),
            uuid: row.uuid.map(|uuid| uuid.to_string()),
            kind: row.kind,
            samples: row.total.samples,
            weight: row.total.weight,
            share: share(row.total.weight, busy),
            modes,
            named: Named { kernel: named_share(Mode::Kernel), user: named_share(Mode::User) },
            complete_chains: if self.asked_for_callers() {
                complete_chains(row, tables)
            } else {
                BTreeMap::new()
            },
            functions: functions(row, tables),
            processes: processes(row, tables, busy),
            cpu_s: books::cpu_time(self.recorded.snapshot.as_ref(), &row.boots),
            vcpus: books::vcpus(self.recorded.vcpu_times.as_ref(), &row.boots),
            exits: exits::reasons(row, &self.exits, tables),
            moves: tables
                .moves()
                .filter(|moved| row.boots.contains(&moved.to))
                .map(|moved| self.a_move(moved))
                .collect(),
        }
    }

    fn a_move(&self, moved: &Move) -> MoveReport {
        MoveReport {
            from: moved.from_number,
            to: self.recorded.tables.domain(moved.to).number,
            left_s: self.since_start(moved.left.0),
            away_s: seconds(moved.away_ns()),
        }
    }

    /// Whether a chain of one frame lacks its callers.
    fn asked_for_callers(&self) -> bool {
        self.recorded.header.options.contains_key("call-graph")
    }

    /// The recording's own notes, and what must be said of the recording itself.
    fn notes(&self) -> Vec<NoteReport> {
        let recorded = &self.recorded;
        let mut said = Vec::new();
        match &recorded.completeness {
            Completeness::Torn { at_byte } => said.push(format!(
                "the recording was not finished: it is read up to byte {at_byte}, and what its books say may be older \
                 than its last samples"
            )),
            Completeness::Damaged { at_byte, damage } => said.push(format!(
                "the recording is damaged: {damage}; it is read up to byte {at_byte}, and what its books say may be \
                 older than its last samples"
            )),
            Completeness::Whole(end) => {
                if let EndReason::HostError(error) = &end.reason {
                    said.push(format!("the recording ended early: {error}"));
                }
                // What was on its way when one file of a series ended is in the next one.
                if !recorded.header.options.contains_key("rotate") {
                    said.extend(books::doubts(recorded.snapshot.as_ref(), &self.sequences));
                }
            }
        }
        let own = recorded.notes.iter().map(|note| (note.time, note.text.clone()));
        let moves = recorded.tables.moves().map(|moved| {
            let name = &recorded.tables.domain(moved.to).name;
            let MoveReport { from, to, away_s, .. } = self.a_move(moved);
            (
                moved.arrived,
                format!("{name} was moved: domain {from} went on as {to}, and ran nowhere for {away_s:.1} s"),
            )
        });
        own.chain(moves)
            .chain(said.into_iter().map(|text| (recorded.until, text)))
            .map(|(time, text)| NoteReport { at_s: self.since_start(time.0), text })
            .collect()
    }

    fn since_start(&self, time_ns: u64) -> f64 {
        seconds(time_ns.saturating_sub(self.recorded.header.started.0))
    }
}

/// The part of the weight of each mode whose chains have no gap.
fn complete_chains(row: &Row, tables: &Tables) -> BTreeMap<Mode, f64> {
    let mut weights: BTreeMap<Mode, (u64, u64)> = BTreeMap::new();
    for &(place, Tally { weight, .. }) in &row.places {
        let (complete, all) = weights.entry(place.mode).or_default();
        *all = all.saturating_add(weight);
        if !tables.frames(place.chain).any(Frame::is_gap) {
            *complete = complete.saturating_add(weight);
        }
    }
    weights.into_iter().map(|(mode, (complete, all))| (mode, share(complete, all))).collect()
}

/// What is shown as an event's rate. Of several events each is sampled as often: the books do not tell them apart.
fn rate(asked: f64, taken_hz: Option<f64>, events: usize) -> f64 {
    /// What chance alone takes from a rate.
    const KEPT: f64 = 0.9;
    match taken_hz.map(|hz| hz / events as f64) {
        Some(came) if asked == 0.0 || came < asked * KEPT => (came * 10.0).round() / 10.0,
        _ => asked,
    }
}
