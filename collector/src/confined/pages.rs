//! A guest's memory as a confined process has it: pages that the recorder reads for it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    os::unix::net::UnixStream,
    rc::Rc,
};

use guest::{Frames, GuestMemory, GuestPhysical, Missing};

use super::messages::{MOST_PAGES, PAGE, PageNumbers, Said, SentPages, send};

/// Pages that are remembered at the most: 64 MiB.
const MOST_REMEMBERED: usize = 16 << 10;

/// A guest's memory for one look: what has been read once is not asked for again.
pub(super) struct Pages {
    socket: Rc<UnixStream>,
    numbers: PageNumbers,
    pages: RefCell<HashMap<u64, Option<Place>>>,
    /// Those that were asked for, in that order, as far as they are remembered.
    asked: RefCell<Vec<u64>>,
    /// Whether nobody answers any more.
    broken: Cell<bool>,
}

/// Where a page is: what came together stays together.
struct Place {
    sent: Rc<SentPages>,
    at: usize,
}

impl Place {
    fn content(&self) -> &[u8] {
        self.sent.page(self.at)
    }
}

impl Pages {
    pub(super) fn new(socket: Rc<UnixStream>, numbers: PageNumbers) -> Self {
        Self {
            socket,
            numbers,
            pages: RefCell::default(),
            asked: RefCell::default(),
            broken: Cell::new(false),
        }
    }

    /// Asks for pages that will likely be read, all at once.
    pub(super) fn expect(&self, pages: &[u64]) {
        self.fetch(pages.iter().copied());
    }

    /// How many pages have been asked for.
    pub(super) fn asked(&self) -> usize {
        self.asked.borrow().len()
    }

    /// The numbers of those that were asked for after so many.
    pub(super) fn asked_after(&self, count: usize) -> Vec<u64> {
        self.asked.borrow().get(count..).unwrap_or_default().to_vec()
    }

    /// Asks for those pages that are not here yet.
    fn fetch(&self, pages: impl ExactSizeIterator<Item = u64>) {
        let mut known = self.pages.borrow_mut();
        if known.len() + pages.len() > MOST_REMEMBERED {
            known.clear();
            self.asked.borrow_mut().clear();
        }
        let mut wanted: Vec<u64> = pages.filter(|page| !known.contains_key(page)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        for wanted in wanted.chunks(MOST_PAGES) {
            if self.broken.get() {
                return;
            }
            let asked = send(&*self.socket, &Said::Wants(wanted.to_vec()));
            let answered = asked.and_then(|()| {
                let sent = Rc::new(SentPages::receive(&*self.socket)?);
                let places = sent.places(wanted.len())?;
                let place = |at| Place { sent: sent.clone(), at };
                known.extend(wanted.iter().zip(places).map(|(&page, at)| (page, at.map(place))));
                self.asked.borrow_mut().extend(wanted);
                Ok(())
            });
            self.broken.set(answered.is_err());
        }
    }
}

fn page_of(address: u64) -> u64 {
    address / PAGE as u64
}

impl GuestMemory for Pages {
    fn read(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), Missing> {
        if bytes.is_empty() {
            return Ok(());
        }
        let missing = Missing(address);
        let last = address.0.checked_add(bytes.len() as u64 - 1).ok_or(missing)?;
        // No single read is larger than what is remembered.
        if bytes.len() / PAGE + 2 > MOST_REMEMBERED {
            return Err(missing);
        }
        let count = (page_of(last) - page_of(address.0)) as usize + 1;
        self.fetch((0..count).map(|index| page_of(address.0) + index as u64));
        let pages = self.pages.borrow();
        let mut at = address.0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let page = pages.get(&page_of(at)).and_then(Option::as_ref).ok_or(missing)?.content();
            let within = at as usize % PAGE;
            let (piece, after) = rest.split_at_mut((PAGE - within).min(rest.len()));
            piece.copy_from_slice(&page[within..within + piece.len()]);
            at = at.wrapping_add(piece.len() as u64);
            rest = after;
        }
        Ok(())
    }

    fn announce(&self, pages: &[GuestPhysical]) {
        self.fetch(pages.iter().map(|page| page_of(page.0)));
    }

    fn release(&self, pages: &[GuestPhysical]) {
        let mut known = self.pages.borrow_mut();
        for page in pages {
            known.remove(&page_of(page.0));
        }
    }

    fn frames(&self) -> Frames {
        match self.numbers {
            PageNumbers::Guest => Frames::Guest,
            PageNumbers::Machine => Frames::Machine,
        }
    }
}
