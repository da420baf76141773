//! Joining: from any line, with an identifier that the app has verified.

use crate::books;
use crate::customers::Identifier;
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::login::Claim;
use crate::member::{self, MemberRow};
use crate::standing::MemberState;
use crate::tier;
use futures::FutureExt;
use heyuan_contract::{AnchorId, DomainEvent, Line, MemberId, OrgUnitId, Timestamp};
use heyuan_kernel::keys::Tokens;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Kernel, Problem, Scope, Tx, sql};
use std::sync::Arc;

/// Identifiers of one request.
const IDENTIFIERS_MAX: usize = 8;
/// What a member can be known by when it joins.
const KINDS: [&str; 3] = ["phone", "openid", "unionid"];
/// Longest value accepted, in bytes.
const VALUE_BYTES_MAX: usize = 200;

/// A request to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Where.
    pub unit: OrgUnitId,
    /// Identifiers, each with the word of the app that it has verified it.
    pub identifiers: Vec<(Identifier, bool)>,
}

/// A member with the session that its app acts in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The member.
    pub id: MemberId,
    /// Whether it is new.
    pub new: bool,
    /// The tier.
    pub tier: String,
    /// When it joined first.
    pub joined_at: Timestamp,
    /// A fresh session; none for a blocked member.
    pub tokens: Option<Tokens>,
}

/// How somebody comes in: by which app, where, and what of the proof is used up by it.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    /// The app that is logged in to, or the name of the key that lets the member join.
    pub(crate) app: String,
    pub(crate) unit: OrgUnitId,
    pub(crate) line: Line,
    pub(crate) claim: Option<Claim>,
}

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Members alone.
    Members,
    /// Whoever comes: strangers become members.
    Everybody,
}

impl Membership {
    /// Makes the customer behind verified identifiers a member; one that is a member already is answered as it is.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `unverified_identifier`.
    pub async fn join(&self, actor: &Actor, join: &Join) -> Result<Joined, Error> {
        actor.require(Scope::App)?;
        let line = self.line_of(actor, &join.unit)?;
        let identifiers = verified(&join.identifiers)?;
        let entrance = Entrance { app: actor.name().to_owned(), unit: join.unit.clone(), line, claim: None };
        self.enter(actor, &entrance, &identifiers, Admission::Everybody).await
    }

    /// Lets in who is behind identifiers that were verified, and opens a session, for all but blocked members.
    pub(crate) async fn enter(
        &self,
        actor: &Actor,
        entrance: &Entrance,
        identifiers: &[Identifier],
        admission: Admission,
    ) -> Result<Joined, Error> {
        let anchor = self.customers().anchor_for(actor, &entrance.unit, identifiers).await?;
        let db = &self.kernel().db;
        db.settle(|| async {
            let anchors = self.anchors_behind(&anchor).await?;
            match member::find_by_anchors(db.near(), &anchors).await? {
                Some(known) => self.readmit(entrance, &known.id).await,
                None if admission == Admission::Everybody => self.write_member(entrance, &anchor, anchors).await,
                None => Err(stranger()),
            }
        })
        .await
    }

    async fn readmit(&self, entrance: &Entrance, id: &MemberId) -> Result<Joined, Error> {
        let (membership, entrance, id) = (self.clone(), entrance.clone(), id.clone());
        self.kernel()
            .db
            .write("open a session", move |tx| {
                let (membership, entrance, id) = (membership.clone(), entrance.clone(), id.clone());
                async move {
                    let row = member::lock_any(tx, &id).await?;
                    let tokens = match row.state {
                        MemberState::Open => Some(membership.open_session(tx, &entrance, &id).await?),
                        MemberState::Blocked => None,
                        MemberState::Closed => return Err(heyuan_kernel::Error::Stale("the customer's member").into()),
                    };
                    Ok(Joined { id, new: false, tier: row.tier, joined_at: row.joined_at, tokens })
                }
                .boxed()
            })
            .await
    }

    async fn open_session(&self, tx: &Tx, entrance: &Entrance, id: &MemberId) -> Result<Tokens, Error> {
        if let Some(claim) = &entrance.claim {
            claim.use_up(tx, self.kernel().clock.now()).await?;
        }
        Ok(self.credentials().open_session(tx, id, &entrance.app, &entrance.unit).await?)
    }

    /// The unit's line, for an actor that reaches it.
    pub(crate) fn line_of(&self, actor: &Actor, unit: &OrgUnitId) -> Result<Line, Error> {
        let found = self.kernel().org.require("unit", unit)?;
        actor.require_unit(unit)?;
        let words =
            format!("{unit} is a {} and has no business line; name the mall, hotel, project, office or community", found.kind.as_str());
        Ok(found.line.ok_or_else(|| Problem::invalid("unit", words))?)
    }

    async fn write_member(&self, entrance: &Entrance, anchor: &AnchorId, anchors: Vec<AnchorId>) -> Result<Joined, Error> {
        let policies = self.tier_policies(self.kernel().db.near()).await?;
        let policy =
            tier::in_force(&policies, self.kernel().clock.now().ms()).ok_or_else(|| member::corrupt("tier policy", "there is none"))?;
        let row = MemberRow {
            id: Kernel::new_id("mbr"),
            anchor: Some(anchor.clone()),
            unit: entrance.unit.clone(),
            line: entrance.line,
            state: MemberState::Open,
            joined_at: self.kernel().clock.now(),
            tier: policy.lowest().to_owned(),
            tier_due: i64::MAX,
            tier_policy: policy.version,
        };
        let (membership, entrance) = (self.clone(), entrance.clone());
        let anchors = Arc::new(anchors);
        self.kernel()
            .db
            .write("join", move |tx| {
                let (membership, entrance, row, anchors) = (membership.clone(), entrance.clone(), row.clone(), anchors.clone());
                async move {
                    // Two who join at once with different identifiers of one customer make one member.
                    books::lock_anchors(tx, &anchors).await?;
                    if member::find_by_anchors(tx.conn(), &anchors).await?.is_some() {
                        return Err(heyuan_kernel::Error::Stale("the customer's member").into());
                    }
                    membership.insert_member(tx, row.clone()).await?;
                    membership.grant_for_tier(tx, &row, &row.tier).await?;
                    let tokens = Some(membership.open_session(tx, &entrance, &row.id).await?);
                    Ok(Joined { id: row.id, new: true, tier: row.tier, joined_at: row.joined_at, tokens })
                }
                .boxed()
            })
            .await
    }

    async fn insert_member(&self, tx: &Tx, row: MemberRow) -> Result<(), Error> {
        let anchor = row.anchor.clone();
        let inserted = sql::execute(
            tx.conn(),
            "INSERT INTO membership_member (id, anchor, unit, line, state, joined_at, tier, tier_due, tier_policy)
             VALUES ($1, $2, $3, $4, 'open', $5, $6, $7, $8)
             ON CONFLICT DO NOTHING",
            [
                row.id.as_str().into(),
                anchor.as_ref().map(|anchor| anchor.as_str().to_owned()).into(),
                row.unit.as_str().into(),
                row.line.as_str().into(),
                row.joined_at.ms().into(),
                row.tier.into(),
                row.tier_due.into(),
                row.tier_policy.into(),
            ],
        )
        .await?;
        if inserted == 0 {
            return Err(heyuan_kernel::Error::Stale("the member").into());
        }
        self.ledger().open(tx, &books::member_accounts(&row.id)).await?;
        let anchor = anchor.ok_or_else(|| member::corrupt("member", "it joins without an anchor"))?;
        let event =
            DomainEvent::MemberJoined { member: row.id.clone(), anchor, unit: row.unit, line: row.line, occurred_at: row.joined_at };
        Ok(tx.emit(row.id.as_str(), &event).await?)
    }
}

/// Nobody has joined with what was proven.
pub(crate) fn stranger() -> Error {
    Error::refused(codes::UNKNOWN_MEMBER, "nobody has joined with this log-in yet; log in with join: true to let the person join")
}

/// Identifiers that the app has verified, all of them: others name nobody, and would tie strangers together.
pub(crate) fn verified(list: &[(Identifier, bool)]) -> Result<Vec<Identifier>, Error> {
    if let Some(index) = list.iter().position(|(_, verified)| !verified) {
        let problem = Problem::new(codes::UNVERIFIED_IDENTIFIER, "verify the identifier first, then send it with verified: true");
        return Err(problem.field(format!("identifiers[{index}].verified")).into());
    }
    let identifiers: Vec<Identifier> = list.iter().map(|(identifier, _)| identifier.clone()).collect();
    check_identifiers(&identifiers)?;
    Ok(identifiers)
}

/// Refuses what can't be an identifier; never says the value.
fn check_identifiers(identifiers: &[Identifier]) -> Result<(), Problem> {
    if identifiers.is_empty() || identifiers.len() > IDENTIFIERS_MAX {
        return Err(Problem::invalid("identifiers", format!("expected 1 to {IDENTIFIERS_MAX} identifiers")));
    }
    for (index, identifier) in identifiers.iter().enumerate() {
        let at = |name: &str| format!("identifiers[{index}].{name}");
        if !KINDS.contains(&identifier.kind.as_str()) {
            return Err(Problem::invalid(&at("type"), "expected phone, openid or unionid"));
        }
        let fits = |text: &str| is_line(text, VALUE_BYTES_MAX);
        if !fits(&identifier.value) {
            return Err(Problem::invalid(&at("value"), format!("expected 1 to {VALUE_BYTES_MAX} bytes of text")));
        }
        if identifier.kind == "openid" && !identifier.app.as_deref().is_some_and(fits) {
            return Err(Problem::invalid(&at("app"), "an openid belongs to an app; name it"));
        }
    }
    Ok(())
}
