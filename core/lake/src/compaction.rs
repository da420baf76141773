//! Compaction: few flushed files become files by month and bucket, and many small ones fewer large ones.
//!
//! Every file is in the same order (month and bucket, day, anchor, own time, position), so that merging streams: memory holds one
//! batch of each input and one row group of the output, whatever the files' size. Files of like size are merged, so that a row is
//! rewritten a few times only, however much history there is.

use crate::catalog::{self, LakeFile};
use crate::isolation::Isolated;
use crate::lake::Change;
use crate::store::{FileWriter, Store, Written, parts};
use crate::table::{files_exec, partitioned};
use crate::{Error, Lake, LakeConfig, batch};
use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr, expressions};
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use datafusion::prelude::SessionConfig;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use heyuan_kernel::{Problem, guard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Rows of a batch while merging: one batch of each input is in memory.
const MERGE_BATCH_ROWS: usize = 2_048;
/// Most files of one merge.
const MERGE_FILES_MAX: usize = 32;
/// Each size class is this many times the one below.
const CLASS_RATIO: i64 = 4;
/// No catalogue has had this generation.
const NEVER: i64 = -1;

/// Merges files while this process is the processor.
pub(crate) struct Compaction {
    lake: Lake,
    /// The catalogue's generation that left nothing to merge.
    settled: AtomicI64,
}

impl Compaction {
    pub(crate) fn new(lake: Lake) -> Compaction {
        Compaction { lake, settled: AtomicI64::new(NEVER) }
    }

    async fn compact_once(&self, fence: &Fence) -> Result<Progress, Error> {
        let reader = self.lake.inner.kernel.db.reader();
        let generation = catalog::generation(reader).await?;
        if generation == self.settled.load(Ordering::Relaxed) {
            return Ok(Progress::Idle);
        }
        let files = catalog::current(reader).await?;
        let Some(merge) = choose(files, &self.lake.inner.config) else {
            self.settled.store(generation, Ordering::Relaxed);
            return Ok(Progress::Idle);
        };
        self.merge(fence, merge).await?;
        Ok(Progress::Busy)
    }

    async fn merge(&self, fence: &Fence, merge: Merge) -> Result<(), Error> {
        guard::outside_unit("a compaction of the lake");
        let ids: Vec<String> = merge.files.iter().map(|file| file.id.clone()).collect();
        let rows: i64 = merge.files.iter().map(|file| file.rows).sum();
        let lake = self.lake.clone();
        let threads = Isolated::new("lake-compaction", 1)?;
        let work = threads.spawn(async move { write_merged(&lake, merge).await });
        let written = work.await.map_err(|_| heyuan_kernel::Error::Broken("compaction of the lake"))??;
        let merged: i64 = written.iter().map(|written| written.file.rows).sum();
        if merged != rows {
            let why = format!("merging files of {rows} rows gave {merged}");
            return Err(heyuan_kernel::Error::Corrupt { what: "event file", why }.into());
        }
        tracing::debug!(files = ids.len(), into = written.len(), rows, "files of the lake were merged");
        let replaced = u64::try_from(ids.len()).unwrap_or(0);
        self.lake.commit(fence, "compact the lake", written, Change::Replace { ids }).await?;
        self.lake.inner.meters.replaced_files.add(replaced, &[]);
        Ok(())
    }
}

impl Task for Compaction {
    fn name(&self) -> &'static str {
        "lake compaction"
    }

    fn waits(&self) -> Waits {
        // At rest nothing turns by time: files come by commits.
        Waits::time(Duration::from_secs(1))
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move { Ok(self.compact_once(fence).await?) }.boxed()
    }

    fn begin_term(&self) {
        self.settled.store(NEVER, Ordering::Relaxed);
    }
}

/// Files to merge, and whether the result is cut by month and bucket.
#[derive(Debug)]
struct Merge {
    files: Vec<LakeFile>,
    cut: bool,
}

/// What is worth merging: enough files of one size class, flushed ones first, since every read opens all of those.
fn choose(files: Vec<LakeFile>, config: &LakeConfig) -> Option<Merge> {
    let mut flushed: BTreeMap<u32, Vec<LakeFile>> = BTreeMap::new();
    let mut compacted: BTreeMap<(i64, i64, u32), Vec<LakeFile>> = BTreeMap::new();
    for file in files {
        match (file.month, file.bucket) {
            (Some(_), Some(_)) if file.rows >= config.file_rows_max => {}
            (Some(month), Some(bucket)) => compacted.entry((month, bucket, class(file.rows))).or_default().push(file),
            _ => flushed.entry(class(file.rows)).or_default().push(file),
        }
    }
    if let Some(mut files) = flushed.into_values().find(|files| files.len() >= config.compaction_flushed_files) {
        files.truncate(MERGE_FILES_MAX);
        let cut = files.iter().map(|file| file.rows).sum::<i64>() >= config.compaction_rows_min;
        return Some(Merge { files, cut });
    }
    let mut files = compacted.into_values().find(|files| files.len() >= config.compaction_files)?;
    files.truncate(MERGE_FILES_MAX);
    Some(Merge { files, cut: true })
}

fn class(rows: i64) -> u32 {
    rows.max(1).ilog(CLASS_RATIO)
}

async fn write_merged(lake: &Lake, merge: Merge) -> Result<Vec<Written>, Error> {
    let engine = Error::engine("merge event files");
    let mut rows = merged_stream(lake, &merge.files).map_err(&engine)?;
    let mut output = Output { lake, cut: merge.cut, writing: None, written: Vec::new() };
    while let Some(batch) = rows.try_next().await.map_err(&engine)? {
        output.write(&batch).await?;
    }
    output.finish().await
}

fn merged_stream(lake: &Lake, files: &[LakeFile]) -> Result<SendableRecordBatchStream, DataFusionError> {
    let environment = RuntimeEnvBuilder::new().build_arc()?;
    environment.register_object_store(Store::url().as_ref(), lake.inner.store.objects());
    let mut config = SessionConfig::new().with_batch_size(MERGE_BATCH_ROWS);
    // A stream that took over another's file would give rows out of order.
    config.options_mut().execution.enable_file_stream_work_stealing = false;
    let groups = partitioned(files).into_iter().map(|file| FileGroup::new(vec![file])).collect();
    let input = files_exec(groups, config.options(), None, None, None)?;
    let schema = batch::schema();
    let order: Result<Vec<PhysicalSortExpr>, DataFusionError> =
        batch::SORT.iter().map(|name| Ok(PhysicalSortExpr::new_default(expressions::col(name, &schema)?))).collect();
    let order = LexOrdering::new(order?).ok_or_else(|| DataFusionError::Internal("files have an order".to_owned()))?;
    let merged = SortPreservingMergeExec::new(order, input);
    merged.execute(0, Arc::new(TaskContext::default().with_session_config(config).with_runtime(environment)))
}

/// The files that a merge makes: one, or one for each month and bucket.
struct Output<'a> {
    lake: &'a Lake,
    cut: bool,
    writing: Option<(i32, FileWriter)>,
    written: Vec<Written>,
}

impl Output<'_> {
    async fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let (parts, cut) = (parts(batch)?, self.cut);
        let mut start = 0;
        for run in parts.chunk_by(|a, b| !cut || a == b) {
            let rows = batch.slice(start, run.len());
            start += run.len();
            self.write_run(run[0], &rows).await?;
        }
        Ok(())
    }

    async fn write_run(&mut self, part: i32, rows: &RecordBatch) -> Result<(), Error> {
        let full =
            |part_now: i32, writer: &FileWriter| self.cut && (part_now != part || writer.rows() >= self.lake.inner.config.file_rows_max);
        if self.writing.as_ref().is_some_and(|(part_now, writer)| full(*part_now, writer)) {
            self.end_file().await?;
        }
        if self.writing.is_none() {
            let mut writer = self.lake.inner.store.create()?;
            if self.cut {
                writer.of_part(part);
            }
            self.writing = Some((part, writer));
        }
        if let Some((_, writer)) = &mut self.writing {
            writer.write(rows).await?;
        }
        Ok(())
    }

    async fn end_file(&mut self) -> Result<(), Error> {
        if let Some((_, writer)) = self.writing.take() {
            self.written.push(writer.finish().await?);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<Written>, Error> {
        self.end_file().await?;
        Ok(self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(id: usize, rows: i64, place: Option<(i64, i64)>) -> LakeFile {
        LakeFile {
            id: id.to_string(),
            path: id.to_string(),
            rows,
            bytes: 1,
            position_min: 1,
            position_max: 1,
            occurred_min: 0,
            occurred_max: 0,
            month: place.map(|(month, _)| month),
            bucket: place.map(|(_, bucket)| bucket),
        }
    }

    /// `(files of the merge, cut by month and bucket)`
    fn check(files: &[(i64, Option<(i64, i64)>)]) -> Option<(usize, bool)> {
        let files = files.iter().enumerate().map(|(id, (rows, place))| file(id, *rows, *place)).collect();
        choose(files, &LakeConfig::default()).map(|merge| (merge.files.len(), merge.cut))
    }

    #[test]
    fn merges_files_of_like_size() {
        assert_eq!(check(&[]), None);
        assert_eq!(check(&[(10, None); 7]), None);
        assert_eq!(check(&[(10, None); 8]), Some((8, false)));
        assert_eq!(check(&[(20_000, None); 9]), Some((9, true)));
        assert_eq!(check(&[(10, None); 100]), Some((32, false)));
        assert_eq!(check(&[(20_000, Some((1, 1))); 3]), None);
        assert_eq!(check(&[(20_000, Some((1, 1))); 4]), Some((4, true)));
        assert_eq!(check(&[(1_000_000, Some((1, 1))); 9]), None);
        let apart = [(10, Some((1, 1))), (10, Some((1, 2))), (10, Some((2, 1))), (10_000, Some((1, 1))), (500, Some((1, 1)))];
        assert_eq!(check(&apart), None);
    }
}
