//! The oracle: what an answer must be, by plain SQL over the plain list of events below its head.
//!
//! It shares DataFusion's SQL with the system and nothing else of how answers come about: it decodes events in its own
//! slow way, has no states, no cuts and no merge.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use common::{
    catalog::{Catalog, Dataset},
    log::{Log, Reader},
    position::{Frontier, Offset, Partition},
};
use datafusion::{
    arrow::{
        array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray},
        compute::cast,
        datatypes::{DataType, Field, Schema, TimeUnit},
    },
    common::ScalarValue,
    datasource::MemTable,
    prelude::{SessionConfig, SessionContext},
};
use serde_json::{Value, value::RawValue};

mod alone;

/// One record of the log.
#[derive(Clone, Debug)]
pub struct Event {
    /// Where it is.
    pub partition: Partition,
    /// Where it is.
    pub offset: Offset,
    /// The log's time, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its bytes; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
}

/// The plain list of events of one dataset.
#[derive(Debug)]
pub struct Oracle {
    catalog: Arc<Catalog>,
    dataset: Arc<Dataset>,
    events: RecordBatch,
    /// How many records can be used.
    pub usable: usize,
    /// How many records cannot.
    pub dead: usize,
}

/// Everything that the log holds of a topic.
pub async fn read_log(log: &dyn Log, topic: &str) -> Result<Vec<Event>> {
    let bounds = log.bounds(topic).await?;
    let mut reader: Box<dyn Reader> = log.reader(topic, &bounds.start, None).await?;
    let mut at = bounds.start.clone();
    let mut events = Vec::new();
    while !at.covers(&bounds.end) {
        let chunks = reader.poll(100_000, std::time::Duration::from_secs(1)).await?;
        for chunk in chunks {
            at.advance(chunk.partition, chunk.next);
            for i in 0..chunk.len() {
                let value = (!chunk.tombstones[i]).then(|| chunk.value(i).to_vec());
                let (partition, offset, timestamp_ms) = (chunk.partition, chunk.offsets[i], chunk.timestamps_ms[i]);
                events.push(Event { partition, offset, timestamp_ms, value });
            }
        }
    }
    Ok(events)
}

impl Oracle {
    /// Decodes `events` of `dataset`.
    pub async fn new(catalog: Arc<Catalog>, dataset: &str, events: &[Event]) -> Result<Self> {
        let dataset = catalog.datasets.get(dataset).context("the dataset")?.clone();
        let rows: Vec<(&Event, Vec<ScalarValue>)> =
            events.iter().filter_map(|event| Some((event, decode(&dataset, event.value.as_deref()?).ok()?))).collect();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (i, field) in dataset.columns.fields().iter().enumerate() {
            let values = rows.iter().map(|(_, values)| values[i].clone());
            columns.push(match rows.is_empty() {
                true => datafusion::arrow::array::new_empty_array(field.data_type()),
                false => ScalarValue::iter_to_array(values)?,
            });
        }
        columns.push(Arc::new(rows.iter().map(|(event, _)| Some(event.partition)).collect::<Int32Array>()));
        columns.push(Arc::new(rows.iter().map(|(event, _)| Some(event.offset)).collect::<Int64Array>()));
        let timestamps = rows.iter().map(|(event, _)| Some(event.timestamp_ms * 1000));
        columns.push(Arc::new(timestamps.collect::<TimestampMicrosecondArray>()));
        let fields: Vec<Field> =
            dataset.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let batch = Self::checked(&dataset, batch).await?;
        let usable = batch.num_rows();
        Ok(Self { catalog, dataset, usable, dead: events.len() - usable, events: batch })
    }

    /// The rows that no `CHECK` says no to.
    async fn checked(dataset: &Dataset, batch: RecordBatch) -> Result<RecordBatch> {
        let context = session();
        context.register_batch(&dataset.name, batch.clone())?;
        let conditions: Vec<String> =
            dataset.checks.iter().map(|check| format!("({}) IS NOT FALSE", check.sql)).collect();
        if conditions.is_empty() || batch.num_rows() == 0 {
            return Ok(batch);
        }
        let sql = format!("SELECT * FROM {} WHERE {}", dataset.name, conditions.join(" AND "));
        one_batch(&context, &sql, batch.schema().as_ref()).await
    }

    /// What `sql` over the dataset's views must give at `head`: rows as JSON objects, in the answer's order.
    pub async fn answer(&self, sql: &str, head: &Frontier) -> Result<Vec<Value>> {
        let context = session();
        context.register_batch(&self.dataset.name, self.below(head).await?)?;
        let wanted = |view: &str| sql.contains(view);
        let views = self.catalog.views.values().filter(|view| view.dataset.name == self.dataset.name);
        for view in views.filter(|view| wanted(&view.name)) {
            let schema = Schema::new(view.fold.finished().fields()[..view.fold.visible()].to_vec());
            let rows = match one_batch(&context, &view.sql, &schema).await {
                Ok(rows) => rows,
                // Some event or group cannot be computed: which one is told where each is alone.
                Err(_) => {
                    let below = self.below(head).await?;
                    alone::rows(&session(), &self.dataset.name, &below, &view.sql, &Arc::new(schema)).await?
                }
            };
            let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
            context.register_table(&view.name, Arc::new(table))?;
        }
        let mut text = Vec::new();
        for batch in context.sql(sql).await?.collect().await? {
            if !text.is_empty() {
                text.push(b'\n');
            }
            common::values::output::write_rows(&batch, &mut text, b"\n")?;
        }
        text.split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| Ok(serde_json::from_slice(line)?))
            .collect()
    }

    async fn below(&self, head: &Frontier) -> Result<RecordBatch> {
        let context = session();
        context.register_batch("events", self.events.clone())?;
        let partitions: std::collections::BTreeSet<Partition> = head.partitions().collect();
        let conditions: Vec<String> =
            partitions.iter().map(|&p| format!("(_partition = {p} AND _offset < {})", head.get(p))).collect();
        let condition = if conditions.is_empty() { "false".to_owned() } else { conditions.join(" OR ") };
        one_batch(&context, &format!("SELECT * FROM events WHERE {condition}"), self.events.schema().as_ref()).await
    }
}

fn session() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    SessionContext::new_with_config(config)
}

/// The rows of a query, in the types of `schema`.
async fn one_batch(context: &SessionContext, sql: &str, schema: &Schema) -> Result<RecordBatch> {
    let batches = context.sql(sql).await?.collect().await?;
    let schema = Arc::new(schema.clone());
    let converted: Result<Vec<RecordBatch>> = batches
        .iter()
        .map(|batch| {
            let columns: Result<Vec<ArrayRef>, _> = batch
                .columns()
                .iter()
                .zip(schema.fields())
                .map(|(column, field)| cast(column, field.data_type()))
                .collect();
            Ok(RecordBatch::try_new(schema.clone(), columns?)?)
        })
        .collect();
    Ok(datafusion::arrow::compute::concat_batches(&schema, &converted?)?)
}

/// The event's columns, or why it is dead: field by field, value by value.
fn decode(dataset: &Dataset, bytes: &[u8]) -> Result<Vec<ScalarValue>> {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(bytes)?;
    dataset
        .columns
        .fields()
        .iter()
        .map(|field| {
            let text = fields.get(field.name()).map_or("null", |raw| raw.get());
            let value: Value = serde_json::from_str(text)?;
            if value.is_null() {
                ensure!(field.is_nullable(), "`{}` is missing", field.name());
                return Ok(ScalarValue::try_from(field.data_type())?);
            }
            scalar(field.data_type(), text, &value)
        })
        .collect()
}

fn scalar(data_type: &DataType, text: &str, value: &Value) -> Result<ScalarValue> {
    let digits = match value {
        Value::String(string) => string.clone(),
        _ => text.to_owned(),
    };
    Ok(match data_type {
        DataType::Boolean => ScalarValue::Boolean(Some(value.as_bool().context("not a boolean")?)),
        DataType::Int16 => ScalarValue::Int16(Some(digits.parse()?)),
        DataType::Int32 => ScalarValue::Int32(Some(digits.parse()?)),
        DataType::Int64 => ScalarValue::Int64(Some(digits.parse()?)),
        DataType::Float64 => ScalarValue::Float64(Some(digits.parse()?)),
        DataType::Utf8 => ScalarValue::Utf8(Some(value.as_str().context("not a string")?.to_owned())),
        DataType::Decimal128(precision, scale) => {
            let scale_digits = usize::try_from(*scale)?;
            let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
            ensure!(fraction.len() <= scale_digits && !digits.contains(['e', 'E']), "not such a decimal");
            let unscaled: i128 = format!("{whole}{fraction:0<scale_digits$}").parse()?;
            ensure!(unscaled.unsigned_abs() < 10_u128.pow(u32::from(*precision)), "too large");
            ScalarValue::Decimal128(Some(unscaled), *precision, *scale)
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let time = chrono_like(value.as_str().context("not a time")?)?;
            ScalarValue::TimestampMicrosecond(Some(time), zone.clone())
        }
        other => bail!("the oracle does not know `{other}`"),
    })
}

/// Microseconds since 1970 of `YYYY-MM-DDTHH:MM:SS[.f][Z]`, the only form that the workloads use.
fn chrono_like(text: &str) -> Result<i64> {
    let scalar = ScalarValue::try_from_string(
        text.trim_end_matches('Z').to_owned(),
        &DataType::Timestamp(TimeUnit::Microsecond, None),
    )?;
    match scalar {
        ScalarValue::TimestampMicrosecond(Some(time), _) => Ok(time),
        _ => bail!("`{text}` is no time"),
    }
}

/// Whether two lists of rows are the same, in whatever order unless `ordered`. Floats to a relative tolerance.
pub fn same_rows(left: &[Value], right: &[Value], ordered: bool) -> bool {
    let sorted = |rows: &[Value]| {
        let mut rows: Vec<(String, Value)> = rows.iter().map(|row| (row.to_string(), row.clone())).collect();
        if !ordered {
            rows.sort_by(|a, b| a.0.cmp(&b.0));
        }
        rows.into_iter().map(|(_, row)| row).collect::<Vec<Value>>()
    };
    left.len() == right.len() && sorted(left).iter().zip(sorted(right)).all(|(left, right)| same(left, &right))
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| same(value, other)))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Number(left), Value::Number(right)) if left.is_f64() || right.is_f64() => {
            let (left, right) = (left.as_f64().unwrap_or(f64::NAN), right.as_f64().unwrap_or(f64::NAN));
            (left - right).abs() <= 1e-9 * (1.0 + left.abs().max(right.abs()))
        }
        (left, right) => left == right,
    }
}
