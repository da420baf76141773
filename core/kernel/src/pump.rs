//! Reactions of wings to domain events: decided outside any transaction, applied in one that also moves the consumer's position.

use crate::database::{Database, Tx};
use crate::error::{Error, Failure, Kind, Problem};
use crate::lease::Fence;
use crate::outbox::{self, Envelope};
use crate::processor::{Progress, Task, Waits};
use crate::sql;
use crate::wake;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Events read ahead for one consumer.
const BATCH_EVENTS_MAX: u64 = 200;
/// Tries of one event before it is parked with its key.
const TRIES_MAX: u32 = 5;
/// Events that a consumer may pass by in memory before it writes its position: each write is a commit, and most events concern few consumers.
const PASSED_EVENTS_MAX: i64 = 1_000;
/// How long a consumer that passes events by keeps the outbox from being swept, at most and about.
const PASSED_FOR_MAX: Duration = Duration::from_secs(5);

/// How soon events that other processes wrote are numbered.
const OTHERS_SEEN_WITHIN: Duration = Duration::from_millis(500);
/// How long a numbering waits for more to number.
const GATHERED_WITHIN: Duration = Duration::from_millis(30);

/// What a reaction wants written, run inside the consumer's transaction (and again, should that lose a race).
pub type Apply = Box<dyn for<'c> Fn(&'c Tx) -> BoxFuture<'c, Result<(), Error>> + Send + Sync>;

/// A consumer of domain events.
pub trait Reaction: Send + Sync {
    /// The name under which the position is kept; never renamed.
    fn consumer(&self) -> &'static str;
    /// Whether the event concerns this consumer at all.
    fn wants(&self, name: &str) -> bool;
    /// Reads and decides. Plugins and other waits belong here, not into the answer.
    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>>;
    /// Runs before the applies of several events that are written together: takes what they lock, in one order for everybody, so that no
    /// apply waits for what another unit of work holds that waits for an earlier one of the group.
    fn prepare<'a>(&'a self, tx: &'a Tx, group: &'a [Envelope]) -> BoxFuture<'a, Result<(), Error>> {
        let _ = (tx, group);
        async { Ok(()) }.boxed()
    }
    /// The same for many events, written by one apply, where what is decided about one depends on no other. `None`: it does, or may.
    fn react_together(&self, envelopes: &[Envelope]) -> Option<Apply> {
        let _ = envelopes;
        None
    }
}

/// An apply that does nothing: the event turned out not to matter.
pub fn nothing() -> Apply {
    Box::new(|_| async { Ok(()) }.boxed())
}

/// The processor's task that feeds one consumer.
pub struct Pump {
    db: Database,
    reaction: Arc<dyn Reaction>,
    known: Mutex<Option<Known>>,
}

/// What is remembered of a consumer within a term, in which nobody else moves it.
#[derive(Clone, Copy)]
struct Known {
    /// The position that is written; `None` while it is on its way.
    written: Option<i64>,
    /// How far it has looked: further where it wants none of the events that come next.
    looked: i64,
    /// Since when that has been further.
    since: Instant,
}

impl Known {
    fn at(written: i64) -> Known {
        Known { written: Some(written), looked: written, since: Instant::now() }
    }
}

impl Pump {
    /// A pump for a reaction.
    pub fn new(db: Database, reaction: Arc<dyn Reaction>) -> Pump {
        Pump { db, reaction, known: Mutex::new(None) }
    }

    async fn pump(&self, fence: &Fence) -> Result<Progress, Problem> {
        let mut known = match self.known() {
            Some(known) if known.written.is_some() => known,
            _ => Known::at(outbox::consumer_position(self.db.near(), self.reaction.consumer()).await?),
        };
        let written = known.written.unwrap_or(known.looked);
        let batch = outbox::read_after(&self.db, known.looked, BATCH_EVENTS_MAX, |name| self.reaction.wants(name)).await?;
        let last = batch.last.unwrap_or(known.looked);
        if batch.events.is_empty() {
            if known.looked == written {
                known.since = Instant::now();
            }
            known.looked = last;
            if last - written >= PASSED_EVENTS_MAX || (last > written && known.since.elapsed() >= PASSED_FOR_MAX) {
                self.know(Some(Known { written: None, ..known }));
                self.advance(fence, last).await?;
                known.written = Some(last);
            }
            self.know(Some(known));
            // Whatever was numbered since the look has woken this task again.
            return Ok(if batch.is_full { Progress::Busy } else { Progress::Idle });
        }
        // Read again unless all of it is written.
        self.know(Some(Known { written: None, ..known }));
        let mut parked = self.parked_keys().await?;
        let batch = batch.events;
        if self.all_at_once(fence, &batch, &parked, last).await? {
            self.know(Some(Known::at(last)));
            return Ok(Progress::Busy);
        }
        let mut together: Vec<(Envelope, Apply)> = Vec::new();
        let mut keys: HashSet<String> = HashSet::new();
        for envelope in batch {
            if parked.contains(&envelope.key) {
                self.flush(fence, &mut together, &mut parked, envelope.position - 1).await?;
                keys.clear();
                self.park(fence, &envelope, "an earlier event of its key is parked").await?;
                continue;
            }
            // A second event of one key is decided on what the first one left behind.
            if keys.contains(&envelope.key) {
                self.flush(fence, &mut together, &mut parked, envelope.position - 1).await?;
                keys.clear();
            }
            match self.decide(&envelope).await {
                Ok(apply) => {
                    keys.insert(envelope.key.clone());
                    together.push((envelope, apply));
                }
                Err(problem) => {
                    self.flush(fence, &mut together, &mut parked, envelope.position - 1).await?;
                    keys.clear();
                    self.settle_failure(fence, &envelope, &mut parked, problem).await?;
                }
            }
        }
        self.flush(fence, &mut together, &mut parked, last).await?;
        self.know(Some(Known::at(last)));
        Ok(Progress::Busy)
    }

    /// How far the consumer has looked, where that is further than its written position says; 0 when this process does not pump.
    pub fn looked_at(&self) -> i64 {
        self.known().map_or(0, |known| known.looked)
    }

    fn known(&self) -> Option<Known> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn know(&self, known: Option<Known>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Applies a batch by one apply, where the reaction can; what fails together is tried apart.
    async fn all_at_once(&self, fence: &Fence, batch: &[Envelope], parked: &HashSet<String>, last: i64) -> Result<bool, Problem> {
        if batch.len() < 2 || batch.iter().any(|envelope| parked.contains(&envelope.key)) {
            return Ok(false);
        }
        let Some(apply) = self.reaction.react_together(batch) else { return Ok(false) };
        match self.apply(fence, Arc::default(), Arc::new(vec![apply]), last).await {
            Ok(()) => Ok(true),
            Err(Error::LeaseLost(name)) => Err(Error::LeaseLost(name).into()),
            Err(error) => {
                tracing::warn!(consumer = self.reaction.consumer(), %error, "events could not be applied together; they are tried apart");
                Ok(false)
            }
        }
    }

    async fn decide(&self, envelope: &Envelope) -> Result<Apply, Problem> {
        let mut tried = 0;
        loop {
            match self.reaction.react(envelope).await {
                Err(problem) if tried + 1 < TRIES_MAX && problem.code().kind == Kind::Unavailable => tried += 1,
                other => return other,
            }
        }
    }

    /// Writes what was decided together with the new position; one by one when the whole group can't be written.
    async fn flush(
        &self,
        fence: &Fence,
        together: &mut Vec<(Envelope, Apply)>,
        parked: &mut HashSet<String>,
        position: i64,
    ) -> Result<(), Problem> {
        let (group, applies): (Vec<Envelope>, Vec<Apply>) = std::mem::take(together).into_iter().unzip();
        let group = Arc::new(group);
        match self.apply(fence, group.clone(), Arc::new(applies), position).await {
            Ok(()) => Ok(()),
            Err(Error::LeaseLost(name)) => Err(Error::LeaseLost(name).into()),
            Err(error) if group.is_empty() => Err(error.into()),
            Err(_) => self.one_by_one(fence, &group, parked, position).await,
        }
    }

    async fn one_by_one(&self, fence: &Fence, group: &[Envelope], parked: &mut HashSet<String>, position: i64) -> Result<(), Problem> {
        for envelope in group {
            let outcome = self
                .db
                .settle(|| async {
                    let apply = self.decide(envelope).await.map_err(Error::Problem)?;
                    self.apply(fence, Arc::default(), Arc::new(vec![apply]), envelope.position).await
                })
                .await;
            match outcome {
                Ok(()) => {}
                Err(Error::LeaseLost(name)) => return Err(Error::LeaseLost(name).into()),
                Err(error) => self.settle_failure(fence, envelope, parked, error.into()).await?,
            }
        }
        self.advance(fence, position).await.map_err(Problem::from)
    }

    async fn advance(&self, fence: &Fence, position: i64) -> Result<(), Error> {
        self.apply(fence, Arc::default(), Arc::default(), position).await
    }

    /// Writes what was decided, and the new position; `group` are the events of which several are written together.
    async fn apply(&self, fence: &Fence, group: Arc<Vec<Envelope>>, applies: Arc<Vec<Apply>>, position: i64) -> Result<(), Error> {
        let (reaction, fence) = (self.reaction.clone(), fence.clone());
        self.db
            .write("apply reactions", move |tx| {
                let (reaction, fence, group, applies) = (reaction.clone(), fence.clone(), group.clone(), applies.clone());
                async move {
                    fence.check(tx).await?;
                    if group.len() > 1 {
                        reaction.prepare(tx, &group).await?;
                    }
                    for apply in applies.iter() {
                        apply(tx).await?;
                    }
                    outbox::advance(tx, reaction.consumer(), position).await
                }
                .boxed()
            })
            .await
    }

    /// A failure that trying again may mend stops the consumer for a moment; any other parks the event, and others go on.
    async fn settle_failure(
        &self,
        fence: &Fence,
        envelope: &Envelope,
        parked: &mut HashSet<String>,
        problem: Problem,
    ) -> Result<(), Problem> {
        if problem.code().kind == Kind::Unavailable && self.tries(envelope).await? < i64::from(TRIES_MAX) {
            return Err(problem);
        }
        tracing::error!(consumer = self.reaction.consumer(), position = envelope.position, %problem, "a domain event is parked with its key");
        self.park(fence, envelope, &problem.to_string()).await?;
        parked.insert(envelope.key.clone());
        Ok(())
    }

    async fn tries(&self, envelope: &Envelope) -> Result<i64, Problem> {
        let consumer = self.reaction.consumer();
        let position = envelope.position;
        let tries = self
            .db
            .write("count a try", move |tx| {
                async move {
                    sql::execute(
                        tx.conn(),
                        "INSERT INTO kernel_try (consumer, position, tries) VALUES ($1, $2, 1)
                         ON CONFLICT (consumer, position) DO UPDATE SET tries = kernel_try.tries + 1",
                        [consumer.into(), position.into()],
                    )
                    .await?;
                    let row = sql::one(
                        tx.conn(),
                        "SELECT tries FROM kernel_try WHERE consumer = $1 AND position = $2",
                        [consumer.into(), position.into()],
                    )
                    .await?;
                    row.map_or(Ok(0), |row| sql::get::<i64>(&row, "tries"))
                }
                .boxed()
            })
            .await?;
        Ok(tries)
    }

    async fn parked_keys(&self) -> Result<HashSet<String>, Error> {
        let rows = sql::all(
            self.db.reader(),
            "SELECT DISTINCT event_key FROM kernel_parked WHERE consumer = $1",
            [self.reaction.consumer().into()],
        )
        .await?;
        rows.iter().map(|row| sql::get(row, "event_key")).collect()
    }

    async fn park(&self, fence: &Fence, envelope: &Envelope, why: &str) -> Result<(), Problem> {
        let consumer = self.reaction.consumer();
        let (fence, envelope, why) = (fence.clone(), envelope.clone(), why.to_owned());
        let body = serde_json::to_string(&envelope.event).map_err(|e| Error::Corrupt { what: "domain event", why: e.to_string() })?;
        self.db
            .write("park an event", move |tx| {
                let (fence, envelope, why, body) = (fence.clone(), envelope.clone(), why.clone(), body.clone());
                async move {
                    fence.check(tx).await?;
                    sql::execute(
                        tx.conn(),
                        "INSERT INTO kernel_parked (consumer, position, event_key, name, body, error, parked_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                        [
                            consumer.into(),
                            envelope.position.into(),
                            envelope.key.into(),
                            envelope.event.name().into(),
                            body.into(),
                            why.into(),
                            crate::time::now_ms().into(),
                        ],
                    )
                    .await?;
                    sql::execute(tx.conn(), "DELETE FROM kernel_try WHERE consumer = $1 AND position <= $2", [consumer.into(), envelope.position.into()])
                        .await?;
                    outbox::advance(tx, consumer, envelope.position).await
                }
                .boxed()
            })
            .await
            .map_err(Problem::from)
    }

    /// Tries the parked events of this consumer again, oldest first; returns how many were applied. Stops at the first of a key that fails.
    ///
    /// # Errors
    /// The database's.
    pub async fn retry_parked(&self) -> Result<u64, Problem> {
        let rows = sql::all(
            self.db.reader(),
            "SELECT id, position, event_key, body FROM kernel_parked WHERE consumer = $1 ORDER BY id LIMIT 1000",
            [self.reaction.consumer().into()],
        )
        .await?;
        let mut failed: HashSet<String> = HashSet::new();
        let mut applied = 0;
        for row in rows {
            let id: i64 = sql::get(&row, "id")?;
            let key: String = sql::get(&row, "event_key")?;
            let body: String = sql::get(&row, "body")?;
            if failed.contains(&key) {
                continue;
            }
            let envelope = Envelope {
                position: sql::get(&row, "position")?,
                key: key.clone(),
                event: outbox::parse(&body)?,
                written_at: heyuan_contract::Timestamp::clamped(crate::time::now_ms()),
            };
            match self.retry_one(id, &envelope).await {
                Ok(()) => applied += 1,
                Err(error) => {
                    tracing::warn!(consumer = self.reaction.consumer(), position = envelope.position, %error, "a parked event failed again");
                    failed.insert(key);
                }
            }
        }
        Ok(applied)
    }

    async fn retry_one(&self, id: i64, envelope: &Envelope) -> Result<(), Error> {
        self.db
            .settle(|| async {
                let apply = Arc::new(self.decide(envelope).await.map_err(Error::Problem)?);
                self.db
                    .write("retry a parked event", move |tx| {
                        let apply = apply.clone();
                        async move {
                            // Whoever removes the row applies the event: two retries can't both.
                            let removed = sql::execute(tx.conn(), "DELETE FROM kernel_parked WHERE id = $1", [id.into()]).await?;
                            if removed == 1 { apply(tx).await } else { Ok(()) }
                        }
                        .boxed()
                    })
                    .await
            })
            .await
    }
}

impl Task for Pump {
    fn name(&self) -> &'static str {
        self.reaction.consumer()
    }

    fn waits(&self) -> Waits {
        // The sequencer runs in the same process, so nothing new is missed; the time is for what was given up by an earlier term.
        Waits::topics(&[wake::NUMBERED], Duration::from_secs(10))
    }

    fn begin_term(&self) {
        self.know(None);
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        self.pump(fence).boxed()
    }
}

/// The processor's task that numbers committed outbox rows and removes those that every consumer has passed.
pub struct Sequencer {
    db: Database,
    consumers: Vec<&'static str>,
}

impl Sequencer {
    /// A sequencer that keeps rows until all these consumers have passed them.
    pub fn new(db: Database, consumers: Vec<&'static str>) -> Sequencer {
        Sequencer { db, consumers }
    }
}

impl Task for Sequencer {
    fn name(&self) -> &'static str {
        "outbox sequencer"
    }

    fn waits(&self) -> Waits {
        Waits::topics(&[wake::OUTBOX], OTHERS_SEEN_WITHIN).gathering(GATHERED_WITHIN)
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move {
            let numbered = outbox::sequence(&self.db, fence).await?;
            if numbered > 0 {
                return Ok(Progress::Busy);
            }
            let swept = outbox::sweep(&self.db, &self.consumers).await?;
            Ok(if swept > 0 { Progress::Busy } else { Progress::Idle })
        }
        .boxed()
    }
}

impl Failure for Problem {
    fn kernel(&self) -> Option<&Error> {
        None
    }
}
