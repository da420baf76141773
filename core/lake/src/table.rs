//! The engine's view of one snapshot: files and tail as one table.

use crate::Error;
use crate::batch;
use crate::catalog::LakeFile;
use crate::store::Store;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, ScalarValue, Statistics};
use datafusion::config::{ConfigOptions, TableParquetOptions};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::error::Result;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use std::sync::Arc;

/// Bytes read from a file's end at once: footer and page index of most files.
const FOOTER_BYTES: usize = 64 << 10;

/// What one transaction saw: the files that count and the events above the watermark.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) files: Vec<LakeFile>,
    pub(crate) tail: Vec<RecordBatch>,
}

/// A snapshot as a table.
#[derive(Debug)]
pub(crate) struct EventsTable {
    snapshot: Snapshot,
}

impl EventsTable {
    pub(crate) fn new(snapshot: Snapshot) -> EventsTable {
        EventsTable { snapshot }
    }

    /// What the tail takes in memory.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.snapshot.tail.iter().map(RecordBatch::get_array_memory_size).sum()
    }
}

#[async_trait::async_trait]
impl TableProvider for EventsTable {
    fn schema(&self) -> SchemaRef {
        batch::schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(2);
        if !self.snapshot.files.is_empty() {
            let groups = FileGroup::new(partitioned(&self.snapshot.files)).split_files(state.config().target_partitions());
            inputs.push(files_exec(groups, state.config_options(), projection.cloned(), None, limit)?);
        }
        if !self.snapshot.tail.is_empty() || inputs.is_empty() {
            inputs.push(MemorySourceConfig::try_new_exec(std::slice::from_ref(&self.snapshot.tail), batch::schema(), projection.cloned())?);
        }
        UnionExec::try_new(inputs)
    }

    /// The engine itself pushes filters down to the files, where they skip files, row groups, pages and rows.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// Catalogued files as the engine takes them, with what the catalogue knows of their contents.
pub(crate) fn partitioned(files: &[LakeFile]) -> Vec<PartitionedFile> {
    files
        .iter()
        .map(|file| {
            PartitionedFile::new(file.path.clone(), u64::try_from(file.bytes).unwrap_or(0))
                .with_statistics(Arc::new(statistics(file)))
                .with_metadata_size_hint(FOOTER_BYTES)
        })
        .collect()
}

fn statistics(file: &LakeFile) -> Statistics {
    let mut statistics = Statistics::new_unknown(&batch::schema());
    statistics.num_rows = usize::try_from(file.rows).map_or(Precision::Absent, Precision::Exact);
    let time = |ms: i64| ScalarValue::TimestampMillisecond(Some(ms), Some("+00:00".into()));
    let known = [
        ("position", ScalarValue::Int64(Some(file.position_min)), ScalarValue::Int64(Some(file.position_max))),
        ("occurred_at", time(file.occurred_min), time(file.occurred_max)),
    ];
    for (name, min, max) in known {
        if let Some(column) = batch::schema().index_of(name).ok().and_then(|index| statistics.column_statistics.get_mut(index)) {
            *column = ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: Precision::Exact(min),
                max_value: Precision::Exact(max),
                ..ColumnStatistics::new_unknown()
            };
        }
    }
    statistics
}

/// Reads groups of files, each group in its own partition and in order.
pub(crate) fn files_exec(
    groups: Vec<FileGroup>,
    options: &ConfigOptions,
    projection: Option<Vec<usize>>,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let parquet = TableParquetOptions { global: options.execution.parquet.clone(), ..TableParquetOptions::default() };
    let mut source = ParquetSource::new(batch::schema()).with_table_parquet_options(parquet).with_pushdown_filters(true);
    if let Some(predicate) = predicate {
        source = source.with_predicate(predicate);
    }
    let config = FileScanConfigBuilder::new(Store::url(), Arc::new(source))
        .with_file_groups(groups)
        .with_projection_indices(projection)?
        .with_limit(limit)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// A condition over the columns of files, for reading without a query.
pub(crate) fn condition(expr: &Expr) -> std::result::Result<Arc<dyn PhysicalExpr>, Error> {
    let build = || {
        let schema = DFSchema::try_from(batch::schema())?;
        create_physical_expr(expr, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
    };
    build().map_err(Error::engine("build a condition on events"))
}
