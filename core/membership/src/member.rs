//! A member: who it is, where it joined, what it has.

use crate::books;
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::standing::MemberState;
use crate::tier::TierStanding;
use heyuan_contract::{AnchorId, Line, MemberId, OrgUnitId, Timestamp, TransactionId};
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::{Actor, Scope, Tx, sql};

/// A member as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// The member.
    pub id: MemberId,
    /// Where it joined.
    pub unit: OrgUnitId,
    /// The line that it joined from.
    pub line: Line,
    /// Whether it may earn and spend.
    pub state: MemberState,
    /// When it joined.
    pub joined_at: Timestamp,
    /// The tier at this moment.
    pub tier: String,
    /// Why it has that tier and what changes it; nothing for one that has left.
    pub standing: Option<TierStanding>,
    /// Growth value of the whole history.
    pub growth: i64,
    /// Points that can be spent at this moment.
    pub points: i64,
    /// Points that were spent before they were taken back.
    pub points_owed: i64,
    /// When the first of the points expire.
    pub nearest_expiry: Option<Timestamp>,
    /// The other members of the same customer, as far as the reader reaches: customers with a member each became one.
    pub linked: Vec<MemberId>,
}

/// A member as stored.
#[derive(Debug, Clone)]
pub(crate) struct MemberRow {
    pub(crate) id: MemberId,
    pub(crate) anchor: Option<AnchorId>,
    pub(crate) unit: OrgUnitId,
    pub(crate) line: Line,
    pub(crate) state: MemberState,
    pub(crate) joined_at: Timestamp,
    pub(crate) tier: String,
    /// When time alone may change the tier.
    pub(crate) tier_due: i64,
    /// The version of the tier policy that it was looked at under.
    pub(crate) tier_policy: i64,
}

pub(crate) const COLUMNS: &str = "id, anchor, unit, line, state, joined_at, tier, tier_due, tier_policy";

pub(crate) fn corrupt(what: &'static str, why: impl std::fmt::Display) -> heyuan_kernel::Error {
    heyuan_kernel::Error::Corrupt { what, why: why.to_string() }
}

pub(crate) fn read(row: &sql::Row) -> Result<MemberRow, Error> {
    let anchor: Option<String> = sql::get(row, "anchor")?;
    let line: String = sql::get(row, "line")?;
    let state: String = sql::get(row, "state")?;
    Ok(MemberRow {
        id: MemberId::new(sql::get::<String>(row, "id")?).map_err(|e| corrupt("member", e))?,
        anchor: anchor.map(AnchorId::new).transpose().map_err(|e| corrupt("member", e))?,
        unit: OrgUnitId::new(sql::get::<String>(row, "unit")?).map_err(|e| corrupt("member", e))?,
        line: Line::parse(&line).ok_or_else(|| corrupt("member's line", line))?,
        state: MemberState::parse(&state).ok_or_else(|| corrupt("member's state", state))?,
        joined_at: Timestamp::clamped(sql::get(row, "joined_at")?),
        tier: sql::get(row, "tier")?,
        tier_due: sql::get(row, "tier_due")?,
        tier_policy: sql::get(row, "tier_policy")?,
    })
}

pub(crate) async fn find<C: sql::Connection>(conn: &C, id: &MemberId) -> Result<Option<MemberRow>, Error> {
    let text = format!("SELECT {COLUMNS} FROM membership_member WHERE id = $1");
    sql::one(conn, &text, [id.as_str().into()]).await?.as_ref().map(read).transpose()
}

/// The members with these ids, in their order; all in one statement.
pub(crate) async fn find_all<C: sql::Connection>(conn: &C, ids: &[&MemberId]) -> Result<Vec<Option<MemberRow>>, Error> {
    let mut found: Vec<Option<MemberRow>> = ids.iter().map(|_| None).collect();
    if ids.is_empty() {
        return Ok(found);
    }
    let (from, values) = bulk::source(conn, &["known_id"], &[Column::texts(ids.iter().map(ToString::to_string))]);
    let text = format!("SELECT v.place, {COLUMNS} FROM {from} JOIN membership_member ON id = v.known_id");
    for row in sql::all(conn, &text, values).await? {
        *bulk::of_place(&mut found, &row)? = Some(read(&row)?);
    }
    Ok(found)
}

/// The member that one of these anchors is proven for; the first that joined when customers with a member each became one.
pub(crate) async fn find_by_anchors<C: sql::Connection>(conn: &C, anchors: &[AnchorId]) -> Result<Option<MemberRow>, Error> {
    Ok(all_by_anchors(conn, anchors, 1).await?.pop())
}

/// Every member that has not left and that one of these anchors is proven for, the first that joined first.
pub(crate) async fn all_by_anchors<C: sql::Connection>(conn: &C, anchors: &[AnchorId], limit: u64) -> Result<Vec<MemberRow>, Error> {
    if anchors.is_empty() {
        return Ok(Vec::new());
    }
    let (list, limit_at) = (sql::placeholders(1, anchors.len()), anchors.len() + 1);
    let text = format!(
        "SELECT {COLUMNS} FROM membership_member WHERE anchor IN ({list})
         UNION SELECT {COLUMNS} FROM membership_member
           WHERE id IN (SELECT member FROM membership_proof WHERE membership_proof.anchor IN ({list})) AND state <> 'closed'
         ORDER BY joined_at, id LIMIT ${limit_at}"
    );
    let mut values: Vec<sea_orm::Value> = anchors.iter().map(|anchor| anchor.as_str().into()).collect();
    values.push(limit.into());
    sql::all(conn, &text, values).await?.iter().map(read).collect()
}

/// The members that hold one of these anchors, or held it when they left.
pub(crate) async fn find_ever<C: sql::Connection>(conn: &C, anchors: &[AnchorId], limit: u64) -> Result<Vec<MemberId>, Error> {
    if anchors.is_empty() {
        return Ok(Vec::new());
    }
    let (list, former) = (sql::placeholders(2, anchors.len()), sql::placeholders(anchors.len() + 2, anchors.len()));
    let text = format!("SELECT id FROM membership_member WHERE anchor IN ({list}) OR former_anchor IN ({former}) ORDER BY id LIMIT $1");
    let mut values: Vec<sea_orm::Value> = vec![limit.into()];
    values.extend(anchors.iter().chain(anchors).map(|anchor| sea_orm::Value::from(anchor.as_str())));
    let id = |row: &sql::Row| Ok(MemberId::new(sql::get::<String>(row, "id")?).map_err(|e| corrupt("member", e))?);
    sql::all(conn, &text, values).await?.iter().map(id).collect()
}

/// A member that holds one of these anchors, or held it when it left.
pub(crate) async fn find_former<C: sql::Connection>(conn: &C, anchors: &[AnchorId]) -> Result<Option<MemberId>, Error> {
    Ok(find_ever(conn, anchors, 1).await?.into_iter().next())
}

impl MemberRow {
    /// Refuses a member that may neither earn nor spend.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.state {
            MemberState::Open => Ok(()),
            MemberState::Blocked => Err(Error::refused(codes::MEMBER_BLOCKED, format!("member {} neither earns nor spends", self.id))),
            MemberState::Closed => Err(Error::refused(codes::MEMBER_CLOSED, format!("member {} has left", self.id))),
        }
    }
}

/// Locks an open member until the commit; everything that moves its growth or points takes this lock before the book's.
pub(crate) async fn lock(tx: &Tx, id: &MemberId) -> Result<MemberRow, Error> {
    let member = lock_any(tx, id).await?;
    member.check_open()?;
    Ok(member)
}

/// A member locked for posting a purchase, with what else the purchase depends on.
pub(crate) struct Poised {
    pub(crate) member: MemberRow,
    /// The newest earn rules.
    pub(crate) earn_version: i64,
    /// The newest tier policy.
    pub(crate) tier_version: i64,
    /// Whether refunds wait for the purchase.
    pub(crate) refunds_wait: bool,
}

/// As [`lock`] for the members of purchases, each of another one, and in the same statement everything else that the purchases depend on in
/// membership's tables. The purchases' own locks are held already, so that no refund comes between. Members are locked in one order for
/// everybody.
pub(crate) async fn lock_for_purchases(tx: &Tx, purchases: &[(&MemberId, &OrgUnitId, &TransactionId)]) -> Result<Vec<Poised>, Error> {
    let columns = [
        Column::texts(purchases.iter().map(|(member, _, _)| member.to_string())),
        Column::texts(purchases.iter().map(|(_, unit, _)| unit.to_string())),
        Column::texts(purchases.iter().map(|(_, _, purchase)| purchase.to_string())),
    ];
    let (from, values) = bulk::source(tx.conn(), &["buyer", "shop", "purchase"], &columns);
    let lock = sql::for_update(tx.conn());
    let text = format!(
        "SELECT v.place, m.id, m.anchor, m.unit, m.line, m.state, m.joined_at, m.tier, m.tier_due, m.tier_policy,
           (SELECT MAX(version) FROM membership_earn_rules) AS earn_version, (SELECT MAX(version) FROM membership_tier_policy) AS tier_version,
           (SELECT COUNT(*) FROM membership_transaction t WHERE t.unit = v.shop AND t.refund_of = v.purchase AND t.state = 'waiting')
             AS refunds_wait
         FROM {from} JOIN membership_member m ON m.id = v.buyer ORDER BY m.id{lock}"
    );
    let mut found: Vec<Option<Poised>> = purchases.iter().map(|_| None).collect();
    for row in sql::all(tx.conn(), &text, values).await? {
        let member = read(&row)?;
        member.check_open()?;
        let poised = Poised {
            member,
            earn_version: sql::get(&row, "earn_version")?,
            tier_version: sql::get(&row, "tier_version")?,
            refunds_wait: sql::get::<i64>(&row, "refunds_wait")? > 0,
        };
        *bulk::of_place(&mut found, &row)? = Some(poised);
    }
    purchases.iter().zip(found).map(|((member, _, _), poised)| poised.ok_or_else(|| unknown(member))).collect()
}

/// The same for a member that may have left: what is taken back is taken back from those, too.
pub(crate) async fn lock_any(tx: &Tx, id: &MemberId) -> Result<MemberRow, Error> {
    lock_if_there(tx, id).await?.ok_or_else(|| unknown(id))
}

/// The same for one that may be none of ours.
pub(crate) async fn lock_if_there(tx: &Tx, id: &MemberId) -> Result<Option<MemberRow>, Error> {
    let lock = sql::for_update(tx.conn());
    let text = format!("SELECT {COLUMNS} FROM membership_member WHERE id = $1{lock}");
    sql::one(tx.conn(), &text, [id.as_str().into()]).await?.as_ref().map(read).transpose()
}

pub(crate) fn unknown(id: &MemberId) -> Error {
    Error::refused(codes::UNKNOWN_MEMBER, format!("there is no member {id} that this key may see"))
}

impl Membership {
    /// A member, for a key that reaches the unit where it joined, or for the member itself.
    ///
    /// # Errors
    /// `forbidden`, also for the token of a member that has left; `unknown_member`.
    pub async fn member(&self, actor: &Actor, id: &MemberId) -> Result<MemberView, Error> {
        let row = self.visible_member(actor, id).await?;
        let linked = self.linked_to(actor, &row).await?;
        let now = self.kernel().clock.now();
        let reader = self.kernel().db.near();
        let (points, nearest_expiry) = self.ledger().spendable(&books::points_account(id), now).await?;
        let growth = self.ledger().balance(&books::growth_account(id)).await?.balance;
        let owed = self.ledger().balance(&books::receivable_account(id)).await?.balance;
        let (tier, standing) = match row.state {
            MemberState::Closed => (row.tier, None),
            _ => self.explain_tier(reader, &row, now).await.map(|(tier, standing)| (tier, Some(standing)))?,
        };
        Ok(MemberView {
            id: row.id,
            unit: row.unit,
            line: row.line,
            state: row.state,
            joined_at: row.joined_at,
            tier,
            standing,
            growth,
            points,
            points_owed: -owed,
            nearest_expiry,
            linked,
        })
    }

    pub(crate) async fn visible_member(&self, actor: &Actor, id: &MemberId) -> Result<MemberRow, Error> {
        actor.require_for_member(Scope::App, id)?;
        let row = find(self.kernel().db.near(), id).await?.ok_or_else(|| unknown(id))?;
        // A member that has left keeps its tokens a little longer, to leave once more when the answer was lost.
        if actor.as_member().is_some() && row.state == MemberState::Closed {
            return Err(Error::refused(kernel_codes::FORBIDDEN, "the membership that this token speaks for has ended"));
        }
        if actor.reach().covers(&row.unit) { Ok(row) } else { Err(unknown(id)) }
    }

    /// Whether there is such a member and it has not left; a blocked one still buys, without earning.
    ///
    /// # Errors
    /// The database's.
    pub async fn exists(&self, id: &MemberId) -> Result<bool, Error> {
        Ok(find(self.kernel().db.near(), id).await?.is_some_and(|member| member.state != MemberState::Closed))
    }
}
