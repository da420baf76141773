//! Holds: points of a member set aside while an order is open, then captured wholly or in part, released, or run out, once.
//!
//! The ledger keeps what is set aside; here stands what it is for. Every end of a hold, also that by time, is decided here under the member's
//! lock, and what is set free pays what the member owes in the same unit of work.

use crate::books::{self, LineAccount, Movement};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::{self, MemberRow};
use crate::points::{self, SpendView};
use crate::standing::MemberState;
use futures::FutureExt;
use heyuan_contract::{EntryId, Line, MemberId, OrderId, OrgUnitId, Timestamp};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::{Actor, Kernel, Problem, Reach, Scope, Tx, bulk, sql};
use heyuan_ledger::{Book, Hold, Period};
use serde::Serialize;
use std::sync::Arc;

/// What is read of a row of `membership_hold`.
const COLUMNS: &str = "id, member, unit, line, amount, reference, state, captured, spend, held_at, expires_at, ended_at, idempotency, \
     idempotency_digest, ended_by, ended_digest, order_id";

/// How long a hold stands that names no end: as long as a checkout takes.
const MINUTES_DEFAULT: i64 = 30;
/// The longest hold: thirty days.
const MINUTES_MAX: i64 = 30 * 24 * 60;
const MINUTE_MS: i64 = 60_000;
/// Open holds of one member: bounds what its leaving releases in one unit of work.
const OPEN_MAX: i64 = 100;
/// Holds of one step of the clockwork.
const BATCH_MAX: u64 = 200;

/// Points to set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldPoints {
    /// Above zero.
    pub amount: i64,
    /// Where they will be spent.
    pub unit: OrgUnitId,
    /// The order that they are for, in the unit's own words; never personal data.
    pub reference: String,
    /// After this instant they are free again; not beside `minutes`.
    pub expires_at: Option<Timestamp>,
    /// For how long they are set aside; half an hour when neither is named.
    pub minutes: Option<i64>,
}

/// Whether a hold still stands, and else how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldState {
    /// The points are set aside.
    Open,
    /// They became a spend, wholly or in part; the rest is free again.
    Captured,
    /// All of them are free again.
    Released,
    /// Nobody ended it in time: all of them are free again.
    Expired,
}

impl HoldState {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            HoldState::Open => "open",
            HoldState::Captured => "captured",
            HoldState::Released => "released",
            HoldState::Expired => "expired",
        }
    }

    fn parse(text: &str) -> Option<HoldState> {
        [HoldState::Open, HoldState::Captured, HoldState::Released, HoldState::Expired].into_iter().find(|state| state.as_str() == text)
    }
}

/// Points that were set aside, and what became of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldView {
    /// Its id.
    pub id: String,
    /// Whose points.
    pub member: MemberId,
    /// Where they are to be spent.
    pub unit: OrgUnitId,
    /// How many.
    pub amount: i64,
    /// The order that they are for.
    pub reference: String,
    /// Whether it stands.
    pub state: HoldState,
    /// How many of them were spent.
    pub captured: i64,
    /// The spend that they became.
    pub spend: Option<String>,
    /// When they were set aside.
    pub held_at: Timestamp,
    /// Until when they are.
    pub expires_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The mall's order that it pays, which alone ends it.
    pub order: Option<String>,
}

/// A hold as stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) view: HoldView,
    line: Line,
    /// Whether nobody wrote how it ended yet.
    open: bool,
    /// The id that its spend will have, or has.
    spend: String,
    digest: String,
    /// The key of whoever ended it.
    ended_by: Option<String>,
    ended_digest: Option<String>,
}

/// How somebody ends a hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// This much of it becomes a spend, or all.
    Capture(Option<i64>),
    Release,
}

impl Membership {
    /// Sets points aside, those that expire first first; until the hold ends nobody can spend them. The same key again is answered from
    /// what it did.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `amount_out_of_range`, `time_out_of_range`, `unknown_member`, `member_closed`, `member_blocked`,
    /// `not_enough_points`, `limited` for too many open holds, `idempotency_key_reused`.
    pub async fn hold_points(&self, actor: &Actor, id: &MemberId, request: &HoldPoints, header: Option<&str>) -> Result<HoldView, Error> {
        self.hold_for(actor, id, request, header, None).await
    }

    /// The same for an order of the mall, or for none.
    pub(crate) async fn hold_for(
        &self,
        actor: &Actor,
        id: &MemberId,
        request: &HoldPoints,
        header: Option<&str>,
        order: Option<&OrderId>,
    ) -> Result<HoldView, Error> {
        actor.require_for_member(Scope::App, id)?;
        let key = IdempotencyKey::new(actor, "hold points", header, &(id, request))?;
        points::check_amount(request.amount)?;
        points::check_reference(&request.reference)?;
        check_length(request)?;
        let line = self.line_of(actor, &request.unit).await?;
        if actor.as_member().is_some() {
            self.visible_member(actor, id).await?;
        }
        self.kernel()
            .db
            .settle(|| async {
                if let Some(known) = self.find_hold(self.kernel().db.near(), "idempotency", &key.stored).await? {
                    key.check(&known.digest)?;
                    return Ok(known.view);
                }
                let (membership, key, id, request) = (self.clone(), key.clone(), id.clone(), request.clone());
                let order = order.map(ToString::to_string);
                self.kernel()
                    .db
                    .write("hold points", move |tx| {
                        let (membership, key, id) = (membership.clone(), key.clone(), id.clone());
                        let (request, order) = (request.clone(), order.clone());
                        async move { membership.write_hold(tx, &key, id, (request, order), line).await }.boxed()
                    })
                    .await
            })
            .await
    }

    async fn write_hold(
        &self,
        tx: &Tx,
        key: &IdempotencyKey,
        member: MemberId,
        (request, order): (HoldPoints, Option<String>),
        line: Line,
    ) -> Result<HoldView, Error> {
        self.ledger().enter(tx, books::POINTS).await?;
        member::lock(tx, &member).await?;
        let now = self.kernel().clock.now();
        let expires_at = ends_at(&request, now)?;
        let text = "SELECT COUNT(*) AS n FROM membership_hold WHERE member = $1 AND state = 'open'";
        let open = sql::count(tx.conn(), text, [member.as_str().into()]).await?;
        if open >= OPEN_MAX {
            let words = format!("member {member} has {open} open holds; capture or release some first");
            return Err(Error::refused(kernel_codes::LIMITED, words));
        }
        let (id, spend) = (Kernel::new_id::<EntryId>("hld").to_string(), Kernel::new_id::<EntryId>("spd").to_string());
        let hold = Hold {
            key: ledger_key(&id),
            unit: books::POINTS.to_owned(),
            debit: books::points_account(&member),
            credit: books::line_account(line, LineAccount::Spent),
            amount: request.amount,
            kind: Movement::Spend.as_str().to_owned(),
            reference: format!("{}/{spend}", request.unit),
            at: now,
            expires_at,
        };
        match self.ledger().hold(tx, &hold).await {
            Err(heyuan_ledger::Error::NotEnough { .. }) => return Err(points::not_enough(&member, request.amount)),
            other => other?,
        }
        let view = HoldView {
            id,
            member,
            unit: request.unit,
            amount: request.amount,
            reference: request.reference,
            state: HoldState::Open,
            captured: 0,
            spend: None,
            held_at: now,
            expires_at,
            ended_at: None,
            order,
        };
        insert(tx, key, &view, line, &spend).await?;
        Ok(view)
    }

    /// Makes held points a spend, all of them or a part: the rest is free again. What has expired meanwhile pays all the same, since it had
    /// not when it was set aside. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, also for a member's token; `amount_out_of_range`, `not_found`, `member_closed`, `member_blocked`, `points_of_order` for
    /// one that pays an order of the mall, `hold_settled` for one that has ended or run out; `idempotency_key_reused`.
    pub async fn capture_hold(
        &self,
        actor: &Actor,
        id: &MemberId,
        hold: &str,
        amount: Option<i64>,
        header: Option<&str>,
    ) -> Result<HoldView, Error> {
        actor.require(Scope::App)?;
        let key = IdempotencyKey::new(actor, "capture hold", header, &(id, hold, amount))?;
        amount.map_or(Ok(()), points::check_amount)?;
        self.end_hold(actor, id, hold, key, End::Capture(amount)).await
    }

    /// Sets held points free. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, also for a member's token; `not_found`, `points_of_order`, `hold_settled`, `idempotency_key_reused`.
    pub async fn release_hold(&self, actor: &Actor, id: &MemberId, hold: &str, header: Option<&str>) -> Result<HoldView, Error> {
        actor.require(Scope::App)?;
        let key = IdempotencyKey::new(actor, "release hold", header, &(id, hold))?;
        self.end_hold(actor, id, hold, key, End::Release).await
    }

    async fn end_hold(&self, actor: &Actor, id: &MemberId, hold: &str, key: IdempotencyKey, end: End) -> Result<HoldView, Error> {
        let found = self.find_hold(self.kernel().db.near(), "id", hold).await?.filter(|found| found.view.member == *id);
        let found = found.ok_or_else(|| Problem::not_found("hold", hold))?;
        // Who may set points aside for a unit may take or free them for it.
        self.line_of(actor, &found.view.unit).await?;
        self.kernel()
            .db
            .settle(|| async {
                if let Some(known) = self.find_hold(self.kernel().db.near(), "ended_by", &key.stored).await? {
                    key.check(known.ended_digest.as_deref().unwrap_or_default())?;
                    return Ok(known.view);
                }
                if let Some(order) = found.view.order.as_ref().filter(|_| found.open) {
                    let words =
                        format!("hold {hold} pays the order {order} of the mall; it ends when the order is paid, or not paid in time");
                    return Err(Error::refused(codes::POINTS_OF_ORDER, words));
                }
                let (membership, key, member, hold) = (self.clone(), key.clone(), id.clone(), hold.to_owned());
                self.kernel()
                    .db
                    .write("end a hold", move |tx| {
                        let (membership, key, member, hold) = (membership.clone(), key.clone(), member.clone(), hold.clone());
                        async move { membership.write_hold_end(tx, &key, &member, &hold, end).await }.boxed()
                    })
                    .await
            })
            .await
    }

    /// Ends an open hold, once; what is free again pays what the member owes.
    pub(crate) async fn write_hold_end(
        &self,
        tx: &Tx,
        key: &IdempotencyKey,
        member: &MemberId,
        hold: &str,
        end: End,
    ) -> Result<HoldView, Error> {
        let book = self.ledger().enter(tx, books::POINTS).await?;
        let row = member::lock_any(tx, member).await?;
        let stored = self.find_hold(tx.conn(), "id", hold).await?.ok_or_else(|| Problem::not_found("hold", hold))?;
        if stored.ended_by.as_ref() == Some(&key.stored) {
            return Err(heyuan_kernel::Error::Stale("a hold that the same key ended").into());
        }
        if stored.view.state != HoldState::Open {
            return Err(settled(&stored.view));
        }
        let view = match end {
            End::Capture(amount) => {
                row.check_open()?;
                let most = stored.view.amount;
                let amount = amount.unwrap_or(most);
                if amount > most {
                    let words = format!("expected 1 to {most} points, what the hold has set aside");
                    return Err(Problem::new(codes::AMOUNT_OUT_OF_RANGE, words).field("amount").into());
                }
                self.capture_open(tx, book, key, stored, amount).await?
            }
            End::Release => {
                self.ledger().void_hold(tx, &ledger_key(hold)).await?;
                let view = HoldView { state: HoldState::Released, ended_at: Some(self.kernel().clock.now()), ..stored.view };
                write_outcome(tx, &view, Some(key)).await?;
                view
            }
        };
        if view.captured < view.amount {
            self.use_freed(tx, book, &row).await?;
        }
        Ok(view)
    }

    /// What is free again pays what a locked member owes; of one that has left it goes where the others went. The book is entered.
    async fn use_freed(&self, tx: &Tx, book: Book, row: &MemberRow) -> Result<(), Error> {
        if row.state == MemberState::Closed {
            self.forfeit_free(tx, book, &row.id).await
        } else {
            self.recover_owed(tx, &row.id, book).await.map(drop)
        }
    }

    /// Makes what an open hold of a locked member has set aside a spend as any other, as far as `amount` goes. The book is entered.
    pub(crate) async fn capture_open(
        &self,
        tx: &Tx,
        book: Book,
        key: &IdempotencyKey,
        stored: Stored,
        amount: i64,
    ) -> Result<HoldView, Error> {
        let (view, now) = (stored.view, self.kernel().clock.now());
        let period = book.period(Period::of(&self.kernel().zone, now));
        self.ledger().post_hold(tx, &ledger_key(&view.id), amount, period).await.map_err(|error| settled_or(error, &view))?;
        let spend = SpendView {
            id: stored.spend.clone(),
            member: view.member.clone(),
            unit: view.unit.clone(),
            amount,
            reference: view.reference.clone(),
            occurred_at: now,
            period: Some(period),
            points_balance: 0,
            hold: Some(view.id.clone()),
            order: points::order_of(&key.stored),
        };
        self.record_spend(tx, key, stored.line, spend).await?;
        let (state, spend) = (HoldState::Captured, Some(stored.spend));
        let view = HoldView { state, captured: amount, spend, ended_at: Some(now), ..view };
        write_outcome(tx, &view, Some(key)).await?;
        Ok(view)
    }

    /// A hold, for the member itself, a key that reaches the unit where the member joined, or one that reaches the hold's unit.
    ///
    /// # Errors
    /// `forbidden`, `unknown_member`, `not_found`.
    pub async fn hold(&self, actor: &Actor, id: &MemberId, hold: &str) -> Result<HoldView, Error> {
        actor.require_for_member(Scope::App, id)?;
        let visible = self.visible_member(actor, id).await.map(drop);
        let found = self.find_hold(self.kernel().db.near(), "id", hold).await?.filter(|found| found.view.member == *id);
        if actor.as_member().is_some() || found.as_ref().is_none_or(|found| !actor.reach().covers(&found.view.unit)) {
            visible?;
        }
        Ok(found.ok_or_else(|| Problem::not_found("hold", hold))?.view)
    }

    /// The holds of a member, newest first: all for whoever sees the member, else those of units within reach.
    ///
    /// # Errors
    /// `forbidden`, `unknown_member`.
    pub async fn holds(&self, actor: &Actor, id: &MemberId, before: Option<String>, limit: u64) -> Result<Vec<HoldView>, Error> {
        actor.require_for_member(Scope::App, id)?;
        let visible = self.visible_member(actor, id).await.map(drop);
        let conn = self.kernel().db.near();
        let mut values: Vec<sea_orm::Value> = vec![id.as_str().into(), before.unwrap_or_default().into(), limit.into()];
        let within = match (&visible, actor.reach()) {
            (Err(_), Reach::Units(units)) if actor.as_member().is_none() => {
                let (one_of, list) = bulk::one_of_texts(conn, 4, units.iter().map(ToString::to_string));
                values.extend(list);
                format!("unit {one_of}")
            }
            _ => "1 = 1".to_owned(),
        };
        let text = format!(
            "SELECT {COLUMNS} FROM membership_hold WHERE member = $1 AND ($2 = '' OR id < $2) AND {within} ORDER BY id DESC LIMIT $3"
        );
        let rows = sql::all(conn, &text, values).await?;
        if rows.is_empty() || actor.as_member().is_some() {
            visible?;
        }
        rows.iter().map(|row| Ok(self.read_hold(row)?.view)).collect()
    }

    /// The order of the mall that points of a member are set aside for, if there is one.
    pub(crate) async fn order_held_for(&self, tx: &Tx, member: &MemberId) -> Result<Option<String>, Error> {
        let text = "SELECT order_id FROM membership_hold WHERE member = $1 AND state = 'open' AND order_id IS NOT NULL AND expires_at >= $2
                    ORDER BY id LIMIT 1";
        let row = sql::one(tx.conn(), text, [member.as_str().into(), self.kernel().clock.now().ms().into()]).await?;
        Ok(row.map(|row| sql::get(&row, "order_id")).transpose()?)
    }

    /// Frees every open hold of a locked member, which leaves, but for those that an order of the mall may still be paid with. The book is
    /// entered.
    pub(crate) async fn release_holds_of(&self, tx: &Tx, member: &MemberId) -> Result<(), Error> {
        let text = format!(
            "SELECT {COLUMNS} FROM membership_hold WHERE member = $1 AND state = 'open' AND (order_id IS NULL OR expires_at < $3)
                    ORDER BY id LIMIT $2"
        );
        let now = self.kernel().clock.now().ms();
        let rows = sql::all(tx.conn(), &text, [member.as_str().into(), OPEN_MAX.into(), now.into()]).await?;
        for row in &rows {
            let mut view = self.read_hold(row)?.view;
            if view.state == HoldState::Expired {
                self.ledger().expire_hold(tx, &ledger_key(&view.id)).await?;
            } else {
                self.ledger().void_hold(tx, &ledger_key(&view.id)).await?;
                (view.state, view.ended_at) = (HoldState::Released, Some(self.kernel().clock.now()));
            }
            write_outcome(tx, &view, None).await?;
        }
        Ok(())
    }

    /// Ends a batch of holds that ran out, and lets what is free again pay what is owed; answers how many.
    ///
    /// # Errors
    /// The database's.
    pub async fn expire_point_holds(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        let text = "SELECT id, member FROM membership_hold WHERE state = 'open' AND expires_at < $1 ORDER BY expires_at LIMIT $2";
        let now = self.kernel().clock.now().ms();
        let rows = sql::all(self.kernel().db.reader(), text, [now.into(), BATCH_MAX.into()]).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let mut due = Vec::with_capacity(rows.len());
        for row in &rows {
            let member = MemberId::new(sql::get::<String>(row, "member")?).map_err(|e| member::corrupt("hold", e))?;
            due.push((member, sql::get::<String>(row, "id")?));
        }
        // Everybody locks members in one order.
        due.sort_unstable();
        let count = due.len();
        let (membership, fence, due) = (self.clone(), fence.cloned(), Arc::new(due));
        self.kernel()
            .db
            .write("expire holds of points", move |tx| {
                let (membership, fence, due) = (membership.clone(), fence.clone(), due.clone());
                async move {
                    if let Some(fence) = &fence {
                        fence.check(tx).await?;
                    }
                    membership.write_expiries(tx, &due).await
                }
                .boxed()
            })
            .await?;
        Ok(count)
    }

    async fn write_expiries(&self, tx: &Tx, due: &[(MemberId, String)]) -> Result<(), Error> {
        let book = self.ledger().enter(tx, books::POINTS).await?;
        let mut open = Vec::with_capacity(due.len());
        for (member, id) in due {
            open.push((member::lock_any(tx, member).await?, id));
        }
        for (row, id) in open {
            let Some(stored) = self.find_hold(tx.conn(), "id", id).await? else { continue };
            if !stored.open {
                continue;
            }
            self.ledger().expire_hold(tx, &ledger_key(id)).await?;
            write_outcome(tx, &stored.view, None).await?;
            self.use_freed(tx, book, &row).await?;
        }
        Ok(())
    }

    /// The hold whose column has this value; ids and keys are unique.
    pub(crate) async fn find_hold<C: sql::Connection>(&self, conn: &C, column: &str, value: &str) -> Result<Option<Stored>, Error> {
        let text = format!("SELECT {COLUMNS} FROM membership_hold WHERE {column} = $1");
        sql::one(conn, &text, [value.into()]).await?.as_ref().map(|row| self.read_hold(row)).transpose()
    }

    /// A hold as it stands now: what has run out is over, whether or not the clockwork has been there.
    fn read_hold(&self, row: &sql::Row) -> Result<Stored, Error> {
        let (state, line): (String, String) = (sql::get(row, "state")?, sql::get(row, "line")?);
        let state = HoldState::parse(&state).ok_or_else(|| member::corrupt("state of a hold", state))?;
        let expires_at = Timestamp::clamped(sql::get(row, "expires_at")?);
        let ran_out = state == HoldState::Open && expires_at < self.kernel().clock.now();
        let spend: String = sql::get(row, "spend")?;
        let ended_at: Option<i64> = sql::get(row, "ended_at")?;
        let view = HoldView {
            id: sql::get(row, "id")?,
            member: MemberId::new(sql::get::<String>(row, "member")?).map_err(|e| member::corrupt("hold", e))?,
            unit: OrgUnitId::new(sql::get::<String>(row, "unit")?).map_err(|e| member::corrupt("hold", e))?,
            amount: sql::get(row, "amount")?,
            reference: sql::get(row, "reference")?,
            state: if ran_out { HoldState::Expired } else { state },
            captured: sql::get(row, "captured")?,
            spend: (state == HoldState::Captured).then(|| spend.clone()),
            held_at: Timestamp::clamped(sql::get(row, "held_at")?),
            expires_at,
            ended_at: if ran_out { Some(expires_at) } else { ended_at.map(Timestamp::clamped) },
            order: sql::get(row, "order_id")?,
        };
        Ok(Stored {
            view,
            open: state == HoldState::Open,
            line: Line::parse(&line).ok_or_else(|| member::corrupt("hold's line", line))?,
            spend,
            digest: sql::get(row, "idempotency_digest")?,
            ended_by: sql::get(row, "ended_by")?,
            ended_digest: sql::get(row, "ended_digest")?,
        })
    }
}

/// The ledger's key of a hold.
fn ledger_key(id: &str) -> String {
    format!("hold/{id}")
}

/// The key of the transfer that a captured hold is.
pub(crate) fn transfer_key(id: &str) -> String {
    format!("{}/posted", ledger_key(id))
}

/// Refuses a length that can't be, whenever it is asked for.
fn check_length(request: &HoldPoints) -> Result<(), Problem> {
    if request.minutes.is_some() && request.expires_at.is_some() {
        return Err(Problem::invalid("minutes", "expected minutes or expires_at, not both"));
    }
    if request.minutes.is_some_and(|minutes| !(1..=MINUTES_MAX).contains(&minutes)) {
        return Err(Problem::invalid("minutes", format!("expected 1 to {MINUTES_MAX} minutes")));
    }
    Ok(())
}

/// Until when a hold that is made now stands.
fn ends_at(request: &HoldPoints, now: Timestamp) -> Result<Timestamp, Problem> {
    let Some(expires_at) = request.expires_at else {
        return Ok(now.plus_ms(request.minutes.unwrap_or(MINUTES_DEFAULT) * MINUTE_MS));
    };
    if expires_at <= now || expires_at > now.plus_ms(MINUTES_MAX * MINUTE_MS) {
        return Err(Problem::new(codes::TIME_OUT_OF_RANGE, "expected an instant ahead, within thirty days").field("expires_at"));
    }
    Ok(expires_at)
}

fn settled(view: &HoldView) -> Error {
    let words = match view.state {
        HoldState::Expired | HoldState::Open => format!("hold {} has run out; its points are free again", view.id),
        state => format!("hold {} was {} already", view.id, state.as_str()),
    };
    Error::refused(heyuan_ledger::codes::HOLD_SETTLED, words)
}

/// What the ledger says of a hold that runs out between our look at it and the ledger's.
fn settled_or(error: heyuan_ledger::Error, view: &HoldView) -> Error {
    if matches!(error, heyuan_ledger::Error::HoldSettled(_)) { settled(view) } else { error.into() }
}

async fn insert(tx: &Tx, key: &IdempotencyKey, view: &HoldView, line: Line, spend: &str) -> Result<(), Error> {
    let inserted = sql::execute(
        tx.conn(),
        "INSERT INTO membership_hold (id, member, unit, line, amount, reference, state, captured, spend, held_at, expires_at,
           idempotency, idempotency_digest, order_id) VALUES ($1, $2, $3, $4, $5, $6, 'open', 0, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (idempotency) DO NOTHING",
        [
            view.id.clone().into(),
            view.member.as_str().into(),
            view.unit.as_str().into(),
            line.as_str().into(),
            view.amount.into(),
            view.reference.clone().into(),
            spend.into(),
            view.held_at.ms().into(),
            view.expires_at.ms().into(),
            key.stored.clone().into(),
            key.digest.clone().into(),
            view.order.clone().into(),
        ],
    )
    .await?;
    if inserted == 0 { Err(heyuan_kernel::Error::Stale("a hold with the same key").into()) } else { Ok(()) }
}

/// Writes how a hold ended, the first and only time.
async fn write_outcome(tx: &Tx, view: &HoldView, key: Option<&IdempotencyKey>) -> Result<(), Error> {
    let written = sql::execute(
        tx.conn(),
        "UPDATE membership_hold SET state = $2, captured = $3, ended_at = $4, ended_by = $5, ended_digest = $6
         WHERE id = $1 AND state = 'open'",
        [
            view.id.clone().into(),
            view.state.as_str().into(),
            view.captured.into(),
            view.ended_at.map(Timestamp::ms).into(),
            key.map(|key| key.stored.clone()).into(),
            key.map(|key| key.digest.clone()).into(),
        ],
    )
    .await;
    match written {
        Ok(0) => Err(heyuan_kernel::Error::Stale("a hold that another unit of work ended").into()),
        // The key ended another hold meanwhile: that one's record tells whether it was the same request.
        Err(error) if error.is_duplicate() => Err(heyuan_kernel::Error::Stale("a hold ended with the same key").into()),
        other => Ok(other.map(drop)?),
    }
}
