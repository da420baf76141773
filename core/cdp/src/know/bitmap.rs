//! Sets of customers as roaring bitmaps over their numbers, stored in chunks of 65,536.

use crate::batch_sql;
use heyuan_kernel::{Error, sql};
use roaring::RoaringBitmap;
use std::collections::HashMap;

/// The set of all customers that there are.
pub(crate) const LIVING: &str = "living";

/// The set of a unit's customers.
pub(crate) fn of_unit(unit: &str) -> String {
    format!("unit:{unit}")
}

/// A segment's members.
pub(crate) fn of_segment(segment: &str) -> String {
    format!("segment:{segment}")
}

/// A chunk of a named set.
pub(crate) type ChunkKey = (String, u32);

pub(crate) fn chunk_of(number: u32) -> u32 {
    number >> 16
}

fn decode(bytes: &[u8]) -> Result<RoaringBitmap, Error> {
    RoaringBitmap::deserialize_from(bytes).map_err(|error| Error::Corrupt { what: "bitmap", why: error.to_string() })
}

/// A whole set; numbers are customers' own.
pub(crate) async fn whole<C: sql::Connection>(conn: &C, name: &str) -> Result<RoaringBitmap, Error> {
    let rows = sql::all(conn, "SELECT bits FROM cdp_bitmap WHERE name = $1 ORDER BY chunk", [name.into()]).await?;
    let mut set = RoaringBitmap::new();
    for row in &rows {
        set |= decode(&sql::get::<Vec<u8>>(row, "bits")?)?;
    }
    Ok(set)
}

/// How many are in a set.
pub(crate) async fn count<C: sql::Connection>(conn: &C, name: &str) -> Result<u64, Error> {
    let row =
        sql::one(conn, "SELECT CAST(COALESCE(SUM(count), 0) AS BIGINT) AS total FROM cdp_bitmap WHERE name = $1", [name.into()]).await?;
    let total: i64 = row.map_or(Ok(0), |row| sql::get(&row, "total"))?;
    Ok(u64::try_from(total).unwrap_or(0))
}

/// Chunks as stored; those that are not are empty and left out.
pub(crate) async fn chunks<C: sql::Connection>(conn: &C, keys: &[ChunkKey]) -> Result<HashMap<ChunkKey, RoaringBitmap>, Error> {
    let mut by_name: HashMap<&str, Vec<u32>> = HashMap::new();
    for (name, chunk) in keys {
        by_name.entry(name).or_default().push(*chunk);
    }
    let mut found = HashMap::new();
    for (name, numbers) in by_name {
        let text = format!("SELECT chunk, bits FROM cdp_bitmap WHERE name = $1 AND chunk IN ({})", sql::placeholders(2, numbers.len()));
        let values = std::iter::once(name.into()).chain(numbers.into_iter().map(|number| i64::from(number).into()));
        for row in sql::all(conn, &text, values.collect::<Vec<_>>()).await? {
            let chunk: i64 = sql::get(&row, "chunk")?;
            let key = (name.to_owned(), u32::try_from(chunk).unwrap_or(u32::MAX));
            found.insert(key, decode(&sql::get::<Vec<u8>>(&row, "bits")?)?);
        }
    }
    Ok(found)
}

/// Writes chunks over what is stored.
pub(crate) async fn write<C: sql::Connection>(conn: &C, chunks: &[(ChunkKey, RoaringBitmap)]) -> Result<(), Error> {
    let mut rows = Vec::with_capacity(chunks.len());
    for ((name, chunk), bits) in chunks {
        let mut bytes = Vec::with_capacity(bits.serialized_size());
        bits.serialize_into(&mut bytes).map_err(|error| Error::Corrupt { what: "bitmap", why: error.to_string() })?;
        let count = i64::try_from(bits.len()).unwrap_or(i64::MAX);
        rows.push(vec![name.clone().into(), i64::from(*chunk).into(), count.into(), bytes.into()]);
    }
    batch_sql::insert(
        conn,
        "INSERT INTO cdp_bitmap (name, chunk, count, bits) VALUES",
        "ON CONFLICT (name, chunk) DO UPDATE SET count = excluded.count, bits = excluded.bits",
        4,
        rows,
    )
    .await?;
    Ok(())
}
