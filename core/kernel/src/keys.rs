//! API keys and member tokens: how a request becomes an actor.

use crate::actor::{Actor, Reach, Scope};
use crate::database::Database;
use crate::error::{Error, Problem, codes};
use crate::org::Org;
use crate::secret::{TenantKeys, sha256_hex};
use crate::sql;
use crate::time::{Clock, now_ms};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::FutureExt;
use heyuan_contract::{MemberId, OrgUnitId, Timestamp};
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Keys remembered, so that a request costs no query.
const KEYS_CACHED_MAX: usize = 1000;
/// A revoked key is refused everywhere after this long.
const CACHE_TIME_MS: i64 = 5_000;
/// The start of every API key.
const KEY_PREFIX: &str = "hyk_";
/// The start of every member token.
const TOKEN_PREFIX: &str = "hym_";
/// How long a member token lasts.
pub const TOKEN_TIME_MS: i64 = 24 * 3_600_000;

/// Makes, knows and checks credentials.
#[derive(Clone)]
pub struct Credentials {
    db: Database,
    org: Org,
    keys: TenantKeys,
    clock: Clock,
    cache: Arc<Cache<String, (i64, Stored)>>,
}

#[derive(Debug, Clone)]
struct Stored {
    id: String,
    scopes: Vec<Scope>,
    unit: Option<OrgUnitId>,
}

impl Credentials {
    /// Credentials of the tenant.
    pub fn new(db: Database, org: Org, keys: TenantKeys, clock: Clock) -> Credentials {
        Credentials { db, org, keys, clock, cache: Arc::new(Cache::new(KEYS_CACHED_MAX)) }
    }

    /// The actor behind an `Authorization` header: `Bearer KEY`, or Basic with the key as user, as the Segment SDKs send it.
    ///
    /// # Errors
    /// `unauthenticated`; the database's.
    pub async fn authenticate(&self, header: Option<&str>) -> Result<Actor, Problem> {
        let stranger = || Problem::new(codes::UNAUTHENTICATED, "send Authorization: Bearer KEY, or the key as the user of Basic auth");
        let credential = header.and_then(credential_of).ok_or_else(stranger)?;
        if credential.starts_with(TOKEN_PREFIX) {
            return self.open_token(&credential).map(Actor::member).ok_or_else(stranger);
        }
        let stored = self.find(&credential).await?.ok_or_else(stranger)?;
        let reach = match &stored.unit {
            None => Reach::Everything,
            Some(unit) => Reach::Units(Arc::new(self.org.tree().subtree(unit))),
        };
        Ok(Actor::key(format!("key:{}", stored.id), stored.scopes, stored.unit, reach))
    }

    async fn find(&self, secret: &str) -> Result<Option<Stored>, Error> {
        let hash = sha256_hex(secret.as_bytes());
        let now = now_ms();
        if let Some((read_at, stored)) = self.cache.get(&hash)
            && now - read_at < CACHE_TIME_MS
        {
            return Ok(Some(stored));
        }
        let row = sql::one(
            self.db.reader(),
            "SELECT id, scopes, unit FROM kernel_key WHERE hash = $1 AND revoked_at IS NULL",
            [hash.clone().into()],
        )
        .await?;
        let Some(row) = row else {
            self.cache.remove(&hash);
            return Ok(None);
        };
        let scopes: String = sql::get(&row, "scopes")?;
        let unit: Option<String> = sql::get(&row, "unit")?;
        let stored = Stored {
            id: sql::get(&row, "id")?,
            scopes: scopes.split(' ').filter_map(Scope::parse).collect(),
            unit: unit.map(OrgUnitId::new).transpose().map_err(|e| Error::Corrupt { what: "key", why: e.to_string() })?,
        };
        self.cache.insert(hash, (now, stored.clone()));
        Ok(Some(stored))
    }

    /// A token with which this member's app acts for it.
    pub fn member_token(&self, member: &MemberId) -> (String, Timestamp) {
        let expires = self.clock.now().plus_ms(TOKEN_TIME_MS);
        let body = format!("{}.{}", member.as_str(), expires.ms());
        let mac = self.keys.token().mac(&[b"member", body.as_bytes()]);
        (format!("{TOKEN_PREFIX}{}.{}", URL_SAFE_NO_PAD.encode(&body), URL_SAFE_NO_PAD.encode(mac)), expires)
    }

    fn open_token(&self, token: &str) -> Option<MemberId> {
        let (body, mac) = token.strip_prefix(TOKEN_PREFIX)?.split_once('.')?;
        let body = URL_SAFE_NO_PAD.decode(body).ok()?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        let expected = self.keys.token().mac(&[b"member", &body]);
        if !same(&expected, &mac) {
            return None;
        }
        let body = String::from_utf8(body).ok()?;
        let (member, expires) = body.rsplit_once('.')?;
        (expires.parse::<i64>().ok()? > self.clock.now().ms()).then(|| MemberId::new(member).ok())?
    }
}

/// Compares in a time that does not depend on where the bytes differ.
fn same(left: &[u8], right: &[u8]) -> bool {
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

/// Makes a key and returns it: the only time that it can be seen.
///
/// # Errors
/// `invalid_request` for no scope or an unknown unit; the database's.
pub async fn create(db: &Database, org: &Org, scopes: &[Scope], unit: Option<&OrgUnitId>) -> Result<String, Error> {
    if scopes.is_empty() {
        return Err(Problem::invalid("scopes", "name at least one of ingest, app, admin, reveal, import").into());
    }
    if let Some(unit) = unit {
        org.require("unit", unit)?;
    }
    let random: [u8; 24] = rand::random();
    let secret = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = sha256_hex(secret.as_bytes());
    let id = format!("key_{}", &hash[..12]);
    let mut names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let scopes = names.join(" ");
    let unit = unit.map(|unit| unit.as_str().to_owned());
    db.write("create key", move |tx| {
        let (id, hash, scopes, unit) = (id.clone(), hash.clone(), scopes.clone(), unit.clone());
        async move {
            sql::execute(
                tx.conn(),
                "INSERT INTO kernel_key (id, hash, scopes, unit, created_at) VALUES ($1, $2, $3, $4, $5)",
                [id.into(), hash.into(), scopes.into(), unit.into(), now_ms().into()],
            )
            .await?;
            Ok::<(), Error>(())
        }
        .boxed()
    })
    .await?;
    Ok(secret)
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
