//! The catalogue of files and the watermark, as tables that change in one transaction.

use heyuan_kernel::{Error, Tx, sql};

/// A file, as the catalogue knows it.
#[derive(Debug, Clone)]
pub(crate) struct LakeFile {
    pub(crate) id: String,
    pub(crate) path: String,
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
    pub(crate) position_min: i64,
    pub(crate) position_max: i64,
    pub(crate) occurred_min: i64,
    pub(crate) occurred_max: i64,
    /// Year * 12 + month - 1, in the tenant's zone; none in a file as it was flushed.
    pub(crate) month: Option<i64>,
    pub(crate) bucket: Option<i64>,
}

const COLUMNS: &str = "id, path, row_count, byte_count, position_min, position_max, occurred_min, occurred_max, month, bucket";

fn file(row: &sql::Row) -> Result<LakeFile, Error> {
    Ok(LakeFile {
        id: sql::get(row, "id")?,
        path: sql::get(row, "path")?,
        rows: sql::get(row, "row_count")?,
        bytes: sql::get(row, "byte_count")?,
        position_min: sql::get(row, "position_min")?,
        position_max: sql::get(row, "position_max")?,
        occurred_min: sql::get(row, "occurred_min")?,
        occurred_max: sql::get(row, "occurred_max")?,
        month: sql::get(row, "month")?,
        bucket: sql::get(row, "bucket")?,
    })
}

/// The position up to which events are in files.
pub(crate) async fn watermark<C: sql::Connection>(conn: &C) -> Result<i64, Error> {
    let row = sql::one(conn, "SELECT position FROM lake_watermark WHERE id = 1", []).await?;
    row.map_or(Ok(0), |row| sql::get(&row, "position"))
}

/// How often the catalogue has changed.
pub(crate) async fn generation<C: sql::Connection>(conn: &C) -> Result<i64, Error> {
    let row = sql::one(conn, "SELECT generation FROM lake_watermark WHERE id = 1", []).await?;
    row.map_or(Ok(0), |row| sql::get(&row, "generation"))
}

/// Every file that counts; their number is bounded by compaction.
pub(crate) async fn current<C: sql::Connection>(conn: &C) -> Result<Vec<LakeFile>, Error> {
    let text = format!("SELECT {COLUMNS} FROM lake_file WHERE replaced_at IS NULL ORDER BY position_max, id");
    sql::all(conn, &text, []).await?.iter().map(file).collect()
}

/// The files that can hold events of these buckets below `before`, newest first.
pub(crate) async fn of_buckets<C: sql::Connection>(conn: &C, buckets: &[i32], before: i64) -> Result<Vec<LakeFile>, Error> {
    let text = format!(
        "SELECT {COLUMNS} FROM lake_file WHERE replaced_at IS NULL AND position_min < $1 AND (bucket IS NULL OR bucket IN ({}))
         ORDER BY position_max DESC, id",
        sql::placeholders(2, buckets.len())
    );
    let values = std::iter::once(before).chain(buckets.iter().map(|bucket| i64::from(*bucket)));
    sql::all(conn, &text, values.map(sea_orm::Value::from).collect::<Vec<_>>()).await?.iter().map(file).collect()
}

/// Registers files; the caller's transaction makes them count.
pub(crate) async fn add(tx: &Tx, files: &[LakeFile], now_ms: i64) -> Result<(), Error> {
    // Eleven values a row: far below what one statement may carry.
    for chunk in files.chunks(200) {
        let text = format!("INSERT INTO lake_file ({COLUMNS}, created_at) VALUES {}", sql::rows(chunk.len(), 11));
        let mut values: Vec<sea_orm::Value> = Vec::with_capacity(chunk.len() * 11);
        for file in chunk {
            values.extend([
                file.id.clone().into(),
                file.path.clone().into(),
                file.rows.into(),
                file.bytes.into(),
                file.position_min.into(),
                file.position_max.into(),
                file.occurred_min.into(),
                file.occurred_max.into(),
                file.month.into(),
                file.bucket.into(),
                now_ms.into(),
            ]);
        }
        sql::execute(tx.conn(), &text, values).await?;
    }
    Ok(())
}

/// Moves the watermark and counts the change.
///
/// # Errors
/// `Stale` when it does not stand at `from`.
pub(crate) async fn advance(tx: &Tx, from: i64, to: i64) -> Result<(), Error> {
    let moved = sql::execute(
        tx.conn(),
        "UPDATE lake_watermark SET position = $1, generation = generation + 1 WHERE id = 1 AND position = $2",
        [to.into(), from.into()],
    )
    .await?;
    if moved == 1 { Ok(()) } else { Err(Error::Stale("the lake's watermark")) }
}

/// Marks files as replaced and counts the change.
///
/// # Errors
/// `Stale` when one of them does not count any more.
pub(crate) async fn replace(tx: &Tx, ids: &[String], now_ms: i64) -> Result<(), Error> {
    sql::execute(tx.conn(), "UPDATE lake_watermark SET generation = generation + 1 WHERE id = 1", []).await?;
    let generation = generation(tx.conn()).await?;
    let text = format!(
        "UPDATE lake_file SET replaced_at = $1, replaced_generation = $2 WHERE replaced_at IS NULL AND id IN ({})",
        sql::placeholders(3, ids.len())
    );
    let values = [now_ms.into(), generation.into()].into_iter().chain(ids.iter().map(|id| id.clone().into()));
    let replaced = sql::execute(tx.conn(), &text, values.collect::<Vec<sea_orm::Value>>()).await?;
    if usize::try_from(replaced).is_ok_and(|count| count == ids.len()) { Ok(()) } else { Err(Error::Stale("the lake's catalogue")) }
}

/// Up to `limit` files that were replaced before `before_ms` and that no pin needs any more.
pub(crate) async fn removable<C: sql::Connection>(conn: &C, before_ms: i64, now_ms: i64, limit: i64) -> Result<Vec<LakeFile>, Error> {
    let text = format!(
        "SELECT {COLUMNS} FROM lake_file WHERE replaced_at IS NOT NULL AND replaced_at < $1 AND NOT EXISTS
           (SELECT 1 FROM lake_pin WHERE lake_pin.expires_at > $2 AND lake_pin.generation < lake_file.replaced_generation)
         ORDER BY replaced_at LIMIT $3"
    );
    sql::all(conn, &text, [before_ms.into(), now_ms.into(), limit.into()]).await?.iter().map(file).collect()
}

/// Forgets files; what lies on the store is removed afterwards.
pub(crate) async fn forget(tx: &Tx, files: &[LakeFile]) -> Result<(), Error> {
    let text = format!("DELETE FROM lake_file WHERE id IN ({})", sql::placeholders(1, files.len()));
    sql::execute(tx.conn(), &text, files.iter().map(|file| file.id.clone().into()).collect::<Vec<sea_orm::Value>>()).await?;
    Ok(())
}

/// Which of these paths the catalogue knows, replaced files included.
pub(crate) async fn known<C: sql::Connection>(conn: &C, paths: &[String]) -> Result<Vec<String>, Error> {
    let mut known = Vec::new();
    for chunk in paths.chunks(1_000) {
        let text = format!("SELECT path FROM lake_file WHERE path IN ({})", sql::placeholders(1, chunk.len()));
        let rows = sql::all(conn, &text, chunk.iter().map(|path| path.clone().into()).collect::<Vec<sea_orm::Value>>()).await?;
        for row in &rows {
            known.push(sql::get(row, "path")?);
        }
    }
    Ok(known)
}
