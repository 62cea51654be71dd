//! Parquet: a row for each sample, in row groups of a chunk's size, so that memory does not grow with the recording.

use std::{io::Write, sync::Arc};

use ::parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type},
    errors::ParquetError as Error,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};
use profile::{
    Sample,
    recording::{Header, Recording, Tables},
};

use crate::{
    ExportError,
    table::{Texts, unix_ns},
};

/// Parquet's writer failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ParquetError(#[from] Error);

/// In the order in which the columns are written.
const SCHEMA: &str = "message samples {
    required int64 time_ns (TIMESTAMP(NANOS, true));
    required int64 weight;
    required int64 sequence;
    required int32 cpu;
    optional int32 domain_id;
    optional int32 vcpu;
    optional int32 pid;
    required binary event (STRING);
    required binary domain (STRING);
    required binary mode (STRING);
    required binary stack (STRING);
    optional binary domain_uuid (STRING);
    optional binary process (STRING);
    optional binary container (STRING);
    optional binary function (STRING);
    optional binary module (STRING);
}";

/// Rows of a group.
const GROUP: usize = 1 << 17;

/// Writes all samples of a recording.
pub fn write_parquet<R: std::io::Read, W: Write + Send>(
    recording: Recording<R>,
    out: W,
) -> Result<(), ExportError> {
    let header = recording.header().clone();
    let level = ZstdLevel::try_new(3).map_err(ParquetError)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let schema = Arc::new(parse_message_type(SCHEMA).map_err(ParquetError)?);
    let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(ParquetError)?;
    let mut texts = Texts::default();
    let mut rows = Rows::default();
    let mut failure = None;
    recording.for_each_sample(|sample, tables| {
        if failure.is_some() {
            return;
        }
        rows.push(sample, tables, &header, &mut texts);
        if rows.times.len() >= GROUP {
            failure = rows.write(&mut writer).err();
        }
    })?;
    if let Some(error) = failure {
        return Err(ParquetError(error).into());
    }
    rows.write(&mut writer).and_then(|()| writer.close()).map_err(ParquetError)?;
    Ok(())
}

/// A column whose values may be missing: the values that are there, and for each row whether one is.
#[derive(Default)]
struct Optional<T> {
    values: Vec<T>,
    there: Vec<i16>,
}

impl<T> Optional<T> {
    fn push(&mut self, value: Option<T>) {
        self.there.push(i16::from(value.is_some()));
        self.values.extend(value);
    }
}

#[derive(Default)]
struct Rows {
    times: Vec<i64>,
    weights: Vec<i64>,
    sequences: Vec<i64>,
    cpus: Vec<i32>,
    numbers: [Optional<i32>; 3],
    required: [Vec<ByteArray>; 4],
    optional: [Optional<ByteArray>; 5],
}

impl Rows {
    fn push(&mut self, sample: &Sample, tables: &Tables, header: &Header, texts: &mut Texts) {
        let place = texts.of(sample, tables);
        self.times.push(unix_ns(sample, header) as i64);
        self.weights.push(sample.weight as i64);
        self.sequences.push(sample.sequence as i64);
        self.cpus.push(sample.cpu.0 as i32);
        let numbers = [place.domain_number, sample.vcpu.map(|vcpu| vcpu.index), place.pid];
        for (column, number) in self.numbers.iter_mut().zip(numbers) {
            column.push(number.map(|number| number as i32));
        }
        let event = &header.events[usize::from(sample.event.0)].name;
        let required = [event.as_str(), &place.domain, sample.mode.as_str(), &place.stack];
        for (column, text) in self.required.iter_mut().zip(required) {
            column.push(text.into());
        }
        let optional = [&place.domain_uuid, &place.process, &place.container, &place.function, &place.module];
        for (column, text) in self.optional.iter_mut().zip(optional) {
            column.push(text.as_deref().map(ByteArray::from));
        }
    }

    /// Writes a group, and is empty afterwards.
    fn write<W: Write + Send>(&mut self, writer: &mut SerializedFileWriter<W>) -> Result<(), Error> {
        if self.times.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(self);
        let mut group = writer.next_row_group()?;
        for values in [&rows.times, &rows.weights, &rows.sequences] {
            let mut column = next(&mut group)?;
            column.typed::<Int64Type>().write_batch(values, None, None)?;
            column.close()?;
        }
        let mut column = next(&mut group)?;
        column.typed::<Int32Type>().write_batch(&rows.cpus, None, None)?;
        column.close()?;
        for Optional { values, there } in &rows.numbers {
            let mut column = next(&mut group)?;
            column.typed::<Int32Type>().write_batch(values, Some(there), None)?;
            column.close()?;
        }
        for values in &rows.required {
            let mut column = next(&mut group)?;
            column.typed::<ByteArrayType>().write_batch(values, None, None)?;
            column.close()?;
        }
        for Optional { values, there } in &rows.optional {
            let mut column = next(&mut group)?;
            column.typed::<ByteArrayType>().write_batch(values, Some(there), None)?;
            column.close()?;
        }
        group.close()?;
        Ok(())
    }
}

fn next<'a, W: Write + Send>(
    group: &'a mut SerializedRowGroupWriter<'_, W>,
) -> Result<::parquet::file::writer::SerializedColumnWriter<'a>, Error> {
    group
        .next_column()?
        .ok_or_else(|| Error::General("the schema has fewer columns than rows have".to_owned()))
}
