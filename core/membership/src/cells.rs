//! Behind the figures of a clearing: every step of a lot that a figure sums, and the whole story of a lot.

use crate::books::{self, LineAccount, Movement};
use crate::clearing;
use crate::error::Error;
use crate::facade::Membership;
use crate::fraction::gcd;
use crate::member::corrupt;
use crate::transaction;
use heyuan_contract::{Fen, Line, MemberId, OrgUnitId, Ratio, Timestamp, TransactionId};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::{Actor, Problem, Reach, Scope, sql};
use heyuan_ledger::{LotState, LotStep, Period, Trail, TrailOf, TrailPlace};

/// A column of the clearing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Points that transactions earned.
    Issued,
    /// Opening balances that were taken over.
    Opened,
    /// Points that refunds took back.
    Refunded,
    /// Points past their expiry.
    Expired,
    /// Points of members that left.
    Forfeited,
    /// Points that were spent, less those given back.
    Spent,
    /// Points that paid what members owed.
    Recovered,
    /// Points that staff granted under four eyes, less those taken.
    Adjusted,
}

impl Column {
    /// Every column.
    pub const ALL: [Column; 8] = [
        Column::Issued,
        Column::Opened,
        Column::Refunded,
        Column::Expired,
        Column::Forfeited,
        Column::Spent,
        Column::Recovered,
        Column::Adjusted,
    ];

    /// The word in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Column::Issued => "issued",
            Column::Opened => "opened",
            Column::Refunded => "refunded",
            Column::Expired => "expired",
            Column::Forfeited => "forfeited",
            Column::Spent => "spent",
            Column::Recovered => "recovered",
            Column::Adjusted => "adjusted",
        }
    }

    /// The column with this name, if there is one.
    pub fn parse(text: &str) -> Option<Column> {
        Column::ALL.into_iter().find(|column| column.as_str() == text)
    }

    /// The column that a movement counts in; a transfer between members counts in none.
    const fn of(movement: Movement) -> Option<Column> {
        match movement {
            Movement::Earn => Some(Column::Issued),
            Movement::Open => Some(Column::Opened),
            Movement::Refund => Some(Column::Refunded),
            Movement::Expire => Some(Column::Expired),
            Movement::Forfeit => Some(Column::Forfeited),
            Movement::Spend | Movement::Return => Some(Column::Spent),
            Movement::Recover => Some(Column::Recovered),
            Movement::Adjust => Some(Column::Adjusted),
            Movement::Transfer => None,
        }
    }

    fn kinds(self) -> Vec<&'static str> {
        Movement::ALL.into_iter().filter(|movement| Column::of(*movement) == Some(self)).map(Movement::as_str).collect()
    }

    /// Where its steps stand, walked one after the other.
    const fn sources(self) -> &'static [Source] {
        match self {
            Column::Issued | Column::Opened => &[Source::Lots(Trail::Opened)],
            Column::Refunded => &[Source::Refunds],
            Column::Adjusted => &[Source::Lots(Trail::Opened), Source::Lots(Trail::Moved)],
            Column::Expired | Column::Forfeited | Column::Spent | Column::Recovered => &[Source::Lots(Trail::Moved)],
        }
    }

    /// Whether it counts what comes into lots, else what leaves them.
    const fn counts_gains(self) -> bool {
        matches!(self, Column::Issued | Column::Opened | Column::Adjusted)
    }
}

/// Where steps of a figure stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// On a trail of lots.
    Lots(Trail),
    /// What refunds took back: a part of it may be owed and never came out of a lot, so that it is told from the refunds.
    Refunds,
}

/// Where a walk through a figure's sources stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The source's place in their list.
    source: usize,
    at: TrailPlace,
}

/// A figure of a clearing: a column, perhaps of one issuer alone, and for what was spent perhaps with one line alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Which figure.
    pub column: Column,
    /// Who stands for the points; every line when left out.
    pub issuer: Option<Line>,
    /// Where they were spent; every line when left out. Of what was spent alone.
    pub spender: Option<Line>,
}

/// One step of a lot, as its figure sums it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellStep {
    /// The lot: the key of the transfer that opened it; told to a line of its own lots alone.
    pub lot: Option<String>,
    /// Who stands for it.
    pub issuer: Line,
    /// Where its points were spent, for what was spent.
    pub spender: Option<Line>,
    /// `earn`, `spend`, `return`, `refund`, …
    pub movement: String,
    /// Points, with the figure's sign: a spend that was given back has a minus.
    pub points: i64,
    /// Of them, those that were no longer in the lot and are owed by the member; a refund's alone.
    pub owed: i64,
    /// Fen a point.
    pub unit_cost: Ratio,
    /// Their exact cost in fen, above the line.
    pub cost_numerator: i128,
    /// Below it.
    pub cost_denominator: i128,
    /// When.
    pub occurred_at: Timestamp,
    /// What it belongs to: unit and transaction or spend, or the lot.
    pub reference: String,
}

/// A page of a figure's steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellPage {
    /// In the order of the book.
    pub steps: Vec<CellStep>,
    /// Where the next page goes on; `None` on the last one.
    pub next: Option<String>,
}

/// What opened a lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeBy {
    /// Where it was reported.
    pub unit: OrgUnitId,
    /// The line's own id.
    pub transaction: TransactionId,
    /// Who bought.
    pub member: Option<MemberId>,
    /// For how much.
    pub amount: Fen,
    /// When.
    pub occurred_at: Timestamp,
}

/// A lot, what made it, and a page of what happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotStory {
    /// The lot as it stands.
    pub lot: LotState,
    /// The transaction that earned it; `None` for an opening balance.
    pub made_by: Option<MadeBy>,
    /// What happened to it since then, the first first.
    pub steps: Vec<LotStep>,
}

impl Membership {
    /// A page of the steps that a figure of a period sums, after the `next` of the page before. All pages together come to the figure
    /// exactly: of a closed period always, of an open one as long as nothing is posted meanwhile. A key that covers all of a line's units sees what
    /// its statement sums: its own points but for what of them was spent, and what was spent with it.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for no month, a spender of what was not spent, and a cursor that no page gave.
    pub async fn cell(&self, actor: &Actor, period: &str, cell: Cell, after: Option<&str>, limit: u64) -> Result<CellPage, Error> {
        actor.require(Scope::Admin)?;
        if !self.may_see(actor, cell) {
            let words =
                "a key of the whole group sees every figure; a line's key, which covers all of its units, those of its own statement";
            return Err(Error::refused(kernel_codes::FORBIDDEN, words));
        }
        let period = Period::parse(period).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))?;
        if cell.spender.is_some() && cell.column != Column::Spent {
            return Err(Problem::invalid("spender", "expected with the movement spent alone; other points were not spent").into());
        }
        let sources = cell.column.sources();
        let mut place = match after {
            Some(text) => place_of(text, sources)?,
            None => Place { source: 0, at: self.cell_start(sources[0], period).await? },
        };
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut found: Vec<(Place, CellStep)> = Vec::new();
        loop {
            let left = limit + 1 - u64::try_from(found.len()).unwrap_or(u64::MAX);
            let steps = match sources[place.source] {
                Source::Lots(trail) => self.steps_of(period, cell, trail, place.at, left).await?,
                Source::Refunds => self.refunds_of(period, cell, place.at, left).await?,
            };
            found.extend(steps.into_iter().map(|(after, step)| (Place { at: TrailPlace { after, ..place.at }, ..place }, step)));
            if found.len() > wanted || place.source + 1 == sources.len() {
                break;
            }
            let source = place.source + 1;
            place = Place { source, at: self.cell_start(sources[source], period).await? };
        }
        let more = found.len() > wanted;
        found.truncate(wanted);
        let next = found.last().filter(|_| more).map(|(place, _)| place.to_text());
        for (_, step) in found.iter_mut().filter(|(_, step)| !self.speaks_for(actor, step.issuer)) {
            step.lot = None;
        }
        Ok(CellPage { steps: found.into_iter().map(|(_, step)| step).collect(), next })
    }

    /// Whether a figure is one of a statement that a key speaks for.
    fn may_see(&self, actor: &Actor, cell: Cell) -> bool {
        let line = match cell.column {
            Column::Spent => cell.spender,
            Column::Recovered => None,
            _ => cell.issuer,
        };
        *actor.reach() == Reach::Everything || line.is_some_and(|line| self.speaks_for(actor, line))
    }

    async fn cell_start(&self, source: Source, period: Period) -> Result<TrailPlace, Error> {
        let reader = self.kernel().db.reader();
        if let Source::Lots(trail) = source {
            return Ok(self.ledger().trail_start(reader, trail, period).await?);
        }
        let text = "SELECT MIN(no + 0) AS first, MAX(no + 0) AS last FROM membership_transaction
                    WHERE kind = 'refund' AND state = 'posted' AND period = $1";
        let row = sql::one(reader, text, [period.number().into()]).await?;
        let number = |name| row.as_ref().map_or(Ok(None), |row| sql::get::<Option<i64>>(row, name));
        Ok(TrailPlace { after: number("first")?.unwrap_or(1) - 1, until: number("last")?.unwrap_or(0) })
    }

    async fn steps_of(
        &self,
        period: Period,
        cell: Cell,
        trail: Trail,
        place: TrailPlace,
        limit: u64,
    ) -> Result<Vec<(i64, CellStep)>, Error> {
        let (kinds, other) = (cell.column.kinds(), cell.spender.map(|line| books::line_account(line, LineAccount::Spent)));
        let of =
            TrailOf { unit: books::POINTS, period, trail, kinds: &kinds, issuer: cell.issuer.map(Line::as_str), other: other.as_deref() };
        let steps = self.ledger().trail_page(self.kernel().db.reader(), &of, place, limit).await?;
        steps.into_iter().map(|step| Ok((step.number, cell_step(step, cell.column)?))).collect()
    }

    async fn refunds_of(&self, period: Period, cell: Cell, place: TrailPlace, limit: u64) -> Result<Vec<(i64, CellStep)>, Error> {
        let text = "SELECT no, id, unit, line, refund_of, points, receivable, cost_numerator, cost_denominator, occurred_at
                    FROM membership_transaction WHERE kind = 'refund' AND state = 'posted' AND period = $1 AND no > $2 AND no <= $3
                      AND points <> 0 AND ($4 = '' OR line = $4) ORDER BY no LIMIT $5";
        let line = cell.issuer.map_or("", Line::as_str);
        let values = [period.number().into(), place.after.into(), place.until.into(), line.into(), limit.into()];
        sql::all(self.kernel().db.reader(), text, values).await?.iter().map(refund_step).collect()
    }

    /// A lot by the key of the transfer that opened it, with what happened to it after a number.
    ///
    /// # Errors
    /// `forbidden`; `not_found`.
    pub async fn lot(&self, actor: &Actor, source: &str, after: i64, limit: u64) -> Result<LotStory, Error> {
        clearing::of_the_group(actor)?;
        let reader = self.kernel().db.reader();
        let lot = self.ledger().lot_state(reader, books::POINTS, source).await?;
        let lot = lot.ok_or_else(|| Problem::not_found("lot", "of this source"))?;
        let steps = self.ledger().lot_steps(reader, source, after, limit).await?;
        let made_by = match books::earned_by(source) {
            None => None,
            Some((unit, id)) => transaction::find(reader, &unit, &id).await?.map(|row| MadeBy {
                unit: row.unit,
                transaction: row.id,
                member: row.member,
                amount: Fen(row.amount),
                occurred_at: row.occurred_at,
            }),
        };
        Ok(LotStory { lot, made_by, steps })
    }
}

/// The line where points were spent, by the account that they went to or came back from.
pub(crate) fn spent_with(account: &str) -> Option<Line> {
    Line::ALL.into_iter().find(|line| books::line_account(*line, LineAccount::Spent) == account)
}

impl Place {
    fn to_text(self) -> String {
        format!("{}|{}|{}", self.source, self.at.after, self.at.until)
    }
}

fn place_of(text: &str, sources: &[Source]) -> Result<Place, Problem> {
    let read = || {
        let mut numbers = text.split('|').map(str::parse::<i64>);
        let (source, after, until) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let source = usize::try_from(source).ok().filter(|source| *source < sources.len())?;
        numbers.next().is_none().then_some(Place { source, at: TrailPlace { after, until } })
    };
    read().ok_or_else(|| Problem::invalid("cursor", "expected the `next` of an earlier page"))
}

fn cell_step(step: LotStep, column: Column) -> Result<CellStep, Error> {
    let issuer = Line::parse(&step.issuer).ok_or_else(|| corrupt("issuer line", &step.issuer))?;
    let spender = match column {
        Column::Spent => Some(spent_with(&step.other).ok_or_else(|| corrupt("spender", &step.other))?),
        _ => None,
    };
    let points = if column.counts_gains() { step.amount } else { -step.amount };
    let (cost_numerator, cost_denominator) = exact_cost(points, step.cost);
    Ok(CellStep {
        lot: Some(step.source),
        issuer,
        spender,
        movement: step.kind,
        points,
        owed: 0,
        unit_cost: step.cost,
        cost_numerator,
        cost_denominator,
        occurred_at: step.occurred_at,
        reference: step.reference,
    })
}

fn refund_step(row: &sql::Row) -> Result<(i64, CellStep), Error> {
    let text = |column: &str| sql::get::<String>(row, column);
    let unit = OrgUnitId::new(text("unit")?).map_err(|e| corrupt("refund unit", e))?;
    let (id, of) = (text("id")?, TransactionId::new(text("refund_of")?).map_err(|e| corrupt("refund", e))?);
    let line = text("line")?;
    let unit_cost = Ratio::new(sql::get(row, "cost_numerator")?, sql::get(row, "cost_denominator")?);
    let unit_cost = unit_cost.map_err(|e| corrupt("unit cost", e))?;
    let points = -sql::get::<i64>(row, "points")?;
    let (cost_numerator, cost_denominator) = exact_cost(points, unit_cost);
    let step = CellStep {
        lot: Some(books::earn_key(&unit, &of)),
        issuer: Line::parse(&line).ok_or_else(|| corrupt("refund line", &line))?,
        spender: None,
        movement: Movement::Refund.as_str().to_owned(),
        points,
        owed: sql::get(row, "receivable")?,
        unit_cost,
        cost_numerator,
        cost_denominator,
        occurred_at: Timestamp::clamped(sql::get(row, "occurred_at")?),
        reference: format!("{unit}/{id}"),
    };
    Ok((sql::get(row, "no")?, step))
}

/// Points times their unit cost, in lowest terms.
fn exact_cost(points: i64, cost: Ratio) -> (i128, i128) {
    let (above, below) = (i128::from(points) * i128::from(cost.numerator()), i128::from(cost.denominator()));
    let common = gcd(above, below);
    (above / common, below / common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_movement_has_its_column_and_every_column_a_movement() {
        for column in Column::ALL {
            assert!(!column.kinds().is_empty(), "{column:?}");
            assert_eq!(Column::parse(column.as_str()), Some(column));
        }
        assert_eq!(Column::ALL.iter().map(|column| column.kinds().len()).sum::<usize>(), Movement::ALL.len() - 1, "all but transfers");
    }

    #[test]
    fn costs_are_exact_and_in_lowest_terms() -> Result<(), Error> {
        let fifth = Ratio::new(6, 5).map_err(|e| corrupt("ratio", e))?;
        for (points, expected) in [(0, (0, 1)), (5, (6, 1)), (37, (222, 5)), (-37, (-222, 5))] {
            assert_eq!(exact_cost(points, fifth), expected, "{points}");
        }
        assert_eq!(exact_cost(i64::MAX - 2, fifth), (i128::from(i64::MAX - 2) / 5 * 6, 1), "more than 64 bits hold");
        Ok(())
    }

    #[test]
    fn a_cursor_names_a_place() {
        let sources = Column::Spent.sources();
        let place = Place { source: 0, at: TrailPlace { after: 7, until: 9 } };
        assert_eq!(place_of(&place.to_text(), sources).ok(), Some(place));
        for text in ["", "7|9", "0|7", "0|7|", "0|x|9", "0|7|9|1", "1|7|9", "-1|7|9"] {
            assert_eq!(place_of(text, sources).map_err(|problem| problem.body().field), Err(Some("cursor".into())), "{text}");
        }
    }
}
