//! How the pipeline's batches reach features, tags and segments.

use super::Know;
use super::bitmap::ChunkKey;
use super::catalogue::Catalogue;
use super::decide::Gathering;
use super::evaluate::{Moment, Subject};
use super::expression::PROFILE;
use super::memory::{Memory, Writes};
use super::standing::Standing;
use super::state::{AnchorState, Happening};
use super::value::Value;
use super::window::Grid;
use crate::batch_sql::{in_texts, list};
use crate::event::{Known, PropertyValue};
use crate::identity::resolve::{customer_of_root, root_of_customer};
use crate::pipeline::{Batch, Knowing};
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, Cause, CustomerId};
use heyuan_kernel::{Error, Problem, Tx, sql};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// An event that arrives this long after it happened is late.
const LATE_MS: i64 = 3_600_000;
/// Customers of one look-up of anchors.
const LOOKUP_MAX: usize = 5_000;

/// An event as one name of it is folded: what was done, or the traits that came with it.
pub(crate) struct Told<'a> {
    pub(crate) event: &'a Known,
    pub(crate) traits: bool,
}

impl Happening for Told<'_> {
    fn at_ms(&self) -> i64 {
        self.event.occurred_at.ms()
    }

    fn message_id(&self) -> &str {
        &self.event.message_id
    }

    fn position(&self) -> i64 {
        self.event.position
    }

    fn property(&self, name: &str) -> Option<Value> {
        let found: Option<&PropertyValue> = if self.traits { self.event.traits.get(name) } else { self.event.properties.get(name) };
        found.and_then(Value::of)
    }
}

/// The names under which an event is folded.
pub(crate) fn told(event: &Known) -> impl Iterator<Item = (&str, Told<'_>)> {
    let own = (event.name != PROFILE).then_some((event.name.as_str(), Told { event, traits: false }));
    let traits = (event.name == PROFILE || !event.traits.is_empty()).then_some((PROFILE, Told { event, traits: true }));
    own.into_iter().chain(traits)
}

/// Takes one event into account for every feature that it can change.
pub(crate) fn observe(catalogue: &Catalogue, grid: &Grid, state: &mut AnchorState, event: &Known) {
    if let Some(unit) = &event.unit {
        state.seen_in(unit);
    }
    for (name, told) in told(event) {
        for (feature, fold) in catalogue.folded_from(name) {
            state.observe(grid, feature.id, fold, &told);
        }
    }
}

/// What a batch leaves behind between deciding and writing; the memory stays locked until it is dropped.
pub(crate) struct Prepared {
    pub(crate) writes: Arc<Writes>,
    _memory: OwnedMutexGuard<Memory>,
}

/// The customers that a step looks at, and what it already knows of them.
#[derive(Default)]
pub(crate) struct Touched {
    pub(crate) causes: BTreeMap<CustomerId, Cause>,
    /// Anchors that belong to a customer although the map does not say so yet.
    pub(crate) gained: HashMap<CustomerId, BTreeSet<AnchorId>>,
    /// Anchors that no longer belong to the customer that the map says.
    pub(crate) lost: HashMap<CustomerId, BTreeSet<AnchorId>>,
    /// States that the step has changed.
    pub(crate) states: BTreeMap<AnchorId, Arc<AnchorState>>,
}

impl Touched {
    fn touch(&mut self, customer: &CustomerId, cause: Cause) {
        let known = self.causes.entry(customer.clone()).or_insert(cause);
        // What happened to the identity explains more than any event; an event in time more than a late one.
        let rank = |cause: Cause| match cause {
            Cause::Merge | Cause::Unmerge => 3,
            Cause::Event => 2,
            Cause::Late => 1,
            Cause::Time | Cause::Redefined => 0,
        };
        if rank(cause) > rank(*known) {
            *known = cause;
        }
    }
}

impl Know {
    async fn prepare_batch(&self, batch: &Batch) -> Result<Prepared, Problem> {
        let mut memory = self.lock().await?;
        let touched = self.take_in(&mut memory, batch).await?;
        let position = batch.to.max(memory.counters.position);
        let writes = Arc::new(self.decide(&mut memory, touched, position).await?);
        memory.stage(writes.clone());
        Ok(Prepared { writes, _memory: memory })
    }

    async fn take_in(&self, memory: &mut Memory, batch: &Batch) -> Result<Touched, Problem> {
        let mut touched = Touched::default();
        let anchors: BTreeSet<AnchorId> = batch.events.iter().map(|event| event.anchor.clone()).collect();
        let known = memory.states(self.db().near(), &anchors).await?;
        let catalogue = memory.catalogue.clone();
        let mut states: BTreeMap<AnchorId, AnchorState> = BTreeMap::new();
        for event in &batch.events {
            let state = states.entry(event.anchor.clone()).or_insert_with(|| match known.get(&event.anchor) {
                Some(state) => AnchorState::clone(state),
                None => AnchorState::default(),
            });
            observe(&catalogue, self.grid(), state, event);
            let late = event.arrived_at.ms() - event.occurred_at.ms() > LATE_MS;
            if let Some(customer) = batch.customers.get(&event.anchor) {
                touched.touch(customer, if late { Cause::Late } else { Cause::Event });
            }
        }
        for state in states.values_mut() {
            state.retain(|feature| catalogue.is_defined(feature));
        }
        touched.states = states.into_iter().map(|(anchor, state)| (anchor, Arc::new(state))).collect();
        for change in &batch.identity {
            touched.touch(&change.after, change.cause);
            touched.gained.entry(change.after.clone()).or_default().insert(change.anchor.clone());
            if let Some(lost) = touched.lost.get_mut(&change.after) {
                lost.remove(&change.anchor);
            }
            if let Some(before) = change.before.as_ref().filter(|before| **before != change.after) {
                touched.touch(before, change.cause);
                touched.lost.entry(before.clone()).or_default().insert(change.anchor.clone());
                if let Some(gained) = touched.gained.get_mut(before) {
                    gained.remove(&change.anchor);
                }
            }
        }
        for event in &batch.events {
            // An anchor that is new in this batch may not be in the map yet even when no change is reported for it.
            if let Some(customer) = batch.customers.get(&event.anchor) {
                touched.gained.entry(customer.clone()).or_default().insert(event.anchor.clone());
            }
        }
        Ok(touched)
    }

    /// Looks at customers and gathers what has to be written.
    pub(crate) async fn decide(&self, memory: &mut Memory, touched: Touched, position: i64) -> Result<Writes, Problem> {
        let catalogue = memory.catalogue.clone();
        let at_ms = self.now_ms();
        let mut number = memory.counters.number;
        let subjects = self.subjects(memory, &touched, &mut number).await?;
        let moment = Moment { catalogue: &catalogue, grid: self.grid(), taggers: self.taggers(), at_ms, position };
        let rows = moment.evaluate(&subjects).await;
        let writes = Writes {
            expected: memory.counters,
            position,
            at_ms,
            number,
            states: touched.states.into_iter().collect(),
            ..Writes::default()
        };
        let mut gathering = Gathering { catalogue: &catalogue, writes, bits: BTreeMap::new() };
        for (subject, after) in subjects.iter().zip(rows) {
            gathering.add(subject, after);
        }
        let Gathering { mut writes, bits, .. } = gathering;
        let keys: BTreeSet<ChunkKey> = bits.keys().cloned().collect();
        memory.load_chunks(self.db().near(), &keys).await?;
        for (key, changes) in bits {
            let mut chunk = memory.chunk(&key);
            for (number, is) in changes {
                if is {
                    chunk.insert(number)
                } else {
                    chunk.remove(number)
                };
            }
            writes.chunks.push((key, chunk));
        }
        Ok(writes)
    }

    async fn subjects(&self, memory: &mut Memory, touched: &Touched, number: &mut i64) -> Result<Vec<Subject>, Problem> {
        let reader = self.db().near();
        let customers: Vec<CustomerId> = touched.causes.keys().cloned().collect();
        let mut anchors = anchors_of(reader, &customers).await?;
        for customer in &customers {
            let own = anchors.entry(customer.clone()).or_default();
            own.extend(touched.gained.get(customer).into_iter().flatten().cloned());
            touched.lost.get(customer).into_iter().flatten().for_each(|lost| {
                own.remove(lost);
            });
        }
        let wanted: BTreeSet<AnchorId> =
            anchors.values().flatten().filter(|anchor| !touched.states.contains_key(*anchor)).cloned().collect();
        let states = memory.states(reader, &wanted).await?;
        let standings = memory.standings(reader, &customers).await?;
        let purposes = consents(reader, &anchors).await?;
        let mut subjects = Vec::with_capacity(customers.len());
        for customer in customers {
            let own = &anchors[&customer];
            let before = match standings.get(&customer) {
                Some(standing) => standing.clone(),
                None if own.is_empty() => continue,
                None => {
                    *number += 1;
                    let number =
                        u32::try_from(*number).map_err(|_| super::internal("this tenant has more customers than there are numbers"))?;
                    Arc::new(Standing { number, ..Standing::default() })
                }
            };
            let of = |anchor| touched.states.get(anchor).or_else(|| states.get(anchor)).cloned();
            let anchors = (!own.is_empty()).then(|| own.iter().filter_map(of).collect());
            let purposes = purposes.get(&customer).cloned().unwrap_or_default();
            subjects.push(Subject { cause: touched.causes[&customer], customer, before, anchors, purposes });
        }
        Ok(subjects)
    }
}

/// The identifiers behind customers, as the committed map has them.
pub(crate) async fn anchors_of<C: sql::Connection>(
    conn: &C,
    customers: &[CustomerId],
) -> Result<HashMap<CustomerId, BTreeSet<AnchorId>>, Error> {
    let backend = conn.backend();
    let text = format!("SELECT id, cluster FROM cdp_node WHERE cluster {} AND erased_at IS NULL", in_texts(backend, 1));
    let mut found: HashMap<CustomerId, BTreeSet<AnchorId>> = HashMap::with_capacity(customers.len());
    for some in customers.chunks(LOOKUP_MAX) {
        let roots: Vec<AnchorId> = some.iter().filter_map(root_of_customer).collect();
        for row in sql::all(conn, &text, [list(backend, roots.iter().map(AnchorId::as_str))]).await? {
            let anchor = |column| {
                AnchorId::new(sql::get::<String>(&row, column)?).map_err(|e| Error::Corrupt { what: "identifier", why: e.to_string() })
            };
            found.entry(customer_of_root(&anchor("cluster")?)).or_default().insert(anchor("id")?);
        }
    }
    Ok(found)
}

/// The purposes for which customers gave consent: of each purpose and legal entity the latest word of any of their identifiers counts.
async fn consents<C: sql::Connection>(
    conn: &C,
    anchors: &HashMap<CustomerId, BTreeSet<AnchorId>>,
) -> Result<HashMap<CustomerId, HashSet<String>>, Error> {
    let backend = conn.backend();
    let text = format!("SELECT anchor, purpose, legal_entity, granted, at FROM cdp_consent WHERE anchor {}", in_texts(backend, 1));
    let owner: HashMap<&str, &CustomerId> =
        anchors.iter().flat_map(|(customer, own)| own.iter().map(move |a| (a.as_str(), customer))).collect();
    let all: Vec<&str> = owner.keys().copied().collect();
    let mut latest: HashMap<(CustomerId, String, String), (i64, bool)> = HashMap::new();
    for some in all.chunks(LOOKUP_MAX) {
        for row in sql::all(conn, &text, [list(backend, some)]).await? {
            let anchor: String = sql::get(&row, "anchor")?;
            if let Some(customer) = owner.get(anchor.as_str()) {
                let key = ((*customer).clone(), sql::get(&row, "purpose")?, sql::get(&row, "legal_entity")?);
                // Of two words at one instant the one that takes consent away counts.
                let said = (sql::get::<i64>(&row, "at")?, sql::get::<i64>(&row, "granted")? != 0);
                let known = latest.entry(key).or_insert(said);
                if said.0 > known.0 || (said.0 == known.0 && !said.1) {
                    *known = said;
                }
            }
        }
    }
    let mut purposes: HashMap<CustomerId, HashSet<String>> = HashMap::new();
    for ((customer, purpose, _), _) in latest.into_iter().filter(|(_, (_, granted))| *granted) {
        purposes.entry(customer).or_default().insert(purpose);
    }
    Ok(purposes)
}

impl Knowing for Know {
    fn prepare<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Box<dyn Any + Send + Sync>, Problem>> {
        async move { Ok(Box::new(self.prepare_batch(batch).await?) as Box<dyn Any + Send + Sync>) }.boxed()
    }

    fn apply<'a>(&'a self, tx: &'a Tx, _: &'a Batch, prepared: &'a (dyn Any + Send + Sync)) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            match prepared.downcast_ref::<Prepared>() {
                Some(prepared) => prepared.writes.apply(tx).await,
                None => Err(Error::Corrupt { what: "prepared batch", why: "it was prepared by something else".into() }),
            }
        }
        .boxed()
    }
}
