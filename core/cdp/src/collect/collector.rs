//! Group commits: requests that arrive together share a transaction, and each is answered once it is durable.

use super::backlog::Backlog;
use super::message::{self, Reason};
use super::message_ids::{Id, MessageIds, id_of};
use super::rejected;
use super::sender::Sender;
use super::tail::Arrival;
use crate::event::EventKind;
use crate::event_type::EventTypes;
use crate::event_type::typing::Members;
use crate::inbox::block::{self, Entry, Part};
use crate::inbox::sequence;
use futures::FutureExt;
use heyuan_contract::Timestamp;
use heyuan_kernel::bodies::Share;
use heyuan_kernel::{Error, Kernel, Problem, Rfc3339};
use sea_orm::DbBackend;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::{Mutex, broadcast, mpsc, oneshot};

/// Requests that may wait for a group; beyond it senders wait for a place.
const QUEUE_LENGTH_MAX: usize = 512;
/// A group takes no further request once it holds this many events: bounds a commit and the pipeline's portions.
const GROUP_EVENTS: usize = 4_000;
/// The same in bytes.
const GROUP_BYTES: usize = 4 << 20;
/// What an event takes in memory beside its bytes: its place, id and name, what is said of a refusal.
const EVENT_OVERHEAD: usize = 384;
/// Groups on their way at once. On SQLite one is sealed while the other commits.
const WRITERS: usize = 3;
/// Arrivals that a slow watcher may be behind before it misses some.
const TAIL_LENGTH: usize = 1_024;

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It is durable.
    Ok,
    /// It was accepted before.
    Duplicate,
    /// It was refused, and is kept for a replay.
    Rejected(Reason, String),
}

/// What became of an event, with its message id: the sender's, or the one that we gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The message id.
    pub message_id: String,
    /// Its fate.
    pub status: Status,
}

struct Accepted {
    place: usize,
    id: Id,
    name: String,
    entry: Entry,
}

struct Refused {
    place: usize,
    message_id: String,
    path_kind: Option<EventKind>,
    reason: Reason,
    detail: String,
    raw: String,
}

struct Submission {
    sender: Arc<Sender>,
    accepted: Vec<Accepted>,
    refused: Vec<Refused>,
    count: usize,
    reply: oneshot::Sender<Result<Vec<Outcome>, Problem>>,
    /// Held until the events are on disk, even when their sender has gone.
    _share: Option<Share>,
}

/// Takes events in.
#[derive(Clone)]
pub struct Collector {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Submission>,
}

struct Shared {
    kernel: Kernel,
    types: EventTypes,
    ids: MessageIds,
    backlog: Backlog,
    tail: broadcast::Sender<Arrival>,
    /// On SQLite groups look ids up and commit one after the other.
    turn: Mutex<()>,
}

impl Collector {
    pub(crate) fn start(kernel: Kernel, types: EventTypes, ids: MessageIds, backlog: Backlog) -> Collector {
        let (queue, receiver) = mpsc::channel(QUEUE_LENGTH_MAX);
        let (tail, _) = broadcast::channel(TAIL_LENGTH);
        let shared = Arc::new(Shared { kernel, types, ids, backlog, tail, turn: Mutex::new(()) });
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..WRITERS {
            tokio::spawn(serve(shared.clone(), receiver.clone()));
        }
        let closing = shared.ids.clone();
        tokio::spawn(async move {
            if let Err(error) = closing.close_full().await {
                tracing::warn!(%error, "a generation of message ids could not be closed; the next start tries again");
            }
        });
        Collector { shared, queue }
    }

    /// What arrives from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arrival> {
        self.shared.tail.subscribe()
    }

    pub(crate) fn ids(&self) -> &MessageIds {
        &self.shared.ids
    }

    pub(crate) fn backlog(&self) -> &Backlog {
        &self.shared.backlog
    }

    /// Takes the events of one request, whose bytes are in `share`; answers in their order, once all that is accepted or kept is
    /// durable.
    ///
    /// # Errors
    /// `collect_full`, `bodies_full` with `Retry-After`; the database's. Nothing of the request was taken then, or it may be sent
    /// again: what was taken is a duplicate.
    pub(crate) async fn submit(
        &self,
        sender: Sender,
        events: Vec<(Option<EventKind>, String)>,
        share: Option<Share>,
    ) -> Result<Vec<Outcome>, Problem> {
        self.shared.backlog.check().await?;
        let count = events.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        if let Some(share) = &share {
            share.take(count * EVENT_OVERHEAD).await?;
        }
        let (mut accepted, mut refused) = (Vec::with_capacity(count), Vec::new());
        for (place, (path_kind, raw)) in events.into_iter().enumerate() {
            match self.judge(&sender, path_kind, &raw) {
                Ok((message_id, name)) => {
                    accepted.push(Accepted { place, id: id_of(&message_id), name, entry: Entry { path_kind, message_id, raw } });
                }
                Err((message_id, reason, detail)) => refused.push(Refused { place, message_id, path_kind, reason, detail, raw }),
            }
        }
        self.enqueue(sender, accepted, refused, share).await
    }

    async fn enqueue(
        &self,
        sender: Sender,
        accepted: Vec<Accepted>,
        refused: Vec<Refused>,
        share: Option<Share>,
    ) -> Result<Vec<Outcome>, Problem> {
        let (reply, answer) = oneshot::channel();
        let count = accepted.len() + refused.len();
        let submission = Submission { sender: Arc::new(sender), accepted, refused, count, reply, _share: share };
        let gone = || Problem::from(Error::Broken("collect"));
        self.queue.send(submission).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn judge(&self, sender: &Sender, path_kind: Option<EventKind>, raw: &str) -> Result<(String, String), (String, Reason, String)> {
        let fresh = || uuid::Uuid::new_v4().to_string();
        let message = message::read(sender.spelling, path_kind, raw, sender.context.as_deref())
            .map_err(|(reason, detail)| (named_id(raw).unwrap_or_else(fresh), reason, detail))?;
        let message_id = message.message_id.as_ref().map_or_else(fresh, |id| id.to_string());
        match self.shared.types.against_strict(&message) {
            None => Ok((message_id, message.name)),
            Some(detail) => Err((message_id, Reason::AgainstSchema, detail)),
        }
    }

    /// Takes one event in under a message id that it was given before, if it named none itself.
    pub(crate) async fn submit_as(
        &self,
        sender: Sender,
        path_kind: Option<EventKind>,
        message_id: String,
        raw: String,
    ) -> Result<Outcome, Problem> {
        self.shared.backlog.check().await?;
        let entry = Entry { path_kind, message_id: message_id.clone(), raw };
        let accepted = vec![Accepted { place: 0, id: id_of(&message_id), name: String::new(), entry }];
        let outcomes = self.enqueue(sender, accepted, Vec::new(), None).await?;
        outcomes.into_iter().next().ok_or_else(|| Error::Broken("collect").into())
    }

    /// Judges a kept event again.
    pub(crate) fn would_reject(&self, sender: &Sender, path_kind: Option<EventKind>, raw: &str) -> Option<(Reason, String)> {
        self.judge(sender, path_kind, raw).err().map(|(_, reason, detail)| (reason, detail))
    }
}

/// The message id of a refused event as its sender wrote it, of whatever type, so that the answer can be matched.
fn named_id(raw: &str) -> Option<String> {
    let Members { list, .. } = serde_json::from_str(raw).ok()?;
    let named = |wanted: &str| list.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value.get());
    // As the two spellings are told apart.
    let [first, second] = if named("identifiers").is_some() { ["message_id", "messageId"] } else { ["messageId", "message_id"] };
    let id = match named(first).or_else(|| named(second))? {
        text if text.starts_with('"') => serde_json::from_str(text).ok()?,
        other if other.starts_with(['{', '[', 'n']) => return None,
        other => other.to_owned(),
    };
    (!id.is_empty() && id.len() <= super::ID_BYTES_MAX).then_some(id)
}

async fn serve(shared: Arc<Shared>, receiver: Arc<Mutex<mpsc::Receiver<Submission>>>) {
    loop {
        let mut group = Vec::new();
        {
            let mut queue = receiver.lock().await;
            let Some(first) = queue.recv().await else { return };
            let (mut events, mut bytes) = (0, 0);
            let mut next = Some(first);
            while let Some(submission) = next {
                events += submission.count;
                bytes += submission.accepted.iter().map(|accepted| accepted.entry.raw.len()).sum::<usize>();
                bytes += submission.refused.iter().map(|refused| refused.raw.len()).sum::<usize>();
                group.push(submission);
                next = if events < GROUP_EVENTS && bytes < GROUP_BYTES { queue.try_recv().ok() } else { None };
            }
        }
        shared.commit(group).await;
    }
}

/// What a group writes, with everything that takes time done before.
struct Ready {
    ids: Vec<Id>,
    payload: Vec<u8>,
    arrived_at: Timestamp,
    rejected: Vec<rejected::Row>,
    rejected_bytes_max: i64,
}

impl Shared {
    async fn commit(&self, mut group: Vec<Submission>) {
        let written = self.write(&mut group).await;
        match written {
            Ok(fresh) => self.answer(group, &fresh),
            Err(error) => {
                let problem = Problem::from(error);
                for submission in group {
                    // A caller that went away sends again.
                    let _ = submission.reply.send(Err(problem.clone()));
                }
            }
        }
    }

    /// Writes the group; answers the ids that are new.
    async fn write(&self, group: &mut [Submission]) -> Result<HashSet<Id>, Error> {
        let ready = Arc::new(self.prepare(group).await?);
        if self.kernel.db.backend() == DbBackend::Postgres {
            return self.write_postgres(ready).await;
        }
        let turn = self.turn.lock().await;
        let seen = self.ids.seen(&ready.ids).await?;
        let fresh: HashSet<Id> = ready.ids.iter().filter(|id| !seen.contains(*id)).copied().collect();
        let generation = self.ids.generation().unwrap_or(0);
        let known = Arc::new(fresh.clone());
        self.kernel
            .db
            .write("collect", move |tx| {
                let (ready, known) = (ready.clone(), known.clone());
                async move {
                    let ids: Vec<Id> = known.iter().copied().collect();
                    if !ids.is_empty() {
                        MessageIds::write_open(tx, generation, ready.arrived_at.ms(), &ids).await?;
                    }
                    ready.write(tx, &known).await
                }
                .boxed()
            })
            .await?;
        let remembered: Vec<Id> = fresh.iter().copied().collect();
        let full = self.ids.remember(&remembered);
        drop(turn);
        if full {
            let ids = self.ids.clone();
            tokio::spawn(async move {
                if let Err(error) = ids.close_full().await {
                    tracing::warn!(%error, "a generation of message ids could not be closed; it stays in memory until the next is full");
                }
            });
        }
        Ok(fresh)
    }

    async fn write_postgres(&self, ready: Arc<Ready>) -> Result<HashSet<Id>, Error> {
        self.kernel
            .db
            .write("collect", move |tx| {
                let ready = ready.clone();
                async move {
                    let fresh = MessageIds::write_unique(tx, ready.arrived_at.ms(), &ready.ids).await?;
                    ready.write(tx, &fresh).await?;
                    Ok(fresh)
                }
                .boxed()
            })
            .await
    }

    /// Leaves out what is twice in the group, then compresses and seals on a thread that may take long.
    async fn prepare(&self, group: &mut [Submission]) -> Result<Ready, Error> {
        let key = self.kernel.keys.inbox().clone();
        let mut ids = Vec::new();
        let mut inside: HashSet<Id> = HashSet::new();
        let mut parts = Vec::with_capacity(group.len());
        let mut refused = Vec::new();
        for submission in group.iter_mut() {
            let mut entries = Vec::with_capacity(submission.accepted.len());
            for accepted in &mut submission.accepted {
                if inside.insert(accepted.id) {
                    ids.push(accepted.id);
                    let message_id = accepted.entry.message_id.clone();
                    let taken = std::mem::replace(&mut accepted.entry, Entry { path_kind: None, message_id, raw: String::new() });
                    entries.push(taken);
                }
            }
            if !entries.is_empty() {
                parts.push(Part { sender: submission.sender.clone(), entries });
            }
            for one in &mut submission.refused {
                refused.push((
                    submission.sender.clone(),
                    one.path_kind,
                    std::mem::take(&mut one.raw),
                    one.message_id.clone(),
                    one.reason,
                    one.detail.clone(),
                ));
            }
        }
        let arrived_at = group.first().map_or(Timestamp::clamped(0), |submission| submission.sender.arrived_at);
        let sealed = tokio::task::spawn_blocking(move || {
            let rejected: Result<Vec<rejected::Row>, Error> = refused
                .into_iter()
                .map(|(sender, kind, raw, id, reason, detail)| rejected::Row::seal(&key, &sender, kind, &raw, &id, reason, detail))
                .collect();
            let payload = if parts.is_empty() { Vec::new() } else { block::seal(&key, &parts)? };
            Ok::<_, Error>((payload, rejected?))
        });
        let (payload, rejected) = sealed.await.map_err(|_| Error::Broken("collect"))??;
        Ok(Ready { ids, payload, arrived_at, rejected, rejected_bytes_max: self.backlog.rejected_bytes_max() })
    }

    /// Answers every request; the first to name a new id is `ok`, others of the group are duplicates.
    fn answer(&self, group: Vec<Submission>, fresh: &HashSet<Id>) {
        let mut told: HashSet<Id> = HashSet::new();
        let watched = self.tail.receiver_count() > 0;
        for submission in group {
            let mut outcomes: Vec<Option<Outcome>> = vec![None; submission.count];
            for accepted in submission.accepted {
                let first = fresh.contains(&accepted.id) && told.insert(accepted.id);
                let status = if first { Status::Ok } else { Status::Duplicate };
                if watched {
                    self.show(&submission.sender, &accepted.entry.message_id, Some(accepted.name), &status);
                }
                outcomes[accepted.place] = Some(Outcome { message_id: accepted.entry.message_id, status });
            }
            for refused in submission.refused {
                let status = Status::Rejected(refused.reason, refused.detail);
                if watched {
                    self.show(&submission.sender, &refused.message_id, None, &status);
                }
                outcomes[refused.place] = Some(Outcome { message_id: refused.message_id, status });
            }
            let _ = submission.reply.send(Ok(outcomes.into_iter().flatten().collect()));
        }
    }

    fn show(&self, sender: &Sender, message_id: &str, name: Option<String>, status: &Status) {
        let (status, reason) = match status {
            Status::Ok => ("ok", None),
            Status::Duplicate => ("duplicate", None),
            Status::Rejected(reason, _) => ("rejected", Some(*reason)),
        };
        let arrived_at = Rfc3339(sender.arrived_at);
        let arrival = Arrival {
            arrived_at,
            message_id: message_id.to_owned(),
            name,
            key: sender.key.clone(),
            unit: sender.unit.clone(),
            status,
            reason,
        };
        // Nobody watching any more is no failure.
        let _ = self.tail.send(arrival);
    }
}

impl Ready {
    async fn write(&self, tx: &heyuan_kernel::Tx, fresh: &HashSet<Id>) -> Result<(), Error> {
        if !fresh.is_empty() {
            let skipped: Vec<u32> = (0..).zip(&self.ids).filter(|(_, id)| !fresh.contains(*id)).map(|(place, _)| place).collect();
            let events = i64::try_from(fresh.len()).unwrap_or(i64::MAX);
            sequence::write(tx, events, self.arrived_at, block::places(&skipped), self.payload.clone()).await?;
        }
        rejected::write(tx, &self.rejected, self.rejected_bytes_max).await
    }
}
