//! What is told again and again, each time since the beginning of the recording; of a recording that goes on in another file,
//! since the beginning of that.

use crate::{CpuAccount, Snapshot, VcpuTimes};

/// What only grows.
pub(super) trait Cumulative: Clone {
    /// What it is since an earlier moment.
    fn since(&self, earlier: &Self) -> Self;
}

/// The latest of something, for the next flush.
#[derive(Debug)]
pub(super) struct Kept<T> {
    /// What it was when this file began, and what it is.
    opening: Option<T>,
    latest: Option<T>,
    is_written: bool,
}

impl<T: Cumulative> Kept<T> {
    pub(super) fn new() -> Self {
        Self { opening: None, latest: None, is_written: true }
    }

    pub(super) fn set(&mut self, value: T) {
        (self.latest, self.is_written) = (Some(value), false);
    }

    pub(super) fn begin_file(&mut self) {
        self.opening.clone_from(&self.latest);
        self.is_written = true;
    }

    /// What is to be written, if anything is.
    pub(super) fn take(&mut self) -> Option<T> {
        let latest = self.latest.as_ref().filter(|_| !self.is_written)?;
        self.is_written = true;
        Some(self.opening.as_ref().map_or_else(|| latest.clone(), |opening| latest.since(opening)))
    }
}

impl Cumulative for Snapshot {
    fn since(&self, earlier: &Self) -> Self {
        let mut books = self.clone();
        books.idle_ns = books.idle_ns.saturating_sub(earlier.idle_ns);
        for (cpu, account) in &mut books.cpus {
            if let Some((_, before)) = earlier.cpus.iter().find(|(known, _)| known == cpu) {
                *account = account.since(before);
            }
        }
        for time in &mut books.domains {
            if let Some(before) = earlier.domains.iter().find(|known| known.domain == time.domain) {
                time.cpu_ns = time.cpu_ns.saturating_sub(before.cpu_ns);
            }
        }
        books
    }
}

impl Cumulative for VcpuTimes {
    fn since(&self, earlier: &Self) -> Self {
        let mut times = self.clone();
        for time in &mut times.vcpus {
            if let Some(before) = earlier.vcpus.iter().find(|known| known.vcpu == time.vcpu) {
                time.running_ns = time.running_ns.saturating_sub(before.running_ns);
                time.waiting_ns = time.waiting_ns.saturating_sub(before.waiting_ns);
                time.blocked_ns = time.blocked_ns.saturating_sub(before.blocked_ns);
            }
        }
        times
    }
}

impl Cumulative for CpuAccount {
    fn since(&self, earlier: &Self) -> Self {
        let since = |count: fn(&Self) -> u64| count(self).saturating_sub(count(earlier));
        let lost = self.lost.iter().map(|(cause, count)| {
            (*cause, count.saturating_sub(earlier.lost.get(cause).copied().unwrap_or(0)))
        });
        Self {
            taken: since(|account| account.taken),
            written: since(|account| account.written),
            filtered: since(|account| account.filtered),
            lost: lost.collect(),
            quiet_ns: since(|account| account.quiet_ns),
            masked_ns: since(|account| account.masked_ns),
            foreign: since(|account| account.foreign),
            late: since(|account| account.late),
            awake_ns: since(|account| account.awake_ns),
            own_ns: since(|account| account.own_ns),
        }
    }
}
