//! The window as a recording of its own.

use profile::{
    Chain, ChainId, EventId, Frame, PhysCpu, Sample, Time, VcpuId,
    recording::{End, EndReason, Note, RecordingError, Writer},
};

use super::{State, history::SLICE_NS, index::Key};

type Memo<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

impl State {
    /// Writes what is in the window as a recording. Its books are left out: they count from the beginning of sampling.
    pub fn export(&self) -> Result<Vec<u8>, RecordingError> {
        let tables = &self.recorded.tables;
        let (from, until) = (self.time_of(self.shown.start), self.time_of(self.shown.end));
        let mut header = self.recorded.header.clone();
        header.started_unix_ns =
            header.started_unix_ns.saturating_add(from.0.saturating_sub(header.started.0));
        header.started = from;
        header.options.insert("window".into(), format!("{} s", self.shown.end - self.shown.start));
        let mut writer = Writer::new(Vec::new(), &header)?;
        tables.domains().for_each(|domain| writer.domain(domain.clone()));
        tables.processes().for_each(|process| writer.process(process.clone()));
        for domain in tables.domains() {
            if let Some(at) = tables.gone(domain.id) {
                writer.domain_gone(domain.id, at);
            }
        }
        tables.moves().for_each(|&moved| writer.domain_moved(moved));
        let text = "a window of a live view: how many samples were lost in it is not known".to_owned();
        writer.note(Note { time: from, text });
        let mut chains: Memo<ChainId, ChainId> = Memo::default();
        for number in self.shown.clone() {
            for kept in &self.history.slice(number).kept {
                let Key { event, charged_to, process, mode, chain } = self.index.places[kept.place.at()].key;
                let chain = self.copy_chain(chain, &mut chains, &mut writer);
                writer.sample(Sample {
                    time: Time(self.time_of(number).0 + u64::from(kept.offset)),
                    cpu: PhysCpu(kept.cpu.into()),
                    vcpu: charged_to
                        .zip(kept.vcpu)
                        .map(|(domain, index)| VcpuId { domain, index: index.into() }),
                    charged_to,
                    process,
                    mode,
                    event: EventId(event.0),
                    weight: kept.weight,
                    sequence: kept.sequence,
                    chain,
                });
            }
        }
        writer.flush()?;
        writer.finish(End { time: until.min(self.recorded.until).max(from), reason: EndReason::Interrupted })
    }

    fn time_of(&self, slice: u64) -> Time {
        Time(self.recorded.header.started.0 + slice * SLICE_NS)
    }

    fn copy_chain(
        &self,
        chain: ChainId,
        copied: &mut Memo<ChainId, ChainId>,
        writer: &mut Writer<Vec<u8>>,
    ) -> ChainId {
        let tables = &self.recorded.tables;
        // Innermost first, up to where it is known already.
        let mut missing = Vec::new();
        let mut caller = None;
        let mut next = Some(chain);
        while let Some(link) = next {
            if let Some(&known) = copied.get(&link) {
                caller = Some(known);
                break;
            }
            missing.push(link);
            next = tables.chain(link).caller;
        }
        for link in missing.into_iter().rev() {
            let frame = *tables.frame(tables.chain(link).frame);
            let [function, module] =
                [frame.function, frame.module].map(|name| name.map(|name| writer.name(tables.name(name))));
            let frame = writer.frame(Frame { function, module, ..frame });
            let copy = writer.chain(Chain { caller, frame });
            copied.insert(link, copy);
            caller = Some(copy);
        }
        caller.expect("a chain has at least one link")
    }
}
