//! What PostgreSQL's planner knows of tables that grow fast.
//!
//! The server counts its tables about once a minute. A statement that was planned while a table was small reads it from end to end until
//! then, a table of a hundred thousand rows too, since a new tenant's first import does not take a minute. So whoever writes much has
//! the tables counted that have grown severalfold, which also has statements planned again.

use crate::error::Error;
use crate::sql;
use sea_orm::{ConnectionTrait, DatabaseConnection};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Commits after which the tables may have grown enough to look.
const COMMITS_MIN: u64 = 10;
/// How often the tables are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Tables that have at least a thousand rows and three times as many as when they were last counted.
const GROWN: &str = "SELECT format('ANALYZE (SKIP_LOCKED) %I.%I', s.schemaname, s.relname) AS statement
   FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
   WHERE s.n_live_tup >= 1000 AND s.n_live_tup >= 3 * greatest(c.reltuples, 0)
     AND pg_has_role(c.relowner, 'USAGE')
   ORDER BY s.n_live_tup DESC";

/// Counts commits, and has grown tables counted now and then. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statistics {
    commits: Arc<AtomicU64>,
    looks: Arc<AtomicBool>,
    looked: Arc<Mutex<Option<Instant>>>,
}

impl Statistics {
    /// A unit has committed: looks at the tables, beside whoever goes on, where it is time to.
    pub(crate) fn committed(&self, pool: &DatabaseConnection) {
        if self.commits.fetch_add(1, Ordering::Relaxed) + 1 < COMMITS_MIN || self.looks.swap(true, Ordering::Acquire) {
            return;
        }
        if !self.is_time() {
            self.looks.store(false, Ordering::Release);
            return;
        }
        self.commits.store(0, Ordering::Relaxed);
        let (statistics, pool) = (self.clone(), pool.clone());
        tokio::spawn(async move {
            if let Err(error) = count_grown(&pool).await {
                tracing::warn!(%error, "the tables that have grown could not be counted; the server will do it");
            }
            statistics.looks.store(false, Ordering::Release);
        });
    }

    fn is_time(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if looked.is_some_and(|at| now.duration_since(at) < LOOK_EVERY) {
            return false;
        }
        *looked = Some(now);
        true
    }
}

async fn count_grown(pool: &DatabaseConnection) -> Result<(), Error> {
    for row in sql::all(pool, GROWN, []).await? {
        pool.execute_unprepared(&sql::get::<String>(&row, "statement")?).await?;
    }
    Ok(())
}
