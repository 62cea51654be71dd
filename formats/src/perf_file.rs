//! The sections of a `perf.data`, and what its records say of their length, looked at before anything allocates or counts on
//! their word (tools/perf/Documentation/perf.data-file-format.txt).

use std::io::{BufReader, Read, Seek, SeekFrom};

use linux_perf_data::linux_perf_event_reader::{EventRecord, RawEventRecord, RecordType};

use crate::ImportError;

/// Sizes of the header, of the smallest `struct perf_event_attr`, and of what tells where a section is.
const HEADER: usize = 104;
const SMALLEST_ATTRIBUTE: u64 = 64;
const SECTION: u64 = 16;

/// The sizes that `struct perf_event_attr` has had below 128, and what is said of others.
const SIZES: [u64; 7] = [64, 72, 80, 96, 104, 112, 120];
const NO_SIZE: &str = "its events are of no size that events have";

/// The features whose sections are counts, and what they count: the words of the command (`HEADER_CMDLINE`), the events
/// (`HEADER_EVENT_DESC`).
const CMDLINE: u32 = 11;
const EVENT_DESC: u32 = 12;

/// Checks that a `perf.data` has all that its header, its features and its events say that it has. Leaves `input` at its
/// beginning.
pub(crate) fn check(input: &mut (impl Read + Seek)) -> Result<(), ImportError> {
    let length = input.seek(SeekFrom::End(0)).map_err(ImportError::Record)?;
    let mut file = File { input, length, big_endian: false };
    let header = file.read(0, HEADER as u64)?;
    file.big_endian = match &header[..8] {
        b"PERFILE2" => false,
        b"2ELIFREP" => true,
        _ => return Err(ImportError::Damaged("it does not begin as one")),
    };
    let number = |index: usize| file.u64(&header[index * 8..]);
    let [
        _,
        _,
        attribute_size,
        attributes_at,
        attributes,
        data_at,
        data,
        types_at,
        types,
        features,
        others @ ..,
    ] = std::array::from_fn::<u64, 13, _>(number);
    if others != [0; 3] {
        return Err(ImportError::Damaged("it has features that are not perf's"));
    }
    if !(SMALLEST_ATTRIBUTE..=length).contains(&attribute_size) {
        return Err(ImportError::Damaged(NO_SIZE));
    }
    file.has(attributes_at, attributes)?;
    file.has(data_at, data)?;
    file.check_traces(data_at, data)?;
    for entry in file.read(types_at, types)?.chunks_exact((attribute_size.saturating_add(SECTION)) as usize) {
        let ids = &entry[attribute_size as usize..];
        file.has(file.u64(ids), file.u64(&ids[8..]))?;
    }
    // One behind the other, so that together they are no larger than the file.
    let table = file.read(data_at + data, u64::from(features.count_ones()) * SECTION)?;
    let mut together = 0;
    for (feature, place) in (0..u64::BITS).filter(|bit| features >> bit & 1 == 1).zip(table.chunks_exact(16))
    {
        let (at, size) = (file.u64(place), file.u64(&place[8..]));
        file.has(at, size)?;
        together += size;
        if together > file.length {
            return Err(ImportError::Damaged("its features overlap"));
        }
        match feature {
            CMDLINE => {
                let words = file.read(at, size)?;
                file.check_words(&words)?;
            }
            EVENT_DESC => {
                let events = file.read(at, size)?;
                file.check_events(&events)?;
            }
            _ => {}
        }
    }
    file.input.rewind().map_err(ImportError::Record)
}

/// A record with what it holds.
pub(crate) fn parse<'a>(record: &RawEventRecord<'a>) -> Result<EventRecord<'a>, ImportError> {
    /// In a mapping that has its file's build id (perf_event_open(2)): the flag, where its length is, and the longest.
    const HAS_BUILD_ID: u16 = 1 << 14;
    const LENGTH_AT: usize = 32;
    const LONGEST: u8 = 20;
    if record.record_type == RecordType::MMAP2 && record.misc & HAS_BUILD_ID != 0 {
        let length = record.data.get(LENGTH_AT..LENGTH_AT + 1);
        if length.is_none_or(|length| length.as_slice()[0] > LONGEST) {
            return Err(ImportError::Damaged("a build id is longer than any"));
        }
    }
    record.parse().map_err(ImportError::Record)
}

struct File<'a, R> {
    input: &'a mut R,
    length: u64,
    big_endian: bool,
}

impl<R: Read + Seek> File<'_, R> {
    fn has(&self, at: u64, size: u64) -> Result<(), ImportError> {
        match at.checked_add(size).is_some_and(|end| end <= self.length) {
            true => Ok(()),
            false => Err(ImportError::Damaged("a section is not in it")),
        }
    }

    fn read(&mut self, at: u64, size: u64) -> Result<Vec<u8>, ImportError> {
        self.has(at, size)?;
        let mut bytes = vec![0; size as usize];
        let read = self.input.seek(SeekFrom::Start(at)).and_then(|_| self.input.read_exact(&mut bytes));
        read.map_err(ImportError::Record)?;
        Ok(bytes)
    }

    /// A record of a processor's trace is followed by as many bytes as its first number says, which no record's length has.
    fn check_traces(&mut self, at: u64, size: u64) -> Result<(), ImportError> {
        /// `PERF_RECORD_AUXTRACE`.
        const TRACE: u64 = 71;
        /// The header of a record, and the number behind it.
        const BEGINNING: u64 = 16;
        let big_endian = self.big_endian;
        self.input.seek(SeekFrom::Start(at)).map_err(ImportError::Record)?;
        let mut records = BufReader::new(&mut *self.input);
        let mut left = size;
        while left >= BEGINNING {
            let mut beginning = [0; BEGINNING as usize];
            records.read_exact(&mut beginning).map_err(ImportError::Record)?;
            let kind = number::<4>(&beginning, big_endian);
            let length = number::<2>(&beginning[6..], big_endian);
            let trace = if kind == TRACE { number::<8>(&beginning[8..], big_endian) } else { 0 };
            let Some(after) = left.checked_sub(length).and_then(|left| left.checked_sub(trace)) else {
                // A record that is cut off ends the file; a trace would be allocated first.
                return if trace > 0 { Err(ImportError::Damaged("a trace is cut off")) } else { Ok(()) };
            };
            if length < 8 {
                return Ok(());
            }
            let skipped = (length + trace) as i64 - BEGINNING as i64;
            records.seek_relative(skipped).map_err(ImportError::Record)?;
            left = after;
        }
        Ok(())
    }

    /// The number that the first eight bytes are.
    fn u64(&self, bytes: &[u8]) -> u64 {
        number::<8>(bytes, self.big_endian)
    }

    /// Takes a number off.
    fn take_u32(&self, rest: &mut &[u8]) -> Result<u64, ImportError> {
        let (bytes, after) = rest.split_first_chunk::<4>().ok_or(CUT)?;
        *rest = after;
        Ok(number::<4>(bytes, self.big_endian))
    }

    /// Words: how many, then each with its length.
    fn check_words(&self, section: &[u8]) -> Result<(), ImportError> {
        let mut rest = section;
        let count = self.take_u32(&mut rest)?;
        if count > rest.len() as u64 / 4 {
            return Err(CUT);
        }
        Ok(())
    }

    /// Descriptions of events: how many and how large, then each with the count of its ids, its name, and its ids.
    fn check_events(&self, section: &[u8]) -> Result<(), ImportError> {
        let mut rest = section;
        let count = self.take_u32(&mut rest)?;
        let size = self.take_u32(&mut rest)?;
        if count > rest.len() as u64 / size.max(SMALLEST_ATTRIBUTE) {
            return Err(CUT);
        }
        for _ in 0..count {
            let mut attribute = rest.get(4..).ok_or(CUT)?;
            // Of another size it would be read up to another place than it says.
            let own_size = self.take_u32(&mut attribute)?;
            if own_size < 128 && !SIZES.contains(&own_size) {
                return Err(ImportError::Damaged(NO_SIZE));
            }
            skip(&mut rest, size)?;
            let ids = self.take_u32(&mut rest)?;
            let name = self.take_u32(&mut rest)?;
            skip(&mut rest, name)?;
            skip(&mut rest, ids * 8)?;
        }
        Ok(())
    }
}

/// The number that the first so many bytes are.
fn number<const BYTES: usize>(bytes: &[u8], big_endian: bool) -> u64 {
    let add = |sum, &byte: &u8| sum << 8 | u64::from(byte);
    let bytes = &bytes[..BYTES];
    if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

const CUT: ImportError = ImportError::Damaged("what its features list is cut off");

fn skip(rest: &mut &[u8], bytes: u64) -> Result<(), ImportError> {
    *rest = usize::try_from(bytes).ok().and_then(|bytes| rest.get(bytes..)).ok_or(CUT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const EVENTS_AT: u64 = 184;

    /// A file with one event: the header, its attribute, no samples, the table of features, the description of the event.
    fn file(events: &[u32]) -> Vec<u8> {
        with_records(&[], events)
    }

    fn with_records(records: &[u8], events: &[u32]) -> Vec<u8> {
        let (at, size) = (EVENTS_AT + records.len() as u64, events.len() as u64 * 4);
        let header = [104, 64, 104, 64, 168, records.len() as u64, 0, 0, 1 << EVENT_DESC, 0, 0, 0];
        let bytes =
            |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let events = events.iter().flat_map(|number| number.to_le_bytes()).collect();
        [b"PERFILE2".to_vec(), bytes(&header), vec![0; 64], records.to_vec(), bytes(&[at, size]), events]
            .concat()
    }

    /// An event without a name and with one id.
    fn whole() -> Vec<u8> {
        file(&event())
    }

    fn event() -> Vec<u32> {
        [[1, 64].as_slice(), &[1, 64], &[0; 14], &[1, 0], &[7, 0]].concat()
    }

    /// The same with the words of a command instead.
    fn of_command(words: &[u32]) -> Vec<u8> {
        let mut file = file(words);
        file[72..80].copy_from_slice(&(1u64 << CMDLINE).to_le_bytes());
        file
    }

    fn told(file: Vec<u8>) -> Option<String> {
        check(&mut Cursor::new(file)).err().map(|error| error.to_string())
    }

    #[test]
    fn what_is_whole_is_taken() {
        assert_eq!(told(whole()), None);
        let mut input = Cursor::new(whole());
        check(&mut input).unwrap();
        assert_eq!(input.position(), 0);
    }

    #[test]
    fn what_says_more_of_itself_than_there_is_is_refused() {
        assert_eq!(told(Vec::new()).unwrap(), "the perf.data is damaged: a section is not in it");
        // Every number of the header and of the table, one after the other, but the header's size and the set of features.
        for at in (16..EVENTS_AT as usize).step_by(8).filter(|at| *at != 72 && !(104..168).contains(at)) {
            for number in [u64::MAX, 1 << 62, 4096] {
                let mut file = whole();
                file[at..at + 8].copy_from_slice(&number.to_le_bytes());
                assert!(told(file).is_some_and(|told| told.contains("damaged")), "{number} at {at}");
            }
        }
        assert_eq!(told(of_command(&[1, 0])), None);
        assert!(told(of_command(&[u32::MAX, 0])).unwrap().contains("cut off"));
        let mut odd = whole();
        // An event's own size.
        odd[EVENTS_AT as usize + 12] = 100;
        assert!(told(odd).unwrap().contains(NO_SIZE));
        for at in [0, 18, 19] {
            let mut file = whole();
            let at = EVENTS_AT as usize + 4 * at;
            file[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert!(told(file).unwrap().contains("cut off"), "at {at}");
        }
    }

    #[test]
    fn a_trace_that_is_longer_than_the_file_is_refused() {
        let after =
            |trace: u64| [&[9, 0, 0, 0, 0, 0, 24, 0], [0; 16].as_slice(), &record(trace), &[0; 32]].concat();
        fn record(trace: u64) -> Vec<u8> {
            [&[71, 0, 0, 0, 0, 0, 48, 0], trace.to_le_bytes().as_slice(), &[0; 32]].concat()
        }
        assert_eq!(told(with_records(&after(32), &event())), None);
        for trace in [33, 1 << 40, u64::MAX] {
            let told = told(with_records(&after(trace), &event()));
            assert!(told.is_some_and(|told| told.contains("a trace is cut off")), "{trace}");
        }
    }

    #[test]
    fn a_build_id_that_can_not_be_is_refused() {
        for (length, damaged) in [(20u8, false), (21, true), (255, true)] {
            // PERF_RECORD_MMAP2 with a build id, of 72 bytes in all.
            let mut record = vec![0; 72];
            record[..8].copy_from_slice(&[10, 0, 0, 0, 0, 0x40, 72, 0]);
            record[8 + 32] = length;
            let input = Cursor::new(with_records(&record, &event()));
            let error = crate::import_perf(input, &|_| None, &|_| None, Vec::new()).unwrap_err().to_string();
            assert_eq!(error.contains("build id"), damaged, "{length}: {error}");
        }
    }
}
