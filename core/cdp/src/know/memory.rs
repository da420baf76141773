//! What the processor remembers between steps: definitions, hot anchors, hot customers and chunks of bitmaps.
//!
//! Whoever changes anything holds the memory from its reading to its commit. What a step wants remembered is staged and taken over
//! only when the next one finds the revision that the step's transaction wrote; any other revision means that the commit failed or
//! that another process wrote, and what was remembered is dropped.

use super::bitmap::{self, ChunkKey};
use super::catalogue::Catalogue;
use super::standing::Standing;
use super::state::AnchorState;
use super::tagger::ActiveTagger;
use crate::batch_sql::{in_texts, list};
use heyuan_contract::{AnchorId, CustomerId, DomainEvent};
use heyuan_kernel::{Error, Tx, sql};
use quick_cache::unsync::Cache;
use roaring::RoaringBitmap;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Hot anchors and customers remembered: about 20 MB when full.
const REMEMBERED_MAX: usize = 10_000;
/// Ids of one look-up.
const LOOKUP_MAX: usize = 5_000;

/// The counters of this part, read in one statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Changes with every definition.
    pub(crate) definitions: i64,
    /// Changes with every commit that touches a standing.
    pub(crate) revision: i64,
    /// The last number given to a customer.
    pub(crate) number: i64,
    /// The last event taken into account.
    pub(crate) position: i64,
}

pub(crate) async fn counters<C: sql::Connection>(conn: &C) -> Result<Counters, Error> {
    let mut counters = Counters::default();
    for row in sql::all(conn, "SELECT name, value FROM cdp_know_counter", []).await? {
        let value = sql::get(&row, "value")?;
        match sql::get::<String>(&row, "name")?.as_str() {
            "definitions" => counters.definitions = value,
            "revision" => counters.revision = value,
            "number" => counters.number = value,
            "position" => counters.position = value,
            _ => {}
        }
    }
    Ok(counters)
}

/// A change of a tag, for its history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TagChange {
    pub(crate) customer: CustomerId,
    pub(crate) tag: String,
    pub(crate) value: Option<String>,
    pub(crate) previous: Option<String>,
    pub(crate) version: String,
    pub(crate) cause: heyuan_contract::Cause,
}

/// What a step wants written and, once that is committed, remembered.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    pub(crate) expected: Counters,
    pub(crate) position: i64,
    pub(crate) at_ms: i64,
    pub(crate) number: i64,
    pub(crate) states: Vec<(AnchorId, Arc<AnchorState>)>,
    pub(crate) standings: Vec<(CustomerId, Arc<Standing>)>,
    pub(crate) changes: Vec<TagChange>,
    pub(crate) events: Vec<(String, DomainEvent)>,
    pub(crate) chunks: Vec<(ChunkKey, RoaringBitmap)>,
    /// Entered and left while a segment is rebuilt.
    pub(crate) rebuilt: HashMap<String, (i64, i64)>,
}

/// What the processor remembers.
pub(crate) struct Memory {
    pub(crate) counters: Counters,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) active: Vec<ActiveTagger>,
    states: Cache<AnchorId, Arc<AnchorState>>,
    standings: Cache<CustomerId, Arc<Standing>>,
    chunks: HashMap<ChunkKey, RoaringBitmap>,
    staged: Option<Arc<Writes>>,
}

impl Memory {
    pub(crate) fn new() -> Memory {
        Memory {
            counters: Counters::default(),
            catalogue: Arc::new(Catalogue::unread()),
            active: Vec::new(),
            states: Cache::new(REMEMBERED_MAX),
            standings: Cache::new(REMEMBERED_MAX),
            chunks: HashMap::new(),
            staged: None,
        }
    }

    /// Drops everything that came from the database.
    pub(crate) fn forget(&mut self) {
        self.states.clear();
        self.standings.clear();
        self.chunks.clear();
        self.staged = None;
    }

    /// Takes over what the last step staged, when it committed; drops everything when somebody else wrote.
    pub(crate) fn settle(&mut self, counters: Counters) {
        let staged = self.staged.take();
        match staged {
            Some(writes) if counters.revision == writes.expected.revision + 1 && self.counters.revision == writes.expected.revision => {
                for (anchor, state) in &writes.states {
                    self.states.insert(anchor.clone(), state.clone());
                }
                for (customer, standing) in &writes.standings {
                    self.standings.insert(customer.clone(), standing.clone());
                }
                for (key, bits) in &writes.chunks {
                    self.chunks.insert(key.clone(), bits.clone());
                }
            }
            _ if counters.revision == self.counters.revision => {}
            _ => self.forget(),
        }
        self.counters = counters;
    }

    pub(crate) fn stage(&mut self, writes: Arc<Writes>) {
        self.staged = Some(writes);
    }

    /// The state of anchors; those without any are left out.
    pub(crate) async fn states<C: sql::Connection>(
        &mut self,
        conn: &C,
        anchors: &BTreeSet<AnchorId>,
    ) -> Result<HashMap<AnchorId, Arc<AnchorState>>, Error> {
        let mut found = HashMap::with_capacity(anchors.len());
        let mut missing = Vec::new();
        for anchor in anchors {
            match self.states.get(anchor) {
                Some(state) => {
                    found.insert(anchor.clone(), state.clone());
                }
                None => missing.push(anchor),
            }
        }
        for some in missing.chunks(LOOKUP_MAX) {
            for (anchor, state) in read_states(conn, some).await? {
                let state = Arc::new(state);
                self.states.insert(anchor.clone(), state.clone());
                found.insert(anchor, state);
            }
        }
        Ok(found)
    }

    /// The standing of customers; new ones are left out.
    pub(crate) async fn standings<C: sql::Connection>(
        &mut self,
        conn: &C,
        customers: &[CustomerId],
    ) -> Result<HashMap<CustomerId, Arc<Standing>>, Error> {
        let mut found = HashMap::with_capacity(customers.len());
        let mut missing = Vec::new();
        for customer in customers {
            match self.standings.get(customer) {
                Some(standing) => {
                    found.insert(customer.clone(), standing.clone());
                }
                None => missing.push(customer),
            }
        }
        for some in missing.chunks(LOOKUP_MAX) {
            for (customer, standing) in read_standings(conn, some).await? {
                let standing = Arc::new(standing);
                self.standings.insert(customer.clone(), standing.clone());
                found.insert(customer, standing);
            }
        }
        Ok(found)
    }

    /// Makes chunks ready to be looked at with [`Memory::chunk`].
    pub(crate) async fn load_chunks<C: sql::Connection>(&mut self, conn: &C, keys: &BTreeSet<ChunkKey>) -> Result<(), Error> {
        let missing: Vec<ChunkKey> = keys.iter().filter(|key| !self.chunks.contains_key(*key)).cloned().collect();
        for some in missing.chunks(200) {
            let mut found = bitmap::chunks(conn, some).await?;
            for key in some {
                self.chunks.insert(key.clone(), found.remove(key).unwrap_or_default());
            }
        }
        Ok(())
    }

    pub(crate) fn chunk(&self, key: &ChunkKey) -> RoaringBitmap {
        self.chunks.get(key).cloned().unwrap_or_default()
    }
}

fn corrupt(what: &'static str) -> Error {
    Error::Corrupt { what, why: "its bytes are not of a version that this release reads".into() }
}

pub(crate) async fn read_states<C: sql::Connection>(conn: &C, anchors: &[&AnchorId]) -> Result<Vec<(AnchorId, AnchorState)>, Error> {
    if anchors.is_empty() {
        return Ok(Vec::new());
    }
    let backend = conn.backend();
    let text = format!("SELECT anchor, state FROM cdp_feature_state WHERE anchor {}", in_texts(backend, 1));
    let rows = sql::all(conn, &text, [list(backend, anchors.iter().map(|anchor| anchor.as_str()))]).await?;
    rows.iter()
        .map(|row| {
            let bytes: Vec<u8> = sql::get(row, "state")?;
            let anchor = AnchorId::new(sql::get::<String>(row, "anchor")?).map_err(|_| corrupt("anchor"))?;
            Ok((anchor, AnchorState::decode(&bytes).ok_or_else(|| corrupt("feature state"))?))
        })
        .collect()
}

pub(crate) async fn read_standings<C: sql::Connection>(conn: &C, customers: &[&CustomerId]) -> Result<Vec<(CustomerId, Standing)>, Error> {
    if customers.is_empty() {
        return Ok(Vec::new());
    }
    let backend = conn.backend();
    let text = format!("SELECT customer, standing FROM cdp_standing WHERE customer {}", in_texts(backend, 1));
    let rows = sql::all(conn, &text, [list(backend, customers.iter().map(|customer| customer.as_str()))]).await?;
    rows.iter().map(read_standing).collect()
}

/// A row with `customer` and `standing`.
pub(crate) fn read_standing(row: &sql::Row) -> Result<(CustomerId, Standing), Error> {
    let bytes: Vec<u8> = sql::get(row, "standing")?;
    let customer = CustomerId::new(sql::get::<String>(row, "customer")?).map_err(|_| corrupt("customer"))?;
    Ok((customer, Standing::decode(&bytes).ok_or_else(|| corrupt("standing"))?))
}

/// Moves a counter by one when it stands where it is expected.
pub(crate) async fn advance_revision(tx: &Tx, expected: i64) -> Result<(), Error> {
    let moved =
        sql::execute(tx.conn(), "UPDATE cdp_know_counter SET value = value + 1 WHERE name = 'revision' AND value = $1", [expected.into()])
            .await?;
    if moved == 1 { Ok(()) } else { Err(Error::Stale("what is known of customers")) }
}

pub(crate) async fn set_counter(tx: &Tx, name: &str, value: i64) -> Result<(), Error> {
    sql::execute(
        tx.conn(),
        "INSERT INTO cdp_know_counter (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [name.into(), value.into()],
    )
    .await?;
    Ok(())
}
