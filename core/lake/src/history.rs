//! The latest events of some anchors, for a timeline: read straight from the few files that can hold them.

use crate::place::{BUCKETS, bucket_of};
use crate::store::Store;
use crate::table::{condition, files_exec, partitioned};
use crate::{Error, EventRow, Lake, batch, catalog};
use datafusion::common::ScalarValue;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::{SessionConfig, ident};
use futures::TryStreamExt;
use heyuan_kernel::guard;
use std::sync::Arc;

/// Rows of a batch: a timeline's page is small.
const BATCH_ROWS: usize = 1_024;
/// Most anchors of one call: an identity larger than this stays unmatched.
const ANCHORS_MAX: usize = 1_000;

impl Lake {
    /// Events of these anchors with a position below `before`, newest first, at most `limit`.
    ///
    /// # Errors
    /// What database and store answer.
    pub async fn events_of(&self, anchors: &[String], before: Option<i64>, limit: usize) -> Result<Vec<EventRow>, Error> {
        guard::outside_unit("a read of the lake");
        let anchors = &anchors[..anchors.len().min(ANCHORS_MAX)];
        if anchors.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let mut buckets: Vec<i32> = anchors.iter().map(|anchor| bucket_of(anchor)).collect();
        buckets.sort_unstable();
        buckets.dedup();
        debug_assert!(buckets.len() <= BUCKETS.unsigned_abs() as usize);
        let transaction = self.begin_reading().await?;
        let watermark = catalog::watermark(&transaction).await?;
        let files = catalog::of_buckets(&transaction, &buckets, before.unwrap_or(i64::MAX)).await?;
        let mut found = match self.tail() {
            Some(tail) => tail.rows_of(&transaction, watermark, anchors, before, limit).await?,
            None => Vec::new(),
        };
        transaction.rollback().await.map_err(heyuan_kernel::Error::from)?;
        let session = self.reading_session()?;
        for file in files {
            // Files come newest first: once the page is full of later events, no further file can add to it.
            if found.len() == limit && found.last().is_some_and(|oldest| oldest.position > file.position_max) {
                break;
            }
            let oldest_of_page = if found.len() == limit { found.last().map(|row| row.position) } else { None };
            let wanted = wanted(anchors, before, oldest_of_page);
            self.read_page(&session, file, &wanted, limit, &mut found).await?;
        }
        Ok(found)
    }

    fn reading_session(&self) -> Result<Arc<TaskContext>, Error> {
        let environment = RuntimeEnvBuilder::new().build_arc().map_err(Error::engine("read event files"))?;
        environment.register_object_store(Store::url().as_ref(), self.inner.store.objects());
        let config = SessionConfig::new().with_batch_size(BATCH_ROWS);
        Ok(Arc::new(TaskContext::default().with_session_config(config).with_runtime(environment)))
    }

    /// Adds a file's rows to a page of the newest `limit`.
    async fn read_page(
        &self,
        session: &Arc<TaskContext>,
        file: catalog::LakeFile,
        wanted: &Expr,
        limit: usize,
        page: &mut Vec<EventRow>,
    ) -> Result<(), Error> {
        let engine = Error::engine("read an event file");
        let group = FileGroup::new(partitioned(&[file]));
        let columns = batch::indices(&batch::ROW);
        let plan = files_exec(vec![group], session.session_config().options(), Some(columns), Some(condition(wanted)?), None);
        let mut rows = plan.and_then(|plan| plan.execute(0, session.clone())).map_err(&engine)?;
        while let Some(batch) = rows.try_next().await.map_err(&engine)? {
            page.extend(batch::to_rows(&batch)?);
            page.sort_unstable_by_key(|row| std::cmp::Reverse(row.position));
            page.truncate(limit);
        }
        Ok(())
    }
}

fn wanted(anchors: &[String], before: Option<i64>, after: Option<i64>) -> Expr {
    let text = |anchor: &String| lit(ScalarValue::Utf8View(Some(anchor.clone())));
    let mut wanted = match anchors {
        [anchor] => ident("anchor").eq(text(anchor)),
        anchors => ident("anchor").in_list(anchors.iter().map(text).collect(), false),
    };
    if let Some(before) = before {
        wanted = wanted.and(ident("position").lt(lit(before)));
    }
    if let Some(after) = after {
        wanted = wanted.and(ident("position").gt(lit(after)));
    }
    wanted
}
