//! What the planner knows of a table that grows.

use crate::tenant;
use futures::FutureExt;
use heyuan_harness::{TestDatabase, until};
use heyuan_kernel::sql;
use std::time::Duration;

/// The server itself counts its tables once a minute.
const PATIENCE: Duration = Duration::from_secs(30);
const ROWS: i64 = 5_000;

#[tokio::test]
async fn a_table_that_grew_is_counted_soon() {
    let database = TestDatabase::postgres().await;
    let kernel = tenant::open(&database).await;
    let fill = format!("INSERT INTO test_mark SELECT 'row-' || n, n FROM generate_series(1, {ROWS}) n");
    sql::execute(kernel.db.reader(), &fill, []).await.expect("the rows are written");
    until("the planner knows how many rows there are", PATIENCE, || async {
        // Each unit may be the one after which it is looked.
        let touch = kernel.db.write("a test's unit", |tx| async move { sql::count(tx.conn(), "SELECT 1::bigint AS n", []).await }.boxed());
        touch.await.expect("it is read");
        (database.count("SELECT reltuples::bigint FROM pg_class WHERE relname = 'test_mark'").await == ROWS).then_some(())
    })
    .await;
}
