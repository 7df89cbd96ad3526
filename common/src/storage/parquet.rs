//! Parquet files as Lamina writes them.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use datafusion::arrow::{
    array::{Array, AsArray},
    compute::{max, min},
    datatypes::{DataType, Int16Type, Int32Type, Int64Type, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    schema::types::ColumnPath,
};

use super::{Error, sealed, table::DataFile};

/// Which kind of table a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Events in the log's order: read whole, or by position.
    Master,
    /// A view's groups sorted by key: read whole, or by key. A point read with a dictionary would first read the row
    /// group's whole dictionary page, so numbers have none, and pages are small.
    View,
}

/// Encodes one Parquet file in memory.
#[derive(Debug)]
pub struct File {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    rows: i64,
    ranges: BTreeMap<String, (i64, i64)>,
    unknown: Vec<String>,
}

impl File {
    /// A file of `schema`.
    pub fn new(schema: &SchemaRef, layout: Layout) -> Result<Self, Error> {
        // Other engines go by Delta's schema; an embedded Arrow schema would only bind them to our choice of types.
        let options =
            ArrowWriterOptions::new().with_properties(properties(schema, layout)).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema.clone(), options).map_err(failed)?;
        Ok(Self { writer, schema: schema.clone(), rows: 0, ranges: BTreeMap::new(), unknown: Vec::new() })
    }

    /// Adds rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        self.rows += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        for (field, column) in self.schema.fields().iter().zip(batch.columns()) {
            match range(column) {
                Some((low, high)) => {
                    let known = self.ranges.entry(field.name().clone()).or_insert((low, high));
                    *known = (known.0.min(low), known.1.max(high));
                }
                None => self.unknown.push(field.name().clone()),
            }
        }
        self.unknown.sort_unstable();
        self.unknown.dedup();
        self.writer.write(batch).map_err(failed)
    }

    /// How many rows it has.
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// How large it is so far, about, in bytes.
    pub fn size(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Ends the file: its bytes, with a checksum of each block, and what the table's commit says of it.
    pub fn finish(mut self, name: String) -> Result<(Bytes, DataFile), Error> {
        self.writer.finish().map_err(failed)?;
        let bytes = sealed::seal_parquet(std::mem::take(self.writer.inner_mut()).into());
        for column in &self.unknown {
            self.ranges.remove(column);
        }
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        Ok((bytes, DataFile { path: name, size, rows: self.rows, ranges: self.ranges }))
    }
}

fn failed(source: parquet::errors::ParquetError) -> Error {
    Error::Parquet { action: "encode a Parquet file".to_owned(), source }
}

/// The range of an integer column without nulls; anything else has none that we note.
pub fn range(column: &Arc<dyn Array>) -> Option<(i64, i64)> {
    if column.null_count() > 0 {
        return None;
    }
    match column.data_type() {
        DataType::Int16 => {
            Some((min(column.as_primitive::<Int16Type>())?.into(), max(column.as_primitive::<Int16Type>())?.into()))
        }
        DataType::Int32 => {
            Some((min(column.as_primitive::<Int32Type>())?.into(), max(column.as_primitive::<Int32Type>())?.into()))
        }
        DataType::Int64 => Some((min(column.as_primitive::<Int64Type>())?, max(column.as_primitive::<Int64Type>())?)),
        _ => None,
    }
}

/// The settings of a file; also what the benchmarks give to plain DataFusion.
pub fn properties(schema: &Schema, layout: Layout) -> WriterProperties {
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(1 << 20))
        .set_created_by("lamina".to_owned());
    // Parquet's least and greatest value leave NaN out: who went by them would skip a page that has what is asked for.
    let floats = schema.fields().iter().filter(|field| field.data_type().is_floating());
    let builder = floats.fold(builder, |builder, field| {
        builder.set_column_statistics_enabled(ColumnPath::from(field.name().as_str()), EnabledStatistics::None)
    });
    match layout {
        Layout::Master => builder.build(),
        Layout::View => schema
            .fields()
            .iter()
            .filter(|field| !has_few_values(field.data_type()))
            .fold(builder.set_data_page_row_count_limit(2000).set_write_batch_size(1024), |builder, field| {
                without_dictionary(builder, field.name())
            })
            .build(),
    }
}

fn without_dictionary(builder: WriterPropertiesBuilder, column: &str) -> WriterPropertiesBuilder {
    builder.set_column_dictionary_enabled(ColumnPath::from(column), false)
}

fn has_few_values(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Boolean)
}
