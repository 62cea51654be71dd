//! Domains, their virtual CPUs, and the machine's physical ones.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Time;

/// A domain as one recording knows it: a handle into its table of [`Domain`]s.
///
/// Hypervisors hand the numbers of dead domains out again, so theirs ([`Domain::number`]) do not identify one over
/// time. Each boot of a guest gets a handle of its own; [`Domain::uuid`] and [`Domain::name`] tie them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DomainId(pub u32);

/// What is known of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its handle in this recording.
    pub id: DomainId,
    /// The hypervisor's own number for it (Xen's domid).
    pub number: u32,
    /// The name its operator gave it: untrusted text.
    pub name: String,
    /// The identity that survives a reboot and a migration, where it has one.
    pub uuid: Option<Uuid>,
    /// How it is virtualized.
    pub kind: DomainKind,
    /// How many virtual CPUs it may use.
    pub vcpus: u32,
    /// When it was first seen.
    pub from: Time,
}

impl Domain {
    /// Whether a user who says `wanted` means this one: its name, or its number.
    pub fn is_called(&self, wanted: &str) -> bool {
        self.name == wanted || self.number.to_string() == wanted
    }
}

/// How a domain is virtualized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainKind {
    /// The hypervisor itself.
    Hypervisor,
    /// Xen's control domain.
    Dom0,
    /// A paravirtualized Xen guest.
    Pv,
    /// A Xen guest in a hardware container, without emulated devices.
    Pvh,
    /// A fully virtualized Xen guest.
    Hvm,
    /// The Linux host of KVM.
    Host,
    /// A KVM guest.
    Kvm,
}

impl DomainKind {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hypervisor => "hypervisor",
            Self::Dom0 => "dom0",
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
            Self::Host => "host",
            Self::Kvm => "kvm",
        }
    }
}

impl fmt::Display for DomainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A virtual CPU: its index alone means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VcpuId {
    /// Whose it is.
    pub domain: DomainId,
    /// Its index within that domain.
    pub index: u32,
}

/// A physical CPU, by the hypervisor's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PhysCpu(pub u32);

impl fmt::Display for PhysCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {}", self.0)
    }
}

/// A universally unique identifier, in the order in which it is printed (RFC 9562).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

impl FromStr for Uuid {
    type Err = InvalidUuid;

    fn from_str(text: &str) -> Result<Self, InvalidUuid> {
        let digits: Vec<u8> = text.bytes().filter(|&byte| byte != b'-').collect();
        if digits.len() != 32 {
            return Err(InvalidUuid);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16).ok_or(InvalidUuid);
            *byte = (value(pair[0])? << 4 | value(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a UUID is 32 hexadecimal digits")]
pub struct InvalidUuid;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_read_back_as_printed() {
        let text = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        assert_eq!("6ba7b810".parse::<Uuid>(), Err(InvalidUuid));
        assert_eq!("zba7b810-9dad-11d1-80b4-00c04fd430c8".parse::<Uuid>(), Err(InvalidUuid));
    }
}
