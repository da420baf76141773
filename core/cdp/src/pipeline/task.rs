//! The pipeline, in two stages: it identifies events in small portions, each committed by itself, and lets later rooms know a batch
//! of identified events, whose effects commit with the batch's position.
//!
//! Who is who is matched beside observations of other wings, and starts again when one of those came between: a portion is small so
//! that this is rare and cheap. What is known depends on no identifier's staying as it is: every change of an identity, by a portion
//! or by another wing, waits as a row for the next batch.

use super::mapping::{self, Ground, Mapped};
use super::{Batch, IdentityChange, Knowing};
use crate::batch_sql::{position, set_position};
use crate::event::{Known, PropertyValue};
use crate::event_type::EventTypes;
use crate::event_type::faults::{self, Counts};
use crate::history;
use crate::identity::plan::{Plan, Sighting};
use crate::identity::resolve::customer_of_root;
use crate::identity::sealing::Sealing;
use crate::identity::store;
use crate::identity::{Rules, change};
use crate::inbox::sequence::INBOX;
use crate::inbox::{block, sequence};
use crate::settings::Collect;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, Timestamp};
use heyuan_kernel::bulk;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use heyuan_kernel::{Error, Kernel, Problem, Tx, sql};
use sea_orm::DbBackend;
use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The position up to which events are known.
pub(crate) const PROCESSED: &str = "processed";
/// The position up to which events are identified: at or after the one above.
const IDENTIFIED: &str = "identified";
/// How many customers were erased so far; the row is always there.
pub(crate) const ERASURES: &str = "erasures";
/// Events identified in one transaction. Large portions take few commits; an observation seldom comes between in small ones.
const PORTION_EVENTS: std::ops::RangeInclusive<usize> = 125..=2_000;
/// By how much portions grow again.
const PORTION_STEP: usize = 125;
/// How often a portion is tried, each time half as large, before the step gives up.
const PORTION_TRIES_MAX: u32 = 16;
/// A batch takes no further block once it holds this many events.
const BATCH_EVENTS: i64 = 4_000;
/// How soon blocks that other processes wrote are seen.
const OTHERS_SEEN_WITHIN: Duration = Duration::from_millis(500);
/// How long a batch waits for more to come with it.
const GATHERED_WITHIN: Duration = Duration::from_millis(20);
/// Blocks looked at for one batch.
const BATCH_BLOCKS: i64 = 2_000;

/// The processor's task between the inbox and what is known.
pub(crate) struct Pipeline {
    pub kernel: Kernel,
    pub types: EventTypes,
    pub rules: Arc<Rules>,
    pub settings: Arc<Collect>,
    pub knowing: Vec<Arc<dyn Knowing>>,
    /// How many events the next portion takes.
    pub portion: AtomicUsize,
}

/// A batch with everything that is decided and made before its transaction.
struct Ready {
    batch: Batch,
    sealing: Sealing,
    prepared: Vec<Box<dyn Any + Send + Sync>>,
    counts: Counts,
    blocks: Vec<i64>,
    known: Vec<u8>,
    before: i64,
    pending: Vec<i64>,
    erasures: i64,
    now: Timestamp,
}

/// Whose the events of a batch are.
#[derive(Default)]
struct Identified {
    /// For every event its nodes, strongest first; empty when all of its identifiers are suppressed.
    seen: Vec<Vec<AnchorId>>,
    /// The customers of the anchors that were looked at.
    customers: HashMap<AnchorId, CustomerId>,
    /// The changes that wait, those of the events' own portions among them, and their ids.
    changes: Vec<IdentityChange>,
    pending: Vec<i64>,
}

impl Identified {
    fn take_in(&mut self, plan: &Plan) {
        self.seen.extend(plan.seen.iter().cloned());
        self.customers.extend(plan.customers());
    }
}

/// Blocks that were read.
struct Read {
    ids: Vec<i64>,
    mapped: Vec<Mapped>,
    counts: Counts,
    to: i64,
}

impl Task for Pipeline {
    fn name(&self) -> &'static str {
        "inbox pipeline"
    }

    fn waits(&self) -> Waits {
        Waits::topics(&[INBOX], OTHERS_SEEN_WITHIN).gathering(GATHERED_WITHIN)
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move {
            let numbered = sequence::number(&self.kernel, fence).await?;
            let worked = self.kernel.db.settle(|| self.process(fence)).await?;
            Ok(if worked || numbered > 0 { Progress::Busy } else { Progress::Idle })
        }
        .boxed()
    }
}

impl Pipeline {
    async fn process(&self, fence: &Fence) -> Result<bool, Error> {
        self.types.refresh().await?;
        let reader = self.kernel.db.near();
        let before = position(reader, PROCESSED).await?;
        let erasures = position(reader, ERASURES).await?;
        let mut read = self.read(before).await?;
        let mut identified = self.identify(fence, before, &mut read).await?;
        (identified.changes, identified.pending) = change::read_pending(reader).await?;
        if read.ids.is_empty() && identified.changes.is_empty() {
            return Ok(false);
        }
        let mut ready = self.gather(before, erasures, read, identified).await?;
        self.fill_customers(&mut ready.batch).await?;
        for knowing in &self.knowing {
            let prepared = knowing.prepare(&ready.batch).await.map_err(Error::Problem)?;
            ready.prepared.push(prepared);
        }
        self.commit(fence, ready).await?;
        Ok(true)
    }

    /// Reads whole blocks after a position, opens them and maps their events.
    async fn read(&self, before: i64) -> Result<Read, Error> {
        let reader = self.kernel.db.near();
        let text = "SELECT id, first_position, events FROM cdp_inbox_block WHERE first_position > $1 ORDER BY first_position LIMIT $2";
        let mut chosen: Vec<(i64, i64)> = Vec::new();
        let (mut events, mut to) = (0, before);
        for row in sql::all(reader, text, [before.into(), BATCH_BLOCKS.into()]).await? {
            let (id, first, count): (i64, i64, i64) = (sql::get(&row, "id")?, sql::get(&row, "first_position")?, sql::get(&row, "events")?);
            if first != to + 1 {
                return Err(Error::Corrupt { what: "inbox", why: format!("position {} is missing", to + 1) });
            }
            chosen.push((id, first));
            to += count;
            events += count;
            if events >= BATCH_EVENTS {
                break;
            }
        }
        let (one_of, values) = bulk::one_of_numbers(reader, 1, chosen.iter().map(|(id, _)| *id));
        let text = format!("SELECT first_position, skipped, payload FROM cdp_inbox_block WHERE id {one_of} ORDER BY first_position");
        let mut sealed = Vec::with_capacity(chosen.len());
        for row in sql::all(reader, &text, values).await? {
            sealed.push((
                sql::get::<i64>(&row, "first_position")?,
                sql::get::<Vec<u8>>(&row, "skipped")?,
                sql::get::<Vec<u8>>(&row, "payload")?,
            ));
        }
        if sealed.len() < chosen.len() {
            return Err(Error::Stale("an inbox block"));
        }
        let ground = Ground { types: self.types.types(), own_time_ms_max: self.settings.own_time_days_max * 86_400_000 };
        let key = self.kernel.keys.inbox().clone();
        let opened = tokio::task::spawn_blocking(move || open_blocks(&ground, &key, &sealed));
        let (mapped, counts) = opened.await.map_err(|_| Error::Broken("inbox pipeline"))??;
        Ok(Read { ids: chosen.into_iter().map(|(id, _)| id).collect(), mapped, counts, to })
    }

    /// Finds whose the events are: those that were identified before a step broke off are looked up, the others go in portions.
    async fn identify(&self, fence: &Fence, before: i64, read: &mut Read) -> Result<Identified, Error> {
        let reader = self.kernel.db.near();
        let mut identified = Identified::default();
        if read.mapped.is_empty() {
            return Ok(identified);
        }
        let mut done = position(reader, IDENTIFIED).await?.max(before);
        let places: Vec<i64> = read.mapped.iter().map(|mapped| mapped.position).collect();
        let sightings: Vec<Sighting> = read
            .mapped
            .iter_mut()
            .map(|mapped| Sighting { identifiers: std::mem::take(&mut mapped.sighting.identifiers), ..mapped.sighting.clone() })
            .collect();
        let (known, new) = sightings.split_at(places.partition_point(|place| *place <= done));
        if !known.is_empty() {
            identified.take_in(&Plan::look_up(reader, &self.kernel, known).await?);
        }
        let (mut rest, mut places, mut tries) = (new, &places[known.len()..], 0);
        while !rest.is_empty() {
            let size = self.portion.load(Ordering::Relaxed).clamp(*PORTION_EVENTS.start(), *PORTION_EVENTS.end());
            let (portion, after) = rest.split_at(size.min(rest.len()));
            let to = places[portion.len() - 1];
            match self.identify_portion(fence, done, to, portion).await {
                Ok(plan) => {
                    identified.take_in(&plan);
                    self.portion.store(size + PORTION_STEP, Ordering::Relaxed);
                    (rest, places, done, tries) = (after, &places[portion.len()..], to, 0);
                }
                Err(Error::Stale(_)) if tries < PORTION_TRIES_MAX => {
                    self.portion.store(portion.len() / 2, Ordering::Relaxed);
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(identified)
    }

    /// Matches some sightings and commits what they tell.
    async fn identify_portion(&self, fence: &Fence, done: i64, to: i64, sightings: &[Sighting]) -> Result<Arc<Plan>, Error> {
        let plan = Arc::new(Plan::make(self.kernel.db.near(), &self.kernel, &self.rules, sightings).await?);
        if plan.tells_nothing() {
            return Ok(plan);
        }
        let (fence, rules, written, now) = (fence.clone(), self.rules.clone(), plan.clone(), self.kernel.clock.now());
        self.kernel
            .db
            .write("identify", move |tx| {
                let (fence, rules, plan) = (fence.clone(), rules.clone(), written.clone());
                async move {
                    fence.check(tx).await?;
                    if position(tx.conn(), IDENTIFIED).await? > done {
                        return Err(Error::Stale("what is identified"));
                    }
                    plan.write(tx, &rules, now).await?;
                    set_position(tx.conn(), IDENTIFIED, to).await
                }
                .boxed()
            })
            .await?;
        Ok(plan)
    }

    /// Turns events into known ones.
    async fn gather(&self, before: i64, erasures: i64, read: Read, identified: Identified) -> Result<Ready, Error> {
        let mut customers = identified.customers;
        // Another wing's observation may have come after the portion.
        customers.extend(identified.changes.iter().map(|change| (change.anchor.clone(), change.after.clone())));
        let mut sealing = Sealing::default();
        let sealers =
            read.mapped.iter().zip(&identified.seen).filter(|(mapped, _)| !mapped.personal.is_empty() || mapped.undeclared.is_some());
        let anchors: BTreeSet<_> = sealers.filter_map(|(_, ids)| ids.first()).collect();
        sealing.load(self.kernel.db.near(), &self.kernel.keys, anchors).await?;
        let mut events = Vec::with_capacity(read.mapped.len());
        for (mapped, identifiers) in read.mapped.into_iter().zip(identified.seen) {
            // All identifiers suppressed: a late retry of an erased person's event is dropped.
            if !identifiers.is_empty() {
                events.push(known(mapped, identifiers, &mut sealing));
            }
        }
        let packed = tokio::task::spawn_blocking(move || history::pack(&events).map(|bytes| (bytes, events)));
        let (known, events) = packed.await.map_err(|_| Error::Broken("inbox pipeline"))??;
        let batch = Batch { events, identity: identified.changes, customers, from: before + 1, to: read.to };
        Ok(Ready {
            batch,
            sealing,
            prepared: Vec::new(),
            counts: read.counts,
            blocks: read.ids,
            known,
            before,
            pending: identified.pending,
            erasures,
            now: self.kernel.clock.now(),
        })
    }

    /// The customers of anchors that the batch names and no portion looked at.
    async fn fill_customers(&self, batch: &mut Batch) -> Result<(), Error> {
        let named = batch.events.iter().flat_map(|event| &event.identifiers);
        let missing: BTreeSet<&AnchorId> = named.filter(|anchor| !batch.customers.contains_key(*anchor)).collect();
        for row in store::nodes_by_id(self.kernel.db.near(), missing).await? {
            batch.customers.insert(row.node.id.clone(), customer_of_root(&row.cluster));
        }
        Ok(())
    }

    async fn commit(&self, fence: &Fence, ready: Ready) -> Result<(), Error> {
        let ready = Arc::new(ready);
        let (fence, knowing) = (fence.clone(), self.knowing.clone());
        self.kernel
            .db
            .write("inbox pipeline", move |tx| {
                let (fence, knowing, ready) = (fence.clone(), knowing.clone(), ready.clone());
                async move {
                    fence.check(tx).await?;
                    if position(tx.conn(), PROCESSED).await? != ready.before {
                        return Err(Error::Stale("the pipeline's position"));
                    }
                    ready.write(tx).await?;
                    for (knowing, prepared) in knowing.iter().zip(&ready.prepared) {
                        knowing.apply(tx, &ready.batch, prepared.as_ref()).await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }
}

impl Ready {
    async fn write(&self, tx: &Tx) -> Result<(), Error> {
        check_erasures(tx, self.erasures).await?;
        self.sealing.write(tx).await?;
        for event in &self.batch.events {
            if let Some(touch) = &event.touch {
                let touched = DomainEvent::CampaignTouched {
                    anchor: event.anchor.clone(),
                    message_id: event.message_id.clone(),
                    unit: event.unit.clone(),
                    touch: touch.clone(),
                    occurred_at: event.occurred_at,
                };
                tx.emit(event.anchor.as_str(), &touched).await?;
            }
        }
        change::drop_pending(tx, &self.pending).await?;
        faults::add(tx, &self.counts, self.now).await?;
        let (one_of, values) = bulk::one_of_numbers(tx.conn(), 1, self.blocks.iter().copied());
        sql::execute(tx.conn(), &format!("DELETE FROM cdp_inbox_block WHERE id {one_of}"), values).await?;
        if self.batch.to > self.before {
            history::write(tx, self.batch.from, self.batch.to, self.batch.events.len(), self.now, &self.known).await?;
            set_position(tx.conn(), PROCESSED, self.batch.to).await?;
        }
        Ok(())
    }
}

/// Fails when a customer was erased since, and keeps the next erasure waiting until the commit.
async fn check_erasures(tx: &Tx, expected: i64) -> Result<(), Error> {
    let lock = if tx.conn().backend() == DbBackend::Postgres { "FOR SHARE" } else { "" };
    let text = format!("SELECT position FROM cdp_position WHERE name = $1 {lock}");
    let row = sql::one(tx.conn(), &text, [ERASURES.into()]).await?;
    let erasures: i64 = row.map_or(Ok(0), |row| sql::get(&row, "position"))?;
    if erasures == expected { Ok(()) } else { Err(Error::Stale("a customer of the batch")) }
}

type SealedBlock = (i64, Vec<u8>, Vec<u8>);

fn open_blocks(ground: &Ground, key: &heyuan_kernel::secret::Key, sealed: &[SealedBlock]) -> Result<(Vec<Mapped>, Counts), Error> {
    let mut mapped = Vec::new();
    let mut counts = Counts::new();
    for (first, skipped, payload) in sealed {
        let skipped: BTreeSet<u32> = block::read_places(skipped).into_iter().collect();
        let mut next = *first;
        let mut place = 0;
        for part in block::open(key, payload)? {
            for entry in part.entries {
                let duplicate = skipped.contains(&place);
                place += 1;
                if duplicate {
                    continue;
                }
                match mapping::map(ground, &part.sender, next, entry, &mut counts) {
                    Some(one) => mapped.push(one),
                    None => tracing::error!(position = next, "an accepted event can't be read by this release; its position stays empty"),
                }
                next += 1;
            }
        }
    }
    Ok((mapped, counts))
}

/// Puts personal values and undeclared properties under the key of the anchor.
fn known(mapped: Mapped, identifiers: Vec<AnchorId>, sealing: &mut Sealing) -> Known {
    let anchor = identifiers[0].clone();
    let (mut properties, mut traits) = (mapped.properties, mapped.traits);
    for (is_trait, name, class, value) in mapped.personal {
        if let Some(reference) = sealing.value(&anchor, class, &value) {
            let target = if is_trait { &mut traits } else { &mut properties };
            target.insert(name, PropertyValue::Personal(reference));
        }
    }
    let sealed = mapped.undeclared.and_then(|plain| sealing.bytes(&anchor, plain.as_bytes(), &mapped.message_id));
    Known {
        position: mapped.position,
        message_id: mapped.message_id,
        kind: mapped.kind,
        name: mapped.name,
        anchor,
        identifiers,
        unit: mapped.unit,
        app: mapped.app,
        occurred_at: mapped.occurred_at,
        arrived_at: mapped.arrived_at,
        properties,
        traits,
        touch: mapped.touch,
        sealed,
    }
}
