//! The columns of a table, and rows turned into them.
//!
//! | column | type | content |
//! |---|---|---|
//! | `origin` | string | the node that accepted the publication |
//! | `log_id` | string | which life of that node's data directory, 16 hexadecimal digits |
//! | `seq` | long | place in that log; `(origin, log_id, seq)` is unique |
//! | `published_at` | timestamp, UTC | when the node accepted it, to the millisecond |
//! | `day` | date | the day of `published_at`; the table is partitioned by it |
//! | `client_id` | string | who published it |
//! | `topic` | string | where |
//! | `qos` | int | QoS of the publication |
//! | `payload` | binary | as it was |
//! | `json` | string | the payload's text, if it is JSON |
//! | `lat`, `lon` | double | if the payload is a JSON object with a number `lat` or `latitude`, `lon`, `lng` or `longitude` |
//! | `speed`, `heading` | double | likewise |

use std::sync::Arc;

use deltalake::arrow::array::{
    ArrayRef, BinaryBuilder, Date32Builder, Float64Builder, Int32Builder, Int64Builder,
    RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use deltalake::arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef, TimeUnit};
use deltalake::arrow::error::ArrowError;
use deltalake::kernel::{DataType, PrimitiveType, StructField};
use verge_model::UnixMillis;

use crate::json;
use crate::sink::StreamRows;

/// The column a table is partitioned by.
pub const PARTITION_COLUMN: &str = "day";

/// The end of year 9999, beyond which date types of readers do not go.
const PUBLISHED_AT_MILLIS_MAX: u64 = 253_402_300_799_999;

const MILLIS_PER_DAY: u64 = 86_400_000;

/// Names, Delta types and whether there may be none.
const COLUMNS: [(&str, PrimitiveType, bool); 14] = [
    ("origin", PrimitiveType::String, false),
    ("log_id", PrimitiveType::String, false),
    ("seq", PrimitiveType::Long, false),
    ("published_at", PrimitiveType::Timestamp, false),
    (PARTITION_COLUMN, PrimitiveType::Date, false),
    ("client_id", PrimitiveType::String, false),
    ("topic", PrimitiveType::String, false),
    ("qos", PrimitiveType::Integer, false),
    ("payload", PrimitiveType::Binary, false),
    ("json", PrimitiveType::String, true),
    ("lat", PrimitiveType::Double, true),
    ("lon", PrimitiveType::Double, true),
    ("speed", PrimitiveType::Double, true),
    ("heading", PrimitiveType::Double, true),
];

/// The columns of a new table.
pub fn delta_columns() -> Vec<StructField> {
    COLUMNS
        .into_iter()
        .map(|(name, kind, nullable)| StructField::new(name, DataType::Primitive(kind), nullable))
        .collect()
}

/// The same columns in memory.
#[must_use]
pub fn arrow_schema() -> SchemaRef {
    let fields: Vec<Field> = COLUMNS
        .into_iter()
        .map(|(name, kind, nullable)| Field::new(name, arrow_type(&kind), nullable))
        .collect();
    Arc::new(Schema::new(fields))
}

fn arrow_type(kind: &PrimitiveType) -> ArrowType {
    if *kind == PrimitiveType::Long {
        ArrowType::Int64
    } else if *kind == PrimitiveType::Integer {
        ArrowType::Int32
    } else if *kind == PrimitiveType::Double {
        ArrowType::Float64
    } else if *kind == PrimitiveType::Binary {
        ArrowType::Binary
    } else if *kind == PrimitiveType::Date {
        ArrowType::Date32
    } else if *kind == PrimitiveType::Timestamp {
        ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    } else {
        ArrowType::Utf8
    }
}

/// Collects rows, column by column.
pub struct TableBuilder {
    origin: StringBuilder,
    log_id: StringBuilder,
    seq: Int64Builder,
    published_at: TimestampMicrosecondBuilder,
    day: Date32Builder,
    client_id: StringBuilder,
    topic: StringBuilder,
    qos: Int32Builder,
    payload: BinaryBuilder,
    json: StringBuilder,
    numbers: [Float64Builder; json::NUMBERS],
    rows: usize,
}

impl TableBuilder {
    /// An empty table with room for `rows`.
    #[must_use]
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            origin: StringBuilder::with_capacity(rows, rows * 16),
            log_id: StringBuilder::with_capacity(rows, rows * 16),
            seq: Int64Builder::with_capacity(rows),
            published_at: TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            day: Date32Builder::with_capacity(rows),
            client_id: StringBuilder::with_capacity(rows, rows * 16),
            topic: StringBuilder::with_capacity(rows, rows * 64),
            qos: Int32Builder::with_capacity(rows),
            payload: BinaryBuilder::with_capacity(rows, rows * 128),
            json: StringBuilder::with_capacity(rows, rows * 128),
            numbers: std::array::from_fn(|_| Float64Builder::with_capacity(rows)),
            rows: 0,
        }
    }

    /// Adds the rows of one log that are above `mark`.
    pub fn append(&mut self, stream: &StreamRows, mark: u64) {
        let log_id = format!("{:016x}", stream.stream.log_id);
        for (seq, record) in stream.rows.iter().filter(|(seq, _)| *seq > mark) {
            let UnixMillis(millis) = record.published_at;
            let millis = millis.min(PUBLISHED_AT_MILLIS_MAX);
            self.origin.append_value(stream.origin.as_str());
            self.log_id.append_value(&log_id);
            self.seq.append_value(i64::try_from(*seq).unwrap_or(i64::MAX));
            self.published_at.append_value(i64::try_from(millis * 1_000).unwrap_or(i64::MAX));
            self.day.append_value(i32::try_from(millis / MILLIS_PER_DAY).unwrap_or(i32::MAX));
            self.client_id.append_value(&record.client_id);
            self.topic.append_value(&record.topic);
            self.qos.append_value(i32::from(record.qos));
            self.payload.append_value(&record.payload);
            let json = json::read(&record.payload);
            self.json.append_option(json.map(|(text, _)| text));
            let numbers = json.map_or_else(Default::default, |(_, numbers)| numbers);
            for (column, number) in self.numbers.iter_mut().zip(numbers) {
                column.append_option(number);
            }
            self.rows += 1;
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows as a batch of [`arrow_schema`].
    ///
    /// # Errors
    /// A text column grew beyond two gigabytes; commits are far smaller.
    pub fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.origin.finish()),
            Arc::new(self.log_id.finish()),
            Arc::new(self.seq.finish()),
            Arc::new(self.published_at.finish()),
            Arc::new(self.day.finish()),
            Arc::new(self.client_id.finish()),
            Arc::new(self.topic.finish()),
            Arc::new(self.qos.finish()),
            Arc::new(self.payload.finish()),
            Arc::new(self.json.finish()),
        ];
        columns.extend(self.numbers.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef));
        RecordBatch::try_new(arrow_schema(), columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_in_memory_are_those_of_the_table() {
        let names: Vec<_> = arrow_schema().fields().iter().map(|f| f.name().clone()).collect();
        let delta: Vec<_> = delta_columns().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, delta);
        assert_eq!(TableBuilder::with_capacity(0).finish().unwrap().num_columns(), names.len());
    }
}
