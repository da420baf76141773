//! The end of a membership: staff closes it or the member leaves; the points that are left are forfeited, and the books stay.

use crate::books::{self, LineAccount, Movement};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::link;
use crate::member::{self, MemberRow};
use crate::proof;
use crate::standing::{MemberState, check_reason};
use crate::tier;
use futures::FutureExt;
use heyuan_contract::{AnchorId, EntryId, Line, MemberId, Timestamp};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::keys::{end_sessions, run_out_sessions};
use heyuan_kernel::{Actor, Kernel, Scope, Tx, audit, sql};
use heyuan_ledger::{Book, Lots, OpenLot, Period, Transfer};
use std::collections::BTreeSet;

/// Lots of one posting: bounds a statement.
const LOTS_A_POSTING: u64 = 500;
/// A member that has left of its own will keeps its tokens this long, for the same request once more when its answer was lost: they open
/// nothing else.
const LEAVE_AGAIN_MS: i64 = 600_000;
/// Postings of one departure. A member with more lots than these has bought every hour for ten years.
const POSTINGS_MAX: usize = 200;

/// A membership that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Whose.
    pub member: MemberId,
    /// When.
    pub at: Timestamp,
    /// Points that were left and are forfeited, each to the line that issued it.
    pub points_forfeited: i64,
    /// Whether the person asked to be erased.
    pub erase: bool,
}

/// How a membership ends.
#[derive(Debug, Clone)]
struct Parting {
    how: &'static str,
    reason: String,
    erase: bool,
    /// The blacklist can't be left by leaving.
    leaves_blocked: bool,
    /// The other members of the customer, none of which may be blocked: whoever is erased would come back without them.
    linked: Vec<MemberId>,
}

impl Membership {
    /// Ends a membership, also a blocked one. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `unknown_member`, `member_closed`, `member_has_holds` while points pay an order of the mall that is
    /// not paid yet, `idempotency_key_reused`.
    pub async fn close_member(&self, actor: &Actor, id: &MemberId, reason: &str, header: Option<&str>) -> Result<Departure, Error> {
        self.staffs_member(actor, id).await?;
        let key = IdempotencyKey::new(actor, "close member", header, &(id, reason))?;
        check_reason(reason)?;
        let parting = Parting { how: "close member", reason: reason.to_owned(), erase: false, leaves_blocked: true, linked: Vec::new() };
        self.part(actor, id, &key, parting).await
    }

    /// Ends a membership because the member wants it, and with `erase` asks for the erasure of the person: of what is proven to be this
    /// member's and what hangs on that alone. The same key again is answered from what it did, and asks once more for an erasure that was not
    /// reached.
    ///
    /// # Errors
    /// As [`Membership::close_member`]; `member_blocked`, since nobody gets off the blacklist by leaving, and with `erase`
    /// `linked_member_blocked`, since nobody gets another member off it.
    pub async fn leave(&self, actor: &Actor, id: &MemberId, erase: bool, header: Option<&str>) -> Result<Departure, Error> {
        actor.require_for_member(Scope::App, id)?;
        let row = member::find(self.kernel().db.near(), id).await?.ok_or_else(|| member::unknown(id))?;
        if !actor.reach().covers(&row.unit) {
            return Err(member::unknown(id));
        }
        let key = IdempotencyKey::new(actor, "leave", header, &(id, erase))?;
        let linked = if erase { self.linked_rows(&row).await? } else { Vec::new() };
        let linked = linked.into_iter().map(|other| other.id).collect();
        let parting = Parting { how: "leave", reason: "the member's own wish".to_owned(), erase, leaves_blocked: false, linked };
        let departure = self.part(actor, id, &key, parting).await?;
        if erase {
            self.erase_proven(actor, id).await?;
        }
        Ok(departure)
    }

    /// Asks for the erasure of a person that has left, as far as membership knows who it is: by what was proven for this member and for no
    /// other one since. What else its customers hold and nobody has proven is named as what may be erased with it.
    async fn erase_proven(&self, actor: &Actor, id: &MemberId) -> Result<(), Error> {
        let reader = self.kernel().db.near();
        let departed = proof::of_departed(reader, id).await?;
        let taken = proof::owners(reader, &departed).await?;
        let own: Vec<AnchorId> = departed.into_iter().filter(|anchor| !taken.contains_key(anchor)).collect();
        if own.is_empty() {
            return Ok(());
        }
        let mut seen: BTreeSet<AnchorId> = BTreeSet::new();
        for anchor in &own {
            match self.anchors_behind(anchor).await {
                Ok(anchors) => seen.extend(anchors),
                Err(Error::Refused(problem)) if problem.code() == kernel_codes::ERASED => {}
                Err(other) => return Err(other),
            }
        }
        let seen: Vec<AnchorId> = seen.into_iter().collect();
        let others = proof::owners(reader, &seen).await?;
        let unclaimed: Vec<AnchorId> = seen.into_iter().filter(|anchor| !others.contains_key(anchor)).collect();
        match self.customers().erase(actor, &own, &unclaimed).await {
            Err(problem) if problem.code() == kernel_codes::ERASED => Ok(()),
            other => Ok(other?),
        }
    }

    async fn part(&self, actor: &Actor, id: &MemberId, key: &IdempotencyKey, parting: Parting) -> Result<Departure, Error> {
        let departure = self
            .kernel()
            .db
            .settle(|| async {
                if let Some((known, digest)) = find(self.kernel().db.near(), &key.stored).await? {
                    key.check(&digest)?;
                    return Ok(known);
                }
                let (membership, actor, id, key, parting) = (self.clone(), actor.clone(), id.clone(), key.clone(), parting.clone());
                self.kernel()
                    .db
                    .write("end a membership", move |tx| {
                        let (membership, actor, id, key, parting) =
                            (membership.clone(), actor.clone(), id.clone(), key.clone(), parting.clone());
                        async move { membership.write_departure(tx, &actor, &id, &key, &parting).await }.boxed()
                    })
                    .await
            })
            .await?;
        self.credentials().forget_sessions(id);
        Ok(departure)
    }

    async fn write_departure(
        &self,
        tx: &Tx,
        actor: &Actor,
        id: &MemberId,
        key: &IdempotencyKey,
        parting: &Parting,
    ) -> Result<Departure, Error> {
        let book = self.ledger().enter(tx, books::POINTS).await?;
        let row = member::lock_any(tx, id).await?;
        if !(parting.leaves_blocked && row.state == MemberState::Blocked) {
            row.check_open()?;
        }
        check_none_blocked(tx, &parting.linked).await?;
        let at = self.kernel().clock.now();
        if let Some(order) = self.order_held_for(tx, id).await? {
            let words = format!(
                "points of member {id} pay the order {order} of the mall; the member can leave once it is paid, or not paid in time"
            );
            return Err(Error::refused(codes::MEMBER_HAS_HOLDS, words));
        }
        self.release_holds_of(tx, id).await?;
        self.reject_adjustments_of(tx, id).await?;
        if self.ledger().balance_in(tx, &books::points_account(id)).await?.reserved > 0 {
            let words = format!("points of member {id} are held for an open order; finish or cancel it first");
            return Err(Error::refused(codes::MEMBER_HAS_HOLDS, words));
        }
        let points = self.forfeit(tx, book, id).await?;
        link::unlink_all(self.kernel(), tx, id).await?;
        if actor.as_member().is_some() {
            run_out_sessions(tx, id, at.plus_ms(LEAVE_AGAIN_MS)).await?;
        } else {
            end_sessions(tx, id).await?;
        }
        tier::end_all(tx, id, at).await?;
        // What it had proven says whom to erase; else nobody needs it any more.
        if !parting.erase {
            proof::forget(tx, id).await?;
        }
        let text = "UPDATE membership_member SET state = 'closed', former_anchor = anchor, anchor = NULL, tier_due = $2 WHERE id = $1";
        sql::execute(tx.conn(), text, [id.as_str().into(), i64::MAX.into()]).await?;
        let inserted = sql::execute(
            tx.conn(),
            "INSERT INTO membership_departure (member, at, actor, how, points, erase, idempotency, idempotency_digest)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            [
                id.as_str().into(),
                at.ms().into(),
                actor.name().into(),
                parting.how.into(),
                points.into(),
                i64::from(parting.erase).into(),
                key.stored.clone().into(),
                key.digest.clone().into(),
            ],
        )
        .await?;
        if inserted == 0 {
            return Err(heyuan_kernel::Error::Stale("a departure with the same key").into());
        }
        let entry = audit::Entry::new(actor, parting.how, id.as_str());
        let entry = entry.detail("reason", parting.reason.as_str()).detail("points_forfeited", points).detail("erase", parting.erase);
        audit::record(tx, &entry).await?;
        Ok(Departure { member: id.clone(), at, points_forfeited: points, erase: parting.erase })
    }

    /// Moves every point that a locked member has left to the lines that issued them; answers how many. What is past its expiry expires
    /// first, whether or not the clockwork has been there. The book is entered.
    pub(crate) async fn forfeit(&self, tx: &Tx, book: Book, id: &MemberId) -> Result<i64, Error> {
        let account = books::points_account(id);
        let mut forfeited = 0;
        for _ in 0..POSTINGS_MAX {
            let lots = self.ledger().open_lots_in(tx, &account, LOTS_A_POSTING).await?;
            if lots.is_empty() {
                return Ok(forfeited);
            }
            let now = self.kernel().clock.now();
            let (past, left): (Vec<OpenLot>, Vec<OpenLot>) = lots.into_iter().partition(|lot| lot.expires_at <= now);
            let sources: Vec<String> = past.into_iter().map(|lot| lot.source).collect();
            self.move_out(tx, &sources, book).await?;
            let period = book.period(Period::of(&self.kernel().zone, now));
            let transfers = left.into_iter().map(|lot| forfeiture(&account, lot, now, period)).collect::<Result<Vec<Transfer>, Error>>()?;
            forfeited += transfers.iter().map(|transfer| transfer.amount).sum::<i64>();
            match self.ledger().post(tx, &transfers).await {
                // A lot expired between two looks at the clock.
                Err(heyuan_ledger::Error::NotEnough { .. }) => return Err(heyuan_kernel::Error::Stale("the lots of a member").into()),
                other => other?,
            };
        }
        let words = format!("member {id} has more than {LOTS_A_POSTING} times {POSTINGS_MAX} lots of points");
        Err(Error::refused(kernel_codes::LIMITED, words))
    }

    /// Forfeits what an erased person's member has left, also what was held for an order of a line. What pays an order of the mall stays
    /// with it until the order is paid or not; what is free then is forfeited then.
    pub(crate) async fn forfeit_erased(&self, tx: &Tx, book: Book, row: &MemberRow) -> Result<(), Error> {
        self.release_holds_of(tx, &row.id).await?;
        self.reject_adjustments_of(tx, &row.id).await?;
        self.forfeit_free(tx, book, &row.id).await
    }

    /// Forfeits what a locked member that has left still has, unless some of it is held: then the end of the hold does. The book is entered.
    pub(crate) async fn forfeit_free(&self, tx: &Tx, book: Book, id: &MemberId) -> Result<(), Error> {
        if self.ledger().balance_in(tx, &books::points_account(id)).await?.reserved == 0 {
            self.forfeit(tx, book, id).await?;
        }
        Ok(())
    }
}

fn forfeiture(account: &str, lot: OpenLot, at: Timestamp, period: Period) -> Result<Transfer, Error> {
    let line = Line::parse(&lot.issuer).ok_or_else(|| member::corrupt("issuer line", &lot.issuer))?;
    Ok(Transfer {
        key: format!("forfeit/{}", Kernel::new_id::<EntryId>("fft")),
        unit: books::POINTS.to_owned(),
        debit: account.to_owned(),
        credit: books::line_account(line, LineAccount::Forfeited),
        amount: lot.remaining,
        occurred_at: at,
        period,
        kind: Movement::Forfeit.as_str().to_owned(),
        reference: lot.source.clone(),
        lots: Lots::From(lot.source),
    })
}

/// Refuses while one of these members is on the blacklist.
async fn check_none_blocked(tx: &Tx, members: &[MemberId]) -> Result<(), Error> {
    if members.is_empty() {
        return Ok(());
    }
    let text =
        format!("SELECT COUNT(*) AS n FROM membership_member WHERE state = 'blocked' AND id IN ({})", sql::placeholders(1, members.len()));
    let values: Vec<sea_orm::Value> = members.iter().map(|id| id.as_str().into()).collect();
    if sql::count(tx.conn(), &text, values).await? == 0 {
        return Ok(());
    }
    let words = "another member of this person is blocked, so that the person is not erased; leave without erasure, or ask staff";
    Err(Error::refused(codes::LINKED_MEMBER_BLOCKED, words))
}

async fn find<C: sql::Connection>(conn: &C, stored: &str) -> Result<Option<(Departure, String)>, Error> {
    let text = "SELECT member, at, points, erase, idempotency_digest FROM membership_departure WHERE idempotency = $1";
    let Some(row) = sql::one(conn, text, [stored.into()]).await? else { return Ok(None) };
    let departure = Departure {
        member: MemberId::new(sql::get::<String>(&row, "member")?).map_err(|e| member::corrupt("departure", e))?,
        at: Timestamp::clamped(sql::get(&row, "at")?),
        points_forfeited: sql::get(&row, "points")?,
        erase: sql::get::<i64>(&row, "erase")? != 0,
    };
    Ok(Some((departure, sql::get(&row, "idempotency_digest")?)))
}
