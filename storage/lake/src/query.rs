//! SQL over the tables of a lake.
//!
//! Every table is known by its directory's name. Queries read; statements that write are refused.
//! Binary columns are shown in hexadecimal by every format; `encode(payload, 'base64')` and
//! `arrow_cast(payload, 'Utf8')` show them otherwise.

use std::io::{self, Write};
use std::str::FromStr;

use deltalake::DeltaTableError;
use deltalake::arrow::array::RecordBatch;
use deltalake::arrow::csv;
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::json::writer::{JsonArray, WriterBuilder};
use deltalake::arrow::util::pretty::pretty_format_batches_with_schema;
use deltalake::datafusion::error::DataFusionError;
use deltalake::datafusion::execution::context::SQLOptions;
use deltalake::datafusion::physical_plan::SendableRecordBatchStream;
use deltalake::datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

use crate::lake::{Lake, LakeError, one_line};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Columns under each other, for people. The whole answer is held to find their widths.
    #[default]
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// An array of objects.
    Json,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A table cannot be opened.
    #[error("table '{table}': {detail}")]
    Table {
        /// The table.
        table: String,
        /// The store's own words, in one line.
        detail: String,
    },
    /// The text is not a query of these tables, or failed while running.
    #[error("SQL: {0}")]
    Sql(String),
    /// The answer cannot be written.
    #[error("the answer cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Answers `sql` on the tables of `lake`.
///
/// # Errors
/// See [`QueryError`]; each is one line. Part of the answer may have been written.
pub async fn query(
    lake: &Lake,
    sql: &str,
    format: Format,
    out: &mut (impl Write + Send),
) -> Result<(), QueryError> {
    let context = session(lake).await?;
    let read_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(sql, read_only).await?;
    let answer = frame.execute_stream().await?;
    match format {
        Format::Table => write_table(answer, out).await,
        Format::Csv => write_csv(answer, out).await,
        Format::Json => write_json(answer, out).await,
    }?;
    Ok(out.flush()?)
}

async fn session(lake: &Lake) -> Result<SessionContext, QueryError> {
    let context =
        SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
    for name in lake.tables().await? {
        register(&context, lake, &name).await.map_err(|error| QueryError::Table {
            table: name.clone(),
            detail: one_line(&error.to_string()),
        })?;
    }
    Ok(context)
}

async fn register(
    context: &SessionContext,
    lake: &Lake,
    name: &str,
) -> Result<(), DeltaTableError> {
    let table = lake.table(name)?.load().await?;
    context.register_table(quoted(name), table.table_provider().await?)?;
    Ok(())
}

/// A directory may have a name that SQL would fold or split.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn write_table(
    mut answer: SendableRecordBatchStream,
    out: &mut impl Write,
) -> Result<(), QueryError> {
    let schema = answer.schema();
    let mut batches: Vec<RecordBatch> = Vec::new();
    while let Some(batch) = answer.next().await {
        batches.push(batch?);
    }
    writeln!(out, "{}", pretty_format_batches_with_schema(schema, &batches)?)?;
    Ok(())
}

async fn write_csv(
    mut answer: SendableRecordBatchStream,
    out: &mut impl Write,
) -> Result<(), QueryError> {
    let header = RecordBatch::new_empty(answer.schema());
    let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
    writer.write(&header)?;
    while let Some(batch) = answer.next().await {
        writer.write(&batch?)?;
    }
    Ok(())
}

async fn write_json(
    mut answer: SendableRecordBatchStream,
    out: &mut impl Write,
) -> Result<(), QueryError> {
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, JsonArray>(&mut *out);
    while let Some(batch) = answer.next().await {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    drop(writer);
    writeln!(out)?;
    Ok(())
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        Self::Sql(one_line(&error.strip_backtrace()))
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> Self {
        Self::Sql(one_line(&error.to_string()))
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            _ => Err(format!("'{text}' is not a format; formats are table, csv and json")),
        }
    }
}
