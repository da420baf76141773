//! Grants by hand: a tier until an instant, with a reason. The tier that counts is the higher one of the earned and the granted.

use super::replay::Granted;
use crate::error::Error;
use crate::facade::Membership;
use crate::member::{self, corrupt};
use crate::standing::check_reason;
use futures::FutureExt;
use heyuan_contract::{EntryId, MemberId, Timestamp};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::{Actor, Kernel, Problem, Tx, audit, sql};
use serde::Serialize;

/// Grants of a member that hold at one time.
const LIVE_MAX: u64 = 20;
/// How far ahead a grant ends at most.
const AHEAD_MS: i64 = 10 * 366 * 86_400_000;

const COLUMNS: &str = "id, member, tier, reason, granted_at, until_at, ends_at, revoked_at, idempotency_digest";

/// A tier to be granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrantTier {
    /// One of the ladder in force.
    pub tier: String,
    /// When it ends by itself.
    pub until: Timestamp,
    /// Why, without personal data.
    pub reason: String,
}

/// A tier that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierGrant {
    /// Its id.
    pub id: String,
    /// Whose.
    pub member: MemberId,
    /// The tier.
    pub tier: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub granted_at: Timestamp,
    /// When it was to end.
    pub until: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// When it ends or ended: earlier than it was to when it was revoked, or when the membership ended.
    pub ends_at: Timestamp,
}

impl Membership {
    /// Grants a tier by hand; audited. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `unknown_member`, `member_closed`, `member_blocked`, `conflict` when the member has too many,
    /// `idempotency_key_reused`.
    pub async fn grant_tier(&self, actor: &Actor, id: &MemberId, wanted: &GrantTier, header: Option<&str>) -> Result<TierGrant, Error> {
        self.staffs_member(actor, id).await?;
        let key = IdempotencyKey::new(actor, "grant tier", header, &(id, wanted))?;
        check_reason(&wanted.reason)?;
        self.kernel()
            .db
            .settle(|| async {
                if let Some((known, digest)) = by_key(self.kernel().db.near(), &key.stored).await? {
                    key.check(&digest)?;
                    return Ok(known);
                }
                let now = self.kernel().clock.now();
                if !(now.ms() + 1..=now.ms() + AHEAD_MS).contains(&wanted.until.ms()) {
                    return Err(Problem::invalid("until", "expected an instant ahead, at most ten years from now").into());
                }
                let entry = audit::Entry::new(actor, "grant tier", id.as_str())
                    .detail("tier", wanted.tier.as_str())
                    .detail("until_ms", wanted.until.ms())
                    .detail("reason", wanted.reason.as_str());
                let (membership, id, wanted, key) = (self.clone(), id.clone(), wanted.clone(), key.clone());
                self.kernel()
                    .db
                    .write("grant a tier", move |tx| {
                        let (membership, id, wanted) = (membership.clone(), id.clone(), wanted.clone());
                        let (key, entry) = (key.clone(), entry.clone());
                        async move { membership.write_tier_grant(tx, &id, wanted, &key, &entry).await }.boxed()
                    })
                    .await
            })
            .await
    }

    async fn write_tier_grant(
        &self,
        tx: &Tx,
        id: &MemberId,
        wanted: GrantTier,
        key: &IdempotencyKey,
        entry: &audit::Entry,
    ) -> Result<TierGrant, Error> {
        let row = member::lock(tx, id).await?;
        let policies = self.tier_policies(tx.conn()).await?;
        let at = self.kernel().clock.now();
        if super::in_force(&policies, at.ms()).and_then(|policy| policy.rank(&wanted.tier)).is_none() {
            return Err(Problem::invalid("tier", "the ladder in force has no such tier; list it at /v1/tier-policies").into());
        }
        if u64::try_from(live(tx.conn(), id, at).await?.len()).unwrap_or(u64::MAX) >= LIVE_MAX {
            let words = format!("member {id} has {LIVE_MAX} grants of tiers; revoke one first");
            return Err(Error::refused(kernel_codes::CONFLICT, words));
        }
        let grant = TierGrant {
            id: Kernel::new_id::<EntryId>("tgr").to_string(),
            member: id.clone(),
            tier: wanted.tier,
            reason: wanted.reason,
            granted_at: at,
            until: wanted.until,
            revoked_at: None,
            ends_at: wanted.until,
        };
        let inserted = sql::execute(
            tx.conn(),
            "INSERT INTO membership_tier_grant (id, member, tier, reason, granted_at, until_at, ends_at, idempotency, idempotency_digest)
             VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8) ON CONFLICT (idempotency) DO NOTHING",
            [
                grant.id.clone().into(),
                id.as_str().into(),
                grant.tier.clone().into(),
                grant.reason.clone().into(),
                at.ms().into(),
                grant.until.ms().into(),
                key.stored.clone().into(),
                key.digest.clone().into(),
            ],
        )
        .await?;
        if inserted == 0 {
            return Err(heyuan_kernel::Error::Stale("a grant with the same key").into());
        }
        self.settle_tier_under(tx, &row, &policies).await?;
        audit::record(tx, entry).await?;
        Ok(grant)
    }

    /// Ends a grant at once; audited. One that has ended stays as it is.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `unknown_member`, `not_found`.
    pub async fn revoke_tier(&self, actor: &Actor, id: &MemberId, grant: &str, reason: &str) -> Result<TierGrant, Error> {
        self.staffs_member(actor, id).await?;
        check_reason(reason)?;
        let entry = audit::Entry::new(actor, "revoke tier", id.as_str()).detail("grant", grant).detail("reason", reason);
        let (membership, id, grant) = (self.clone(), id.clone(), grant.to_owned());
        self.kernel()
            .db
            .write("revoke a tier", move |tx| {
                let (membership, id, grant, entry) = (membership.clone(), id.clone(), grant.clone(), entry.clone());
                async move { membership.write_tier_revocation(tx, &id, &grant, &entry).await }.boxed()
            })
            .await
    }

    async fn write_tier_revocation(&self, tx: &Tx, id: &MemberId, grant: &str, entry: &audit::Entry) -> Result<TierGrant, Error> {
        let row = member::lock_any(tx, id).await?;
        let text = format!("SELECT {COLUMNS} FROM membership_tier_grant WHERE id = $1 AND member = $2");
        let found = sql::one(tx.conn(), &text, [grant.into(), id.as_str().into()]).await?;
        let (mut found, _) = read(&found.ok_or_else(|| Problem::not_found("tier grant", grant))?)?;
        let at = self.kernel().clock.now();
        if found.ends_at <= at {
            return Ok(found);
        }
        let text = "UPDATE membership_tier_grant SET revoked_at = $2, ends_at = $2 WHERE id = $1";
        sql::execute(tx.conn(), text, [grant.into(), at.ms().into()]).await?;
        self.settle_tier(tx, &row).await?;
        audit::record(tx, entry).await?;
        (found.revoked_at, found.ends_at) = (Some(at), at);
        Ok(found)
    }

    /// A member's grants of tiers, newest first.
    ///
    /// # Errors
    /// `forbidden`, `unknown_member`.
    pub async fn tier_grants(&self, actor: &Actor, id: &MemberId, before: Option<String>, limit: u64) -> Result<Vec<TierGrant>, Error> {
        self.staffs_member(actor, id).await?;
        let text =
            format!("SELECT {COLUMNS} FROM membership_tier_grant WHERE member = $1 AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3");
        let before = before.unwrap_or_default();
        let rows = sql::all(self.kernel().db.near(), &text, [id.as_str().into(), before.into(), limit.into()]).await?;
        rows.iter().map(|row| Ok(read(row)?.0)).collect()
    }
}

/// The grants of a member that hold at an instant or later.
pub(super) async fn live<C: sql::Connection>(conn: &C, member: &MemberId, at: Timestamp) -> Result<Vec<Granted>, Error> {
    let text = "SELECT id, tier, granted_at, ends_at FROM membership_tier_grant WHERE member = $1 AND ends_at > $2 ORDER BY id LIMIT $3";
    let rows = sql::all(conn, text, [member.as_str().into(), at.ms().into(), LIVE_MAX.into()]).await?;
    rows.iter().map(granted).collect()
}

pub(super) fn granted(row: &sql::Row) -> Result<Granted, Error> {
    Ok(Granted {
        id: sql::get(row, "id")?,
        tier: sql::get(row, "tier")?,
        from_ms: sql::get(row, "granted_at")?,
        until_ms: sql::get(row, "ends_at")?,
    })
}

/// Ends every grant of a locked member whose membership ends.
pub(crate) async fn end_all(tx: &Tx, member: &MemberId, at: Timestamp) -> Result<(), Error> {
    let text = "UPDATE membership_tier_grant SET ends_at = $2 WHERE member = $1 AND ends_at > $2";
    sql::execute(tx.conn(), text, [member.as_str().into(), at.ms().into()]).await?;
    Ok(())
}

/// Empties the words on an erased member's grants; what was granted until when stays.
pub(crate) async fn erase(tx: &Tx, member: &MemberId) -> Result<(), Error> {
    sql::execute(tx.conn(), "UPDATE membership_tier_grant SET reason = '' WHERE member = $1", [member.as_str().into()]).await?;
    Ok(())
}

async fn by_key<C: sql::Connection>(conn: &C, stored: &str) -> Result<Option<(TierGrant, String)>, Error> {
    let text = format!("SELECT {COLUMNS} FROM membership_tier_grant WHERE idempotency = $1");
    sql::one(conn, &text, [stored.into()]).await?.as_ref().map(read).transpose()
}

fn read(row: &sql::Row) -> Result<(TierGrant, String), Error> {
    let at = |column| Ok::<_, Error>(Timestamp::clamped(sql::get(row, column)?));
    let grant = TierGrant {
        id: sql::get(row, "id")?,
        member: MemberId::new(sql::get::<String>(row, "member")?).map_err(|e| corrupt("tier grant", e))?,
        tier: sql::get(row, "tier")?,
        reason: sql::get(row, "reason")?,
        granted_at: at("granted_at")?,
        until: at("until_at")?,
        revoked_at: sql::get::<Option<i64>>(row, "revoked_at")?.map(Timestamp::clamped),
        ends_at: at("ends_at")?,
    };
    Ok((grant, sql::get(row, "idempotency_digest")?))
}
