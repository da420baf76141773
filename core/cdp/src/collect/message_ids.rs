//! Message ids that were accepted before, remembered for days: a unique table on PostgreSQL, time-ordered generations on SQLite.
//!
//! SQLite has one process and one writer, so it is spared the ever-growing random B-tree: ids of the open generation stand in a
//! memory set and, beside each block, in a row of their own; a full generation is sorted into chunks by prefix, with a Bloom filter
//! that stays in memory. Looking an id up costs a probe per generation, and a read of one small chunk only where the filter hits.

use heyuan_kernel::{Database, Error, Tx, sql};
use sea_orm::DbBackend;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A hashed message id.
pub(crate) type Id = [u8; 16];

/// Chunks of one generation: 128 ids each at the default size.
const CHUNKS: i64 = 4096;
/// Chunks written in one transaction, so that none holds the writer for long.
const CHUNKS_A_STEP: i64 = 256;
/// Bits of filter an id: one look-up in some thousand hits in vain.
const FILTER_BITS: usize = 20;
/// Bits of one block of the filter: a cache line, so that a probe costs one miss.
const BLOCK_BITS: usize = 512;
/// Bits set and tested an id.
const PROBES: usize = 8;

/// The hash under which a message id is remembered.
pub(crate) fn id_of(message_id: &str) -> Id {
    let digest = Sha256::digest(message_id.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// A blocked Bloom filter over hashed ids; the ids are random bits already.
#[derive(Debug)]
struct Filter {
    bits: Vec<u8>,
}

impl Filter {
    fn sized(ids: usize) -> Filter {
        let blocks = (ids * FILTER_BITS).div_ceil(BLOCK_BITS).max(1);
        Filter { bits: vec![0; blocks * BLOCK_BITS / 8] }
    }

    fn places(&self, id: &Id) -> (usize, u128) {
        let head = u64::from_le_bytes([id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7]]);
        let blocks = self.bits.len() * 8 / BLOCK_BITS;
        let block = usize::try_from((u128::from(head) * blocks as u128) >> 64).unwrap_or(0);
        let mut tail = [0; 16];
        tail[..8].copy_from_slice(&id[8..]);
        // Eight places of nine bits are 72 bits: the second half of the id gives 64, its mix with the first the rest.
        tail[8..].copy_from_slice(
            &(head ^ u64::from_le_bytes([id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]]).rotate_left(29)).to_le_bytes(),
        );
        (block * BLOCK_BITS, u128::from_le_bytes(tail))
    }

    fn add(&mut self, id: &Id) {
        let (base, mut tail) = self.places(id);
        for _ in 0..PROBES {
            let bit = base + usize::try_from(tail & 511).unwrap_or(0);
            self.bits[bit / 8] |= 1 << (bit % 8);
            tail >>= 9;
        }
    }

    fn may_hold(&self, id: &Id) -> bool {
        let (base, mut tail) = self.places(id);
        (0..PROBES).all(|_| {
            let bit = base + usize::try_from(tail & 511).unwrap_or(0);
            tail >>= 9;
            self.bits[bit / 8] & (1 << (bit % 8)) != 0
        })
    }
}

#[derive(Debug)]
struct Open {
    generation: i64,
    ids: HashSet<Id>,
}

#[derive(Debug, Default)]
struct Generations {
    /// Closed ones that are in chunks, with their filters.
    stored: Vec<(i64, Arc<Filter>)>,
    /// Full ones on their way into chunks.
    closing: Vec<Arc<Open>>,
    open: Option<Open>,
}

/// Remembers message ids.
#[derive(Clone)]
pub(crate) struct MessageIds {
    db: Database,
    generation_ids: usize,
    /// `None` on PostgreSQL.
    memory: Option<Arc<Mutex<Generations>>>,
}

impl MessageIds {
    /// Reads what a start needs: filters and the ids of open generations.
    pub(crate) async fn open(db: Database, generation_ids: usize) -> Result<MessageIds, Error> {
        if db.backend() == DbBackend::Postgres {
            return Ok(MessageIds { db, generation_ids, memory: None });
        }
        let mut state = Generations::default();
        for row in sql::all(db.reader(), "SELECT generation, filter FROM cdp_message_generation ORDER BY generation", []).await? {
            state.stored.push((sql::get(&row, "generation")?, Arc::new(Filter { bits: sql::get(&row, "filter")? })));
        }
        let done: HashSet<i64> = state.stored.iter().map(|(generation, _)| *generation).collect();
        let mut waiting: BTreeMap<i64, HashSet<Id>> = BTreeMap::new();
        for row in sql::all(db.reader(), "SELECT generation, ids FROM cdp_message_open ORDER BY id", []).await? {
            let generation: i64 = sql::get(&row, "generation")?;
            let bytes: Vec<u8> = sql::get(&row, "ids")?;
            if !done.contains(&generation) {
                waiting.entry(generation).or_default().extend(ids_in(&bytes));
            }
        }
        let newest = done.iter().max().copied().unwrap_or(0);
        let open = waiting.pop_last().map(|(generation, ids)| Open { generation, ids });
        state.open = Some(open.unwrap_or(Open { generation: newest + 1, ids: HashSet::new() }));
        state.closing = waiting.into_iter().map(|(generation, ids)| Arc::new(Open { generation, ids })).collect();
        Ok(MessageIds { db, generation_ids, memory: Some(Arc::new(Mutex::new(state))) })
    }

    fn state(memory: &Mutex<Generations>) -> std::sync::MutexGuard<'_, Generations> {
        memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On SQLite: which of the ids were seen before. The caller lets no second group in before [`MessageIds::remember`].
    pub(crate) async fn seen(&self, ids: &[Id]) -> Result<HashSet<Id>, Error> {
        let Some(memory) = &self.memory else { return Ok(HashSet::new()) };
        let mut seen = HashSet::new();
        let mut probable: Vec<(i64, Id)> = Vec::new();
        {
            let state = Self::state(memory);
            for id in ids {
                let held =
                    state.open.as_ref().is_some_and(|open| open.ids.contains(id)) || state.closing.iter().any(|open| open.ids.contains(id));
                if held {
                    seen.insert(*id);
                    continue;
                }
                probable.extend(state.stored.iter().filter(|(_, filter)| filter.may_hold(id)).map(|(generation, _)| (*generation, *id)));
            }
        }
        for (generation, id) in probable {
            if !seen.contains(&id) && self.in_chunk(generation, &id).await? {
                seen.insert(id);
            }
        }
        Ok(seen)
    }

    async fn in_chunk(&self, generation: i64, id: &Id) -> Result<bool, Error> {
        let text = "SELECT ids FROM cdp_message_chunk WHERE generation = $1 AND prefix = $2";
        let row = sql::one(self.db.reader(), text, [generation.into(), prefix(id).into()]).await?;
        let Some(row) = row else { return Ok(false) };
        let bytes: Vec<u8> = sql::get(&row, "ids")?;
        Ok(ids_in(&bytes).any(|other| other == *id))
    }

    /// The generation that the next group belongs to, on SQLite.
    pub(crate) fn generation(&self) -> Option<i64> {
        self.memory.as_ref().and_then(|memory| Self::state(memory).open.as_ref().map(|open| open.generation))
    }

    /// On SQLite, after the commit: the ids are known from now on. Answers a generation that is full now.
    pub(crate) fn remember(&self, ids: &[Id]) -> bool {
        let Some(memory) = &self.memory else { return false };
        let mut state = Self::state(memory);
        let Some(open) = state.open.as_mut() else { return false };
        open.ids.extend(ids.iter().copied());
        if open.ids.len() < self.generation_ids {
            return false;
        }
        let next = open.generation + 1;
        let full = state.open.replace(Open { generation: next, ids: HashSet::new() });
        state.closing.extend(full.map(Arc::new));
        true
    }

    /// On SQLite, in the block's transaction.
    pub(crate) async fn write_open(tx: &Tx, generation: i64, seen_at: i64, ids: &[Id]) -> Result<(), Error> {
        sql::execute(
            tx.conn(),
            "INSERT INTO cdp_message_open (generation, seen_at, ids) VALUES ($1, $2, $3)",
            [generation.into(), seen_at.into(), ids.concat().into()],
        )
        .await?;
        Ok(())
    }

    /// On PostgreSQL, in the block's transaction: stores the ids and answers those that are new. Sorted, so that two groups that share
    /// ids wait for each other and never in a circle.
    pub(crate) async fn write_unique(tx: &Tx, seen_at: i64, ids: &[Id]) -> Result<HashSet<Id>, Error> {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        let count = i64::try_from(sorted.len()).unwrap_or(0);
        let rows = sql::all(
            tx.conn(),
            "INSERT INTO cdp_message_id (id, seen_at)
             SELECT substring($1::bytea from (1 + 16 * place)::int for 16), $2 FROM generate_series(0, $3::bigint - 1) AS place
             ON CONFLICT (id) DO NOTHING RETURNING id",
            [sorted.concat().into(), seen_at.into(), count.into()],
        )
        .await?;
        rows.iter()
            .map(|row| {
                let bytes: Vec<u8> = sql::get(row, "id")?;
                bytes.try_into().map_err(|_| Error::Corrupt { what: "message id", why: "its length".into() })
            })
            .collect()
    }

    /// Whether a message id was accepted within the days that are remembered.
    pub(crate) async fn knows(&self, message_id: &str) -> Result<bool, Error> {
        let id = id_of(message_id);
        if self.memory.is_some() {
            return Ok(!self.seen(&[id]).await?.is_empty());
        }
        let row = sql::one(self.db.reader(), "SELECT seen_at FROM cdp_message_id WHERE id = $1", [id.to_vec().into()]).await?;
        Ok(row.is_some())
    }

    /// Sorts full generations into chunks. Runs apart from collecting; a crash in between is mended by the next start.
    pub(crate) async fn close_full(&self) -> Result<(), Error> {
        let Some(memory) = &self.memory else { return Ok(()) };
        loop {
            let Some(full) = Self::state(memory).closing.first().cloned() else { return Ok(()) };
            let filter = self.write_chunks(&full).await?;
            let mut state = Self::state(memory);
            state.closing.retain(|open| open.generation != full.generation);
            state.stored.push((full.generation, filter));
        }
    }

    async fn write_chunks(&self, full: &Open) -> Result<Arc<Filter>, Error> {
        let mut filter = Filter::sized(full.ids.len());
        let mut chunks: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
        for id in &full.ids {
            filter.add(id);
            chunks.entry(prefix(id)).or_default().extend_from_slice(id);
        }
        let generation = full.generation;
        for from in (0..CHUNKS).step_by(usize::try_from(CHUNKS_A_STEP).unwrap_or(1)) {
            let rows: Vec<Vec<sea_orm::Value>> = chunks
                .range(from..from + CHUNKS_A_STEP)
                .map(|(prefix, ids)| vec![generation.into(), (*prefix).into(), ids.clone().into()])
                .collect();
            self.db.write("store message ids", move |tx| Box::pin(put_chunks(tx, rows.clone()))).await?;
        }
        let (bits, count) = (filter.bits.clone(), i64::try_from(full.ids.len()).unwrap_or(0));
        self.db
            .write("close a generation of message ids", move |tx| Box::pin(finish_generation(tx, generation, count, bits.clone())))
            .await?;
        Ok(Arc::new(filter))
    }

    /// Forgets ids that are older than `before`, in small steps; answers whether there may be more.
    pub(crate) async fn forget(&self, before: i64) -> Result<bool, Error> {
        let Some(memory) = &self.memory else {
            let old = sql::one(self.db.reader(), "SELECT id FROM cdp_message_id WHERE seen_at < $1 LIMIT 1", [before.into()]).await?;
            if old.is_none() {
                return Ok(false);
            }
            let text = "DELETE FROM cdp_message_id WHERE id IN (SELECT id FROM cdp_message_id WHERE seen_at < $1 LIMIT 5000)";
            let removed = self.db.write("forget message ids", move |tx| Box::pin(sql::execute(tx.conn(), text, [before.into()]))).await?;
            return Ok(removed > 0);
        };
        let text = "SELECT generation FROM cdp_message_generation WHERE newest_at < $1 ORDER BY generation LIMIT 1";
        let Some(row) = sql::one(self.db.reader(), text, [before.into()]).await? else { return Ok(false) };
        let generation: i64 = sql::get(&row, "generation")?;
        self.db.write("forget message ids", move |tx| Box::pin(forget_generation(tx, generation))).await?;
        Self::state(memory).stored.retain(|(other, _)| *other != generation);
        Ok(true)
    }
}

async fn put_chunks(tx: &Tx, rows: Vec<Vec<sea_orm::Value>>) -> Result<u64, Error> {
    let head = "INSERT INTO cdp_message_chunk (generation, prefix, ids) VALUES";
    crate::batch_sql::insert(tx.conn(), head, "ON CONFLICT (generation, prefix) DO UPDATE SET ids = excluded.ids", 3, rows).await
}

async fn finish_generation(tx: &Tx, generation: i64, count: i64, bits: Vec<u8>) -> Result<(), Error> {
    let text = "SELECT COALESCE(MAX(seen_at), 0) AS newest FROM cdp_message_open WHERE generation = $1";
    let newest: i64 = match sql::one(tx.conn(), text, [generation.into()]).await? {
        Some(row) => sql::get(&row, "newest")?,
        None => 0,
    };
    sql::execute(
        tx.conn(),
        "INSERT INTO cdp_message_generation (generation, ids, newest_at, filter) VALUES ($1, $2, $3, $4)",
        [generation.into(), count.into(), newest.into(), bits.into()],
    )
    .await?;
    sql::execute(tx.conn(), "DELETE FROM cdp_message_open WHERE generation = $1", [generation.into()]).await?;
    Ok(())
}

async fn forget_generation(tx: &Tx, generation: i64) -> Result<(), Error> {
    sql::execute(tx.conn(), "DELETE FROM cdp_message_chunk WHERE generation = $1", [generation.into()]).await?;
    sql::execute(tx.conn(), "DELETE FROM cdp_message_generation WHERE generation = $1", [generation.into()]).await?;
    Ok(())
}

fn prefix(id: &Id) -> i64 {
    i64::from(u16::from_be_bytes([id[0], id[1]])) % CHUNKS
}

fn ids_in(bytes: &[u8]) -> impl Iterator<Item = Id> + '_ {
    bytes.chunks_exact(16).filter_map(|chunk| chunk.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_forgets_nothing_and_rarely_errs() {
        let ids: Vec<Id> = (0..20_000).map(|n| id_of(&format!("in {n}"))).collect();
        let mut filter = Filter::sized(ids.len());
        ids.iter().for_each(|id| filter.add(id));
        assert!(ids.iter().all(|id| filter.may_hold(id)));
        let wrong = (0..20_000).filter(|n| filter.may_hold(&id_of(&format!("out {n}")))).count();
        assert!(wrong < 40, "{wrong} of 20,000 strangers were taken for known");
    }
}
