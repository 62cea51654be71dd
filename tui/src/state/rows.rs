//! The rows: a domain over all its boots, or the hypervisor's own work.

use std::collections::BTreeMap;

use analysis::Identity;
use profile::{Domain, DomainId};

use super::index::{Sums, handle};

handle! {
    /// A row. It stays what it is for as long as the dashboard runs.
    pub RowId
}

/// A row.
#[derive(Debug)]
pub(crate) struct Row {
    /// The last boot; none for the hypervisor's own work.
    pub(crate) domain: Option<DomainId>,
    pub(crate) alive: bool,
    pub(crate) boots: u32,
    pub(crate) sums: Sums,
}

/// What news of a domain means for its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It was not there before.
    Born,
    /// One that had been there is there again.
    Again,
    /// It is known better.
    Updated,
}

#[derive(Debug)]
pub(crate) struct Rows {
    rows: Vec<Row>,
    of_domain: BTreeMap<DomainId, RowId>,
    of_identity: BTreeMap<Identity, RowId>,
}

impl Rows {
    /// The row of what is done on nobody's behalf.
    pub(crate) const HYPERVISOR: RowId = RowId(0);

    pub(crate) fn new() -> Self {
        let hypervisor = Row { domain: None, alive: true, boots: 0, sums: Sums::default() };
        Self { rows: vec![hypervisor], of_domain: BTreeMap::new(), of_identity: BTreeMap::new() }
    }

    pub(crate) fn learn(&mut self, domain: &Domain) -> News {
        if self.of_domain.contains_key(&domain.id) {
            return News::Updated;
        }
        let identity = Identity::of(domain);
        let known = self.of_identity.get(&identity).copied();
        let id = known.unwrap_or_else(|| {
            let id = RowId::of(self.rows.len());
            self.rows.push(Row { domain: None, alive: true, boots: 0, sums: Sums::default() });
            self.of_identity.insert(identity, id);
            id
        });
        self.of_domain.insert(domain.id, id);
        let row = &mut self.rows[id.at()];
        row.domain = Some(domain.id);
        row.alive = true;
        row.boots += 1;
        if known.is_some() { News::Again } else { News::Born }
    }

    pub(crate) fn gone(&mut self, domain: DomainId) {
        if let Some(id) = self.of_domain.get(&domain) {
            let row = &mut self.rows[id.at()];
            row.alive &= row.domain != Some(domain);
        }
    }

    /// The row that a sample is charged to.
    pub(crate) fn of(&self, charged_to: Option<DomainId>) -> RowId {
        charged_to.and_then(|id| self.of_domain.get(&id).copied()).unwrap_or(Self::HYPERVISOR)
    }

    pub(crate) fn row(&self, id: RowId) -> &Row {
        &self.rows[id.at()]
    }

    pub(crate) fn sums_mut(&mut self, id: RowId) -> &mut Sums {
        &mut self.rows[id.at()].sums
    }

    pub(crate) fn forget_sums(&mut self) {
        self.rows.iter_mut().for_each(|row| row.sums = Sums::default());
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (RowId, &Row)> {
        self.rows.iter().enumerate().map(|(at, row)| (RowId::of(at), row))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() * (size_of::<Row>() + 100)
    }
}
