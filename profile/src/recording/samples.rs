//! Samples as columns: what a lane's last sample lets expect is stored as the difference from it.

use std::ops::Range;

use crate::{Event, Sample, Time, VcpuId};

use super::{
    Damage, Lane, PlaceId, Tables,
    columns::{Table, difference, differing, optional, take, take_optional, take_u32},
};

/// Samples in the order of the file, column by column; what they refer to resolves in the recording's [`Tables`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// The lane (event and CPU) of each, by number.
    lanes: Vec<u32>,
    places: Vec<PlaceId>,
    /// The vCPU's index in the domain that is charged.
    vcpus: Vec<Option<u32>>,
    times: Vec<Time>,
    weights: Vec<u64>,
    sequences: Vec<u64>,
}

impl Samples {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The number of each one's lane, for [`Tables::lanes`].
    pub fn lanes(&self) -> &[u32] {
        &self.lanes
    }

    /// Each one's place.
    pub fn places(&self) -> &[PlaceId] {
        &self.places
    }

    /// When each was taken.
    pub fn times(&self) -> &[Time] {
        &self.times
    }

    /// What each stands for.
    pub fn weights(&self) -> &[u64] {
        &self.weights
    }

    /// Each one's number among its CPU's.
    pub fn sequences(&self) -> &[u64] {
        &self.sequences
    }

    /// Some of them.
    pub fn range(&self, rows: Range<usize>) -> Self {
        Self {
            lanes: self.lanes[rows.clone()].to_vec(),
            places: self.places[rows.clone()].to_vec(),
            vcpus: self.vcpus[rows.clone()].to_vec(),
            times: self.times[rows.clone()].to_vec(),
            weights: self.weights[rows.clone()].to_vec(),
            sequences: self.sequences[rows].to_vec(),
        }
    }

    /// The samples one by one. Panics on the tables of another recording.
    pub fn iter<'a>(&'a self, tables: &'a Tables) -> impl Iterator<Item = Sample> + 'a {
        (0..self.len()).map(|row| {
            let place = tables.place(self.places[row]);
            let lane = tables.lanes()[self.lanes[row] as usize];
            Sample {
                time: self.times[row],
                cpu: lane.cpu,
                vcpu: place.charged_to.zip(self.vcpus[row]).map(|(domain, index)| VcpuId { domain, index }),
                charged_to: place.charged_to,
                process: place.process,
                mode: place.mode,
                event: lane.event,
                weight: self.weights[row],
                sequence: self.sequences[row],
                chain: place.chain,
            }
        })
    }
}

/// What is known of a lane from its last sample.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    time: u64,
    sequence: u64,
    /// Whether weights are times, and so tell when the next sample is due.
    in_time: bool,
}

impl Last {
    fn of(lane: Lane, events: &[Event]) -> Self {
        let event = events.get(usize::from(lane.event.0));
        Self { in_time: event.is_some_and(|event| event.unit == "ns"), ..Self::default() }
    }

    /// The time of the sample of this weight.
    fn due(&self, weight: u64) -> u64 {
        if self.in_time { self.time.wrapping_add(weight) } else { self.time }
    }

    fn set(&mut self, time: u64, sequence: u64) {
        (self.time, self.sequence) = (time, sequence.wrapping_add(1));
    }
}

/// The place that no sample was in yet: 0 for that one, else one more than the place.
#[derive(Clone, Copy, Debug, Default)]
struct NextPlace(u32);

impl NextPlace {
    fn place(&mut self, place: u32) -> u64 {
        match place == self.0 {
            true => {
                self.0 = self.0.saturating_add(1);
                0
            }
            false => optional(Some(place)),
        }
    }

    fn take_place(&mut self, number: u64) -> Result<PlaceId, Damage> {
        let place = take_optional(number)?.unwrap_or(self.0);
        self.place(place);
        Ok(PlaceId(place))
    }
}

/// What was sampled since the last chunk, encoded.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    lanes: Vec<Last>,
    next: NextPlace,
    table: Table<6>,
}

impl Encoder {
    /// How many samples there are.
    pub(super) fn rows(&self) -> usize {
        self.table.rows()
    }

    /// The next lane.
    pub(super) fn lane(&mut self, lane: Lane, events: &[Event]) {
        self.lanes.push(Last::of(lane, events));
    }

    pub(super) fn sample(&mut self, sample: &Sample, lane: u32, place: u32) {
        let last = &mut self.lanes[lane as usize];
        let row = [
            lane.into(),
            self.next.place(place),
            optional(sample.vcpu.map(|vcpu| vcpu.index)),
            difference(sample.time.0, last.due(sample.weight)),
            sample.weight,
            difference(sample.sequence, last.sequence),
        ];
        last.set(sample.time.0, sample.sequence);
        self.table.push(row);
    }

    /// Appends the payload of a chunk, if there is any sample.
    pub(super) fn drain_into(&mut self, out: &mut Vec<u8>) {
        if self.rows() > 0 {
            self.table.drain_into(out);
        }
    }
}

/// Decodes chunk after chunk.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    lanes: Vec<Last>,
    next: NextPlace,
}

impl Decoder {
    /// The next lane.
    pub(super) fn lane(&mut self, lane: Lane, events: &[Event]) {
        self.lanes.push(Last::of(lane, events));
    }

    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<Samples, Damage> {
        let (rows, [lanes, places, vcpus, times, weights, sequences]) = take(&mut bytes)?;
        let mut samples = Samples::default();
        for row in 0..rows {
            let lane = take_u32(lanes[row])?;
            let unknown = Damage::Unknown { what: "lane", id: lane };
            let last = self.lanes.get_mut(lane as usize).ok_or(unknown)?;
            let weight = weights[row];
            let time = differing(times[row], last.due(weight));
            let sequence = differing(sequences[row], last.sequence);
            last.set(time, sequence);
            samples.lanes.push(lane);
            samples.places.push(self.next.take_place(places[row])?);
            samples.vcpus.push(take_optional(vcpus[row])?);
            samples.times.push(Time(time));
            samples.weights.push(weight);
            samples.sequences.push(sequence);
        }
        Ok(samples)
    }
}
