//! What VM exits cost, as columns.

use crate::{ExitCost, NameId, Time};

use super::{
    Damage, PlaceId,
    columns::{Table, difference, differing, take, take_u32},
};

/// What the exits of one place and one reason cost since they were told the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exits {
    /// Up to when.
    pub time: Time,
    /// Who left the guest, and what it ran there.
    pub place: PlaceId,
    /// Why.
    pub reason: NameId,
    /// What it cost.
    pub cost: ExitCost,
}

/// What was told since the last chunk, encoded.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    last: u64,
    table: Table<6>,
}

impl Encoder {
    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.table.rows()
    }

    pub(super) fn exits(&mut self, exits: Exits) {
        let Exits { time, place, reason, cost } = exits;
        self.table.push([
            place.0.into(),
            reason.0.into(),
            difference(time.0, self.last),
            cost.count,
            cost.total_ns,
            cost.longest_ns,
        ]);
        self.last = time.0;
    }

    /// Appends the payload of a chunk, if there is any row.
    pub(super) fn drain_into(&mut self, out: &mut Vec<u8>) {
        if self.rows() > 0 {
            self.table.drain_into(out);
        }
    }
}

/// Decodes chunk after chunk.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    last: u64,
}

impl Decoder {
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<Exits>, Damage> {
        let (rows, [places, reasons, times, counts, totals, longest]) = take(&mut bytes)?;
        let mut exits = Vec::with_capacity(rows);
        for row in 0..rows {
            self.last = differing(times[row], self.last);
            exits.push(Exits {
                time: Time(self.last),
                place: PlaceId(take_u32(places[row])?),
                reason: NameId(take_u32(reasons[row])?),
                cost: ExitCost { count: counts[row], total_ns: totals[row], longest_ns: longest[row] },
            });
        }
        Ok(exits)
    }
}
