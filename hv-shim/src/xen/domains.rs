//! Xen's domains: what the hypervisor tells, and their names from xenstore.

use std::collections::HashMap;

use profile::{DomainKind, Uuid};

use super::{
    hypercalls::{DomainInfo, Hypercalls},
    xenstore::Xenstore,
};
use crate::{DomainState, ShimError, Stay};

/// Lists domains, and asks for each name once.
pub(super) struct Domains {
    xenstore: Option<Xenstore>,
    /// Names by number; with the handle, because numbers are handed out again.
    names: HashMap<u16, (Uuid, String)>,
}

impl Domains {
    pub(super) fn new() -> Self {
        Self { xenstore: None, names: HashMap::new() }
    }

    pub(super) fn list(&mut self, xen: &Hypercalls) -> Result<Vec<DomainState>, ShimError> {
        let infos = xen.domains().map_err(ShimError::io("listing Xen's domains"))?;
        self.names
            .retain(|domid, (uuid, _)| infos.iter().any(|info| info.domid == *domid && info.handle == *uuid));
        let alive = infos.into_iter().filter(DomainInfo::is_alive);
        Ok(alive.map(|info| self.state(&info)).collect())
    }

    fn state(&mut self, info: &DomainInfo) -> DomainState {
        DomainState {
            number: u32::from(info.domid),
            name: self.name(info),
            uuid: Some(info.handle).filter(|uuid| uuid.0 != [0; 16]),
            kind: kind(info),
            vcpus: info.vcpus(),
            cpu_ns: info.cpu_time_ns,
            stay: stay(info),
        }
    }

    /// The name that xenstore has. A domain that is just being built has none yet: it is asked again next time, and
    /// goes by its number until then. One that has not run yet may be renamed when it does: `xl migrate` does that.
    fn name(&mut self, info: &DomainInfo) -> String {
        if let Some((_, name)) = self.names.get(&info.domid) {
            return name.clone();
        }
        self.xenstore = self.xenstore.take().or_else(Xenstore::connect);
        let asked = self.xenstore.as_mut().map(|xenstore| xenstore.name(info.domid));
        match asked {
            Some(Ok(name)) if !name.is_empty() => {
                if stay(info) != Stay::Arriving {
                    self.names.insert(info.domid, (info.handle, name.clone()));
                }
                return name;
            }
            // A connection that failed half-way has lost its place.
            Some(Err(_)) => self.xenstore = None,
            _ => {}
        }
        match info.domid {
            0 => "Domain-0".into(),
            domid => format!("domain-{domid}"),
        }
    }
}

fn stay(info: &DomainInfo) -> Stay {
    match (info.is_suspended(), info.cpu_time_ns) {
        (true, _) => Stay::Left,
        (false, 0) => Stay::Arriving,
        (false, _) => Stay::Here,
    }
}

fn kind(info: &DomainInfo) -> DomainKind {
    /// PVH guests have at most an emulated local APIC (XEN_X86_EMU_LAPIC).
    const LAPIC: u32 = 1;
    match (info.domid, info.is_hvm()) {
        (0, _) => DomainKind::Dom0,
        (_, false) => DomainKind::Pv,
        (_, true) if info.emulation & !LAPIC == 0 => DomainKind::Pvh,
        (_, true) => DomainKind::Hvm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_from_flags_and_emulated_devices() {
        let info = |domid, flags, emulation| DomainInfo {
            domid,
            flags,
            emulation,
            cpu_time_ns: 0,
            max_vcpu_id: 0,
            handle: Uuid([0; 16]),
        };
        assert_eq!(kind(&info(0, 0, 0)), DomainKind::Dom0);
        assert_eq!(kind(&info(0, DomainInfo::HVM_GUEST, 1)), DomainKind::Dom0);
        assert_eq!(kind(&info(3, 0, 0)), DomainKind::Pv);
        assert_eq!(kind(&info(3, DomainInfo::HVM_GUEST, 1)), DomainKind::Pvh);
        assert_eq!(kind(&info(3, DomainInfo::HVM_GUEST, 0xfff)), DomainKind::Hvm);
    }

    #[test]
    fn who_is_suspended_has_left_and_who_shuts_down_otherwise_has_not() {
        let stay_of = |flags, cpu_time_ns| {
            let handle = Uuid([1; 16]);
            stay(&DomainInfo { domid: 3, flags, emulation: 0, cpu_time_ns, max_vcpu_id: 0, handle })
        };
        let shut_down = |reason: u32| DomainInfo::SHUTDOWN | reason << DomainInfo::REASON_SHIFT;
        assert_eq!(stay_of(0, 0), Stay::Arriving);
        assert_eq!(stay_of(0, 1), Stay::Here);
        assert_eq!(stay_of(shut_down(DomainInfo::SUSPEND), 1), Stay::Left);
        for reason in [0, 1, 3] {
            assert_eq!(stay_of(shut_down(reason), 1), Stay::Here, "power off, reboot, crash");
        }
        // The field keeps its last value when a domain was resumed.
        assert_eq!(stay_of(DomainInfo::SUSPEND << DomainInfo::REASON_SHIFT, 1), Stay::Here);
    }
}
