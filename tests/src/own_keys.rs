//! The keys of a scenario that one hypervisor alone has.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::scenario::HypervisorKind::{self, Kvm, Xen};

/// The table that a key is in, the scenario itself if none; the key; and whose it is.
const OWN_KEYS: [(Option<&str>, &str, HypervisorKind); 7] = [
    (None, "dom0", Xen),
    (None, "host", Kvm),
    (Some("hypervisor"), "args", Xen),
    (Some("machine"), "count_instructions", Xen),
    (Some("guest"), "xl", Xen),
    (Some("guest"), "anonymous", Kvm),
    (Some("guest"), "vmm", Kvm),
];

/// Fails with the first key that is another hypervisor's, and its place.
pub(crate) fn check(
    scenario: &DeTable<'_>,
    hypervisor: HypervisorKind,
) -> Result<(), (Range<usize>, String)> {
    for (table, key, _) in OWN_KEYS.iter().filter(|(_, _, owner)| *owner != hypervisor) {
        let tables = match table {
            Some(name) => scenario.get(*name).map(tables).unwrap_or_default(),
            None => vec![scenario],
        };
        if let Some((found, _)) = tables.into_iter().find_map(|table| table.get_key_value(*key)) {
            let place = table.map(|name| format!("{name}.")).unwrap_or_default();
            return Err((found.span(), format!("{place}{key}: this hypervisor has no such thing")));
        }
    }
    Ok(())
}

/// A table, or the tables of an array.
fn tables<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Vec<&'a DeTable<'i>> {
    match value.get_ref() {
        DeValue::Table(table) => vec![table],
        DeValue::Array(array) => array.iter().filter_map(|value| value.get_ref().as_table()).collect(),
        _ => Vec::new(),
    }
}
