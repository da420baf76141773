//! API keys and tokens: how a request becomes an actor, and how keys are made, listed and revoked. Sessions are in `sessions`, what is
//! staff's of them in `staff`, and who made a key in `makers`.

mod makers;
mod sessions;
mod staff;

pub use makers::same_hand;
pub use sessions::{
    ACCESS_TIME_MS, REFRESH_REFUSED, REPEAT_TIME_MS, SESSION_TIME_MS, SESSIONS_AN_APP_MAX, Session, Tokens, end_sessions, run_out_sessions,
};
pub use staff::{STAFF_ACCESS_MS, STAFF_IDLE_MS, STAFF_LIFE_MS, Staff, StaffSession};

use crate::actor::{Actor, Reach, Scope};
use crate::audit;
use crate::database::{Database, Tx};
use crate::error::{Code, Error, Kind, Problem, codes};
use crate::org::Org;
use crate::secret::{TenantKeys, sha256_hex};
use crate::sql;
use crate::time::Clock;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::FutureExt;
use heyuan_contract::{MemberId, OrgUnitId, Timestamp};
use quick_cache::sync::Cache;
use sessions::{Holder, Seen};
use staff::STAFF_PREFIX;
use std::sync::Arc;

/// Keys remembered, so that a request costs no query.
const KEYS_CACHED_MAX: usize = 1000;
/// Sessions remembered for the same reason.
const SESSIONS_CACHED_MAX: usize = 10_000;
/// A revoked key is refused everywhere after this long.
pub const CACHE_TIME_MS: i64 = 5_000;
/// How exactly the last use of a key is kept: one write a key and hour, not one a request.
pub const LAST_USE_STEP_MS: i64 = 3_600_000;
/// Keys of the whole group that are looked through for another administrator.
const GROUP_KEYS_MAX: u64 = 1000;
/// Keys read at once for a list that is cut to units.
const LIST_ROWS: u64 = 200;
/// The start of every API key.
const KEY_PREFIX: &str = "hyk_";
/// Characters behind the prefix of a key that was made elsewhere: as many as ours have, up to what fits a header with ease.
const DELIVERED_CHARACTERS_MIN: usize = 32;
const DELIVERED_CHARACTERS_MAX: usize = 120;
/// Bytes of the name under which such a key is delivered.
const DELIVERED_NAME_BYTES_MAX: usize = 64;
/// What a key may do that the operator delivers.
const DELIVERED_SCOPES: [Scope; 5] = [Scope::Admin, Scope::App, Scope::Import, Scope::Ingest, Scope::Reveal];
/// The start of every member token.
const TOKEN_PREFIX: &str = "hym_";

/// The tenant would be left without a key that can make keys.
pub const LAST_ADMIN_KEY: Code =
    Code::new(Kind::Conflict, "last_admin_key", "This is the last key that administers the whole group", "这是最后一个集团管理密钥");

/// A key that was revoked does not come back.
pub const KEY_REVOKED: Code = Code::new(Kind::Conflict, "key_revoked", "The key was revoked", "该密钥已被吊销");

/// A key as it may be shown: everything but the key itself, which is kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its name in lists, audit and logs (there with `key:` before it).
    pub id: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Its unit; `None` for the whole group.
    pub unit: Option<OrgUnitId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the hour; `None` before its first use.
    pub last_used_at: Option<Timestamp>,
    /// The name of the key or person that made it; `None` for one that was made beside the data, or delivered.
    pub maker: Option<String>,
}

impl KeyRecord {
    const COLUMNS: &str = "id, hash, scopes, unit, created_at, revoked_at, last_used_at, maker";

    fn read(row: &sql::Row) -> Result<KeyRecord, Error> {
        let scopes: String = sql::get(row, "scopes")?;
        let unit: Option<String> = sql::get(row, "unit")?;
        let at = |ms: i64| Timestamp::clamped(ms);
        Ok(KeyRecord {
            id: sql::get(row, "id")?,
            scopes: scopes.split(' ').filter_map(Scope::parse).collect(),
            unit: unit.map(OrgUnitId::new).transpose().map_err(|e| Error::Corrupt { what: "key", why: e.to_string() })?,
            created_at: at(sql::get(row, "created_at")?),
            revoked_at: sql::get::<Option<i64>>(row, "revoked_at")?.map(at),
            last_used_at: sql::get::<Option<i64>>(row, "last_used_at")?.map(at),
            maker: sql::get(row, "maker")?,
        })
    }

    fn fresh(hash: &str, scopes: &[Scope], unit: Option<&OrgUnitId>, now: Timestamp) -> KeyRecord {
        let mut scopes = scopes.to_vec();
        scopes.sort_unstable_by_key(|scope| scope.as_str());
        scopes.dedup();
        let id = format!("key_{}", &hash[..12]);
        KeyRecord { id, scopes, unit: unit.cloned(), created_at: now, revoked_at: None, last_used_at: None, maker: None }
    }

    fn is_seen_by(&self, actor: &Actor) -> bool {
        match (&self.unit, actor.reach()) {
            (_, Reach::Everything) => true,
            (Some(unit), reach) => reach.covers(unit),
            (None, _) => false,
        }
    }

    fn administers_the_group(&self) -> bool {
        self.unit.is_none() && self.revoked_at.is_none() && self.scopes.contains(&Scope::Admin)
    }
}

/// A fresh key: the only time that it can be seen.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What is kept of it.
    pub record: KeyRecord,
    /// The key itself.
    pub secret: String,
}

/// Makes, knows and checks credentials.
#[derive(Clone)]
pub struct Credentials {
    db: Database,
    org: Org,
    keys: TenantKeys,
    clock: Clock,
    cache: Arc<Cache<String, (i64, KeyRecord)>>,
    sessions: Arc<Cache<String, Seen>>,
}

impl Credentials {
    /// Credentials of the tenant.
    pub fn new(db: Database, org: Org, keys: TenantKeys, clock: Clock) -> Credentials {
        let (cache, sessions) = (Arc::new(Cache::new(KEYS_CACHED_MAX)), Arc::new(Cache::new(SESSIONS_CACHED_MAX)));
        Credentials { db, org, keys, clock, cache, sessions }
    }

    /// The actor behind an `Authorization` header: `Bearer KEY`, or Basic with the key as user, as the Segment SDKs send it.
    ///
    /// # Errors
    /// `unauthenticated`; the database's.
    pub async fn authenticate(&self, header: Option<&str>) -> Result<Actor, Problem> {
        let stranger = || Problem::new(codes::UNAUTHENTICATED, "send Authorization: Bearer KEY, or the key as the user of Basic auth");
        let credential = header.and_then(credential_of).ok_or_else(stranger)?;
        if credential.starts_with(TOKEN_PREFIX) {
            return self.member_of(&credential).await?.map(Actor::member).ok_or_else(stranger);
        }
        if credential.starts_with(STAFF_PREFIX) {
            return self.staff_of(&credential).await?.ok_or_else(stranger);
        }
        let stored = self.find(&credential).await?.ok_or_else(stranger)?;
        let reach = match &stored.unit {
            None => Reach::Everything,
            Some(unit) => Reach::Units(Arc::new(self.org.tree().subtree(unit))),
        };
        Ok(Actor::key(format!("key:{}", stored.id), stored.scopes, stored.unit, reach))
    }

    async fn find(&self, secret: &str) -> Result<Option<KeyRecord>, Error> {
        let hash = sha256_hex(secret.as_bytes());
        let now = self.clock.now().ms();
        if let Some((read_at, stored)) = self.cache.get(&hash)
            && (0..CACHE_TIME_MS).contains(&(now - read_at))
        {
            return Ok(Some(stored));
        }
        let text = format!("SELECT {} FROM kernel_key WHERE hash = $1 AND revoked_at IS NULL", KeyRecord::COLUMNS);
        let row = sql::one(self.db.near(), &text, [hash.clone().into()]).await?;
        let Some(row) = row else {
            self.cache.remove(&hash);
            return Ok(None);
        };
        let stored = KeyRecord::read(&row)?;
        if stored.last_used_at.is_none_or(|at| now - at.ms() >= LAST_USE_STEP_MS) {
            self.note_use(&stored.id, now).await;
        }
        self.cache.insert(hash, (now, stored.clone()));
        Ok(Some(stored))
    }

    /// A database that takes no writes keeps nobody out: the use is noted another time.
    async fn note_use(&self, id: &str, now: i64) {
        let key = id.to_owned();
        let noted = self.db.write("note the use of a key", move |tx| {
            let key = key.clone();
            async move {
                let text = "UPDATE kernel_key SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
                sql::execute(tx.conn(), text, [key.into(), now.into()]).await
            }
            .boxed()
        });
        if let Err(error) = noted.await {
            tracing::warn!(%error, key.id = id, "the use of a key could not be noted");
        }
    }

    /// Makes a key that may do and see no more than its maker.
    ///
    /// # Errors
    /// `forbidden` without the scope `admin`, for a scope or unit beyond the actor's; `invalid_request` for no scope or an unknown
    /// unit; the database's.
    pub async fn create(&self, actor: &Actor, scopes: &[Scope], unit: Option<&OrgUnitId>) -> Result<NewKey, Problem> {
        actor.require(Scope::Admin)?;
        for scope in scopes {
            if !actor.has(*scope) {
                return Err(Problem::new(codes::FORBIDDEN, format!("a key gives no scope that it lacks, as here {scope}")).field("scopes"));
            }
        }
        match (unit, actor.unit()) {
            (None, Some(own)) => {
                let detail = format!("this key reaches {own} and gives no key of the whole group; name a unit");
                return Err(Problem::new(codes::FORBIDDEN, detail).field("unit"));
            }
            (Some(unit), _) => actor.require_unit(unit)?,
            (None, None) => {}
        }
        Ok(create_by(actor, &self.db, &self.org, &self.clock, scopes, unit).await?)
    }

    /// Takes over a key of the whole group that the operator made and keeps, with every scope but `operator`: a key gives no scope that
    /// it lacks, and this one is the first. The same key again changes nothing. `name` says in the audit record where it comes from.
    ///
    /// # Errors
    /// `forbidden` without the scope `operator`; `invalid_request` for what is no key or no name; `key_revoked`; the database's.
    pub async fn deliver(&self, actor: &Actor, secret: &str, name: &str) -> Result<KeyRecord, Problem> {
        actor.require(Scope::Operator)?;
        check_delivered(secret, name)?;
        let (hash, name) = (sha256_hex(secret.as_bytes()), name.to_owned());
        let record = KeyRecord::fresh(&hash, &DELIVERED_SCOPES, None, self.clock.now());
        let actor = actor.clone();
        let known = self.db.write("deliver key", move |tx| {
            let (actor, record, hash, name) = (actor.clone(), record.clone(), hash.clone(), name.clone());
            async move { deliver_in(tx, &actor, record, hash, &name).await }.boxed()
        });
        let known = known.await?;
        match known.revoked_at {
            None => Ok(known),
            Some(_) => Err(Problem::new(KEY_REVOKED, format!("{} was revoked; deliver another key", known.id))),
        }
    }

    /// Keys within the actor's reach, revoked ones too, by id.
    ///
    /// # Errors
    /// `forbidden`; the database's.
    pub async fn list(&self, actor: &Actor, after: &str, limit: u64) -> Result<Vec<KeyRecord>, Problem> {
        actor.require(Scope::Admin)?;
        let text = format!("SELECT {} FROM kernel_key WHERE id > $1 ORDER BY id LIMIT $2", KeyRecord::COLUMNS);
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let (mut found, mut after) = (Vec::new(), after.to_owned());
        loop {
            let rows = sql::all(self.db.reader(), &text, [after.clone().into(), LIST_ROWS.into()]).await?;
            let Some(last) = rows.last() else { return Ok(found) };
            after = sql::get(last, "id")?;
            for row in &rows {
                let record = KeyRecord::read(row)?;
                if record.is_seen_by(actor) {
                    found.push(record);
                }
                if found.len() == wanted {
                    return Ok(found);
                }
            }
        }
    }

    /// Revokes a key: this process refuses it at once, every other within [`CACHE_TIME_MS`]. A revoked one stays as it is.
    ///
    /// # Errors
    /// `forbidden`; `not_found` for a key outside the actor's reach; `last_admin_key` unless the system itself asks; the database's.
    pub async fn revoke(&self, actor: &Actor, id: &str) -> Result<KeyRecord, Problem> {
        actor.require(Scope::Admin)?;
        let (by, key, now) = (actor.clone(), id.to_owned(), self.clock.now());
        let (record, hash) = self
            .db
            .write("revoke key", move |tx| {
                let (by, key) = (by.clone(), key.clone());
                async move { revoke_in(tx, &by, &key, now).await }.boxed()
            })
            .await?;
        self.cache.remove(&hash);
        Ok(record)
    }

    /// The member that a token speaks for, while the token and its session last. Every token has a session: one that ends by time alone
    /// could not be called back.
    async fn member_of(&self, token: &str) -> Result<Option<MemberId>, Error> {
        let Some(body) = self.opened(TOKEN_PREFIX, b"session", token) else { return Ok(None) };
        let holder = self.holder_of_session(&body).await?;
        Ok(holder.and_then(|holder| if let Holder::Member(member) = holder { Some(member) } else { None }))
    }

    /// Whether milliseconds, as a token spells them, lie in the future.
    fn is_ahead(&self, text: &str) -> bool {
        text.parse::<i64>().is_ok_and(|ms| ms > self.clock.now().ms())
    }

    /// A body that everybody may carry and only this tenant can have made.
    fn signed(&self, prefix: &str, purpose: &[u8], body: &str) -> String {
        let mac = self.keys.token().mac(&[purpose, body.as_bytes()]);
        format!("{prefix}{}.{}", URL_SAFE_NO_PAD.encode(body), URL_SAFE_NO_PAD.encode(mac))
    }

    /// What [`Credentials::signed`] was given; `None` for what it never made.
    fn opened(&self, prefix: &str, purpose: &[u8], token: &str) -> Option<String> {
        let (body, mac) = token.strip_prefix(prefix)?.split_once('.')?;
        let body = URL_SAFE_NO_PAD.decode(body).ok()?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        if !same(&self.keys.token().mac(&[purpose, &body]), &mac) {
            return None;
        }
        String::from_utf8(body).ok()
    }
}

/// Compares in a time that does not depend on where the bytes differ.
pub fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
}

fn credential_of(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return (!rest.is_empty()).then(|| rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let user = decoded.split_once(':').map_or(decoded.as_str(), |(user, _)| user);
    (!user.is_empty()).then(|| user.to_owned())
}

async fn revoke_in(tx: &Tx, actor: &Actor, id: &str, now: Timestamp) -> Result<(KeyRecord, String), Error> {
    // Whoever revokes holds the keys of the group, so that two that revoke each other do not leave none.
    let lock = sql::for_update(tx.conn());
    let text =
        format!("SELECT {} FROM kernel_key WHERE unit IS NULL AND revoked_at IS NULL ORDER BY id LIMIT $1{lock}", KeyRecord::COLUMNS);
    let group = sql::all(tx.conn(), &text, [GROUP_KEYS_MAX.into()]).await?;
    let group = group.iter().map(KeyRecord::read).collect::<Result<Vec<_>, _>>()?;
    let text = format!("SELECT {} FROM kernel_key WHERE id = $1{lock}", KeyRecord::COLUMNS);
    let row = sql::one(tx.conn(), &text, [id.into()]).await?.ok_or_else(|| Problem::not_found("key", id))?;
    let (record, hash) = (KeyRecord::read(&row)?, sql::get::<String>(&row, "hash")?);
    if !record.is_seen_by(actor) {
        return Err(Problem::not_found("key", id).into());
    }
    if record.revoked_at.is_some() {
        return Ok((record, hash));
    }
    let another = group.iter().any(|key| key.id != record.id && key.administers_the_group());
    if record.administers_the_group() && !another && !actor.is_system() {
        let detail = "make another admin key of the whole group first, or use heyuan keys revoke beside the data";
        return Err(Problem::new(LAST_ADMIN_KEY, detail).into());
    }
    sql::execute(tx.conn(), "UPDATE kernel_key SET revoked_at = $2 WHERE id = $1", [id.into(), now.ms().into()]).await?;
    audit::record(tx, &audit::Entry::new(actor, "revoke key", id)).await?;
    Ok((KeyRecord { revoked_at: Some(now), ..record }, hash))
}

/// Makes a key for whoever holds the tenant's data, and returns it: the only time that it can be seen.
///
/// # Errors
/// `invalid_request` for no scope or an unknown unit; the database's.
pub async fn create(db: &Database, org: &Org, scopes: &[Scope], unit: Option<&OrgUnitId>) -> Result<String, Error> {
    let key = create_by(&Actor::system("keys"), db, org, &Clock::system(), scopes, unit).await?;
    Ok(key.secret)
}

async fn create_by(
    actor: &Actor,
    db: &Database,
    org: &Org,
    clock: &Clock,
    scopes: &[Scope],
    unit: Option<&OrgUnitId>,
) -> Result<NewKey, Error> {
    if scopes.is_empty() {
        return Err(Problem::invalid("scopes", "name at least one of ingest, app, admin, reveal, import").into());
    }
    if let Some(unit) = unit {
        org.require("unit", unit).await?;
    }
    let random: [u8; 24] = rand::random();
    let secret = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = sha256_hex(secret.as_bytes());
    let maker = (!actor.is_system()).then(|| actor.name().to_owned());
    let record = KeyRecord { maker, ..KeyRecord::fresh(&hash, scopes, unit, clock.now()) };
    let (actor, written) = (actor.clone(), record.clone());
    db.write("create key", move |tx| {
        let (actor, record, hash) = (actor.clone(), written.clone(), hash.clone());
        async move {
            if !create_in(tx, &record, hash).await? {
                return Err(id_taken().into());
            }
            audit::record(tx, &entry_of(&actor, "create key", &record)).await
        }
        .boxed()
    })
    .await?;
    Ok(NewKey { record, secret })
}

/// Whether it was not there yet.
async fn create_in(tx: &Tx, record: &KeyRecord, hash: String) -> Result<bool, Error> {
    let scopes = spelled(&record.scopes);
    let unit = record.unit.as_ref().map(|unit| unit.as_str().to_owned());
    let made = sql::execute(
        tx.conn(),
        "INSERT INTO kernel_key (id, hash, scopes, unit, created_at, maker) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        [record.id.as_str().into(), hash.into(), scopes.into(), unit.into(), record.created_at.ms().into(), record.maker.clone().into()],
    )
    .await?;
    Ok(made == 1)
}

fn spelled(scopes: &[Scope]) -> String {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    names.join(" ")
}

fn entry_of(actor: &Actor, action: &'static str, record: &KeyRecord) -> audit::Entry {
    let entry = audit::Entry::new(actor, action, &record.id).detail("scopes", spelled(&record.scopes).as_str());
    match &record.unit {
        Some(unit) => entry.detail("unit", unit.as_str()),
        None => entry,
    }
}

/// The key as it is known from now on, or was before.
async fn deliver_in(tx: &Tx, actor: &Actor, record: KeyRecord, hash: String, name: &str) -> Result<KeyRecord, Error> {
    if create_in(tx, &record, hash.clone()).await? {
        audit::record(tx, &entry_of(actor, "deliver key", &record).detail("name", name)).await?;
        return Ok(record);
    }
    let text = format!("SELECT {} FROM kernel_key WHERE hash = $1", KeyRecord::COLUMNS);
    let row = sql::one(tx.conn(), &text, [hash.into()]).await?;
    row.map(|row| KeyRecord::read(&row)).ok_or_else(id_taken)?
}

/// Another key whose hash begins alike has the id: a chance that nobody meets.
fn id_taken() -> Problem {
    Problem::new(codes::CONFLICT, "another key has the id of this one; make a new one")
}

/// What the operator may call a key: our spelling, with as much chance in it as in one of ours.
fn check_delivered(secret: &str, name: &str) -> Result<(), Problem> {
    let random = secret.strip_prefix(KEY_PREFIX).unwrap_or_default();
    let fits = random.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if !fits || !(DELIVERED_CHARACTERS_MIN..=DELIVERED_CHARACTERS_MAX).contains(&random.len()) {
        let expected =
            format!("expected {KEY_PREFIX} and {DELIVERED_CHARACTERS_MIN} to {DELIVERED_CHARACTERS_MAX} characters of A-Z a-z 0-9 _ -");
        return Err(Problem::invalid("key", expected));
    }
    if name.is_empty() || name.len() > DELIVERED_NAME_BYTES_MAX {
        return Err(Problem::invalid("name", format!("expected 1 to {DELIVERED_NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_spellings_of_a_credential() {
        for (header, expected) in [
            ("Bearer hyk_x", Some("hyk_x")),
            ("bearer  hyk_x", Some("hyk_x")),
            ("Basic aHlrX3g6", Some("hyk_x")),
            ("Basic aHlrX3g=", Some("hyk_x")),
            ("Basic !!!", None),
            ("Digest hyk_x", None),
            ("Bearer ", None),
        ] {
            assert_eq!(credential_of(header).as_deref(), expected, "{header}");
        }
    }
}
