//! What happened, in the order in which it was learned.

use std::collections::VecDeque;

use profile::Time;

/// How many entries are kept.
const MOST: usize = 1000;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub time: Time,
    /// What kind of thing.
    pub kind: Kind,
    /// What: untrusted text.
    pub text: String,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A domain appeared.
    Born,
    /// A domain is gone.
    Died,
    /// A domain that had been there is there again: it was rebooted, or came back.
    Rebooted,
    /// A domain goes on in another place.
    Moved,
    /// A domain changed its name or its vCPUs.
    Changed,
    /// Samples were lost.
    Loss,
    /// Nothing was sampled for a time: the host's kernel throttled, or nobody renewed the shim's lease.
    Throttled,
    /// The clock of the samples leapt.
    Clock,
    /// A remark of whoever samples.
    Note,
    /// A moment that the user named.
    Mark,
    /// The recording ended, or what made it failed.
    End,
}

impl Kind {
    /// The word that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Born => "born",
            Self::Died => "died",
            Self::Rebooted => "rebooted",
            Self::Moved => "moved",
            Self::Changed => "changed",
            Self::Loss => "loss",
            Self::Throttled => "throttled",
            Self::Clock => "clock",
            Self::Note => "note",
            Self::Mark => "mark",
            Self::End => "end",
        }
    }
}

/// The last of what happened.
#[derive(Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
}

impl Log {
    pub(crate) fn add(&mut self, time: Time, kind: Kind, text: String) {
        if self.entries.len() == MOST {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { time, kind, text });
    }

    /// The entries, the newest first.
    pub fn newest_first(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter().rev()
    }
}
