//! Samples as rows of a table: what CSV and Parquet have in common. `docs/formats.md` says what the columns mean.

use std::{collections::HashMap, rc::Rc};

use profile::{
    Sample,
    recording::{Header, Place, Tables},
};

use crate::place;

/// The texts of a place.
#[derive(Debug)]
pub(crate) struct PlaceTexts {
    pub(crate) domain: String,
    pub(crate) domain_number: Option<u32>,
    pub(crate) domain_uuid: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) process: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) function: Option<String>,
    pub(crate) module: Option<String>,
    /// Outermost first, separated by semicolons.
    pub(crate) stack: String,
}

/// Makes the texts of each place once.
#[derive(Debug, Default)]
pub(crate) struct Texts(HashMap<Place, Rc<PlaceTexts>>);

impl Texts {
    pub(crate) fn of(&mut self, sample: &Sample, tables: &Tables) -> Rc<PlaceTexts> {
        let &Sample { charged_to, process, mode, chain, .. } = sample;
        let place = Place { charged_to, process, mode, chain };
        Rc::clone(self.0.entry(place).or_insert_with(|| Rc::new(texts(&place, tables))))
    }
}

fn texts(place: &Place, tables: &Tables) -> PlaceTexts {
    let frames: Vec<place::Named> = place::frames(place, tables).collect();
    let innermost = frames.first();
    let domain = place.charged_to.map(|id| tables.domain(id));
    let process = place.process.map(|id| tables.process(id));
    PlaceTexts {
        domain: place::domain(place, tables),
        domain_number: domain.map(|domain| domain.number),
        domain_uuid: domain.and_then(|domain| domain.uuid).map(|uuid| uuid.to_string()),
        pid: process.and_then(|process| process.pid),
        process: process.and_then(|process| process.name.clone()),
        container: process.and_then(|process| process.container.clone()),
        function: innermost.filter(|frame| frame.is_function).map(|frame| frame.name.clone()),
        module: innermost.and_then(|frame| frame.module.clone()),
        stack: frames.iter().rev().map(|frame| frame.name.replace(';', ":")).collect::<Vec<_>>().join(";"),
    }
}

/// A sample's time by the wall clock, in nanoseconds since 1970.
pub(crate) fn unix_ns(sample: &Sample, header: &Header) -> u64 {
    header.started_unix_ns.wrapping_add(sample.time.0.wrapping_sub(header.started.0))
}
