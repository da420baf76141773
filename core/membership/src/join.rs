//! Joining: from any line, with an identifier that the app has verified.

use crate::books;
use crate::customers::Identifier;
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::login::Claim;
use crate::member::{self, MemberRow};
use crate::proof::{self, Shown};
use crate::standing::MemberState;
use crate::tier;
use futures::FutureExt;
use heyuan_contract::{AnchorId, DomainEvent, Line, MemberId, OrgUnitId, Timestamp};
use heyuan_kernel::keys::Tokens;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Kernel, Problem, Scope, Tx, audit, sql};
use std::sync::Arc;

/// Identifiers of one request.
const IDENTIFIERS_MAX: usize = 8;
/// What a member can be known by when it joins.
const KINDS: [&str; 3] = ["phone", "openid", "unionid"];
/// Longest value accepted, in bytes.
const VALUE_BYTES_MAX: usize = 200;

/// For whom a key that lets people join wants a session. One for whoever is looked up would end the sessions that members are in: an app
/// keeps ten of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionFor {
    /// Who joins now.
    #[default]
    NewMembers,
    /// Also who is a member already.
    Everybody,
    /// Nobody.
    Nobody,
}

/// A request to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Where.
    pub unit: OrgUnitId,
    /// Identifiers, each with the word of the app that it has verified it.
    pub identifiers: Vec<(Identifier, bool)>,
    /// Who gets a session.
    pub session: SessionFor,
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
    /// A fresh session, where one was asked for; none for a blocked member, for one that the key does not reach, and for one that nothing of
    /// what was shown is proven for.
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
    pub(crate) word: Word,
}

/// On whose word somebody comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The person's own, who has proven who it is.
    Person,
    /// A key's, which says that it has verified what it sends.
    Key(SessionFor),
}

impl Word {
    /// Whether a member that is known already gets a session.
    fn readmits(self) -> bool {
        matches!(self, Word::Person | Word::Key(SessionFor::Everybody))
    }

    /// Whether a member that was only seen beside what is shown is the answer, rather than a member of one's own. A person that has proven
    /// who it is joins by that whatever strangers say of it, but not past the blacklist.
    fn is_answered_by(self, seen: &MemberRow) -> bool {
        matches!(self, Word::Key(_)) || seen.state == MemberState::Blocked
    }
}

/// Who comes: what is shown, strongest first, and the anchors of everything that was seen beside the strongest.
#[derive(Debug)]
struct Comer {
    shown: Vec<Shown>,
    behind: Vec<AnchorId>,
}

/// What is known of who comes.
enum Known {
    /// Something of what is shown is proven for this member.
    Proven(MemberRow),
    /// This member counts for the customer, by evidence that anybody may have sent: it lets nobody in.
    Seen(MemberRow),
    Nobody,
}

impl Comer {
    async fn known<C: sql::Connection>(&self, conn: &C) -> Result<Known, Error> {
        if let Some(row) = proof::owner(conn, &self.shown).await? {
            return Ok(Known::Proven(row));
        }
        Ok(member::find_by_anchors(conn, &self.behind).await?.map_or(Known::Nobody, Known::Seen))
    }
}

impl Joined {
    /// A member without a session.
    fn told(row: MemberRow) -> Joined {
        Joined { id: row.id, new: false, tier: row.tier, joined_at: row.joined_at, tokens: None }
    }
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
    /// Makes the customer behind verified identifiers a member; one that is a member already is answered as it is. A session of a member
    /// that is known is opened only where it is asked for, for a member within the key's reach for which one of the identifiers is proven;
    /// what else was shown is then proven for it as well. Both are audited.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `unverified_identifier`.
    pub async fn join(&self, actor: &Actor, join: &Join) -> Result<Joined, Error> {
        actor.require(Scope::App)?;
        let line = self.line_of(actor, &join.unit).await?;
        let identifiers = verified(&join.identifiers)?;
        let word = Word::Key(join.session);
        let entrance = Entrance { app: actor.name().to_owned(), unit: join.unit.clone(), line, claim: None, word };
        self.enter(actor, &entrance, &identifiers, Admission::Everybody).await
    }

    /// Lets in who is behind identifiers that were verified, and opens a session where one is wanted, for all but blocked members.
    pub(crate) async fn enter(
        &self,
        actor: &Actor,
        entrance: &Entrance,
        identifiers: &[Identifier],
        admission: Admission,
    ) -> Result<Joined, Error> {
        let strongest = self.customers().anchor_for(actor, &entrance.unit, identifiers).await?;
        let db = &self.kernel().db;
        db.settle(|| async {
            let comer = Comer { shown: self.shown(identifiers).await?, behind: self.anchors_behind(&strongest).await? };
            match comer.known(db.near()).await? {
                Known::Proven(row) => self.readmit(actor, entrance, row, &comer.shown).await,
                Known::Seen(row) if entrance.word.is_answered_by(&row) => Ok(Joined::told(row)),
                Known::Seen(_) | Known::Nobody if admission == Admission::Everybody => self.write_member(entrance, &strongest, comer).await,
                Known::Seen(_) | Known::Nobody => Err(stranger()),
            }
        })
        .await
    }

    /// What is known of identifiers that are shown, strongest first; of those that mean nobody only where nothing else is shown.
    pub(crate) async fn shown(&self, identifiers: &[Identifier]) -> Result<Vec<Shown>, Error> {
        let mut shown: Vec<Shown> = Vec::with_capacity(identifiers.len());
        let anchors = self.customers().find_anchors(identifiers).await?;
        for identifier in identifiers {
            let anchor = self.customers().find_anchors(std::slice::from_ref(identifier)).await?.pop();
            if let Some(anchor) = anchor.filter(|anchor| anchors.contains(anchor) && shown.iter().all(|one| one.anchor != *anchor)) {
                shown.push(Shown { anchor, kind: proof::kind_of(identifier) });
            }
        }
        shown.sort_by_key(|one| anchors.iter().position(|anchor| *anchor == one.anchor));
        Ok(shown)
    }

    /// Lets a member in for which something of what was shown is proven.
    async fn readmit(&self, actor: &Actor, entrance: &Entrance, row: MemberRow, shown: &[Shown]) -> Result<Joined, Error> {
        // A key of one unit gets nothing that speaks for a member of another one, and ties nothing to it.
        if entrance.word != Word::Person && !actor.reach().covers(&row.unit) {
            return Ok(Joined::told(row));
        }
        let anchors: Vec<AnchorId> = shown.iter().map(|one| one.anchor.clone()).collect();
        let owners = proof::owners(self.kernel().db.near(), &anchors).await?;
        if !entrance.word.readmits() && anchors.iter().all(|anchor| owners.contains_key(anchor)) {
            return Ok(Joined::told(row));
        }
        let (membership, actor, entrance) = (self.clone(), actor.clone(), entrance.clone());
        let (id, shown) = (row.id, Arc::new(shown.to_vec()));
        self.kernel()
            .db
            .write("let a member in", move |tx| {
                let (membership, actor, entrance) = (membership.clone(), actor.clone(), entrance.clone());
                let (id, shown) = (id.clone(), shown.clone());
                async move { membership.write_readmission(tx, &actor, &entrance, &id, &shown).await }.boxed()
            })
            .await
    }

    async fn write_readmission(
        &self,
        tx: &Tx,
        actor: &Actor,
        entrance: &Entrance,
        id: &MemberId,
        shown: &[Shown],
    ) -> Result<Joined, Error> {
        let anchors: Vec<AnchorId> = shown.iter().map(|one| one.anchor.clone()).collect();
        books::lock_anchors(tx, &anchors).await?;
        let row = member::lock_any(tx, id).await?;
        let owner = proof::owner(tx.conn(), shown).await?;
        if row.state == MemberState::Closed || owner.is_none_or(|owner| owner.id != row.id) {
            return Err(heyuan_kernel::Error::Stale("the customer's member").into());
        }
        if row.state == MemberState::Blocked {
            return Ok(Joined::told(row));
        }
        let proven = proof::prove(tx, id, shown, &entrance.app, self.kernel().clock.now()).await?;
        let tokens = if entrance.word.readmits() { Some(self.open_session(tx, entrance, id).await?) } else { None };
        if entrance.word != Word::Person && (proven > 0 || tokens.is_some()) {
            let entry = audit::Entry::new(actor, "readmit member", id.as_str()).detail("unit", entrance.unit.as_str());
            let session = tokens.as_ref().map(|tokens| tokens.session.clone());
            audit::record(tx, &entry.detail("session", session).detail("identifiers_proven", proven)).await?;
        }
        Ok(Joined { tokens, ..Joined::told(row) })
    }

    async fn open_session(&self, tx: &Tx, entrance: &Entrance, id: &MemberId) -> Result<Tokens, Error> {
        if let Some(claim) = &entrance.claim {
            claim.use_up(tx, self.kernel().clock.now()).await?;
        }
        Ok(self.credentials().open_session(tx, id, &entrance.app, &entrance.unit).await?)
    }

    /// The unit's line, for an actor that reaches it.
    pub(crate) async fn line_of(&self, actor: &Actor, unit: &OrgUnitId) -> Result<Line, Error> {
        let found = self.kernel().org.require("unit", unit).await?;
        actor.require_unit(unit)?;
        let words =
            format!("{unit} is a {} and has no business line; name the mall, hotel, project, office or community", found.kind.as_str());
        Ok(found.line.ok_or_else(|| Problem::invalid("unit", words))?)
    }

    async fn write_member(&self, entrance: &Entrance, anchor: &AnchorId, comer: Comer) -> Result<Joined, Error> {
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
        let (membership, entrance, comer) = (self.clone(), entrance.clone(), Arc::new(comer));
        self.kernel()
            .db
            .write("join", move |tx| {
                let (membership, entrance, row, comer) = (membership.clone(), entrance.clone(), row.clone(), comer.clone());
                async move {
                    // Two who join at once with different identifiers of one customer make one member.
                    let shown = comer.shown.iter().map(|one| &one.anchor);
                    let mut anchors: Vec<AnchorId> = shown.chain(&comer.behind).cloned().collect();
                    anchors.sort_unstable();
                    anchors.dedup();
                    books::lock_anchors(tx, &anchors).await?;
                    let joined_meanwhile = match comer.known(tx.conn()).await? {
                        Known::Proven(_) => true,
                        Known::Seen(row) => entrance.word.is_answered_by(&row),
                        Known::Nobody => false,
                    };
                    if joined_meanwhile {
                        return Err(heyuan_kernel::Error::Stale("the customer's member").into());
                    }
                    membership.insert_member(tx, row.clone()).await?;
                    proof::prove(tx, &row.id, &comer.shown, &entrance.app, row.joined_at).await?;
                    membership.grant_for_tier(tx, &row, &row.tier).await?;
                    let wanted = entrance.word != Word::Key(SessionFor::Nobody);
                    let tokens = if wanted { Some(membership.open_session(tx, &entrance, &row.id).await?) } else { None };
                    Ok(Joined { new: true, tokens, ..Joined::told(row) })
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
