//! Sessions of those who work for the group: scopes and a unit as a key has them, for a working day.

use super::Credentials;
use super::sessions::{Holder, Terms, Tokens, mixed_up, remove, revoke_in};
use crate::actor::{Actor, Reach, Scope};
use crate::audit;
use crate::database::Tx;
use crate::error::{Error, Problem};
use crate::sql;
use futures::FutureExt;
use heyuan_contract::{InvalidId, OrgUnitId, StaffId, Timestamp};
use std::sync::Arc;

/// The start of every staff token.
pub(super) const STAFF_PREFIX: &str = "hys_";
/// How long a staff token lasts: what somebody who reads one along the way has of it.
pub const STAFF_ACCESS_MS: i64 = 15 * 60_000;
/// A staff session that is not refreshed for this long has ended.
pub const STAFF_IDLE_MS: i64 = 8 * 3_600_000;
/// However often it is refreshed, a staff session ends this long after its log-in: what the provider says about a person is read at log-in
/// alone, so that a role taken away there counts here after a working day at the latest.
pub const STAFF_LIFE_MS: i64 = 12 * 3_600_000;
/// What stands where a member's session names its app.
const APP: &str = "staff";
/// Sessions read at once for a list that is cut to units.
const LIST_ROWS: u64 = 200;

/// The terms of staff sessions. A spent refresh token is never answered again: a browser whose answer was lost logs in anew.
pub(super) static TERMS: Terms = Terms {
    access_prefix: STAFF_PREFIX,
    access_purpose: b"staff session",
    refresh_purpose: b"staff refresh",
    access_ms: STAFF_ACCESS_MS,
    idle_ms: STAFF_IDLE_MS,
    life_ms: STAFF_LIFE_MS,
    repeat_ms: None,
};

/// Somebody who works for the group, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staff {
    /// Who it is.
    pub id: StaffId,
    /// What they may do.
    pub scopes: Vec<Scope>,
    /// Their unit; `None` for the whole group.
    pub unit: Option<OrgUnitId>,
}

impl Staff {
    pub(super) fn read(id: String, scopes: &str, own: String) -> Result<Staff, InvalidId> {
        Ok(Staff { id: StaffId::new(id)?, scopes: scopes.split(' ').filter_map(Scope::parse).collect(), unit: unit(own)? })
    }

    /// The scopes as they are stored, parted by spaces.
    pub fn scopes_text(&self) -> String {
        let names: Vec<&str> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        names.join(" ")
    }
}

/// The unit of a session; an empty one stands for the whole group.
pub(super) fn unit(text: String) -> Result<Option<OrgUnitId>, InvalidId> {
    if text.is_empty() { Ok(None) } else { OrgUnitId::new(text).map(Some) }
}

/// A staff session as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaffSession {
    /// Its id.
    pub id: String,
    /// Whose it is, and what it may do.
    pub staff: Staff,
    /// When it was logged in.
    pub created_at: Timestamp,
    /// When it was logged in or last refreshed: its last use, to the life of a token.
    pub used_at: Timestamp,
    /// When it ends unless it is refreshed.
    pub ends_at: Timestamp,
}

impl StaffSession {
    const COLUMNS: &str = "id, member, scopes, unit, created_at, used_at, ends_at";

    fn read(row: &sql::Row) -> Result<StaffSession, Error> {
        let Holder::Staff(staff) = Holder::read(row)? else { return Err(mixed_up()) };
        Ok(StaffSession {
            id: sql::get(row, "id")?,
            staff,
            created_at: Timestamp::clamped(sql::get(row, "created_at")?),
            used_at: Timestamp::clamped(sql::get(row, "used_at")?),
            ends_at: Timestamp::clamped(sql::get(row, "ends_at")?),
        })
    }

    /// Whether the actor may see it and end it: their own, or as an administrator of its unit.
    fn is_seen_by(&self, actor: &Actor) -> bool {
        let within = self.staff.unit.as_ref().map_or(*actor.reach() == Reach::Everything, |unit| actor.reach().covers(unit));
        actor.as_staff() == Some(&self.staff.id) || actor.has(Scope::Admin) && within
    }
}

impl Credentials {
    pub(super) fn staff_actor(&self, staff: Staff) -> Actor {
        let reach = match &staff.unit {
            None => Reach::Everything,
            Some(unit) => Reach::Units(Arc::new(self.org.tree().subtree(unit))),
        };
        Actor::staff(staff.id, staff.scopes, staff.unit, reach)
    }

    /// Who the staff token of a session speaks for, while both last.
    pub(super) async fn staff_of(&self, token: &str) -> Result<Option<Actor>, Error> {
        let Some(body) = self.opened(TERMS.access_prefix, TERMS.access_purpose, token) else { return Ok(None) };
        let Some(Holder::Staff(staff)) = self.holder_of_session(&body).await? else { return Ok(None) };
        Ok(Some(self.staff_actor(staff)))
    }

    /// Opens a session in the unit of work that lets somebody in. `origin` is what it came of elsewhere, and may end with.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_staff_session(&self, tx: &Tx, staff: &Staff, origin: Option<&str>) -> Result<Tokens<Staff>, Error> {
        let unit = staff.unit.as_ref().map_or("", OrgUnitId::as_str);
        self.open(tx, Holder::Staff(staff.clone()), APP, unit, origin).await?.of_staff().ok_or_else(mixed_up)
    }

    /// Ends sessions of a person in the unit of work of whoever knows that they are over: every one, or those that came of `origin` and those
    /// of which nobody knows what they came of. Audited with `why`; answers how many. Other processes take their tokens for up to
    /// [`super::CACHE_TIME_MS`] more; [`Credentials::forget_staff`] makes this one look again.
    ///
    /// # Errors
    /// The database's.
    pub async fn end_staff_sessions_of(
        &self,
        tx: &Tx,
        actor: &Actor,
        staff: &StaffId,
        origin: Option<&str>,
        why: &'static str,
    ) -> Result<u64, Error> {
        let text = format!(
            "SELECT id FROM kernel_session WHERE member = $1 AND scopes IS NOT NULL AND ($2 = '' OR origin IS NULL OR origin = $2)
             ORDER BY id{}",
            sql::for_update(tx.conn())
        );
        let rows = sql::all(tx.conn(), &text, [staff.as_str().into(), origin.unwrap_or_default().into()]).await?;
        let mut ended = 0;
        for row in &rows {
            let id: String = sql::get(row, "id")?;
            ended += remove(tx, &id).await?;
            let entry = audit::Entry::new(actor, "end session", staff.as_str()).detail("session", id.as_str());
            audit::record(tx, &entry.detail("why", why)).await?;
        }
        Ok(ended)
    }

    /// Makes this process look at a person's sessions again before it takes one of their tokens.
    pub fn forget_staff(&self, staff: &StaffId) {
        self.forget(staff.as_str());
    }

    /// Gives the next pair for a refresh token, once. One that was spent ends the session, for whoever stole it and for whoever lost it.
    ///
    /// # Errors
    /// `refresh_refused`; the database's.
    pub async fn refresh_staff(&self, refresh: &str) -> Result<Tokens<Staff>, Problem> {
        self.refresh_by(None, &TERMS, refresh).await?.of_staff().ok_or_else(|| mixed_up().into())
    }

    /// Logs out: ends the session of a refresh token, also of a spent one. One that is over ends nothing. Audited.
    ///
    /// # Errors
    /// The database's.
    pub async fn log_staff_out(&self, refresh: &str) -> Result<(), Problem> {
        let Some(id) = self.session_of(&TERMS, refresh) else { return Ok(()) };
        let (credentials, session) = (self.clone(), id.clone());
        self.db
            .write("log staff out", move |tx| {
                let (credentials, session) = (credentials.clone(), session.clone());
                async move { credentials.log_staff_out_in(tx, &session).await }.boxed()
            })
            .await?;
        self.sessions.remove(&id);
        Ok(())
    }

    async fn log_staff_out_in(&self, tx: &Tx, session: &str) -> Result<(), Error> {
        let text = format!("SELECT {} FROM kernel_session WHERE id = $1{}", StaffSession::COLUMNS, sql::for_update(tx.conn()));
        let Some(row) = sql::one(tx.conn(), &text, [session.into()]).await? else { return Ok(()) };
        let found = StaffSession::read(&row)?;
        let staff = found.staff.id.clone();
        revoke_in(tx, &self.staff_actor(found.staff), staff.as_str(), Some(session)).await
    }

    /// Staff sessions that last and that the actor may see, by id; those of one person when it is named.
    ///
    /// # Errors
    /// `forbidden` for whoever is neither staff nor has the scope `admin`; the database's.
    pub async fn staff_sessions(&self, actor: &Actor, of: Option<&StaffId>, after: &str, limit: u64) -> Result<Vec<StaffSession>, Problem> {
        if actor.as_staff().is_none() {
            actor.require(Scope::Admin)?;
        }
        let text = format!(
            "SELECT {} FROM kernel_session WHERE id > $1 AND scopes IS NOT NULL AND ends_at > $2 AND ($3 = '' OR member = $3)
             ORDER BY id LIMIT $4",
            StaffSession::COLUMNS
        );
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let (mut found, mut after) = (Vec::new(), after.to_owned());
        loop {
            let of = of.map_or("", StaffId::as_str);
            let values = [after.clone().into(), self.clock.now().ms().into(), of.into(), LIST_ROWS.into()];
            let rows = sql::all(self.db.reader(), &text, values).await?;
            let Some(last) = rows.last() else { return Ok(found) };
            after = sql::get(last, "id")?;
            for row in &rows {
                let session = StaffSession::read(row)?;
                if session.is_seen_by(actor) {
                    found.push(session);
                }
                if found.len() == wanted {
                    return Ok(found);
                }
            }
        }
    }

    /// Ends one staff session: one's own, or as an administrator within reach. Audited.
    ///
    /// # Errors
    /// `forbidden`; `not_found` for one that the actor may not see; the database's.
    pub async fn end_staff_session(&self, actor: &Actor, session: &str) -> Result<(), Problem> {
        let text = format!("SELECT {} FROM kernel_session WHERE id = $1 AND scopes IS NOT NULL", StaffSession::COLUMNS);
        self.end_those(actor, text, session).await
    }

    /// Ends every session of a person that the actor may see. Audited. Until they log in again, their tokens are refused: by this process
    /// at once, by every other within [`super::CACHE_TIME_MS`].
    ///
    /// # Errors
    /// `forbidden`; `not_found` when there is none; the database's.
    pub async fn end_staff_sessions(&self, actor: &Actor, staff: &StaffId) -> Result<(), Problem> {
        let text = format!("SELECT {} FROM kernel_session WHERE member = $1 AND scopes IS NOT NULL", StaffSession::COLUMNS);
        self.end_those(actor, text, staff.as_str()).await
    }

    async fn end_those(&self, actor: &Actor, text: String, named: &str) -> Result<(), Problem> {
        if actor.as_staff().is_none() {
            actor.require(Scope::Admin)?;
        }
        let (by, named) = (actor.clone(), named.to_owned());
        let ended = self
            .db
            .write("end staff sessions", move |tx| {
                let (by, text, named) = (by.clone(), text.clone(), named.clone());
                async move { end_seen(tx, &by, &text, &named).await }.boxed()
            })
            .await?;
        for staff in ended {
            self.forget(staff.as_str());
        }
        Ok(())
    }
}

async fn end_seen(tx: &Tx, actor: &Actor, text: &str, named: &str) -> Result<Vec<StaffId>, Error> {
    let text = format!("{text}{}", sql::for_update(tx.conn()));
    let rows = sql::all(tx.conn(), &text, [named.into()]).await?;
    let mut ended = Vec::new();
    for row in &rows {
        let session = StaffSession::read(row)?;
        if session.is_seen_by(actor) {
            revoke_in(tx, actor, session.staff.id.as_str(), Some(&session.id)).await?;
            ended.push(session.staff.id);
        }
    }
    if ended.is_empty() { Err(Problem::not_found("session", "of this name").into()) } else { Ok(ended) }
}
