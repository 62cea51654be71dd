//! Finding the domain that the user means.

use crate::{DomainReport, EventReport, Visible};

/// The user's word does not mean exactly one domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// It means none.
    #[error("no domain {wanted:?} in this recording; there are: {there}")]
    Unknown {
        /// The user's word.
        wanted: String,
        /// The domains that the recording has.
        there: String,
    },
    /// It means several.
    #[error("{wanted:?} is more than one domain; say which by UUID: {those}")]
    Ambiguous {
        /// The user's word.
        wanted: String,
        /// What it could mean.
        those: String,
    },
}

impl EventReport {
    /// The index of the row that `wanted` names: by name, else by number, else by UUID.
    pub fn find_domain(&self, wanted: &str) -> Result<usize, SelectError> {
        let number: Option<u32> = wanted.parse().ok();
        let by_name = |domain: &DomainReport| domain.name == wanted;
        let by_number = |domain: &DomainReport| domain.id.is_some() && domain.id == number;
        let by_uuid = |domain: &DomainReport| {
            domain.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(wanted))
        };
        let ways: [&dyn Fn(&DomainReport) -> bool; 3] = [&by_name, &by_number, &by_uuid];
        for means in ways {
            let found: Vec<usize> = (0..self.domains.len()).filter(|&i| means(&self.domains[i])).collect();
            match found[..] {
                [] => {}
                [one] => return Ok(one),
                _ => {
                    let those = list(found.iter().map(|&i| &self.domains[i]));
                    return Err(SelectError::Ambiguous { wanted: wanted.to_owned(), those });
                }
            }
        }
        Err(SelectError::Unknown { wanted: wanted.to_owned(), there: list(&self.domains) })
    }
}

fn list<'a>(domains: impl IntoIterator<Item = &'a DomainReport>) -> String {
    let described = |domain: &DomainReport| {
        let mut text = Visible(&domain.name).to_string();
        if let Some(id) = domain.id {
            text += &format!(" ({id})");
        }
        if let Some(uuid) = &domain.uuid {
            text += &format!(" {uuid}");
        }
        text
    };
    domains.into_iter().map(described).collect::<Vec<_>>().join(", ")
}
