//! The event types in force, kept in memory and read again after a change.

use super::built_in;
use super::schema::{EventType, Mode, Property};
use super::typing;
use crate::batch_sql::{position, set_position};
use crate::collect::message::Message;
use crate::event::EventKind;
use futures::FutureExt;
use heyuan_kernel::{Actor, Database, Error, Problem, Scope, Tx, audit, sql};
use sea_orm::ConnectionTrait;
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
        if position(self.db.reader(), REVISION).await? != known {
            let state = read(self.db.reader()).await?;
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        }
        Ok(())
    }

    /// Declares a type, as its next version; the same declaration again changes nothing.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` with the property's path.
    pub async fn put(
        &self,
        actor: &Actor,
        name: &str,
        mode: Mode,
        properties: BTreeMap<String, Property>,
    ) -> Result<Arc<EventType>, Problem> {
        actor.require(Scope::Admin)?;
        EventType::check(name, &properties)?;
        self.refresh().await?;
        let types = self.types();
        if !types.contains_key(name) && types.len() >= TYPES_MAX {
            return Err(Problem::invalid("name", format!("a tenant has at most {TYPES_MAX} event types")));
        }
        if let Some(old) = types.get(name)
            && old.mode == mode
            && old.properties == properties
        {
            return Ok(old.clone());
        }
        let (name, actor) = (name.to_owned(), actor.clone());
        let stored = name.clone();
        self.db
            .write("declare an event type", move |tx| {
                let (name, properties, actor) = (stored.clone(), properties.clone(), actor.clone());
                async move {
                    let row =
                        sql::one(tx.conn(), "SELECT MAX(version) AS version FROM cdp_event_type WHERE name = $1", [name.clone().into()])
                            .await?;
                    let last: Option<i64> = row.map_or(Ok(None), |row| sql::get(&row, "version"))?;
                    let one = EventType { name, version: last.unwrap_or(0) + 1, mode, properties };
                    write(tx, &one, actor.name()).await?;
                    let revision = position(tx.conn(), REVISION).await?;
                    set_position(tx.conn(), REVISION, revision + 1).await?;
                    let entry = audit::Entry::new(&actor, "declare event type", &one.name).detail("version", one.version);
                    audit::record(tx, &entry).await
                }
                .boxed()
            })
            .await?;
        self.refresh().await?;
        self.get(&name).ok_or_else(|| Problem::not_found("event type", name))
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
    set_position(tx.conn(), REVISION, 1).await
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

async fn read<C: ConnectionTrait>(conn: &C) -> Result<(i64, Arc<Types>), Error> {
    let revision = position(conn, REVISION).await?;
    let rows = sql::all(
        conn,
        "SELECT t.name, t.version, t.mode, t.properties FROM cdp_event_type t
         JOIN (SELECT name, MAX(version) AS version FROM cdp_event_type GROUP BY name) n ON n.name = t.name AND n.version = t.version",
        [],
    )
    .await?;
    let mut types = Types::new();
    let corrupt = |why: String| Error::Corrupt { what: "event type", why };
    for row in rows {
        let name: String = sql::get(&row, "name")?;
        let mode: String = sql::get(&row, "mode")?;
        let properties: String = sql::get(&row, "properties")?;
        let one = EventType {
            name: name.clone(),
            version: sql::get(&row, "version")?,
            mode: Mode::parse(&mode).ok_or_else(|| corrupt(format!("mode {mode}")))?,
            properties: serde_json::from_str(&properties).map_err(|e| corrupt(e.to_string()))?,
        };
        types.insert(name, Arc::new(one));
    }
    Ok((revision, Arc::new(types)))
}
