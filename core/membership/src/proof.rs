//! What a member has proven to be its own: that alone lets it in, and that alone is erased on its word
//! (`docs/adr/0021-who-proved-it-is-let-in.md`).
//!
//! The anchor that a member hangs on is proven, whether or not the table has it: members of earlier releases have no rows. An anchor is proven
//! for one member at most that has not left: the one that showed it first.

use crate::customers::Identifier;
use crate::error::Error;
use crate::member::{self, MemberRow};
use heyuan_contract::{AnchorId, MemberId, Timestamp};
use heyuan_kernel::{Tx, sql};
use std::collections::HashMap;

/// Anchors kept for one member: a person with more phones and apps shows the others again.
const ANCHORS_MAX: usize = 50;

/// Something that is shown to be let in by, as what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) anchor: AnchorId,
    /// Of which a person has one: `phone`, `unionid`, `openid@mall`.
    pub(crate) kind: String,
}

/// What an identifier is, as the table spells it.
pub(crate) fn kind_of(identifier: &Identifier) -> String {
    match &identifier.app {
        Some(app) => format!("{}@{}", identifier.kind, app.trim().to_lowercase()),
        None => identifier.kind.clone(),
    }
}

/// Whose these anchors are, as far as they are proven for a member that has not left.
pub(crate) async fn owners<C: sql::Connection>(conn: &C, anchors: &[AnchorId]) -> Result<HashMap<AnchorId, MemberId>, Error> {
    if anchors.is_empty() {
        return Ok(HashMap::new());
    }
    let list = sql::placeholders(1, anchors.len());
    // What a member hangs on comes last and counts: a release before this one asked nobody whose an anchor was proven to be.
    let text = format!(
        "SELECT p.anchor AS anchor, p.member AS member, 0 AS place FROM membership_proof p JOIN membership_member m ON m.id = p.member
           WHERE p.anchor IN ({list}) AND m.state <> 'closed'
         UNION ALL SELECT anchor, id, 1 FROM membership_member WHERE anchor IN ({list}) ORDER BY place, member"
    );
    let values: Vec<sea_orm::Value> = anchors.iter().map(|anchor| anchor.as_str().into()).collect();
    let rows = sql::all(conn, &text, values).await?;
    let owner = |row: &sql::Row| {
        let anchor = AnchorId::new(sql::get::<String>(row, "anchor")?).map_err(|e| member::corrupt("proven anchor", e))?;
        let member = MemberId::new(sql::get::<String>(row, "member")?).map_err(|e| member::corrupt("proven anchor", e))?;
        Ok((anchor, member))
    };
    rows.iter().map(owner).collect()
}

/// The member that has not left for which the strongest is proven of what is shown, strongest first. A weaker thing leads to no member that
/// has proven another one of a stronger kind that is shown: a family's phone opens nobody's membership to who has a WeChat account of
/// his own.
pub(crate) async fn owner<C: sql::Connection>(conn: &C, shown: &[Shown]) -> Result<Option<MemberRow>, Error> {
    let anchors: Vec<AnchorId> = shown.iter().map(|one| one.anchor.clone()).collect();
    let owners = owners(conn, &anchors).await?;
    for (place, one) in shown.iter().enumerate() {
        let Some(id) = owners.get(&one.anchor) else { continue };
        if !has_another(conn, id, &shown[..place]).await? {
            return member::find(conn, id).await;
        }
    }
    Ok(None)
}

/// Whether a member has proven something of the kind of one of these, none of which is its own.
async fn has_another<C: sql::Connection>(conn: &C, id: &MemberId, shown: &[Shown]) -> Result<bool, Error> {
    if shown.is_empty() {
        return Ok(false);
    }
    let text = format!("SELECT COUNT(*) AS n FROM membership_proof WHERE member = $1 AND kind IN ({})", sql::placeholders(2, shown.len()));
    let mut values: Vec<sea_orm::Value> = vec![id.as_str().into()];
    values.extend(shown.iter().map(|one| sea_orm::Value::from(one.kind.as_str())));
    Ok(sql::count(conn, &text, values).await? > 0)
}

/// Keeps that what is shown is a member's own, as far as it is nobody else's; answers how much of it was nobody's. Anchors and member are
/// locked.
pub(crate) async fn prove(tx: &Tx, id: &MemberId, shown: &[Shown], by: &str, at: Timestamp) -> Result<usize, Error> {
    let anchors: Vec<AnchorId> = shown.iter().map(|one| one.anchor.clone()).collect();
    let owners = owners(tx.conn(), &anchors).await?;
    let kept = sql::count(tx.conn(), "SELECT COUNT(*) AS n FROM membership_proof WHERE member = $1", [id.as_str().into()]).await?;
    let room = ANCHORS_MAX.saturating_sub(usize::try_from(kept).unwrap_or(usize::MAX));
    let mut fresh = 0;
    for one in shown.iter().filter(|one| owners.get(&one.anchor).is_none_or(|owner| owner == id)).take(room) {
        let text =
            "INSERT INTO membership_proof (member, anchor, kind, proven_at, proven_by) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let values = [id.as_str().into(), one.anchor.as_str().into(), one.kind.as_str().into(), at.ms().into(), by.into()];
        sql::execute(tx.conn(), text, values).await?;
        fresh += usize::from(!owners.contains_key(&one.anchor));
    }
    Ok(fresh)
}

/// What a member that has left had proven to be its own; nothing once it was erased.
pub(crate) async fn of_departed<C: sql::Connection>(conn: &C, id: &MemberId) -> Result<Vec<AnchorId>, Error> {
    let text = "SELECT former_anchor AS anchor FROM membership_member WHERE id = $1 AND former_anchor IS NOT NULL
                UNION SELECT anchor FROM membership_proof WHERE member = $1 ORDER BY anchor";
    let rows = sql::all(conn, text, [id.as_str().into()]).await?;
    let anchor = |row: &sql::Row| Ok(AnchorId::new(sql::get::<String>(row, "anchor")?).map_err(|e| member::corrupt("proven anchor", e))?);
    rows.iter().map(anchor).collect()
}

/// Forgets what a member had proven.
pub(crate) async fn forget(tx: &Tx, id: &MemberId) -> Result<(), Error> {
    sql::execute(tx.conn(), "DELETE FROM membership_proof WHERE member = $1", [id.as_str().into()]).await?;
    Ok(())
}

/// Forgets whom erased anchors belonged to.
pub(crate) async fn forget_anchors(tx: &Tx, anchors: &[AnchorId]) -> Result<(), Error> {
    if anchors.is_empty() {
        return Ok(());
    }
    let text = format!("DELETE FROM membership_proof WHERE anchor IN ({})", sql::placeholders(1, anchors.len()));
    let values: Vec<sea_orm::Value> = anchors.iter().map(|anchor| anchor.as_str().into()).collect();
    sql::execute(tx.conn(), &text, values).await?;
    Ok(())
}
