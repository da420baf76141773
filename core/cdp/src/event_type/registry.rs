//! The event types in force, kept in memory and read again after a change.

use super::built_in;
use super::schema::{EventType, Mode, Property};
use super::typing;
use crate::batch_sql::position;
use crate::collect::message::Message;
use crate::error::codes;
use crate::event::EventKind;
use futures::FutureExt;
use heyuan_kernel::{Actor, Database, Error, Problem, Reach, Scope, Tx, audit, sql};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The number that grows with every declaration.
const REVISION: &str = "event_types";
/// Types of one tenant.
const TYPES_MAX: usize = 2_000;

/// The types as of one moment, by name.
pub(crate) type Types = BTreeMap<String, Arc<EventType>>;

/// The tenant's event types.
#[derive(Clone)]
pub struct EventTypes {
    db: Database,
    state: Arc<RwLock<(i64, Arc<Types>)>>,
}

impl EventTypes {
    /// Reads the types; the first start declares the built-in ones.
    pub(crate) async fn open(db: Database) -> Result<EventTypes, Error> {
        if position(db.reader(), REVISION).await? == 0 {
            db.write("declare the built-in event types", |tx| seed(tx).boxed()).await?;
        }
        let state = read(db.reader()).await?;
        Ok(EventTypes { db, state: Arc::new(RwLock::new(state)) })
    }

    /// The types as last read.
    pub(crate) fn types(&self) -> Arc<Types> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// The version in force of a type.
    pub fn get(&self, name: &str) -> Option<Arc<EventType>> {
        self.types().get(name).cloned()
    }

    /// Every type's version in force, by name.
    pub fn list(&self) -> Vec<Arc<EventType>> {
        self.types().values().cloned().collect()
    }

    /// Reads again when another process declared something.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        let known = self.state.read().unwrap_or_else(PoisonError::into_inner).0;
        if position(self.db.near(), REVISION).await? != known {
            let state = read(self.db.reader()).await?;
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        }
        Ok(())
    }

    /// Declares a type, as the version after the one in force; the same declaration again changes nothing. Of several that would
    /// make the same version at the same time one wins; the others hear of it, or get the winner's answer where they say the same.
    ///
    /// # Errors
    /// `forbidden`, also for a key of one unit; `invalid_request` with the property's path; `event_type_changed` when another
    /// declaration came first.
    pub async fn put(
        &self,
        actor: &Actor,
        name: &str,
        mode: Mode,
        properties: BTreeMap<String, Property>,
    ) -> Result<Arc<EventType>, Problem> {
        actor.require(Scope::Admin)?;
        if *actor.reach() != Reach::Everything {
            let detail = "event types are the whole group's: this needs a key without a unit";
            return Err(Problem::new(heyuan_kernel::error::codes::FORBIDDEN, detail));
        }
        EventType::check(name, &properties)?;
        self.refresh().await?;
        let types = self.types();
        if !types.contains_key(name) && types.len() >= TYPES_MAX {
            return Err(Problem::invalid("name", format!("a tenant has at most {TYPES_MAX} event types")));
        }
        let wanted = EventType { name: name.to_owned(), version: types.get(name).map_or(0, |old| old.version) + 1, mode, properties };
        if let Some(old) = types.get(name)
            && old.says_the_same(&wanted)
        {
            return Ok(old.clone());
        }
        let actor = actor.clone();
        let in_force = self
            .db
            .write("declare an event type", move |tx| {
                let (wanted, actor) = (wanted.clone(), actor.clone());
                async move { declare(tx, wanted, &actor).await }.boxed()
            })
            .await?;
        self.refresh().await?;
        Ok(Arc::new(in_force))
    }

    /// Why an event does not fit its type, when that is strict.
    pub(crate) fn against_strict(&self, message: &Message<'_>) -> Option<String> {
        let types = self.types();
        let schema = types.get(&message.name).filter(|schema| schema.mode == Mode::Strict);
        let body = if message.kind == EventKind::Identify { message.traits } else { message.properties };
        schema.and_then(|schema| typing::against(schema, body))
    }
}

async fn seed(tx: &Tx) -> Result<(), Error> {
    // Another process may have been first.
    if position(tx.conn(), REVISION).await? > 0 {
        return Ok(());
    }
    for one in built_in::types() {
        write(tx, &one, "system:built-in").await?;
    }
    // Never back: a type may have been declared since.
    let text = "INSERT INTO cdp_position (name, position) VALUES ($1, 1) ON CONFLICT (name) DO NOTHING";
    sql::execute(tx.conn(), text, [REVISION.into()]).await?;
    Ok(())
}

/// Writes the version that was decided on, unless another came first; answers the one in force.
async fn declare(tx: &Tx, wanted: EventType, actor: &Actor) -> Result<EventType, Error> {
    // The row of the revision is locked by moving it, so that declarations follow one another on PostgreSQL as well: what is read
    // after it holds until the commit.
    let moved = "UPDATE cdp_position SET position = position + 1 WHERE name = $1";
    sql::execute(tx.conn(), moved, [REVISION.into()]).await?;
    if let Some(last) = last_version(tx, &wanted.name).await?
        && last.version >= wanted.version
    {
        if last.says_the_same(&wanted) {
            return Ok(last);
        }
        let why = format!("version {} of {} was declared by somebody else just now; read it, then declare again", last.version, last.name);
        return Err(Error::Problem(Problem::new(codes::EVENT_TYPE_CHANGED, why)));
    }
    write(tx, &wanted, actor.name()).await?;
    let entry = audit::Entry::new(actor, "declare event type", &wanted.name).detail("version", wanted.version);
    audit::record(tx, &entry).await?;
    Ok(wanted)
}

async fn last_version(tx: &Tx, name: &str) -> Result<Option<EventType>, Error> {
    let text = "SELECT name, version, mode, properties FROM cdp_event_type WHERE name = $1 ORDER BY version DESC LIMIT 1";
    sql::one(tx.conn(), text, [name.into()]).await?.as_ref().map(read_type).transpose()
}

async fn write(tx: &Tx, one: &EventType, by: &str) -> Result<(), Error> {
    let properties = serde_json::to_string(&one.properties).map_err(|e| Error::Corrupt { what: "event type", why: e.to_string() })?;
    sql::execute(
        tx.conn(),
        "INSERT INTO cdp_event_type (name, version, mode, properties, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (name, version) DO NOTHING",
        [
            one.name.clone().into(),
            one.version.into(),
            one.mode.as_str().into(),
            properties.into(),
            heyuan_kernel::time::now_ms().into(),
            by.into(),
        ],
    )
    .await?;
    Ok(())
}

async fn read<C: sql::Connection>(conn: &C) -> Result<(i64, Arc<Types>), Error> {
    let revision = position(conn, REVISION).await?;
    let rows = sql::all(
        conn,
        "SELECT t.name, t.version, t.mode, t.properties FROM cdp_event_type t
         JOIN (SELECT name, MAX(version) AS version FROM cdp_event_type GROUP BY name) n ON n.name = t.name AND n.version = t.version",
        [],
    )
    .await?;
    let mut types = Types::new();
    for row in &rows {
        let one = read_type(row)?;
        types.insert(one.name.clone(), Arc::new(one));
    }
    Ok((revision, Arc::new(types)))
}

fn read_type(row: &sql::Row) -> Result<EventType, Error> {
    let corrupt = |why: String| Error::Corrupt { what: "event type", why };
    let (mode, properties): (String, String) = (sql::get(row, "mode")?, sql::get(row, "properties")?);
    Ok(EventType {
        name: sql::get(row, "name")?,
        version: sql::get(row, "version")?,
        mode: Mode::parse(&mode).ok_or_else(|| corrupt(format!("mode {mode}")))?,
        properties: serde_json::from_str(&properties).map_err(|e| corrupt(e.to_string()))?,
    })
}
