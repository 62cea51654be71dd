//! What a look into a guest may cost: one budget for all that is done in it, since bounds of single walks multiply.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// How often the clock is asked, in units of work.
const CLOCK_INTERVAL: u64 = 1 << 14;

/// What is not to be exceeded. The default is some dozen times what the largest real guests took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Units of work: about one for each read and for each 256 bytes that are read or scanned, and so less than a
    /// microsecond each where memory is mapped.
    pub work: u64,
    /// Bytes that are kept or copied. What is given back is not credited: this is no more than a bound.
    pub memory: u64,
    /// Real time. None makes what is found, and what is given up, the same each time.
    pub time: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { work: 16 << 20, memory: 512 << 20, time: None }
    }
}

/// Which limit a look has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// [`Limits::work`].
    #[error("looking into the guest took more work than it may")]
    Work,
    /// [`Limits::memory`].
    #[error("looking into the guest took more memory than it may")]
    Memory,
    /// [`Limits::time`].
    #[error("looking into the guest took longer than it may")]
    Time,
}

/// What is left of the limits.
#[derive(Debug)]
pub struct Budget {
    work: Cell<u64>,
    memory: Cell<u64>,
    deadline: Option<Instant>,
    until_clock: Cell<u64>,
}

impl Budget {
    /// A budget that begins now.
    pub fn new(limits: Limits) -> Self {
        let deadline = limits.time.and_then(|time| Instant::now().checked_add(time));
        let (work, memory) = (Cell::new(limits.work), Cell::new(limits.memory));
        Self { work, memory, deadline, until_clock: Cell::new(CLOCK_INTERVAL) }
    }

    /// Takes units of work.
    pub(crate) fn work(&self, units: u64) -> Result<(), Exhausted> {
        let Some(left) = self.work.get().checked_sub(units) else {
            self.work.set(0);
            return Err(Exhausted::Work);
        };
        self.work.set(left);
        match self.until_clock.get().checked_sub(units) {
            Some(left) => self.until_clock.set(left),
            None => {
                self.until_clock.set(CLOCK_INTERVAL);
                if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                    self.work.set(0);
                    return Err(Exhausted::Time);
                }
            }
        }
        Ok(())
    }

    /// Takes the work of looking at so many bytes.
    pub(crate) fn scan(&self, bytes: u64) -> Result<(), Exhausted> {
        self.work(1 + bytes / 256)
    }

    /// Takes memory that is about to be allocated.
    pub(crate) fn memory(&self, bytes: u64) -> Result<(), Exhausted> {
        let left = self.memory.get().checked_sub(bytes).ok_or(Exhausted::Memory)?;
        self.memory.set(left);
        Ok(())
    }

    /// The units of work that are left.
    pub fn work_left(&self) -> u64 {
        self.work.get()
    }

    /// The bytes of memory that are left.
    pub fn memory_left(&self) -> u64 {
        self.memory.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_does_not_come_back() {
        let budget = Budget::new(Limits { work: 10, memory: 10, time: None });
        assert_eq!(budget.work(9), Ok(()));
        assert_eq!(budget.work(2), Err(Exhausted::Work));
        assert_eq!(budget.work(1), Err(Exhausted::Work), "what is exhausted stays so");
        assert_eq!(budget.memory(11), Err(Exhausted::Memory));
        assert_eq!(budget.memory(10), Ok(()));
    }

    #[test]
    fn a_deadline_that_is_over_ends_the_work() {
        let budget = Budget::new(Limits { time: Some(Duration::ZERO), ..Limits::default() });
        let end = (0..=CLOCK_INTERVAL).find_map(|_| budget.work(1).err());
        assert_eq!(end, Some(Exhausted::Time));
    }
}
