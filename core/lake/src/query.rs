//! SQL over one view: read-only, apart from everything else, bounded in rows, bytes, memory and time.

use crate::isolation::Isolated;
use crate::render::{Renderer, type_name};
use crate::store::Store;
use crate::table::EventsTable;
use crate::{Error, Lake, batch, functions};
use datafusion::common::plan_err;
use datafusion::common::{DataFusionError, ParamValues, ScalarValue};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{Expr, LogicalPlan, lit};
use datafusion::prelude::{DataFrame, SQLOptions, SessionConfig, SessionContext, ident};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::TryStreamExt;
use heyuan_kernel::{Actor, Problem, Reach, Scope, guard};
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows of a batch: smaller ones bound what a single function may blow up.
const BATCH_ROWS: usize = 4_096;
/// Most arithmetic and concatenation signs of a query: the engine's planning time grows with the square of a chain's length, a
/// third of a second at this one, and planning can't be stopped.
const SIGNS_MAX: usize = 500;
/// Most parameters of a query.
const PARAMS_MAX: usize = 100;
/// Functions whose output can be far larger than their input and is not counted against the query's memory.
const REFUSED_FUNCTIONS: [&str; 12] = [
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "generate_series",
    "gen_series",
    "range",
    "repeat",
    "lpad",
    "rpad",
    "arrow_cast",
    "version",
];

/// How a query is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueryOptions {
    /// Values of `$1`, `$2`, …: text, whole numbers, booleans or null.
    pub params: Vec<Value>,
    /// Most rows of the answer; the configured bound when left out.
    pub limit: Option<usize>,
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// `bigint`, `double`, `boolean`, `text`, `timestamp`, `date`, `decimal`, `list`, `struct`, `null`, or the engine's name.
    pub r#type: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows, as JSON values in the order of the columns.
    pub rows: Vec<Vec<Value>>,
    /// Whether there is more than the bounds let through.
    pub truncated: bool,
}

/// What a session may take.
pub(crate) enum Memory {
    /// No more than this.
    Bounded { bytes: usize },
    /// This, and then disk in this folder.
    Spilling { bytes: usize, folder: PathBuf },
}

impl Lake {
    /// Runs one SELECT, WITH, EXPLAIN or DESCRIBE over the view `events`: files and tail in one snapshot, cut to the units that the
    /// actor reaches. Dropping the future stops the query.
    ///
    /// # Errors
    /// `forbidden` without the scope `admin`; [`Error::Query`] in the planner's words; [`Error::Timeout`], [`Error::Memory`],
    /// [`Error::Slots`], [`Error::TailTooLong`] where a bound is met; what database and store answer.
    pub async fn query(&self, actor: &Actor, sql: &str, options: QueryOptions) -> Result<Table, Error> {
        actor.require(Scope::Admin)?;
        guard::outside_unit("a query of the lake");
        let config = &self.inner.config;
        if sql.len() > config.query_text_bytes_max {
            return Err(Error::Query(format!("the query has more than {} bytes", config.query_text_bytes_max)));
        }
        let rows_max = rows_max(options.limit, config.query_rows_max)?;
        let params = params(&options.params)?;
        let wait = Duration::from_millis(config.query_wait_ms);
        let slot = tokio::time::timeout(wait, self.inner.query_slots.clone().acquire_owned()).await;
        let slot = slot.ok().and_then(Result::ok).ok_or(Error::Slots(config.query_wait_ms))?;
        let answer = async {
            let events = EventsTable::new(self.snapshot().await?);
            let units = match actor.reach() {
                Reach::Everything => None,
                Reach::Units(units) => Some(units.iter().map(ToString::to_string).collect()),
            };
            let threads = Isolated::new("lake-query", config.query_threads)?;
            let (lake, sql) = (self.clone(), sql.to_owned());
            let work = threads.spawn(async move {
                // Held as long as the work really runs, even when nobody waits for it any more.
                let _slot = slot;
                lake.answer(events, units, &sql, params, rows_max).await
            });
            let work = AbortOnDrop(work);
            work.await
        };
        let started = Instant::now();
        let answer = tokio::time::timeout(Duration::from_millis(config.query_timeout_ms), answer).await;
        self.inner.meters.query_ms.record(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), &[]);
        answer.unwrap_or(Err(Error::Timeout(config.query_timeout_ms)))
    }

    async fn answer(
        self,
        events: EventsTable,
        units: Option<Vec<String>>,
        sql: &str,
        params: Vec<ScalarValue>,
        rows_max: usize,
    ) -> Result<Table, Error> {
        let context = session(&self, Memory::Bounded { bytes: self.inner.config.query_memory_bytes_max })?;
        let tail_bytes = events.tail_bytes();
        let held = MemoryConsumer::new("events not in files").register(&context.runtime_env().memory_pool);
        held.try_grow(tail_bytes).map_err(Error::of_query)?;
        let view = view(&context, events, units).map_err(Error::of_query)?;
        context.register_table("events", view.into_view()).map_err(Error::of_query)?;
        let frame = plan(&context, sql, params, rows_max).await.map_err(Error::of_query)?;
        let fields = frame.schema().fields().clone();
        let columns = fields.iter().map(|field| Column { name: field.name().clone(), r#type: type_name(field.data_type()) });
        let columns = columns.collect();
        let mut renderer = Renderer::new(rows_max, self.inner.config.query_bytes_max);
        let mut batches = frame.execute_stream().await.map_err(Error::of_query)?;
        while let Some(batch) = batches.try_next().await.map_err(Error::of_query)? {
            if !renderer.take(&batch).map_err(|error| Error::of_query(error.into()))? {
                break;
            }
        }
        let (rows, truncated) = renderer.finish();
        Ok(Table { columns, rows, truncated })
    }
}

/// Stops the work with whoever waits for it; a panic in there is an answer of its own.
struct AbortOnDrop(tokio::task::JoinHandle<Result<Table, Error>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Future for AbortOnDrop {
    type Output = Result<Table, Error>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context).map(|ended| {
            ended.unwrap_or_else(|error| {
                tracing::warn!(%error, "the query engine broke off");
                Err(Error::Query("the engine can't carry this query out".to_owned()))
            })
        })
    }
}

/// A session with nothing in it but its functions and the store.
pub(crate) fn session(lake: &Lake, memory: Memory) -> Result<SessionContext, Error> {
    let build = || {
        let (pool, disk): (Arc<dyn MemoryPool>, DiskManagerMode) = match memory {
            Memory::Bounded { bytes } => (Arc::new(GreedyMemoryPool::new(bytes)), DiskManagerMode::Disabled),
            Memory::Spilling { bytes, folder } => (Arc::new(FairSpillPool::new(bytes)), DiskManagerMode::Directories(vec![folder])),
        };
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(pool)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(disk))
            .build_arc()?;
        environment.register_object_store(Store::url().as_ref(), lake.inner.store.objects());
        let mut config = SessionConfig::new()
            .with_target_partitions(lake.inner.config.query_threads)
            .with_batch_size(BATCH_ROWS)
            .with_information_schema(false);
        config.options_mut().execution.parquet.pushdown_filters = true;
        config.options_mut().execution.parquet.reorder_filters = true;
        let mut state = SessionStateBuilder::new().with_config(config).with_runtime_env(environment).with_default_features();
        *state.table_functions() = Some(HashMap::new());
        *state.table_factories() = Some(HashMap::new());
        if let Some(known) = state.scalar_functions() {
            known.retain(|function| !REFUSED_FUNCTIONS.contains(&function.name()));
            known.extend(functions::all());
        }
        Ok(SessionContext::new_with_state(state.build()))
    };
    build().map_err(Error::engine("prepare the query engine"))
}

fn view(context: &SessionContext, events: EventsTable, units: Option<Vec<String>>) -> Result<DataFrame, DataFusionError> {
    let mut view = context.read_table(Arc::new(events))?;
    if let Some(units) = units {
        let units: Vec<Expr> = units.into_iter().map(|unit| lit(ScalarValue::Utf8View(Some(unit)))).collect();
        view = view.filter(ident("unit").in_list(units, false))?;
    }
    view.select_columns(&batch::VIEW)
}

/// Parses, checks that it only reads, and binds parameters; one row more than wanted tells that there is more.
async fn plan(context: &SessionContext, sql: &str, params: Vec<ScalarValue>, rows_max: usize) -> Result<DataFrame, DataFusionError> {
    if signs(sql) > SIGNS_MAX {
        return plan_err!("more than {SIGNS_MAX} arithmetic or concatenation signs in one query");
    }
    let plan = context.state().create_logical_plan(sql).await?;
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    let plan = if params.is_empty() { plan } else { plan.with_param_values(ParamValues::from(params))? };
    let whole = matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_));
    let frame = context.execute_logical_plan(plan).await?;
    if whole { Ok(frame) } else { frame.limit(0, Some(rows_max.saturating_add(1))) }
}

/// Signs outside text and comments; what can't even be cut into words is for the parser to refuse.
fn signs(sql: &str) -> usize {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    let is_sign = |token: &&Token| matches!(token, Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat);
    tokens.iter().filter(is_sign).count()
}

fn rows_max(limit: Option<usize>, rows_max: usize) -> Result<usize, Error> {
    match limit {
        None => Ok(rows_max),
        Some(limit) if (1..=rows_max).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::invalid("limit", format!("expected 1 to {rows_max}")).into()),
    }
}

fn params(values: &[Value]) -> Result<Vec<ScalarValue>, Error> {
    if values.len() > PARAMS_MAX {
        return Err(Problem::invalid("params", format!("expected at most {PARAMS_MAX} values")).into());
    }
    let refuse = |index: usize| Problem::invalid(&format!("params[{index}]"), "expected text, a whole number, a boolean or null");
    let scalar = |(index, value): (usize, &Value)| match value {
        Value::Null => Ok(ScalarValue::Null),
        Value::Bool(value) => Ok(ScalarValue::Boolean(Some(*value))),
        Value::String(text) => Ok(ScalarValue::Utf8View(Some(text.clone()))),
        Value::Number(number) => number.as_i64().map(|number| ScalarValue::Int64(Some(number))).ok_or_else(|| refuse(index).into()),
        Value::Array(_) | Value::Object(_) => Err(refuse(index).into()),
    };
    values.iter().enumerate().map(scalar).collect()
}
