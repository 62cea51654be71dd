//! Which samples make up which row: a domain over all its boots, or the hypervisor's own work.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use profile::{Domain, DomainId, DomainKind, EventId, Uuid, recording::Tables};

use crate::aggregate::{Aggregate, Place, Tally};

/// A row of an event.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: Option<u32>,
    pub(crate) name: String,
    pub(crate) uuid: Option<Uuid>,
    pub(crate) kind: DomainKind,
    /// The domain's handles, one a boot; none for the hypervisor.
    pub(crate) boots: Vec<DomainId>,
    /// What was counted, in a stable order.
    pub(crate) places: Vec<(Place, Tally)>,
    pub(crate) total: Tally,
}

/// What the boots of one guest have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// The hypervisor's own work is nobody's.
    Hypervisor,
    /// What survives a reboot and a migration.
    Uuid(Uuid),
    /// The name, where there is no UUID.
    Name(String),
    /// Neither is known, so nothing says that it was seen before.
    Boot(DomainId),
}

impl Identity {
    /// A domain's.
    pub fn of(domain: &Domain) -> Self {
        match (domain.kind, uuid(domain)) {
            (DomainKind::Hypervisor, _) => Self::Hypervisor,
            (_, Some(uuid)) => Self::Uuid(uuid),
            (_, None) if !domain.name.is_empty() => Self::Name(domain.name.clone()),
            (_, None) => Self::Boot(domain.id),
        }
    }
}

/// The UUID, unless it is the one of all zeros, which stands for none (dom0's, for instance).
fn uuid(domain: &Domain) -> Option<Uuid> {
    domain.uuid.filter(|uuid| uuid.0 != [0; 16])
}

/// The rows of an event, heaviest first.
pub(crate) fn rows(aggregate: &Aggregate, event: EventId) -> Vec<Row> {
    let tables = &aggregate.recorded.tables;
    let (mut rows, row_of) = empty_rows(tables);
    for (&place, &tally) in aggregate.tallies.iter().filter(|(place, _)| place.event == event) {
        let row = place.charged_to.map_or(0, |domain| row_of[&domain]);
        rows[row].places.push((place, tally));
    }
    for row in &mut rows {
        row.places.sort_unstable_by_key(|&(place, _)| place);
        row.total = Tally::sum(row.places.iter().map(|&(_, tally)| tally));
    }
    rows.sort_by_key(|row| Reverse(row.total.weight));
    rows
}

/// A row for the hypervisor, which comes first, and for everyone in the tables; and the row of each domain.
fn empty_rows(tables: &Tables) -> (Vec<Row>, HashMap<DomainId, usize>) {
    let mut boots: BTreeMap<Identity, Vec<&Domain>> = BTreeMap::from([(Identity::Hypervisor, Vec::new())]);
    for domain in tables.domains() {
        boots.entry(Identity::of(domain)).or_default().push(domain);
    }
    let mut row_of = HashMap::new();
    let mut rows = Vec::new();
    for (identity, boots) in boots {
        row_of.extend(boots.iter().map(|boot| (boot.id, rows.len())));
        let last = boots.iter().max_by_key(|boot| boot.from).filter(|_| identity != Identity::Hypervisor);
        rows.push(Row {
            id: last.map(|boot| boot.number),
            name: last.map_or("hypervisor", |boot| &boot.name).to_owned(),
            uuid: last.and_then(|boot| uuid(boot)),
            kind: last.map_or(DomainKind::Hypervisor, |boot| boot.kind),
            boots: boots.iter().map(|boot| boot.id).collect(),
            places: Vec::new(),
            total: Tally::default(),
        });
    }
    (rows, row_of)
}
