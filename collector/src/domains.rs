//! Which domain a number means, while domains come and go.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
};

use hv_shim::{DomainState, Stay};
use profile::{
    Domain, DomainId, DomainKind, DomainTime, Time, Uuid,
    recording::{Move, Note, Writer},
};

/// All domains of a recording, living and dead.
pub(crate) struct Domains {
    filter: Filter,
    known: Vec<Known>,
    /// The living, by the hypervisor's number.
    living: BTreeMap<u32, DomainId>,
    /// Who had a number last, and until when it was listed.
    dead: BTreeMap<u32, (DomainId, Time)>,
    /// Who had an identity last.
    latest: HashMap<Uuid, DomainId>,
    /// Numbers of domains in which known guests are about to arrive.
    arriving: BTreeMap<u32, Uuid>,
    /// When the domains of all numbers were first and last sampled in code of their own.
    ran: HashMap<u32, (Time, Time)>,
}

/// What is told of a domain comes at most so long after it is known to be gone.
const TOLD_AFTER_NS: u64 = 1_000_000_000;

struct Known {
    domain: Domain,
    wanted: bool,
    /// Whether it is wanted whatever it is called, since it was before it moved.
    followed: bool,
    /// When it was last listed as one that runs.
    seen: Time,
    /// Whether it is suspended, or was when it was listed last.
    left: bool,
    /// CPU time that it had when it was first seen here.
    cpu_ns_before: u64,
    /// CPU time since, as last seen.
    cpu_ns: u64,
}

/// Where a domain comes from that was not listed before.
enum Origin {
    /// It was started.
    Boot,
    /// A guest that is known already has not arrived in it yet.
    Pending,
    /// It is a guest that was another domain.
    Moved(DomainId),
}

/// Which domains are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// All of them, and the hypervisor's own work.
    #[default]
    All,
    /// Those that one of these texts names, or is the number of.
    Named(BTreeSet<String>),
}

impl Filter {
    fn wants(&self, domain: &Domain) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(&domain.name) || names.contains(&domain.number.to_string()),
        }
    }

    /// Whether the hypervisor's own work is recorded: it belongs to no domain.
    pub(crate) fn wants_nobodys(&self) -> bool {
        *self == Self::All
    }
}

impl Domains {
    pub(crate) fn new(filter: Filter) -> Self {
        Self {
            filter,
            known: Vec::new(),
            living: BTreeMap::new(),
            dead: BTreeMap::new(),
            latest: HashMap::new(),
            arriving: BTreeMap::new(),
            ran: HashMap::new(),
        }
    }

    /// Takes note that the domain of a number was sampled in code of its own.
    pub(crate) fn ran(&mut self, number: u32, time: Time) {
        let (first, last) = self.ran.entry(number).or_insert((time, time));
        (*first, *last) = (time.min(*first), time.max(*last));
    }

    /// Takes the list of the domains that live now. `first` is true for the list from before sampling began: what
    /// those domains had used by then is not of this recording.
    pub(crate) fn update<W: Write>(
        &mut self,
        states: &[DomainState],
        now: Time,
        first: bool,
        writer: &mut Writer<W>,
    ) -> Changes {
        let mut changes = Changes::default();
        let gone: Vec<u32> = self
            .living
            .iter()
            .filter(|(number, id)| !states.iter().any(|state| self.is_same(**id, **number, state)))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            let id = self.living.remove(&number).expect("taken from this map");
            self.dead.insert(number, (id, now));
            writer.domain_gone(id, now);
            changes.gone.push(id);
        }
        self.note_who_left(states, now);
        for state in states {
            let id = match self.living.get(&state.number) {
                Some(&id) => id,
                None => {
                    let origin = self.origin(state);
                    if let Origin::Pending = origin {
                        self.arriving.extend(state.uuid.map(|uuid| (state.number, uuid)));
                        continue;
                    }
                    let id = self.add(state, now, if first { state.cpu_ns } else { 0 });
                    if let Origin::Moved(from) = origin {
                        self.follow(from, id);
                        writer.domain_moved(self.moved(from, id, now));
                    }
                    changes.born.push(id);
                    id
                }
            };
            let known = &mut self.known[id.0 as usize];
            let known_better = known.domain.name != state.name || known.domain.vcpus != state.vcpus;
            if known_better {
                known.domain.name.clone_from(&state.name);
                known.domain.vcpus = state.vcpus;
                known.wanted = known.followed || self.filter.wants(&known.domain);
            }
            known.cpu_ns = state.cpu_ns.saturating_sub(known.cpu_ns_before);
            if known_better || changes.born.last() == Some(&id) {
                writer.domain(known.domain.clone());
            }
            if known_better && !changes.born.contains(&id) {
                changes.born.push(id);
            }
        }
        changes
    }

    /// Notes who is suspended, or is no longer.
    fn note_who_left(&mut self, states: &[DomainState], now: Time) {
        for state in states {
            if let Some(id) = self.living.get(&state.number) {
                let known = &mut self.known[id.0 as usize];
                known.left = state.stay == Stay::Left;
                if !known.left {
                    known.seen = now;
                }
            }
        }
        self.arriving.retain(|number, _| states.iter().any(|state| state.number == *number));
    }

    /// Where a domain comes from that is new. A guest that moves is two domains for a while; one that was rebooted, or
    /// destroyed and started anew, never is, and was not suspended before.
    fn origin(&self, state: &DomainState) -> Origin {
        let Some(uuid) = state.uuid else { return Origin::Boot };
        let Some(&before) = self.latest.get(&uuid) else { return Origin::Boot };
        let left = self.known[before.0 as usize].left;
        let lives = self.living.values().any(|&id| id == before);
        let was_arriving = self.arriving.get(&state.number) == Some(&uuid);
        match state.stay {
            Stay::Arriving if left || lives || was_arriving => Origin::Pending,
            Stay::Arriving => Origin::Boot,
            // The one that it left may not have been seen suspended.
            _ if left || was_arriving && !lives => Origin::Moved(before),
            // Two that run have no business having the same.
            _ => Origin::Boot,
        }
    }

    /// That a guest goes on in another domain, which was not listed before now. It was away for no longer than from the last
    /// sign of it there to the first one here.
    fn moved(&self, from: DomainId, to: DomainId, now: Time) -> Move {
        let (before, number) = (&self.known[from.0 as usize], self.domain(to).number);
        let last =
            self.ran.get(&before.domain.number).map_or(before.seen, |&(_, last)| last.max(before.seen));
        let first = self.ran.get(&number).map_or(now, |&(first, _)| first.min(now));
        let left = last.min(now);
        let arrived = if first >= left { first } else { now };
        Move { from, from_number: before.domain.number, to, left, arrived }
    }

    /// Has a domain be wanted if what it was before was.
    fn follow(&mut self, from: DomainId, to: DomainId) {
        let followed = self.known[from.0 as usize].wanted;
        let to = &mut self.known[to.0 as usize];
        (to.followed, to.wanted) = (followed, followed || to.wanted);
    }

    fn is_same(&self, id: DomainId, number: u32, state: &DomainState) -> bool {
        state.number == number && state.uuid == self.known[id.0 as usize].domain.uuid
    }

    fn add(&mut self, state: &DomainState, now: Time, cpu_ns_before: u64) -> DomainId {
        let id = DomainId(self.known.len() as u32);
        let domain = Domain {
            id,
            number: state.number,
            name: state.name.clone(),
            uuid: state.uuid,
            kind: state.kind,
            vcpus: state.vcpus,
            from: now,
        };
        let wanted = self.filter.wants(&domain);
        let (followed, left) = (false, false);
        self.known.push(Known { domain, wanted, followed, seen: now, left, cpu_ns_before, cpu_ns: 0 });
        self.living.insert(state.number, id);
        self.latest.extend(state.uuid.map(|uuid| (uuid, id)));
        self.arriving.remove(&state.number);
        id
    }

    /// The living domain of a number.
    pub(crate) fn of_number(&self, number: u32) -> Option<DomainId> {
        self.living.get(&number).copied()
    }

    /// The living domain of a number, or the one that had it last.
    pub(crate) fn last_of_number(&self, number: u32) -> Option<DomainId> {
        self.of_number(number).or_else(|| Some(self.dead.get(&number)?.0))
    }

    /// The domain that had a number at a time: samples that waited for names may be of one that is dead by now, and what
    /// guests were left for is told a moment later.
    pub(crate) fn of_number_at(&self, number: u32, time: Time) -> Option<DomainId> {
        let dead_by = |late_ns| {
            let dead = self.dead.get(&number).filter(|(_, gone)| time.0 <= gone.0.saturating_add(late_ns));
            dead.map(|&(id, _)| id)
        };
        dead_by(0).or_else(|| self.of_number(number)).or_else(|| dead_by(TOLD_AFTER_NS))
    }

    /// A domain that was sampled but never listed: it was born and died between two looks.
    pub(crate) fn add_unlisted<W: Write>(
        &mut self,
        number: u32,
        now: Time,
        writer: &mut Writer<W>,
    ) -> DomainId {
        let on_kvm = self.known.iter().any(|known| known.domain.kind == DomainKind::Host);
        let state = DomainState {
            number,
            name: format!("domain-{number}"),
            uuid: None,
            kind: if on_kvm { DomainKind::Kvm } else { DomainKind::Pv },
            vcpus: 0,
            cpu_ns: 0,
            stay: Stay::Here,
        };
        let id = self.add(&state, now, 0);
        writer.domain(self.domain(id).clone());
        let text = format!(
            "domain {number} came and went between two looks at the list of domains: its name and kind are not known"
        );
        writer.note(Note { time: now, text });
        id
    }

    pub(crate) fn domain(&self, id: DomainId) -> &Domain {
        &self.known[id.0 as usize].domain
    }

    /// Whether samples of a domain (none: the hypervisor's own) are recorded.
    pub(crate) fn is_wanted(&self, id: Option<DomainId>) -> bool {
        match id {
            Some(id) => self.known[id.0 as usize].wanted,
            None => self.filter.wants_nobodys(),
        }
    }

    /// Texts of the filter that no domain ever answered to.
    pub(crate) fn unmatched(&self) -> Vec<String> {
        let Filter::Named(names) = &self.filter else { return Vec::new() };
        let answers = |text: &String| {
            self.known
                .iter()
                .any(|known| known.domain.name == *text || known.domain.number.to_string() == *text)
        };
        names.iter().filter(|text| !answers(text)).cloned().collect()
    }

    /// The CPU time of all domains since sampling began, or since they were born.
    pub(crate) fn times(&self) -> Vec<DomainTime> {
        let time = |known: &Known| DomainTime { domain: known.domain.id, cpu_ns: known.cpu_ns };
        self.known.iter().map(time).collect()
    }
}

/// What a new list of domains changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Domains that are new, or are known by another name than before.
    pub(crate) born: Vec<DomainId>,
    /// Domains that are no more.
    pub(crate) gone: Vec<DomainId>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use profile::recording::{End, EndReason, Header, Host, Recording};

    use super::*;

    fn state(number: u32, name: &str, uuid: u8, cpu_ns: u64) -> DomainState {
        DomainState {
            number,
            name: name.into(),
            uuid: Some(Uuid([uuid; 16])),
            kind: DomainKind::Pv,
            vcpus: 1,
            cpu_ns,
            stay: Stay::Here,
        }
    }

    fn writer() -> Writer<Vec<u8>> {
        let host = Host {
            hypervisor: String::new(),
            build_id: None,
            kernel: String::new(),
            hostname: String::new(),
            cpus: 1,
        };
        let header = Header {
            tool: String::new(),
            started_unix_ns: 0,
            started: Time(0),
            host,
            events: Vec::new(),
            command: None,
            options: BTreeMap::new(),
        };
        Writer::new(Vec::new(), &header).unwrap()
    }

    #[test]
    fn a_number_that_is_handed_out_again_is_another_domain() {
        let (mut domains, mut writer) = (Domains::new(Filter::All), writer());
        domains.update(&[state(3, "web", 1, 100)], Time(0), true, &mut writer);
        let first = domains.of_number(3).unwrap();
        let changes = domains.update(&[state(3, "db", 2, 40)], Time(9), false, &mut writer);
        let second = domains.of_number(3).unwrap();
        assert_eq!(changes, Changes { born: vec![second], gone: vec![first] });
        assert_ne!(first, second);
        assert_eq!(domains.domain(second).name, "db");
        // Samples may arrive late.
        assert_eq!(domains.of_number_at(3, Time(8)), Some(first));
        assert_eq!(domains.of_number_at(3, Time(10)), Some(second));
        domains.update(&[], Time(20), false, &mut writer);
        assert_eq!(domains.of_number_at(3, Time(15)), Some(second));
        assert_eq!(domains.of_number_at(3, Time(21)), Some(second), "nobody else has it");
        assert_eq!(domains.of_number_at(3, Time(21 + TOLD_AFTER_NS)), None);
        assert_eq!(domains.last_of_number(3), Some(second));
    }

    fn staying(stay: Stay, mut state: DomainState) -> DomainState {
        state.stay = stay;
        state
    }

    fn moves(writer: Writer<Vec<u8>>) -> Vec<Move> {
        let file = writer.finish(End { time: Time(99), reason: EndReason::Duration }).unwrap();
        let recorded = Recording::read(&*file).unwrap().for_each_sample(|_, _| ()).unwrap();
        recorded.tables.moves().copied().collect()
    }

    /// Lists domains one after the other, from time 0 on.
    fn listed(filter: Filter, lists: &[&[DomainState]]) -> (Domains, Writer<Vec<u8>>) {
        let (mut domains, mut writer) = (Domains::new(filter), writer());
        for (time, states) in (0..).zip(lists) {
            domains.update(states, Time(time), time == 0, &mut writer);
        }
        (domains, writer)
    }

    #[test]
    fn a_guest_that_is_saved_and_restored_has_moved() {
        let here = || state(3, "web", 1, 100);
        let left = || staying(Stay::Left, here());
        let restored = || staying(Stay::Arriving, state(7, "web", 1, 0));
        let again = || state(7, "web", 1, 5);
        let wanted = Filter::Named(["web".into()].into());
        let (domains, writer) =
            listed(wanted, &[&[here()], &[left()], &[left()], &[], &[restored()], &[again()]]);
        assert_eq!(domains.known.len(), 2, "what is about to arrive is nobody yet");
        assert!(domains.is_wanted(domains.of_number(7)));
        let (from, to) = (DomainId(0), DomainId(1));
        let moved = Move { from, from_number: 3, to, left: Time(0), arrived: Time(5) };
        assert_eq!(moves(writer), [moved]);
    }

    #[test]
    fn a_guest_that_is_migrated_is_followed_by_its_name_and_number() {
        let old = |stay| staying(stay, state(3, "web", 1, 100));
        let new = |stay, cpu_ns| staying(stay, state(7, "web--incoming", 1, cpu_ns));
        let (here, left) = (|| old(Stay::Here), || old(Stay::Left));
        let arriving = || new(Stay::Arriving, 0);
        for filter in ["web", "3"] {
            let (domains, writer) = listed(
                Filter::Named([filter.to_owned()].into()),
                &[
                    &[here()],
                    &[here(), arriving()],
                    &[left(), arriving()],
                    &[left(), new(Stay::Here, 9)],
                    &[state(7, "web", 1, 20)],
                ],
            );
            assert!(domains.is_wanted(domains.of_number(7)), "{filter}");
            assert_eq!(domains.domain(DomainId(1)).name, "web");
            let times: Vec<u64> = domains.times().iter().map(|time| time.cpu_ns).collect();
            assert_eq!(times, [0, 20]);
            assert_eq!(moves(writer).len(), 1, "{filter}");
        }
        // Between two lists, so that it was never seen suspended.
        let (_, writer) = listed(Filter::All, &[&[here()], &[here(), arriving()], &[state(7, "web", 1, 20)]]);
        assert_eq!(
            moves(writer),
            [Move { from: DomainId(0), from_number: 3, to: DomainId(1), left: Time(1), arrived: Time(2) }]
        );
    }

    /// Lists are made far more seldom than samples are taken.
    #[test]
    fn samples_tell_how_long_a_guest_was_away() {
        let moved = |last: u64, first: Option<u64>| {
            let (mut domains, mut writer) = (Domains::new(Filter::All), writer());
            let (old, new) = (state(3, "web", 1, 100), staying(Stay::Arriving, state(7, "web", 1, 0)));
            domains.update(&[old.clone(), new.clone()], Time(0), true, &mut writer);
            [10, last].into_iter().for_each(|time| domains.ran(3, Time(time)));
            first.into_iter().for_each(|time| domains.ran(7, Time(time)));
            let lists = [staying(Stay::Left, old), staying(Stay::Here, new)];
            domains.update(&lists, Time(100), false, &mut writer);
            let [moved] = moves(writer)[..] else { panic!("it has moved") };
            (moved.left.0, moved.arrived.0)
        };
        assert_eq!(moved(60, Some(80)), (60, 80));
        assert_eq!(moved(60, None), (60, 100));
        // One of the two is another domain's that had the number before.
        assert_eq!(moved(60, Some(20)), (60, 100));
        assert_eq!(moved(120, Some(130)), (100, 100));
    }

    #[test]
    fn a_move_that_is_called_off_changes_nothing() {
        let old = |stay| staying(stay, state(3, "web", 1, 100));
        let arriving = || staying(Stay::Arriving, state(7, "web--incoming", 1, 0));
        let (domains, writer) = listed(
            Filter::All,
            &[
                &[old(Stay::Here)],
                &[old(Stay::Here), arriving()],
                &[old(Stay::Left), arriving()],
                &[old(Stay::Here)],
                &[old(Stay::Left)],
                &[old(Stay::Here)],
            ],
        );
        assert_eq!((domains.known.len(), domains.of_number(3)), (1, Some(DomainId(0))));
        assert!(!domains.known[0].left);
        assert_eq!(moves(writer), []);
    }

    #[test]
    fn a_reboot_is_no_move_nor_are_two_of_the_same_uuid() {
        let boot = |number, stay| staying(stay, state(number, "web", 1, 5));
        let (domains, writer) = listed(
            Filter::All,
            &[
                &[boot(3, Stay::Here)],
                &[boot(4, Stay::Arriving)],
                &[boot(4, Stay::Here)],
                &[boot(4, Stay::Here), boot(5, Stay::Here)],
            ],
        );
        assert_eq!(domains.known.len(), 3);
        assert_eq!(moves(writer), []);
    }

    #[test]
    fn cpu_time_counts_from_the_start_or_from_birth() {
        let (mut domains, mut writer) = (Domains::new(Filter::All), writer());
        domains.update(&[state(0, "Domain-0", 0, 1_000)], Time(0), true, &mut writer);
        domains.update(
            &[state(0, "Domain-0", 0, 1_700), state(5, "new", 5, 300)],
            Time(1),
            false,
            &mut writer,
        );
        let times: Vec<u64> = domains.times().iter().map(|time| time.cpu_ns).collect();
        assert_eq!(times, [700, 300]);
        // The dead keep what they had.
        domains.update(&[state(0, "Domain-0", 0, 1_800)], Time(2), false, &mut writer);
        let times: Vec<u64> = domains.times().iter().map(|time| time.cpu_ns).collect();
        assert_eq!(times, [800, 300]);
    }

    #[test]
    fn the_filter_takes_names_and_numbers_and_notices_late_names() {
        let filter = Filter::Named(["web".into(), "7".into(), "nobody".into()].into());
        let (mut domains, mut writer) = (Domains::new(filter), writer());
        domains.update(&[state(2, "domain-2", 2, 0), state(7, "db", 7, 0)], Time(0), true, &mut writer);
        let (two, seven) = (domains.of_number(2), domains.of_number(7));
        assert!(!domains.is_wanted(two) && domains.is_wanted(seven) && !domains.is_wanted(None));
        let changes =
            domains.update(&[state(2, "web", 2, 0), state(7, "db", 7, 0)], Time(1), false, &mut writer);
        assert!(domains.is_wanted(two));
        assert_eq!(changes.born, [two.unwrap()]);
        assert_eq!(domains.unmatched(), ["nobody"]);
    }
}
