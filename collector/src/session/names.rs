//! What guests' memory says: asked for ahead, waited for, and taken.

use std::time::Instant;

use profile::{DomainId, DomainKind, Space};
use symbolizer::SymbolTable;

use super::{Session, Sink, code_address};
use crate::guests::{Answer, Whose};

/// What kernels are called as modules.
const KERNEL: &str = "vmlinux";

impl<W: Sink> Session<'_, W> {
    /// Whether names are wanted of what a domain has in memory: dom0's processes also tell which domain they serve.
    pub(super) fn is_looked_into(&self, id: DomainId) -> bool {
        let serves = || self.domains.domain(id).kind == DomainKind::Dom0 && self.sampling.has_backends();
        self.domains.is_wanted(Some(id)) || serves()
    }

    /// Asks whose processes the samples are of that are complete, from a place on.
    pub(super) fn ask_ahead(&mut self, from: usize) {
        for record in self.ready.later(from) {
            if let Some(taken) = record.taken()
                && let Some(id) = taken.charged_to.and_then(|number| self.domains.of_number(number))
                && self.is_looked_into(id)
            {
                self.guests.foresee(self.domains.domain(id), taken, self.drained);
            }
        }
    }

    /// Writes what is complete, up to the first sample whose names are on their way. Stops at a moment, unless too much is
    /// left; whether it did.
    pub(super) fn write_named(&mut self, until: Option<Instant>) -> bool {
        self.take_answers();
        while let Some(pending) = self.ready.pop() {
            if let Some(taken) = pending.record.taken()
                && let Some(id) = taken.charged_to.and_then(|number| self.domains.of_number(number))
                && self.is_looked_into(id)
                && self.waits_for_names
                && !self.ready.is_full()
                && self.guests.is_awaited(
                    self.domains.domain(id),
                    self.namer.symbolizer.has_kernel(id),
                    taken,
                    self.drained,
                    || self.namer.is_unnamed(Space::Kernel(id), code_address(taken)),
                )
            {
                self.ready.put_back(pending);
                return false;
            }
            self.write(pending);
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            if is_late && !self.ready.is_empty() && self.ready.has_room() {
                return true;
            }
        }
        false
    }

    /// Takes the names of the kernel that this runs on, or why it goes without.
    pub(super) fn take_own_kernel(&mut self, id: DomainId, names: Result<SymbolTable, String>) {
        match names {
            Ok(symbols) => {
                self.namer.symbolizer.set_kernel(id, KERNEL, symbols);
                self.namer.forget(id);
            }
            Err(why) => {
                let name = &self.domains.domain(id).name;
                self.note_once(Some(format!("the kernel of {name} goes without names: {why}")));
            }
        }
    }

    /// Takes what guests' memory said.
    fn take_answers(&mut self) {
        while let Some(answer) = self.guests.next_answer() {
            match answer {
                Answer::OwnKernel { domain, .. } if self.named_by_user.contains(&domain) => {}
                Answer::OwnKernel { domain, result } => self.take_own_kernel(domain, result),
                Answer::Kernel { result: Ok(None), .. } => {}
                Answer::Kernel { domain, result: Ok(Some(names)) } => {
                    let names = *names;
                    let name = &self.domains.domain(domain).name;
                    let note =
                        names.no_processes.map(|why| format!("the processes of {name} can't be told: {why}"));
                    if let Some(code) = names.code {
                        self.callers.set_kernel(domain, code);
                    }
                    if names.symbols.is_some() {
                        self.processes.forget(domain, &mut self.namer.symbolizer);
                    }
                    if !self.named_by_user.contains(&domain) {
                        let symbolizer = &mut self.namer.symbolizer;
                        if let Some(symbols) = names.symbols {
                            symbolizer.set_kernel(domain, KERNEL, symbols);
                        }
                        symbolizer.set_loaded(domain, names.loaded);
                        self.namer.forget(domain);
                    }
                    self.note_once(note);
                }
                Answer::Kernel { domain, result: Err(why) } => {
                    let name = &self.domains.domain(domain).name;
                    self.note_once(Some(format!("the memory of {name} gives no names: {why}")));
                }
                Answer::Process { domain, root, until, owner: Whose::Process(process) } => {
                    let (symbolizer, writer) = (&mut self.namer.symbolizer, &mut self.writer);
                    let moved =
                        self.processes.guest_process(domain, root, until, process, symbolizer, writer);
                    self.namer.forget_processes(moved.as_slice());
                }
                Answer::Process { domain, root, until, owner: Whose::Same } => {
                    self.processes.still_there(domain, root, until);
                }
                Answer::Process { domain, root, until, owner: Whose::Nobody } => {
                    self.processes.guest_process_gone(domain, root, until);
                }
            }
        }
    }
}
