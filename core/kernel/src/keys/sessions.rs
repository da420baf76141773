//! Sessions of members and of staff: a short-lived token speaks for who it is, a refresh token gives the next pair, and both end with the
//! session.

use super::staff::{self, Staff};
use super::{CACHE_TIME_MS, Credentials, TOKEN_PREFIX};
use crate::Kernel;
use crate::actor::{Actor, Reach};
use crate::audit;
use crate::database::Tx;
use crate::error::{Code, Error, Kind, Problem};
use crate::secret::sha256_hex;
use crate::sql;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use heyuan_contract::{KeyId, MemberId, OrgUnitId, Timestamp};
use std::fmt;

/// What is read of a row of `kernel_session`.
const COLUMNS: &str = "id, member, app, unit, created_at, used_at, ends_at, refresh_hash, spent_hash, successor, refreshed_by, scopes";

/// The start of every refresh token.
const REFRESH_PREFIX: &str = "hyr_";
/// How long a session's token lasts: what somebody who reads one along the way has of it.
pub const ACCESS_TIME_MS: i64 = 3_600_000;
/// A session that is not refreshed for this long has ended.
pub const SESSION_TIME_MS: i64 = 30 * DAY_MS;
/// However often it is refreshed, a session ends this long after its log-in.
const SESSION_LIFE_MS: i64 = 180 * DAY_MS;
/// A refresh token that comes again within this time, by the same key, is one whose answer was lost: a phone's time-out and its retry.
pub const REPEAT_TIME_MS: i64 = 60_000;
/// Sessions of one member in one app; another one ends the one that was refreshed longest ago.
pub const SESSIONS_AN_APP_MAX: u64 = 10;
/// Sessions of one member that are listed, those refreshed last.
const LISTED_MAX: u64 = 200;
const DAY_MS: i64 = 86_400_000;

/// The refresh token is none of ours, spent, or its session has ended. Which of these is not told.
pub const REFRESH_REFUSED: Code =
    Code::new(Kind::Invalid, "refresh_refused", "The session can't be refreshed; log in again", "会话无法刷新，请重新登录");

/// What holds for one kind of session.
pub(super) struct Terms {
    /// The start of an access token.
    pub(super) access_prefix: &'static str,
    /// What an access token is signed for.
    pub(super) access_purpose: &'static [u8],
    /// What a refresh token is signed for: one of another kind is none.
    pub(super) refresh_purpose: &'static [u8],
    /// How long an access token lasts.
    pub(super) access_ms: i64,
    /// A session that is not refreshed for this long has ended.
    pub(super) idle_ms: i64,
    /// However often it is refreshed, a session ends this long after its log-in.
    pub(super) life_ms: i64,
    /// How long a spent refresh token is answered again, if it is at all.
    pub(super) repeat_ms: Option<i64>,
}

/// Members' terms.
static MEMBERS: Terms = Terms {
    access_prefix: TOKEN_PREFIX,
    access_purpose: b"session",
    refresh_purpose: b"refresh",
    access_ms: ACCESS_TIME_MS,
    idle_ms: SESSION_TIME_MS,
    life_ms: SESSION_LIFE_MS,
    repeat_ms: Some(REPEAT_TIME_MS),
};

/// Whom a session speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    Member(MemberId),
    Staff(Staff),
}

impl Holder {
    pub(super) fn id(&self) -> &str {
        match self {
            Holder::Member(member) => member.as_str(),
            Holder::Staff(staff) => staff.id.as_str(),
        }
    }

    fn terms(&self) -> &'static Terms {
        match self {
            Holder::Member(_) => &MEMBERS,
            Holder::Staff(_) => &staff::TERMS,
        }
    }

    /// Reads the columns `member`, `scopes` and `unit`.
    pub(super) fn read(row: &sql::Row) -> Result<Holder, Error> {
        let corrupt = |e: heyuan_contract::InvalidId| Error::Corrupt { what: "session", why: e.to_string() };
        let id: String = sql::get(row, "member")?;
        match sql::get::<Option<String>>(row, "scopes")? {
            None => Ok(Holder::Member(MemberId::new(id).map_err(corrupt)?)),
            Some(scopes) => Ok(Holder::Staff(Staff::read(id, &scopes, sql::get(row, "unit")?).map_err(corrupt)?)),
        }
    }
}

/// A fresh pair: the only time that it can be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens<H = MemberId> {
    /// The session's id, which opens nothing.
    pub session: String,
    /// Whom it speaks for.
    pub holder: H,
    /// Speaks for its holder.
    pub access: String,
    /// When that one runs out.
    pub access_expires_at: Timestamp,
    /// Gives the next pair, once.
    pub refresh: String,
    /// When that one runs out.
    pub refresh_expires_at: Timestamp,
}

impl<H> Tokens<H> {
    fn held_by<T>(self, pick: impl FnOnce(H) -> Option<T>) -> Option<Tokens<T>> {
        let Tokens { session, holder, access, access_expires_at, refresh, refresh_expires_at } = self;
        pick(holder).map(|holder| Tokens { session, holder, access, access_expires_at, refresh, refresh_expires_at })
    }
}

impl Tokens<Holder> {
    fn of_member(self) -> Option<Tokens> {
        self.held_by(|holder| if let Holder::Member(member) = holder { Some(member) } else { None })
    }

    pub(super) fn of_staff(self) -> Option<Tokens<Staff>> {
        self.held_by(|holder| if let Holder::Staff(staff) = holder { Some(staff) } else { None })
    }
}

impl<H> fmt::Debug for Tokens<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({}, …)", self.session)
    }
}

/// A session as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The app that was logged in to, or the key that let the member join.
    pub app: String,
    /// When it was logged in.
    pub created_at: Timestamp,
    /// When it was logged in or last refreshed: its last use, to the life of a token.
    pub used_at: Timestamp,
    /// When it ends unless it is refreshed.
    pub ends_at: Timestamp,
}

/// A session as this process last saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    read_at: i64,
    holder: Holder,
    ends_at: i64,
}

/// What became of a refresh token.
enum Refreshed {
    Given(Tokens<Holder>),
    Refused,
    /// It was spent before: somebody else has it, and the session is over.
    Reused,
}

/// A session as stored.
struct Row {
    id: String,
    holder: Holder,
    unit: Option<OrgUnitId>,
    created_at: i64,
    used_at: i64,
    ends_at: i64,
    refresh_hash: Option<String>,
    spent_hash: Option<String>,
    successor: Option<Vec<u8>>,
    refreshed_by: Option<String>,
}

impl Row {
    fn read(row: &sql::Row) -> Result<Row, Error> {
        let corrupt = |e: heyuan_contract::InvalidId| Error::Corrupt { what: "session", why: e.to_string() };
        Ok(Row {
            id: sql::get(row, "id")?,
            holder: Holder::read(row)?,
            unit: staff::unit(sql::get(row, "unit")?).map_err(corrupt)?,
            created_at: sql::get(row, "created_at")?,
            used_at: sql::get(row, "used_at")?,
            ends_at: sql::get(row, "ends_at")?,
            refresh_hash: sql::get(row, "refresh_hash")?,
            spent_hash: sql::get(row, "spent_hash")?,
            successor: sql::get(row, "successor")?,
            refreshed_by: sql::get(row, "refreshed_by")?,
        })
    }

    fn is_within(&self, reach: &Reach) -> bool {
        self.unit.as_ref().map_or(*reach == Reach::Everything, |unit| reach.covers(unit))
    }
}

async fn lock(tx: &Tx, id: &str) -> Result<Option<Row>, Error> {
    let lock = sql::for_update(tx.conn());
    let text = format!("SELECT {COLUMNS} FROM kernel_session WHERE id = $1{lock}");
    sql::one(tx.conn(), &text, [id.into()]).await?.as_ref().map(Row::read).transpose()
}

pub(super) async fn remove(tx: &Tx, id: &str) -> Result<u64, Error> {
    sql::execute(tx.conn(), "DELETE FROM kernel_session WHERE id = $1", [id.into()]).await
}

/// Ends every session of a member within the unit of work that ends what they speak for. Other processes take their tokens for up to
/// [`CACHE_TIME_MS`] more; [`Credentials::forget_sessions`] makes this one look again.
///
/// # Errors
/// The database's.
pub async fn end_sessions(tx: &Tx, member: &MemberId) -> Result<u64, Error> {
    end_all(tx, member.as_str()).await
}

async fn end_all(tx: &Tx, holder: &str) -> Result<u64, Error> {
    sql::execute(tx.conn(), "DELETE FROM kernel_session WHERE member = $1", [holder.into()]).await
}

/// Lets every session of a member run out at an instant at the latest, and refreshes none of them any more.
///
/// # Errors
/// The database's.
pub async fn run_out_sessions(tx: &Tx, member: &MemberId, at: Timestamp) -> Result<(), Error> {
    let text = "UPDATE kernel_session SET refresh_hash = NULL, spent_hash = NULL, successor = NULL,
                  ends_at = CASE WHEN ends_at < $2 THEN ends_at ELSE $2 END WHERE member = $1";
    sql::execute(tx.conn(), text, [member.as_str().into(), at.ms().into()]).await?;
    Ok(())
}

impl Credentials {
    /// Opens a session in the unit of work that lets the member in. The caller holds the member's row.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_session(&self, tx: &Tx, member: &MemberId, app: &str, unit: &OrgUnitId) -> Result<Tokens, Error> {
        let opened = self.open(tx, Holder::Member(member.clone()), app, unit.as_str(), None).await?;
        opened.of_member().ok_or_else(mixed_up)
    }

    pub(super) async fn open(&self, tx: &Tx, holder: Holder, app: &str, unit: &str, origin: Option<&str>) -> Result<Tokens<Holder>, Error> {
        let oldest = "DELETE FROM kernel_session WHERE member = $1 AND app = $2 AND id NOT IN (
             SELECT id FROM kernel_session WHERE member = $1 AND app = $2 ORDER BY used_at DESC, id DESC LIMIT $3)";
        let kept = SESSIONS_AN_APP_MAX - 1;
        sql::execute(tx.conn(), oldest, [holder.id().into(), app.into(), kept.into()]).await?;
        let now = self.clock.now();
        let id = Kernel::new_id::<KeyId>("ses").to_string();
        let terms = holder.terms();
        let refresh = self.refresh_token(terms, &id);
        let ends_at = ends_at(terms, now, now.ms());
        let scopes = if let Holder::Staff(staff) = &holder { Some(staff.scopes_text()) } else { None };
        sql::execute(
            tx.conn(),
            "INSERT INTO kernel_session (id, member, app, unit, created_at, used_at, ends_at, refresh_hash, scopes, origin)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            [
                id.as_str().into(),
                holder.id().into(),
                app.into(),
                unit.into(),
                now.ms().into(),
                now.ms().into(),
                ends_at.ms().into(),
                sha256_hex(refresh.as_bytes()).into(),
                scopes.into(),
                origin.into(),
            ],
        )
        .await?;
        Ok(self.pair(&id, holder, refresh, ends_at))
    }

    fn pair(&self, id: &str, holder: Holder, refresh: String, ends_at: Timestamp) -> Tokens<Holder> {
        let terms = holder.terms();
        let expires = self.clock.now().plus_ms(terms.access_ms).min(ends_at);
        let access = self.signed(terms.access_prefix, terms.access_purpose, &format!("{}.{id}.{}", holder.id(), expires.ms()));
        Tokens { session: id.to_owned(), holder, access, access_expires_at: expires, refresh, refresh_expires_at: ends_at }
    }

    /// A token from fresh randomness that names its session, so that a spent one is known for what it is without being kept.
    fn refresh_token(&self, terms: &Terms, id: &str) -> String {
        let random: [u8; 24] = rand::random();
        self.signed(REFRESH_PREFIX, terms.refresh_purpose, &format!("{id}.{}", URL_SAFE_NO_PAD.encode(random)))
    }

    pub(super) fn session_of(&self, terms: &Terms, refresh: &str) -> Option<String> {
        let body = self.opened(REFRESH_PREFIX, terms.refresh_purpose, refresh)?;
        body.split_once('.').map(|(id, _)| id.to_owned())
    }

    /// Gives the next pair for a refresh token, once. The token that was spent last, again within [`REPEAT_TIME_MS`] and by the same key, is
    /// answered with the pair that it gave: its answer was lost. Any other spent token ends the session, for whoever stole it and for
    /// whoever lost it.
    ///
    /// # Errors
    /// `refresh_refused`; the database's.
    pub async fn refresh(&self, actor: &Actor, refresh: &str) -> Result<Tokens, Problem> {
        self.refresh_by(Some(actor), &MEMBERS, refresh).await?.of_member().ok_or_else(|| mixed_up().into())
    }

    /// The next pair, for the key that brings the token or, without one, for whoever holds it.
    pub(super) async fn refresh_by(&self, key: Option<&Actor>, terms: &'static Terms, refresh: &str) -> Result<Tokens<Holder>, Problem> {
        let words = "the refresh token is not known, was used before, or its session has ended";
        let refused = || Problem::new(REFRESH_REFUSED, words).field("refresh_token");
        let id = self.session_of(terms, refresh).ok_or_else(refused)?;
        let (credentials, by, session, token) = (self.clone(), key.cloned(), id.clone(), refresh.to_owned());
        let refreshed = self
            .db
            .write("refresh a session", move |tx| {
                let (credentials, by, session, token) = (credentials.clone(), by.clone(), session.clone(), token.clone());
                async move { credentials.refresh_in(tx, by.as_ref(), &session, &token).await }.boxed()
            })
            .await?;
        match refreshed {
            Refreshed::Given(tokens) => Ok(tokens),
            Refreshed::Refused => Err(refused()),
            Refreshed::Reused => {
                self.sessions.remove(&id);
                Err(refused())
            }
        }
    }

    async fn refresh_in(&self, tx: &Tx, key: Option<&Actor>, id: &str, token: &str) -> Result<Refreshed, Error> {
        let now = self.clock.now();
        let Some(row) = lock(tx, id).await? else { return Ok(Refreshed::Refused) };
        let out_of_reach = key.is_some_and(|key| !row.is_within(key.reach()));
        if row.ends_at <= now.ms() || row.refresh_hash.is_none() || out_of_reach {
            return Ok(Refreshed::Refused);
        }
        let actor = match (key, &row.holder) {
            (Some(key), _) => key.clone(),
            (None, Holder::Staff(staff)) => self.staff_actor(staff.clone()),
            (None, Holder::Member(member)) => Actor::member(member.clone()),
        };
        let terms = row.holder.terms();
        let hash = Some(sha256_hex(token.as_bytes()));
        // Only whoever holds the spent token can open its successor.
        let sealer = self.keys.token().derive(&format!("heyuan/v1/refresh/{token}"));
        if hash == row.refresh_hash {
            let next = self.refresh_token(terms, id);
            let ends_at = ends_at(terms, now, row.created_at);
            let sealed = sealer.seal(next.as_bytes(), id.as_bytes());
            let text = "UPDATE kernel_session SET refresh_hash = $2, spent_hash = $3, successor = $4, refreshed_by = $5, used_at = $6,
                          ends_at = $7 WHERE id = $1";
            let next_hash = sha256_hex(next.as_bytes());
            let values =
                [id.into(), next_hash.into(), hash.into(), sealed.into(), actor.name().into(), now.ms().into(), ends_at.ms().into()];
            sql::execute(tx.conn(), text, values).await?;
            return Ok(Refreshed::Given(self.pair(id, row.holder, next, ends_at)));
        }
        let in_time = terms.repeat_ms.is_some_and(|repeat_ms| now.ms() - row.used_at <= repeat_ms);
        let lost = hash == row.spent_hash && in_time && row.refreshed_by.as_deref() == Some(actor.name());
        let successor = row.successor.as_ref().filter(|_| lost).and_then(|sealed| sealer.open(sealed, id.as_bytes()));
        if let Some(next) = successor.and_then(|bytes| String::from_utf8(bytes).ok()) {
            return Ok(Refreshed::Given(self.pair(id, row.holder, next, Timestamp::clamped(row.ends_at))));
        }
        remove(tx, id).await?;
        let entry = audit::Entry::new(&actor, "end session", row.holder.id());
        audit::record(tx, &entry.detail("session", id).detail("why", "a spent refresh token came again")).await?;
        Ok(Refreshed::Reused)
    }

    /// Logs out: ends the session of a refresh token, also of a spent one. One that is over, or out of the actor's reach, ends nothing.
    ///
    /// # Errors
    /// The database's.
    pub async fn log_out(&self, actor: &Actor, refresh: &str) -> Result<(), Problem> {
        let Some(id) = self.session_of(&MEMBERS, refresh) else { return Ok(()) };
        let (by, session) = (actor.clone(), id.clone());
        self.db
            .write("log out", move |tx| {
                let (by, session) = (by.clone(), session.clone());
                async move {
                    let Some(row) = lock(tx, &session).await? else { return Ok::<(), Error>(()) };
                    let may = by.as_member().map_or_else(|| row.is_within(by.reach()), |member| member.as_str() == row.holder.id());
                    if may {
                        remove(tx, &row.id).await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await?;
        self.sessions.remove(&id);
        Ok(())
    }

    /// A member's sessions that last, the one refreshed last first. Whether the actor may see them is the caller's to check.
    ///
    /// # Errors
    /// The database's.
    pub async fn sessions(&self, member: &MemberId) -> Result<Vec<Session>, Error> {
        let text = "SELECT id, app, created_at, used_at, ends_at FROM kernel_session WHERE member = $1 AND ends_at > $2
                    ORDER BY used_at DESC, id DESC LIMIT $3";
        let values = [member.as_str().into(), self.clock.now().ms().into(), LISTED_MAX.into()];
        let rows = sql::all(self.db.near(), text, values).await?;
        let session = |row: &sql::Row| {
            Ok(Session {
                id: sql::get(row, "id")?,
                app: sql::get(row, "app")?,
                created_at: Timestamp::clamped(sql::get(row, "created_at")?),
                used_at: Timestamp::clamped(sql::get(row, "used_at")?),
                ends_at: Timestamp::clamped(sql::get(row, "ends_at")?),
            })
        };
        rows.iter().map(session).collect()
    }

    /// Ends one session of a member, or all of them, for an actor whose right the caller has checked. Audited.
    ///
    /// # Errors
    /// `not_found` for a session that the member does not have; the database's.
    pub async fn revoke_sessions(&self, actor: &Actor, member: &MemberId, one: Option<&str>) -> Result<(), Problem> {
        let (by, of, wanted) = (actor.clone(), member.clone(), one.map(str::to_owned));
        self.db
            .write("end sessions", move |tx| {
                let (by, of, wanted) = (by.clone(), of.clone(), wanted.clone());
                async move { revoke_in(tx, &by, of.as_str(), wanted.as_deref()).await }.boxed()
            })
            .await?;
        self.forget_sessions(member);
        Ok(())
    }

    /// Makes this process look at a member's sessions again before it takes one of their tokens.
    pub fn forget_sessions(&self, member: &MemberId) {
        self.forget(member.as_str());
    }

    pub(super) fn forget(&self, holder: &str) {
        self.sessions.retain(|_, seen| seen.holder.id() != holder);
    }

    /// Whether there is a session that has ended.
    ///
    /// # Errors
    /// The database's.
    pub async fn sessions_to_sweep(&self) -> Result<bool, Error> {
        let text = "SELECT id FROM kernel_session WHERE ends_at <= $1 ORDER BY ends_at LIMIT 1";
        Ok(sql::one(self.db.near(), text, [self.clock.now().ms().into()]).await?.is_some())
    }

    /// Removes a batch of sessions that have ended; answers how many.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep_sessions(&self, tx: &Tx, limit: u64) -> Result<u64, Error> {
        let text =
            "DELETE FROM kernel_session WHERE id IN (SELECT id FROM kernel_session WHERE ends_at <= $1 ORDER BY ends_at, id LIMIT $2)";
        sql::execute(tx.conn(), text, [self.clock.now().ms().into(), limit.into()]).await
    }

    /// Whom the body of a session's token speaks for, while both last.
    pub(super) async fn holder_of_session(&self, body: &str) -> Result<Option<Holder>, Error> {
        let parts = body.rsplit_once('.').and_then(|(rest, expires)| Some((rest.rsplit_once('.')?, expires)));
        let Some(((holder, id), expires)) = parts else { return Ok(None) };
        if !self.is_ahead(expires) {
            return Ok(None);
        }
        let now = self.clock.now().ms();
        let remembered = self.sessions.get(id).filter(|seen| (0..CACHE_TIME_MS).contains(&(now - seen.read_at)));
        let seen = match remembered {
            Some(seen) => Some(seen),
            None => self.look_at_session(id, now).await?,
        };
        Ok(seen.filter(|seen| seen.ends_at > now && seen.holder.id() == holder).map(|seen| seen.holder))
    }

    async fn look_at_session(&self, id: &str, now: i64) -> Result<Option<Seen>, Error> {
        let row = sql::one(self.db.near(), "SELECT member, scopes, unit, ends_at FROM kernel_session WHERE id = $1", [id.into()]).await?;
        let Some(row) = row else {
            self.sessions.remove(id);
            return Ok(None);
        };
        let seen = Seen { read_at: now, holder: Holder::read(&row)?, ends_at: sql::get(&row, "ends_at")? };
        self.sessions.insert(id.to_owned(), seen.clone());
        Ok(Some(seen))
    }
}

/// When a session that is used now ends, if it is not used again.
fn ends_at(terms: &Terms, now: Timestamp, created_at: i64) -> Timestamp {
    now.plus_ms(terms.idle_ms).min(Timestamp::clamped(created_at).plus_ms(terms.life_ms))
}

/// A session whose token said that it is of another kind; only a changed database makes one.
pub(super) fn mixed_up() -> Error {
    Error::Corrupt { what: "session", why: "it is of another kind than its token".into() }
}

pub(super) async fn revoke_in(tx: &Tx, actor: &Actor, holder: &str, one: Option<&str>) -> Result<(), Error> {
    let entry = match one {
        None => audit::Entry::new(actor, "end sessions", holder).detail("sessions", end_all(tx, holder).await?),
        Some(id) => {
            let text = "DELETE FROM kernel_session WHERE id = $1 AND member = $2";
            if sql::execute(tx.conn(), text, [id.into(), holder.into()]).await? == 0 {
                return Err(Problem::not_found("session", "of this id").into());
            }
            audit::Entry::new(actor, "end session", holder).detail("session", id)
        }
    };
    audit::record(tx, &entry).await
}
