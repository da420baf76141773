//! Posting purchases: everything that each earned, its decision and its events in one transaction. Several at once cost hardly more
//! statements than one.

use crate::books::{self, LineAccount, Movement};
use crate::budget;
use crate::caps::Counted;
use crate::counter::{self, Counter};
use crate::decide::Decided;
use crate::decision::{self, NewDecision};
use crate::error::Error;
use crate::facade::Membership;
use crate::member::{self, MemberRow, Poised, corrupt};
use crate::missed::Misses;
use crate::report::Accepted;
use crate::rule::Change;
use crate::tier::Rung;
use crate::transaction::{self, COLUMNS, Row, State};
use crate::waiting::WAITING_MAX;
use heyuan_contract::{DomainEvent, Fen, MemberId, Points, Timestamp};
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::plugin::{PluginKind, Plugins};
use heyuan_kernel::{Kernel, Tx, sql};
use heyuan_ledger::{Book, Lots, NewLot, Parcel, Period, Transfer};

/// A purchase that was decided about.
#[derive(Clone, Copy)]
pub(crate) struct Purchase<'a> {
    pub(crate) accepted: &'a Accepted,
    pub(crate) decided: &'a Decided,
}

/// A purchase on its way into the books, with its member locked.
struct Posting<'a> {
    /// Its place among those that were asked for.
    place: usize,
    decided: &'a Decided,
    member: MemberRow,
    refunds_wait: bool,
    row: Row,
    /// Where the member stands after it.
    after: Rung,
    misses: Misses,
}

impl Posting<'_> {
    /// Whether it can be posted together with others: whatever takes more locks than its own member's goes alone.
    fn is_plain(&self) -> bool {
        !self.refunds_wait && self.row.tier == self.member.tier && !grants(self.decided)
    }

    /// The caps that it counts under.
    fn caps(&self) -> impl Iterator<Item = &Counted> {
        self.decided.basis.caps.iter().filter(|cap| cap.taken > 0)
    }

    /// What it moves, and the accounts that its rules were shown; without a rule nothing was read that could have moved.
    fn parcel(&self, book: Book) -> Parcel {
        let Decided { snapshot, calls, month, .. } = self.decided;
        let seen = |version: i64| (!calls.is_empty()).then_some(version);
        let relied_on = vec![
            (books::points_account(&self.member.id), seen(snapshot.points.version)),
            (books::growth_account(&self.member.id), seen(snapshot.growth.version)),
            (books::receivable_account(&self.member.id), None),
        ];
        Parcel { transfers: purchase_transfers(&self.row, self.decided, book.period(*month)), relied_on }
    }
}

/// Whether rules want anything for the member but points and growth.
pub(crate) fn grants(decided: &Decided) -> bool {
    let mut effects = decided.calls.iter().flat_map(|call| &call.effects);
    effects.any(|effect| matches!(effect.change, Change::Voucher(_) | Change::Benefit(_)))
}

/// A part of a member's growth.
#[derive(Clone, Copy)]
pub(crate) struct Growth<'a> {
    pub(crate) member: &'a MemberId,
    /// The number of the transaction; 0 for an opening balance.
    pub(crate) transaction: i64,
    pub(crate) amount: i64,
    pub(crate) at: Timestamp,
}

impl Membership {
    /// Posts decided purchases, each of another member, and the refunds that waited for them; tells of each what rules wanted and could
    /// not give. `None` stands for one of which nothing was written: what it was decided with has moved, or among several it has to go alone.
    pub(crate) async fn post_purchases(&self, tx: &Tx, purchases: &[Purchase<'_>]) -> Result<Vec<Option<(Row, Misses)>>, Error> {
        let now = self.kernel().clock.now();
        let names = purchases.iter().map(|purchase| (&purchase.accepted.report.unit, &purchase.accepted.report.id));
        let book = books::enter_purchases(self.ledger(), tx, names).await?;
        let mut postings = self.postings(tx, purchases, book, now).await?;
        if purchases.len() > 1 {
            postings.retain(Posting::is_plain);
        }
        let mut posted: Vec<Option<(Row, Misses)>> = purchases.iter().map(|_| None).collect();
        without_moved_caps(tx, &mut postings).await?;
        self.post_transfers(tx, &mut postings, book, now).await?;
        if postings.is_empty() {
            return Ok(posted);
        }
        self.write_rows(tx, &mut postings, now).await?;
        for posting in &mut postings {
            posting.misses = self.grant_by_rules(tx, &posting.row, posting.decided).await?;
        }
        write_decisions(tx, &postings).await?;
        for posting in &mut postings {
            if posting.refunds_wait {
                self.apply_waiting(tx, &posting.row, book).await?;
                let whole = transaction::find(tx.conn(), &posting.row.unit, &posting.row.id).await?;
                posting.row = whole.ok_or_else(|| corrupt("purchase", "it is gone"))?;
            }
        }
        for posting in postings {
            posted[posting.place] = Some((posting.row, posting.misses));
        }
        Ok(posted)
    }

    /// Locks the members and works out the rows, without those whose rules were shown a tier that no longer counts.
    async fn postings<'a>(&self, tx: &Tx, purchases: &[Purchase<'a>], book: Book, now: Timestamp) -> Result<Vec<Posting<'a>>, Error> {
        let buyers: Vec<_> = purchases
            .iter()
            .map(|Purchase { accepted, decided }| (&decided.snapshot.member.id, &accepted.report.unit, &accepted.report.id))
            .collect();
        let poised = member::lock_for_purchases(tx, &buyers).await?;
        check_policies(tx, &poised, purchases).await?;
        let Some(policies) = purchases.first().map(|purchase| &purchase.decided.policy.tiers) else { return Ok(Vec::new()) };
        let ids: Vec<&MemberId> = buyers.iter().map(|(member, _, _)| *member).collect();
        let facts = self.tier_facts_of(tx.conn(), &ids, policies, now).await?;
        let mut postings = Vec::with_capacity(purchases.len());
        for (place, ((purchase, poised), before)) in purchases.iter().zip(poised).zip(facts).enumerate() {
            let (decided, zone) = (purchase.decided, &self.kernel().zone);
            if decided.reads_tier && before.standing(policies, zone, &poised.member)?.tier() != decided.snapshot.tier {
                continue;
            }
            let mut row = purchase_row(*purchase, book.period(decided.month), now)?;
            let after = if row.growth == 0 { before } else { before.with(row.growth_at(), row.growth) };
            let after = Rung::from(after.standing(policies, zone, &poised.member)?);
            row.tier.clone_from(&after.tier);
            let Poised { member, refunds_wait, .. } = poised;
            postings.push(Posting { place, decided, member, refunds_wait, row, after, misses: Misses::new() });
        }
        Ok(postings)
    }

    /// Moves what was earned, pays what the members owe with it, and notes what can be spent after it. Lets go of those whose rules were
    /// shown growth or points that have moved: the accounts are locked, so that they stay so.
    async fn post_transfers(&self, tx: &Tx, postings: &mut Vec<Posting<'_>>, book: Book, now: Timestamp) -> Result<(), Error> {
        let parcels = postings.iter().map(|posting| posting.parcel(book)).collect();
        let mut after = self.ledger().post_new(tx, parcels).await?;
        let mut stands = after.iter().map(Option::is_some);
        postings.retain(|_| stands.next() == Some(true));
        after.retain(Option::is_some);
        for (posting, after) in postings.iter().zip(after.iter().flatten()) {
            let [_, _, owed] = after.as_slice() else { return Err(corrupt("member", "it has no accounts").into()) };
            if posting.row.points > 0 {
                self.recover(tx, &posting.member.id, owed.balance, book).await?;
            }
        }
        let accounts: Vec<String> = postings.iter().map(|posting| books::points_account(&posting.member.id)).collect();
        let points: Vec<&str> = accounts.iter().map(String::as_str).collect();
        for (posting, (_, spendable)) in postings.iter_mut().zip(self.ledger().standing_in(tx, &points, now).await?) {
            posting.row.points_balance = spendable;
        }
        Ok(())
    }

    /// Writes the transactions with what they count for, brings the members' tiers up to date, and tells others.
    async fn write_rows(&self, tx: &Tx, postings: &mut [Posting<'_>], now: Timestamp) -> Result<(), Error> {
        let rows: Vec<&Row> = postings.iter().map(|posting| &posting.row).collect();
        let numbers = transaction::insert(tx, &rows).await?;
        for (posting, number) in postings.iter_mut().zip(numbers) {
            posting.row.no = number;
        }
        let caps = postings.iter().flat_map(|posting| posting.caps().map(|cap| (cap.counter(&posting.member.id), cap.taken)));
        let granted = postings.iter().flat_map(|posting| budget::counted(posting.decided));
        counter::add(tx, caps.chain(granted).collect()).await?;
        let growth: Vec<Growth<'_>> = postings
            .iter()
            .map(|Posting { member, row, .. }| Growth { member: &member.id, transaction: row.no, amount: row.growth, at: row.growth_at() })
            .collect();
        add_growth(tx, &growth).await?;
        for Posting { member, after, .. } in postings.iter() {
            self.settle_standing(tx, member, after.clone(), now).await?;
        }
        let told: Vec<_> = postings.iter().flat_map(|posting| told(&posting.row, &posting.member)).collect();
        Ok(tx.emit_all(&told).await?)
    }

    /// Applies the refunds that came before their purchase, in the order of their arrival; more than these were never let wait.
    async fn apply_waiting(&self, tx: &Tx, purchase: &Row, book: Book) -> Result<(), Error> {
        let text = format!(
            "SELECT {COLUMNS} FROM membership_transaction WHERE unit = $1 AND refund_of = $2 AND state = 'waiting' ORDER BY no LIMIT $3"
        );
        let values = [purchase.unit.as_str().into(), purchase.id.as_str().into(), WAITING_MAX.into()];
        for row in sql::all(tx.conn(), &text, values).await? {
            // As the one before left it.
            let purchase = transaction::find(tx.conn(), &purchase.unit, &purchase.id).await?;
            let purchase = purchase.ok_or_else(|| corrupt("refund", "its purchase is gone"))?;
            self.apply_waited(tx, &purchase, transaction::read(&row)?, book).await?;
        }
        Ok(())
    }
}

/// Fails the unit of work when another policy counts than the one that was decided with.
async fn check_policies(tx: &Tx, poised: &[Poised], purchases: &[Purchase<'_>]) -> Result<(), Error> {
    for (poised, Purchase { decided, .. }) in poised.iter().zip(purchases) {
        let same = poised.earn_version == decided.policy.newest_earn() && poised.tier_version == decided.policy.newest_tiers();
        if !same {
            return Err(heyuan_kernel::Error::Stale("the earn rules or the tier policy").into());
        }
    }
    let mut checked: Option<&[(String, i64)]> = None;
    for Purchase { decided, .. } in purchases {
        if checked != Some(&decided.pointers) {
            Plugins::check_unmoved(tx, PluginKind::BenefitRule, &decided.pointers).await?;
            checked = Some(&decided.pointers);
        }
    }
    Ok(())
}

/// Lets go of those who earned something under a cap since they were decided about. The members are locked, so that it stays so.
async fn without_moved_caps(tx: &Tx, postings: &mut Vec<Posting<'_>>) -> Result<(), Error> {
    let counters: Vec<Counter> = postings.iter().flat_map(|posting| posting.caps().map(|cap| cap.counter(&posting.member.id))).collect();
    let mut found = counter::read(tx.conn(), &counters).await?.into_iter();
    postings.retain(|posting| {
        let own: Vec<_> = posting.caps().map(|cap| found.next() == Some(cap.before)).collect();
        !own.contains(&false)
    });
    Ok(())
}

async fn write_decisions(tx: &Tx, postings: &[Posting<'_>]) -> Result<(), Error> {
    let decisions: Vec<NewDecision<'_>> = postings
        .iter()
        .filter_map(|Posting { decided, row, misses, .. }| Some(NewDecision { id: row.decision.as_deref()?, row, decided, misses }))
        .collect();
    decision::insert(tx, &decisions).await?;
    // Late, since on PostgreSQL everybody who grants from the same budget waits for its row until the commit.
    budget::spend(tx, &postings.iter().map(|posting| posting.decided).collect::<Vec<_>>()).await
}

fn purchase_row(Purchase { accepted, decided }: Purchase<'_>, period: Period, now: Timestamp) -> Result<Row, Error> {
    let report = &accepted.report;
    Ok(Row {
        no: 0,
        id: report.id.clone(),
        unit: report.unit.clone(),
        line: accepted.line,
        kind: report.kind,
        refund_of: None,
        member: Some(decided.snapshot.member.id.clone()),
        hinted: accepted.hinted.clone(),
        amount: report.amount.0,
        occurred_at: report.occurred_at,
        arrived_at: now,
        period: period.number(),
        state: State::Posted,
        why: String::new(),
        lines: serde_json::to_string(&report.lines).map_err(|e| corrupt("transaction lines", e))?,
        digest: accepted.digest.clone(),
        idempotency: accepted.idempotency.clone(),
        earn_version: decided.earn.version,
        base_growth: decided.base.growth,
        base_points: decided.base.points,
        growth: decided.growth,
        points: decided.points,
        receivable: 0,
        points_balance: 0,
        tier: String::new(),
        cost: decided.earn.cost(accepted.line).map_err(|e| corrupt("unit cost", e))?,
        refunded: 0,
        growth_kept: decided.growth,
        points_kept: decided.points,
        decision: Some(Kernel::new_id::<heyuan_contract::EntryId>("dec").to_string()),
    })
}

fn purchase_transfers(row: &Row, decided: &Decided, period: Period) -> Vec<Transfer> {
    let member = &decided.snapshot.member.id;
    let reference = format!("{}/{}", row.unit, row.id);
    let transfer = |key: String, unit: &str, debit: String, credit: String, amount: i64, lots: Lots| Transfer {
        key,
        unit: unit.to_owned(),
        debit,
        credit,
        amount,
        occurred_at: row.occurred_at,
        period,
        kind: Movement::Earn.as_str().to_owned(),
        reference: reference.clone(),
        lots,
    };
    let mut transfers = Vec::with_capacity(2);
    if row.points > 0 {
        let lot = NewLot { issuer: row.line.as_str().to_owned(), cost: row.cost, expires_at: decided.expires_at };
        let (debit, credit) = (books::line_account(row.line, LineAccount::Issued), books::points_account(member));
        transfers.push(transfer(books::earn_key(&row.unit, &row.id), books::POINTS, debit, credit, row.points, Lots::New(lot)));
    }
    if row.growth > 0 {
        let key = format!("transaction/{reference}/growth");
        let (debit, credit) = (books::line_account(row.line, LineAccount::Growth), books::growth_account(member));
        transfers.push(transfer(key, books::GROWTH, debit, credit, row.growth, Lots::None));
    }
    transfers
}

/// Adds to the growth histories from which tiers are computed.
pub(crate) async fn add_growth(tx: &Tx, parts: &[Growth<'_>]) -> Result<(), Error> {
    let parts: Vec<&Growth<'_>> = parts.iter().filter(|part| part.amount != 0).collect();
    if parts.is_empty() {
        return Ok(());
    }
    let columns = [
        Column::texts(parts.iter().map(|part| part.member.to_string())),
        Column::numbers(parts.iter().map(|part| part.transaction)),
        Column::numbers(parts.iter().map(|part| part.amount)),
        Column::numbers(parts.iter().map(|part| part.at.ms())),
    ];
    Ok(bulk::insert(tx.conn(), "membership_growth", &["member", "transaction_no", "amount", "occurred_at"], &columns).await?)
}

/// What others are told; of a member that was erased there is nobody to tell about.
pub(crate) fn told<'a>(row: &Row, member: &'a MemberRow) -> Option<(&'a str, DomainEvent)> {
    let anchor = member.anchor.clone()?;
    let event = DomainEvent::TransactionPosted {
        transaction: row.id.clone(),
        member: member.id.clone(),
        anchor,
        unit: row.unit.clone(),
        line: row.line,
        refund_of: row.refund_of.clone(),
        amount: Fen(row.amount),
        growth: Points(row.growth),
        points: Points(row.points),
        points_balance: Points(row.points_balance),
        occurred_at: row.occurred_at,
    };
    Some((member.id.as_str(), event))
}
