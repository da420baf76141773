//! Clearing (单项结算): what each line owes the points centre for a month, or gets from it.
//!
//! A line owes the cost of the points that it issued, also of those that were taken over as opening balances, gets back the cost of those
//! that were taken back, expired or were forfeited, and gets the cost of the points that were spent with it. What people granted or took under
//! four eyes it owes or gets likewise; points that go from one member to another change nothing for any line. Points that pay a debt are the
//! centre's, which stood for them. Costs are summed exactly and rounded to fen once per issuer, spender and period.

use crate::books::{self, LineAccount, Movement};
use crate::checklist::{self, Check, CheckState, Closing};
use crate::error::{Error, codes};
use crate::facade::{Membership, require_group};
use crate::fraction::{Fraction, Sum};
use crate::member::corrupt;
use crate::settlement;
use futures::FutureExt;
use heyuan_contract::{Line, Ratio};
use heyuan_kernel::secret::sha256_hex;
use heyuan_kernel::{Actor, Problem, Tx, audit, sql};
use heyuan_ledger::{AMOUNT_MAX, Book, Ledger, LotMovement, Lots, Period, Transfer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most transfers by which one column of a line is settled: a hundred quadrillion fen, beyond what lots of a sane group cost.
const PARTS_MAX: u64 = 10_000;
/// Transfers of a settlement that are posted at once.
const TRANSFERS_A_POSTING: usize = 500;
/// The act of a close in the audit record, and the fact in it that is the digest of the statement; never renamed.
pub(crate) const CLOSE: &str = "close period";
pub(crate) const DIGEST: &str = "statement_sha256";
/// The kind of a settlement's transfers.
const SETTLED_AS: &str = "clearing";

/// Whether a period can still change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClearingState {
    /// It can.
    Open,
    /// It can't, and its statement is being written.
    Closing,
    /// It never changes again.
    Closed,
}

/// The statement of a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clearing {
    /// The month, `2026-11`.
    pub period: String,
    /// Whether it can still change.
    pub state: ClearingState,
    /// Every line, in the order of reports.
    pub lines: Vec<ClearingLine>,
    /// Points spent, by the line that issued them and the line that they were spent with.
    pub matrix: Vec<MatrixCell>,
    /// The points centre's own side.
    #[serde(default)]
    pub centre: ClearingCentre,
}

/// The points centre's month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearingCentre {
    /// Points that paid what members owed for points that were taken back after they had been spent.
    pub recovered_points: i64,
    /// Their cost, which the centre keeps: it paid for the spent ones.
    pub recovered_fen: i64,
    /// What the centre gets from the lines in sum; with a minus, what it owes them. It and the lines' come to nothing together.
    pub net_fen: i64,
}

/// One line's month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearingLine {
    /// The line.
    pub line: Line,
    /// Points that it issued.
    pub issued_points: i64,
    /// Their cost: the line owes it.
    pub issued_fen: i64,
    /// Points of its that were taken back.
    pub refunded_points: i64,
    /// Their cost: the line gets it.
    pub refunded_fen: i64,
    /// Points of its that expired.
    pub expired_points: i64,
    /// Their cost: the line gets it.
    pub expired_fen: i64,
    /// Points of its that were taken over as opening balances.
    #[serde(default)]
    pub opened_points: i64,
    /// Their cost: the line owes it.
    #[serde(default)]
    pub opened_fen: i64,
    /// Points of its that members forfeited by leaving.
    #[serde(default)]
    pub forfeited_points: i64,
    /// Their cost: the line gets it.
    #[serde(default)]
    pub forfeited_fen: i64,
    /// Points of its that people granted, less those that they took.
    #[serde(default)]
    pub adjusted_points: i64,
    /// Their cost: the line owes it, or with a minus gets it.
    #[serde(default)]
    pub adjusted_fen: i64,
    /// Points of any line that were spent with it, less those given back.
    pub spent_points: i64,
    /// Their cost: the line gets it.
    pub spent_fen: i64,
    /// Corrections of earlier months that count in this one: what the line gets, or with a minus owes.
    #[serde(default)]
    pub corrected_fen: i64,
    /// What the line gets in sum; with a minus, what it owes.
    pub net_fen: i64,
}

/// Points of one line spent with another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixCell {
    /// Who stands for them.
    pub issuer: Line,
    /// Where they were spent.
    pub spender: Line,
    /// How many.
    pub points: i64,
    /// Their cost.
    pub fen: i64,
}

/// An exact sum of points and their cost, whatever denominators meet in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exact {
    points: i64,
    cost: Sum,
}

impl Exact {
    pub(crate) fn add(&mut self, points: i64, cost: Ratio) -> Result<(), Error> {
        self.points = self.points.checked_add(points).ok_or_else(too_large)?;
        self.cost.add(points, cost);
        Ok(())
    }

    /// The cost to whole fen, half a fen up.
    pub(crate) fn fen(&self) -> Result<i64, Error> {
        fen(&self.cost.total())
    }

    /// That of a part of it, which is taken exactly. The part's lower number is above zero.
    pub(crate) fn fen_of(&self, numerator: i64, denominator: i64) -> Result<i64, Error> {
        fen(&self.cost.total().times(numerator.into(), denominator.into()))
    }
}

fn fen(cost: &Fraction) -> Result<i64, Error> {
    cost.rounded().ok_or_else(|| too_large().into())
}

/// More points or fen than any account can hold.
fn too_large() -> heyuan_kernel::Error {
    corrupt("clearing", "a figure is larger than an account can hold")
}

#[derive(Default)]
struct Sums {
    issued: BTreeMap<Line, Exact>,
    opened: BTreeMap<Line, Exact>,
    refunded: BTreeMap<Line, Exact>,
    expired: BTreeMap<Line, Exact>,
    forfeited: BTreeMap<Line, Exact>,
    adjusted: BTreeMap<Line, Exact>,
    recovered: Exact,
    corrected: BTreeMap<Line, i64>,
    spent: BTreeMap<(Line, Line), Exact>,
}

/// What a month did to lots, as it was seen at one moment.
pub(crate) struct Moved {
    movements: Vec<LotMovement>,
    /// How many movements stood behind them.
    count: i64,
}

impl Membership {
    /// The statement of a period: of an open one as it stands, of a closed one as it was closed.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for no month.
    pub async fn clearing(&self, actor: &Actor, period: &str) -> Result<Clearing, Error> {
        let period = parse(actor, period)?;
        let reader = self.kernel().db.reader();
        if let Some(closed) = stored(reader, period).await? {
            return Ok(closed);
        }
        let book = self.ledger().book(reader, books::POINTS).await?;
        let state = match (period < book.opens_at(), book.is_closed(period)) {
            // What lies before the book counts in its first period.
            (true, _) => ClearingState::Closed,
            (false, true) => ClearingState::Closing,
            (false, false) => ClearingState::Open,
        };
        // At one moment, while postings run.
        self.compute(&self.begin_reading().await?, period, state).await
    }

    /// Closes the next period, for the first time the first one with points: from now on later facts count in the next one. Closing a period again answers the same. What a close
    /// left that was killed, shut and without its statement, is finished first, whoever comes.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for no month; `period_not_over`, also while an earlier one is open, and for one before the book.
    pub async fn close(&self, actor: &Actor, period: &str) -> Result<Clearing, Error> {
        self.close_with(actor, period, &Closing::default()).await
    }

    /// As [`Membership::close`], by a check list that is kept with the month: what blocks refuses the close, warnings only where that is
    /// asked for. Points past their expiry are moved out before.
    ///
    /// # Errors
    /// As [`Membership::close`]; `period_not_ready`.
    pub async fn close_with(&self, actor: &Actor, period: &str, closing: &Closing) -> Result<Clearing, Error> {
        let period = parse(actor, period)?;
        closing.check()?;
        let reader = self.kernel().db.reader();
        if let Some(closed) = stored(reader, period).await? {
            return Ok(closed);
        }
        let book = self.ledger().book(reader, books::POINTS).await?;
        let next = self.ledger().next_to_close(reader, books::POINTS).await?;
        if let Some(words) = self.not_over(period, book, next) {
            return Err(checklist::not_over(words, self.look(period).await?.checks));
        }
        for shut in shut_without_statement(reader, book).await? {
            self.write_statement(actor, shut, None).await?;
        }
        let mut seen = None;
        if !book.is_closed(period) {
            self.sweep_before_close(period).await?;
            let looked = self.look(period).await?;
            self.shut(actor, period, closing, checklist::accepted(looked.checks, closing)?).await?;
            seen = Some(looked.moved);
        }
        self.write_statement(actor, period, seen).await
    }

    /// Why a period can't be closed, if it can't.
    fn not_over(&self, period: Period, book: Book, next: Option<Period>) -> Option<String> {
        let current = Period::of(&self.kernel().zone, self.kernel().clock.now());
        if period >= current {
            return Some(format!("{period} is not over; {} can be closed", current.previous()));
        }
        if period < book.opens_at() {
            return Some(format!("{period} lies before the book and has no statement; it opens with {}", book.opens_at()));
        }
        next.filter(|next| period > *next).map(|next| format!("close {next} first"))
    }

    /// Waits for the postings under way, and lets no further one into the period; it keeps the list that it was shut with.
    async fn shut(&self, actor: &Actor, period: Period, closing: &Closing, checks: Vec<Check>) -> Result<(), Error> {
        let (ledger, actor, closing, checks) = (self.ledger().clone(), actor.clone(), closing.clone(), Arc::new(checks));
        let now = self.kernel().clock.now();
        let shut = self
            .kernel()
            .db
            .write("shut a period", move |tx| {
                let (ledger, actor, closing, checks) = (ledger.clone(), actor.clone(), closing.clone(), checks.clone());
                async move {
                    ledger.close_book(tx, books::POINTS, period).await?;
                    checklist::keep(tx, period, &actor, now, &closing, &checks).await
                }
                .boxed()
            })
            .await;
        match shut {
            Err(Error::Ledger(error @ heyuan_ledger::Error::NotNext { .. })) => {
                Err(Error::refused(codes::PERIOD_NOT_OVER, error.to_string()))
            }
            other => other,
        }
    }

    /// Writes the statement of a period that is shut, with the settlement. Nothing can be posted to it any more, so that what is summed
    /// outside a transaction stays so, whoever sums it and however often. What the check list saw is read again only where something was
    /// posted between it and the shutting.
    async fn write_statement(&self, actor: &Actor, period: Period, seen: Option<Moved>) -> Result<Clearing, Error> {
        let reader = self.kernel().db.reader();
        let count = self.ledger().lot_movements_count(reader, period).await?;
        let moved = match seen {
            Some(moved) if moved.count == count => moved,
            _ => self.moved(reader, period).await?,
        };
        let statement = Arc::new(self.sum(reader, period, ClearingState::Closed, &moved).await?);
        let body = serde_json::to_string(&*statement).map_err(|e| corrupt("clearing", e))?;
        // Sealed with the act, so that nobody changes the statement unseen.
        let mut entry = audit::Entry::new(actor, CLOSE, &period.to_string()).detail(DIGEST, sha256_hex(body.as_bytes()));
        if let Some((checks, closed)) = checklist::kept(reader, period).await? {
            let warnings = checks.iter().filter(|check| check.state == CheckState::Warning).map(|check| check.code.as_str());
            entry = entry.detail("warnings", warnings.collect::<Vec<_>>());
            if let Some(reason) = closed.reason {
                entry = entry.detail("reason", reason);
            }
        }
        let name = actor.name().to_owned();
        let (membership, written, body) = (self.clone(), statement.clone(), Arc::new(body));
        self.kernel()
            .db
            .write("close a period", move |tx| {
                let (membership, statement, entry, name) = (membership.clone(), written.clone(), entry.clone(), name.clone());
                let body = body.as_str().to_owned();
                async move {
                    let inserted = sql::execute(
                        tx.conn(),
                        "INSERT INTO membership_clearing (period, closed_at, closed_by, statement) VALUES ($1, $2, $3, $4)
                         ON CONFLICT (period) DO NOTHING",
                        [period.number().into(), membership.kernel().clock.now().ms().into(), name.into(), body.into()],
                    )
                    .await?;
                    if inserted == 1 {
                        membership.settle_lines(tx, period, &statement).await?;
                        audit::record(tx, &entry).await?;
                    }
                    Ok::<(), Error>(())
                }
                .boxed()
            })
            .await?;
        // Whoever closed it at the same time wrote the same.
        Ok(stored(reader, period).await?.unwrap_or_else(|| Clearing::clone(&statement)))
    }

    /// Moves what the statement says between the lines' settlement accounts and the centre's.
    async fn settle_lines(&self, tx: &Tx, period: Period, statement: &Clearing) -> Result<(), Error> {
        let mut transfers = Vec::new();
        for line in &statement.lines {
            let own = books::line_account(line.line, LineAccount::Settlement);
            for (what, fen) in columns(line) {
                if fen == 0 {
                    continue;
                }
                let centre = books::CENTRE.to_owned();
                let (debit, credit) = if fen > 0 { (centre, own.clone()) } else { (own.clone(), centre) };
                for (place, amount) in parts(fen).enumerate() {
                    // The first part has the column's own name, so that what an earlier release settled keeps its key.
                    let part = if place == 0 { String::new() } else { format!("/{}", place + 1) };
                    transfers.push(Transfer {
                        key: format!("clearing/{period}/{}/{what}{part}", line.line),
                        unit: books::FEN.to_owned(),
                        debit: debit.clone(),
                        credit: credit.clone(),
                        amount,
                        occurred_at: self.kernel().clock.now(),
                        period,
                        kind: SETTLED_AS.to_owned(),
                        reference: period.to_string(),
                        lots: Lots::None,
                    });
                }
            }
        }
        for some in transfers.chunks(TRANSFERS_A_POSTING) {
            self.ledger().post(tx, some).await?;
        }
        Ok(())
    }

    pub(crate) async fn compute<C: sql::Connection>(&self, conn: &C, period: Period, state: ClearingState) -> Result<Clearing, Error> {
        let moved = self.moved(conn, period).await?;
        self.sum(conn, period, state, &moved).await
    }

    /// What a month did to lots; of one that is open, on a snapshot.
    pub(crate) async fn moved<C: sql::Connection>(&self, conn: &C, period: Period) -> Result<Moved, Error> {
        moved(self.ledger(), conn, period).await
    }

    pub(crate) async fn sum<C: sql::Connection>(
        &self,
        conn: &C,
        period: Period,
        state: ClearingState,
        moved: &Moved,
    ) -> Result<Clearing, Error> {
        sum(conn, period, state, moved).await
    }

    /// The clearing of a closed period.
    pub(crate) async fn closed_clearing<C: sql::Connection>(&self, conn: &C, period: Period) -> Result<Clearing, Error> {
        Ok(stored(conn, period).await?.ok_or_else(|| Problem::not_found("statement for", format!("{period}; it is not closed")))?)
    }
}

/// What a month did to lots, as the connection sees it.
pub(crate) async fn moved<C: sql::Connection>(ledger: &Ledger, conn: &C, period: Period) -> Result<Moved, Error> {
    let count = ledger.lot_movements_count(conn, period).await?;
    Ok(Moved { movements: ledger.lot_movements(conn, books::POINTS, period).await?, count })
}

/// The statement that a month's movements, refunds and corrections come to.
pub(crate) async fn sum<C: sql::Connection>(conn: &C, period: Period, state: ClearingState, moved: &Moved) -> Result<Clearing, Error> {
    let mut sums = Sums::default();
    for movement in &moved.movements {
        let issuer = Line::parse(&movement.issuer).ok_or_else(|| corrupt("issuer line", &movement.issuer))?;
        let unknown = || corrupt("clearing", format!("{} has no place in it", movement.kind));
        match Movement::parse(&movement.kind).ok_or_else(unknown)? {
            Movement::Earn => sums.issued.entry(issuer).or_default().add(movement.amount, movement.cost)?,
            Movement::Open => sums.opened.entry(issuer).or_default().add(movement.amount, movement.cost)?,
            Movement::Expire => sums.expired.entry(issuer).or_default().add(-movement.amount, movement.cost)?,
            Movement::Forfeit => sums.forfeited.entry(issuer).or_default().add(-movement.amount, movement.cost)?,
            Movement::Adjust => sums.adjusted.entry(issuer).or_default().add(movement.amount, movement.cost)?,
            // What leaves the one comes to the other, at the same cost.
            Movement::Transfer => {}
            Movement::Recover => sums.recovered.add(-movement.amount, movement.cost)?,
            Movement::Spend | Movement::Return => {
                let spender = Line::ALL.into_iter().find(|line| books::line_account(*line, LineAccount::Spent) == movement.other);
                let spender = spender.ok_or_else(|| corrupt("spender", &movement.other))?;
                sums.spent.entry((issuer, spender)).or_default().add(-movement.amount, movement.cost)?;
            }
            // What was taken back is summed from the refunds: a part of it may be owed and never came out of a lot.
            Movement::Refund => {}
        }
    }
    let text = "SELECT line, cost_numerator, cost_denominator, CAST(SUM(-points) AS BIGINT) AS points FROM membership_transaction
                WHERE kind = 'refund' AND state = 'posted' AND period = $1 GROUP BY line, cost_numerator, cost_denominator
                ORDER BY line, cost_numerator, cost_denominator";
    for row in sql::all(conn, text, [period.number().into()]).await? {
        let line: String = sql::get(&row, "line")?;
        let line = Line::parse(&line).ok_or_else(|| corrupt("refund line", line))?;
        let cost = Ratio::new(sql::get(&row, "cost_numerator")?, sql::get(&row, "cost_denominator")?);
        let cost = cost.map_err(|e| corrupt("unit cost", e))?;
        sums.refunded.entry(line).or_default().add(sql::get(&row, "points")?, cost)?;
    }
    sums.corrected = settlement::corrections(conn, period).await?.into_iter().collect();
    statement(period, state, &sums)
}

/// What a line gets for each column, or with a minus owes; the names are those of the settlement's keys, for ever.
const fn columns(line: &ClearingLine) -> [(&'static str, i64); 8] {
    [
        ("issued", -line.issued_fen),
        ("opened", -line.opened_fen),
        ("refunded", line.refunded_fen),
        ("expired", line.expired_fen),
        ("forfeited", line.forfeited_fen),
        ("adjusted", -line.adjusted_fen),
        ("spent", line.spent_fen),
        ("corrected", line.corrected_fen),
    ]
}

fn statement(period: Period, state: ClearingState, sums: &Sums) -> Result<Clearing, Error> {
    let mut matrix = Vec::new();
    for ((issuer, spender), sum) in &sums.spent {
        matrix.push(MatrixCell { issuer: *issuer, spender: *spender, points: sum.points, fen: sum.fen()? });
    }
    let of = |sums: &BTreeMap<Line, Exact>, line: Line| sums.get(&line).cloned().unwrap_or_default();
    let mut lines = Vec::with_capacity(Line::ALL.len());
    for line in Line::ALL {
        let (issued, refunded, expired) = (of(&sums.issued, line), of(&sums.refunded, line), of(&sums.expired, line));
        let (opened, forfeited, adjusted) = (of(&sums.opened, line), of(&sums.forfeited, line), of(&sums.adjusted, line));
        let cells = || matrix.iter().filter(|cell| cell.spender == line);
        let (spent_points, spent_fen) = (whole(cells().map(|cell| cell.points))?, whole(cells().map(|cell| cell.fen))?);
        let (issued_fen, refunded_fen, expired_fen) = (issued.fen()?, refunded.fen()?, expired.fen()?);
        let mut row = ClearingLine {
            line,
            issued_points: issued.points,
            issued_fen,
            refunded_points: refunded.points,
            refunded_fen,
            expired_points: expired.points,
            expired_fen,
            opened_points: opened.points,
            opened_fen: opened.fen()?,
            forfeited_points: forfeited.points,
            forfeited_fen: forfeited.fen()?,
            adjusted_points: adjusted.points,
            adjusted_fen: adjusted.fen()?,
            spent_points,
            spent_fen,
            corrected_fen: sums.corrected.get(&line).copied().unwrap_or(0),
            net_fen: 0,
        };
        row.net_fen = whole(columns(&row).into_iter().map(|(_, fen)| fen))?;
        lines.push(row);
    }
    let centre = ClearingCentre {
        recovered_points: sums.recovered.points,
        recovered_fen: sums.recovered.fen()?,
        net_fen: whole(lines.iter().map(|line| -line.net_fen))?,
    };
    Ok(Clearing { period: period.to_string(), state, lines, matrix, centre })
}

/// A figure as transfers can carry it.
fn parts(fen: i64) -> impl Iterator<Item = i64> {
    let (most, whole) = (AMOUNT_MAX.unsigned_abs(), fen.unsigned_abs());
    (0..whole.div_ceil(most)).map(move |place| i64::try_from((whole - place * most).min(most)).unwrap_or(AMOUNT_MAX))
}

/// Refuses a clearing with a column that its close could not settle, while the month is still open.
pub(crate) fn check_settled(clearing: &Clearing) -> Result<(), Error> {
    let most = AMOUNT_MAX.unsigned_abs() * PARTS_MAX;
    if clearing.lines.iter().flat_map(columns).any(|(_, fen)| fen.unsigned_abs() > most) {
        return Err(corrupt("clearing", format!("a column has more than {most} fen, which no settlement moves")).into());
    }
    Ok(())
}

/// Figures together, where an account could hold them.
fn whole(figures: impl Iterator<Item = i64>) -> Result<i64, Error> {
    let sum: i128 = figures.map(i128::from).sum();
    Ok(i64::try_from(sum).map_err(|_| too_large())?)
}

/// Clearing is between the lines of the whole group: a key of one unit sees none of it.
pub(crate) fn of_the_group(actor: &Actor) -> Result<(), Error> {
    require_group(actor, "clearing needs a key of the whole group")
}

/// The month that somebody names who may see the clearing.
pub(crate) fn parse(actor: &Actor, period: &str) -> Result<Period, Error> {
    of_the_group(actor)?;
    Ok(Period::parse(period).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))?)
}

async fn stored<C: sql::Connection>(conn: &C, period: Period) -> Result<Option<Clearing>, Error> {
    let row = sql::one(conn, "SELECT statement FROM membership_clearing WHERE period = $1", [period.number().into()]).await?;
    let Some(row) = row else { return Ok(None) };
    let body: String = sql::get(&row, "statement")?;
    Ok(Some(serde_json::from_str(&body).map_err(|e| corrupt("clearing", e))?))
}

/// The periods that are shut and have no statement, earliest first: a close was killed, or a release before this one closed several at once.
async fn shut_without_statement<C: sql::Connection>(conn: &C, book: Book) -> Result<Vec<Period>, Error> {
    let rows = sql::all(conn, "SELECT period FROM membership_clearing WHERE period >= $1", [book.opens_at().number().into()]).await?;
    let written = rows.iter().map(|row| sql::get::<i64>(row, "period")).collect::<Result<BTreeSet<_>, _>>()?;
    let months = std::iter::successors(Some(book.opens_at()), |period| Some(period.next()));
    Ok(months.take_while(|period| book.is_closed(*period)).filter(|period| !written.contains(&period.number())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_settled_in_parts_that_the_ledger_takes() {
        for (fen, expected) in [
            (1, vec![1]),
            (-7, vec![7]),
            (AMOUNT_MAX, vec![AMOUNT_MAX]),
            (AMOUNT_MAX + 1, vec![AMOUNT_MAX, 1]),
            (-3 * AMOUNT_MAX, vec![AMOUNT_MAX; 3]),
        ] {
            assert_eq!(parts(fen).collect::<Vec<_>>(), expected, "{fen}");
        }
        let sum = parts(i64::MIN).map(i128::from).sum::<i128>();
        assert_eq!(sum, -i128::from(i64::MIN));
    }

    #[test]
    fn costs_are_summed_exactly_and_rounded_once() -> Result<(), Error> {
        let third = Ratio::new(1, 3).map_err(|e| corrupt("ratio", e))?;
        let fifth = Ratio::new(6, 5).map_err(|e| corrupt("ratio", e))?;
        let mut sum = Exact::default();
        for _ in 0..3 {
            sum.add(1, third)?;
        }
        assert_eq!(sum.fen()?, 1);
        sum.add(2, fifth)?;
        assert_eq!((sum.points, sum.fen()?), (5, 3), "1 and 2.4 fen are 3.4");
        sum.add(-5, fifth)?;
        assert_eq!(sum.fen()?, -3, "-2.6 fen");
        Ok(())
    }
}
