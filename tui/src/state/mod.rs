//! What the dashboard knows: a recording as far as it was told, counted over a window that moves with it.
//!
//! Comes in: [`Told`], piece by piece. Goes out: rows, processes, functions, callers, addresses and the log, each with its
//! weight in the window. Not here: anything that is drawn, files, threads.

mod books;
mod export;
mod history;
mod index;
mod log;
mod rows;
mod shown;

use std::ops::Range;

use profile::{
    EventId, Sample, Time,
    recording::{Completeness, Damage, EndReason, Fact, Header, Recorded, Told},
};

pub(crate) use self::shown::part;
pub use self::{
    books::Rates,
    history::Limits,
    index::{FunctionId, Group, GroupId, NodeId, RowFunction, Scope, Sums},
    log::{Entry, Kind, Log},
    rows::RowId,
    shown::{CodeCopy, FunctionView, Memory, Neighbour, RowView},
};
use self::{
    books::{Books, News},
    history::{History, Kept, SLICE_NS},
    index::{Index, Key, Place, PlaceId, Sign, Zone},
    rows::Rows,
};

/// Domains that appear so soon after the beginning were there before.
const FIRST_NS: u64 = 1_000_000_000;

/// Samples that are so much older than what was told before are another clock's.
const BACKWARDS_NS: u64 = 5_000_000_000;

/// Compaction pays where there are more places than this, and twice as many as it left the last time.
const FEW_PLACES: usize = 10_000;

/// What the dashboard knows.
#[derive(Debug)]
pub struct State {
    recorded: Recorded,
    rows: Rows,
    index: Index,
    history: History,
    books: Books,
    log: Log,
    event: EventId,
    /// Up to when all samples are told.
    present: Time,
    /// From when on they are not all told, by the last flush and by the one that is being told.
    waiting: Option<Time>,
    will_wait: Option<Time>,
    /// How many slices are shown.
    window: u64,
    /// The last slice that is shown, where that is not the newest.
    frozen: Option<u64>,
    shown: Range<u64>,
    before: Range<u64>,
    places_after_compaction: usize,
    revision: u64,
    generation: u64,
}

impl State {
    /// Of a recording that has told its header only. The window is of so many seconds.
    pub fn new(header: Header, limits: Limits, window_s: u64) -> Self {
        Self {
            present: header.started,
            waiting: None,
            will_wait: None,
            recorded: Recorded::new(header),
            rows: Rows::new(),
            index: Index::new(Scope::Machine),
            history: History::new(limits),
            books: Books::default(),
            log: Log::default(),
            event: EventId(0),
            window: window_s.clamp(1, limits.slices),
            frozen: None,
            shown: 0..0,
            before: 0..0,
            places_after_compaction: 0,
            revision: 0,
            generation: 0,
        }
    }

    /// Takes in what the recording told next.
    pub fn take(&mut self, told: Told) -> Result<(), Damage> {
        self.revision += 1;
        let until = self.recorded.until;
        let facts = match &told {
            Told::Facts(facts) => facts.clone(),
            _ => Vec::new(),
        };
        let ends_flush = matches!(told, Told::Snapshot(_) | Told::End(_));
        let snapshot = match &told {
            Told::Snapshot(snapshot) => self.books.take(snapshot),
            Told::VcpuTimes(times) => {
                self.books.take_vcpu_times(times);
                Vec::new()
            }
            _ => Vec::new(),
        };
        let mut samples = Vec::new();
        self.recorded.take(told, |told, tables| samples.extend(told.iter(tables)))?;
        facts.iter().for_each(|fact| self.learn(fact));
        samples.iter().for_each(|sample| self.keep(sample, until));
        snapshot.into_iter().for_each(|news| self.tell(news));
        if ends_flush {
            self.waiting = self.will_wait.take();
        }
        self.go_on(until);
        if let Completeness::Whole(end) = &self.recorded.completeness {
            let text = match &end.reason {
                EndReason::Duration => "the recording is over".to_owned(),
                EndReason::CommandEnded(status) => format!("the command ended with status {status}"),
                EndReason::Interrupted => "the recording was stopped".to_owned(),
                EndReason::Continued => "the recording goes on in another file".to_owned(),
                EndReason::Full => "the recording is as long as it may be".to_owned(),
                EndReason::HostError(error) => format!("the recording ended early: {error}"),
            };
            self.log.add(end.time, Kind::End, text);
        }
        Ok(())
    }

    /// Enters something that happened outside of the recording.
    pub fn remark(&mut self, kind: Kind, text: String) {
        self.revision += 1;
        self.log.add(self.recorded.until, kind, text);
    }

    fn learn(&mut self, fact: &Fact) {
        match fact {
            Fact::Domain(domain) => {
                let early = domain.from.0.saturating_sub(self.started()) < FIRST_NS;
                let moved = self.recorded.tables.moves().find(|moved| moved.to == domain.id);
                let (kind, what) = match (self.rows.learn(domain), moved) {
                    (rows::News::Born, None) if early => return,
                    (rows::News::Updated, _) => {
                        (Kind::Changed, "goes by this name and number of vCPUs now".to_owned())
                    }
                    (_, Some(moved)) => {
                        let (number, away_s) = (moved.from_number, moved.away_ns() as f64 / 1e9);
                        (
                            Kind::Moved,
                            format!(
                                "goes on here: it was number {number}, and ran nowhere for {away_s:.1} s"
                            ),
                        )
                    }
                    (rows::News::Born, None) => (Kind::Born, "appeared".to_owned()),
                    (rows::News::Again, None) => (Kind::Rebooted, "is there again".to_owned()),
                };
                let text = format!(
                    "{} (number {}, {}, {} vCPUs) {what}",
                    domain.name, domain.number, domain.kind, domain.vcpus
                );
                let time = if kind == Kind::Changed { self.recorded.until } else { domain.from };
                self.log.add(time, kind, text);
            }
            Fact::DomainGone { domain, at } => {
                self.rows.gone(*domain);
                // What has moved on is not gone.
                if self.recorded.tables.moves().any(|moved| moved.from == *domain && moved.arrived <= *at) {
                    return;
                }
                let domain = self.recorded.tables.domain(*domain);
                let text = format!("{} (number {}) is gone", domain.name, domain.number);
                self.log.add(*at, Kind::Died, text);
            }
            Fact::Note(note) => self.log.add(note.time, Kind::Note, note.text.clone()),
            Fact::Mark(mark) => self.log.add(mark.time, Kind::Mark, mark.name.clone()),
            Fact::SamplesWait { since } => self.will_wait = Some(*since),
            Fact::Process(_) | Fact::DomainMoved(_) => {}
        }
    }

    fn tell(&mut self, news: News) {
        let time = self.recorded.until;
        match news {
            News::Lost { count, causes } => {
                let text = format!("{count} samples were lost: {}", books::in_words(&causes));
                self.log.add(time, Kind::Loss, text);
            }
            News::Quiet { ns } => {
                let text = format!("nothing was sampled for {:.1} s of CPU time", ns as f64 / 1e9);
                self.log.add(time, Kind::Throttled, text);
            }
        }
    }

    fn keep(&mut self, sample: &Sample, until: Time) {
        let since = sample.time.0.saturating_sub(self.started());
        let mut number = since / SLICE_NS;
        if sample.time.0.saturating_add(BACKWARDS_NS) < until.0 && number < self.history.range().start {
            self.leap(until, sample.time);
            number = self.history.newest();
        }
        if !self.history.open(number) {
            self.leap(until, sample.time);
            self.restart(number);
        }
        let place = self.index.place(Key::of(sample), &self.rows, &self.recorded.tables);
        // What comes late is counted where there still is something.
        let number = number.max(self.history.range().start);
        let kept = Kept {
            weight: sample.weight,
            sequence: sample.sequence,
            offset: (since % SLICE_NS) as u32,
            place,
            cpu: sample.cpu.0 as u16,
            vcpu: sample.vcpu.map(|vcpu| vcpu.index as u16),
        };
        self.history.keep(number, kept);
        if sample.event == self.event {
            let row = self.index.places[place.at()].row;
            self.history.slice_mut(number).count(row.at(), sample.weight);
        }
        for (zone, range) in [(Zone::Shown, self.shown.clone()), (Zone::Before, self.before.clone())] {
            if range.contains(&number) {
                self.count(place, sample.weight, zone, Sign::Plus);
            }
        }
    }

    fn leap(&mut self, from: Time, to: Time) {
        let seconds = (to.0 as f64 - from.0 as f64) / 1e9;
        let way = if seconds < 0.0 { "back" } else { "ahead" };
        self.log.add(to, Kind::Clock, format!("the clock leapt {way} by {:.1} s", seconds.abs()));
    }

    /// Nothing of what was kept is near `number`.
    fn restart(&mut self, number: u64) {
        self.history.restart(number);
        self.forget_counts();
        self.frozen = None;
    }

    fn forget_counts(&mut self) {
        self.renew_index();
        self.rows.forget_sums();
        (self.shown, self.before) = (0..0, 0..0);
    }

    fn count(&mut self, place: PlaceId, weight: u64, zone: Zone, sign: Sign) {
        let Place { key, row, .. } = self.index.places[place.at()];
        if key.event != self.event {
            return;
        }
        if zone == Zone::Shown {
            sign.sums(self.rows.sums_mut(row), key.mode, weight, 1);
        }
        self.index.count(place, weight, zone, sign);
    }

    /// Lets the window follow the samples: what else is told may be seconds ahead of those that wait for their names.
    fn go_on(&mut self, until: Time) {
        let newest = self.recorded.until;
        self.present = self.present.max(self.waiting.map_or(newest, |since| since.min(newest)));
        let newest = self.present.0.saturating_sub(self.started()) / SLICE_NS;
        if !self.history.open(newest) {
            self.leap(until, self.recorded.until);
            self.restart(newest);
        }
        let from = self.history.kept_from();
        self.show(from);
        self.history.drop_before(from);
        self.compact();
    }

    /// Moves the window to where it should be, in what is kept from `from` on.
    fn show(&mut self, from: u64) {
        let newest = self.history.newest();
        let last = self.frozen.map_or(newest, |frozen| frozen.clamp(from, newest));
        let start = (last + 1).saturating_sub(self.window).max(from);
        let shown = start..last + 1;
        let before = start.saturating_sub(self.window).max(from)..start;
        for (zone, now) in [(Zone::Shown, shown), (Zone::Before, before)] {
            let field = if zone == Zone::Shown { &mut self.shown } else { &mut self.before };
            let old = std::mem::replace(field, now.clone());
            for number in old.clone().filter(|number| !now.contains(number)) {
                self.count_slice(number, zone, Sign::Minus);
            }
            for number in now.filter(|number| !old.contains(number)) {
                self.count_slice(number, zone, Sign::Plus);
            }
        }
    }

    fn count_slice(&mut self, number: u64, zone: Zone, sign: Sign) {
        for at in 0..self.history.slice(number).kept.len() {
            let Kept { place, weight, .. } = self.history.slice(number).kept[at];
            self.count(place, weight, zone, sign);
        }
    }

    /// Drops the places that no sample is kept of, once they are many.
    fn compact(&mut self) {
        if self.index.places.len() < FEW_PLACES.max(2 * self.places_after_compaction) {
            return;
        }
        let old = self.renew_index();
        let mut moved: Vec<Option<PlaceId>> = vec![None; old.places.len()];
        for kept in self.history.slices_mut().flat_map(|slice| &mut slice.kept) {
            let place = moved[kept.place.at()].get_or_insert_with(|| {
                self.index.place(old.places[kept.place.at()].key, &self.rows, &self.recorded.tables)
            });
            kept.place = *place;
        }
        self.places_after_compaction = self.index.places.len();
        self.recount();
    }

    fn renew_index(&mut self) -> Index {
        self.generation += 1;
        let scope = self.index.scope();
        std::mem::replace(&mut self.index, Index::new(scope))
    }

    fn recount(&mut self) {
        self.rows.forget_sums();
        (self.shown, self.before) = (0..0, 0..0);
        self.show(self.history.range().start);
    }

    fn started(&self) -> u64 {
        self.recorded.header.started.0
    }
}

/// What the user chooses.
impl State {
    /// Shows the functions of another part of the machine.
    pub fn set_scope(&mut self, scope: Scope) {
        if self.index.scope() != scope {
            self.revision += 1;
            self.index.set_scope(scope);
        }
    }

    /// Sets the length of the window.
    pub fn set_window(&mut self, seconds: u64) {
        self.window = seconds.clamp(1, self.history.limits().slices);
        self.revision += 1;
        self.show(self.history.range().start);
    }

    /// Shows another event.
    pub fn set_event(&mut self, event: EventId) {
        if event == self.event || usize::from(event.0) >= self.recorded.header.events.len() {
            return;
        }
        self.event = event;
        self.revision += 1;
        let old = self.renew_index();
        for slice in self.history.slices_mut() {
            (slice.rows, slice.total) = (Vec::new(), 0);
            for at in 0..slice.kept.len() {
                let Kept { place, weight, .. } = slice.kept[at];
                let key = old.places[place.at()].key;
                let place = self.index.place(key, &self.rows, &self.recorded.tables);
                slice.kept[at].place = place;
                if key.event == event {
                    slice.count(self.index.places[place.at()].row.at(), weight);
                }
            }
        }
        self.recount();
    }

    /// Stops the window where it is, or lets it follow the recording again.
    pub fn freeze(&mut self, freeze: bool) {
        self.frozen = freeze.then(|| self.shown.end.saturating_sub(1));
        self.revision += 1;
        self.show(self.history.range().start);
    }

    /// Moves the window by so many seconds, back where negative. At the newest second it stays frozen.
    pub fn look(&mut self, seconds: i64) {
        let last = self.shown.end.saturating_sub(1).saturating_add_signed(seconds);
        let range = self.history.range();
        self.frozen = Some(last.clamp(range.start, range.end - 1));
        self.revision += 1;
        self.show(range.start);
    }
}
