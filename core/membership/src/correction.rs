//! Corrections: money between a line and the points centre, or another line, because a closed month was wrong.
//!
//! One person of the group proposes it and another one approves it. It counts in the first month that is open then, in a column of its
//! own; the closed month stays as it is.

use crate::books;
use crate::clearing;
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::corrupt;
use crate::settlement::{self, StatementState};
use futures::FutureExt;
use heyuan_contract::{EntryId, Line, Ratio, Timestamp};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::keys::same_hand;
use heyuan_kernel::{Actor, Kernel, Problem, Scope, Tx, audit, sql};
use heyuan_ledger::Period;
use serde::Serialize;

/// What is read of a row of `membership_correction_entry`.
const COLUMNS: &str = "no, id, of_period, line, counter, fen, points, cost_numerator, cost_denominator, reason, dispute, state, \
     proposed_by, proposed_at, decided_by, decided_at, decision, period, idempotency, idempotency_digest";

/// Most points of one correction.
const POINTS_MAX: i64 = 10_000_000_000;

/// What a correction moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Amount {
    /// Fen: positive when the line gets it.
    Fen(i64),
    /// Points at a unit cost in fen, which must come to whole fen: positive when the line gets it.
    Points(i64, Ratio),
}

/// A correction to propose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Correction {
    /// The closed month that was wrong.
    pub of_period: String,
    /// The line that gets it, or with a minus owes it.
    pub line: Line,
    /// The line on the other side; the points centre when left out.
    pub counter: Option<Line>,
    /// How much.
    pub amount: Amount,
    /// Why, in people's words without personal data.
    pub reason: String,
    /// The dispute that it answers, if any.
    pub dispute: Option<String>,
}

/// Where a correction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorrectionState {
    /// It waits for a second person.
    Proposed,
    /// It counts.
    Approved,
    /// It does not count.
    Rejected,
}

impl CorrectionState {
    const ALL: [CorrectionState; 3] = [CorrectionState::Proposed, CorrectionState::Approved, CorrectionState::Rejected];

    /// The word in tables and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            CorrectionState::Proposed => "proposed",
            CorrectionState::Approved => "approved",
            CorrectionState::Rejected => "rejected",
        }
    }

    /// The state with this name, if there is one.
    pub fn parse(text: &str) -> Option<CorrectionState> {
        CorrectionState::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A correction as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrectionView {
    /// Its place in the list.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// The closed month that was wrong.
    pub of_period: Period,
    /// The line.
    pub line: Line,
    /// The line on the other side; `None` is the points centre.
    pub counter: Option<Line>,
    /// What the line gets, or with a minus owes; the other side the reverse.
    pub fen: i64,
    /// The points and their unit cost, where it was proposed in points.
    pub points: Option<(i64, Ratio)>,
    /// Why.
    pub reason: String,
    /// The dispute that it answers.
    pub dispute: Option<String>,
    /// Where it stands.
    pub state: CorrectionState,
    /// Who proposed it.
    pub proposed_by: String,
    /// When.
    pub proposed_at: Timestamp,
    /// Who approved or rejected it.
    pub decided_by: Option<String>,
    /// When.
    pub decided_at: Option<Timestamp>,
    /// Why it was rejected.
    pub decision: Option<String>,
    /// The month in which it counts.
    pub period: Option<Period>,
}

/// Which corrections are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CorrectionFilter {
    /// Of this closed month.
    pub of_period: Option<Period>,
    /// That count in this month.
    pub period: Option<Period>,
    /// Of this line, on either side.
    pub line: Option<Line>,
    /// That stand so.
    pub state: Option<CorrectionState>,
}

/// What somebody decides about a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Approve,
    /// It does not, and why.
    Reject(String),
}

impl Verdict {
    const fn state(&self) -> CorrectionState {
        match self {
            Verdict::Approve => CorrectionState::Approved,
            Verdict::Reject(_) => CorrectionState::Rejected,
        }
    }
}

impl Membership {
    /// Proposes a correction of a closed month. The same key again is answered with the proposal that it made, as it stands.
    ///
    /// # Errors
    /// `forbidden` to any key but the group's; `invalid_request` with the field; `not_found` for a month that is not closed;
    /// `statement_state` when the dispute is not the one that the line's statement stands in.
    pub async fn propose_correction(&self, actor: &Actor, correction: &Correction, header: Option<&str>) -> Result<CorrectionView, Error> {
        clearing::of_the_group(actor)?;
        let key = IdempotencyKey::new(actor, "propose correction", header, correction)?;
        let fen = checked(correction)?;
        let of_period = Period::parse(&correction.of_period);
        let of_period = of_period.ok_or_else(|| Problem::invalid("of_period", "expected a closed month such as 2026-11"))?;
        self.kernel()
            .db
            .settle(|| async {
                if let Some((known, digest)) = find(self.kernel().db.near(), "idempotency", &key.stored).await? {
                    key.check(&digest)?;
                    return Ok(known);
                }
                self.closed_clearing(self.kernel().db.reader(), of_period).await?;
                if let Some(dispute) = &correction.dispute {
                    self.check_dispute(self.kernel().db.near(), of_period, correction.line, dispute).await?;
                }
                let (membership, actor, key, correction) = (self.clone(), actor.clone(), key.clone(), correction.clone());
                self.kernel()
                    .db
                    .write("propose a correction", move |tx| {
                        let (membership, actor, key, correction) = (membership.clone(), actor.clone(), key.clone(), correction.clone());
                        async move { membership.write_correction(tx, &actor, &key, &correction, of_period, fen).await }.boxed()
                    })
                    .await
            })
            .await
    }

    async fn write_correction(
        &self,
        tx: &Tx,
        actor: &Actor,
        key: &IdempotencyKey,
        correction: &Correction,
        of_period: Period,
        fen: i64,
    ) -> Result<CorrectionView, Error> {
        let points = match correction.amount {
            Amount::Fen(_) => None,
            Amount::Points(points, cost) => Some((points, cost)),
        };
        let view = CorrectionView {
            number: 0,
            id: Kernel::new_id::<EntryId>("cor").to_string(),
            of_period,
            line: correction.line,
            counter: correction.counter,
            fen,
            points,
            reason: correction.reason.clone(),
            dispute: correction.dispute.clone(),
            state: CorrectionState::Proposed,
            proposed_by: actor.name().to_owned(),
            proposed_at: self.kernel().clock.now(),
            decided_by: None,
            decided_at: None,
            decision: None,
            period: None,
        };
        let Some(number) = insert(tx, &view, Some(key)).await? else {
            return Err(heyuan_kernel::Error::Stale("a correction with the same key").into());
        };
        let entry = audit::Entry::new(actor, "propose correction", &view.id).detail("of_period", of_period.to_string());
        let entry = entry.detail("line", view.line.as_str()).detail("counter", counter_name(view.counter)).detail("fen", fen);
        audit::record(tx, &entry).await?;
        Ok(CorrectionView { number, ..view })
    }

    /// Approves or rejects a proposal. Saying the same again changes nothing.
    ///
    /// # Errors
    /// `forbidden` to any key but the group's; `four_eyes` for who proposed it; `not_found`; `correction_state` when it was
    /// decided otherwise; `statement_state` when the dispute that it answers was answered meanwhile.
    pub async fn decide_correction(&self, actor: &Actor, id: &str, verdict: Verdict) -> Result<CorrectionView, Error> {
        clearing::of_the_group(actor)?;
        if let Verdict::Reject(words) = &verdict {
            settlement::check_words(words)?;
        }
        let known = find(self.kernel().db.near(), "id", id).await?;
        let (known, _) = known.ok_or_else(|| Problem::not_found("correction", "of this id"))?;
        let (membership, actor) = (self.clone(), actor.clone());
        self.kernel()
            .db
            .write("decide a correction", move |tx| {
                let (membership, actor, known, verdict) = (membership.clone(), actor.clone(), known.clone(), verdict.clone());
                async move { membership.write_verdict(tx, &actor, &known, &verdict).await }.boxed()
            })
            .await
    }

    async fn write_verdict(&self, tx: &Tx, actor: &Actor, known: &CorrectionView, verdict: &Verdict) -> Result<CorrectionView, Error> {
        // It counts in the first open month, which nobody closes meanwhile; the statement's own name keeps two voices apart.
        let book = self.ledger().enter_alone(tx, books::POINTS, &settlement::lock_name(known.of_period, known.line)).await?;
        let (view, _) = find(tx.conn(), "id", &known.id).await?.ok_or_else(|| Problem::not_found("correction", "of this id"))?;
        if view.state == verdict.state() {
            return Ok(view);
        }
        if view.state != CorrectionState::Proposed {
            let words = format!("correction {} is {} already", view.id, view.state.as_str());
            return Err(Error::refused(codes::CORRECTION_STATE, words));
        }
        let now = self.kernel().clock.now();
        let decided = match verdict {
            Verdict::Approve => {
                if same_hand(tx.conn(), actor.name(), &view.proposed_by).await? {
                    let words = format!("correction {} was proposed with this key or with one that has a maker in common with it", view.id);
                    return Err(Error::refused(codes::FOUR_EYES, format!("{words}; somebody else approves it")));
                }
                let period = book.period(Period::of(&self.kernel().zone, now));
                self.count_correction(tx, actor, &view, period, now).await?;
                CorrectionView { period: Some(period), ..view }
            }
            Verdict::Reject(words) => CorrectionView { decision: Some(words.clone()), ..view },
        };
        let decided =
            CorrectionView { state: verdict.state(), decided_by: Some(actor.name().to_owned()), decided_at: Some(now), ..decided };
        update(tx, &decided).await?;
        let entry = audit::Entry::new(actor, "decide correction", &decided.id).detail("state", decided.state.as_str());
        audit::record(tx, &entry.detail("of_period", decided.of_period.to_string()).detail("fen", decided.fen)).await?;
        Ok(decided)
    }

    /// Writes what the clearing of the open month sums, and answers the dispute where there is one.
    async fn count_correction(&self, tx: &Tx, actor: &Actor, view: &CorrectionView, period: Period, at: Timestamp) -> Result<(), Error> {
        if let Some(dispute) = &view.dispute {
            self.check_dispute(tx.conn(), view.of_period, view.line, dispute).await?;
            settlement::record(tx, view.of_period, view.line, StatementState::Answered, &view.reason, actor, at).await?;
        }
        settlement::correct(tx, &view.id, view.of_period, view.line, view.fen, period, at).await?;
        if let Some(counter) = view.counter {
            settlement::correct(tx, &format!("{}:counter", view.id), view.of_period, counter, -view.fen, period, at).await?;
        }
        Ok(())
    }

    async fn check_dispute<C: sql::Connection>(&self, conn: &C, of_period: Period, line: Line, dispute: &str) -> Result<(), Error> {
        let standing = settlement::disputed(conn, of_period, line).await?;
        if standing.as_deref() == Some(dispute) {
            return Ok(());
        }
        let words = format!("the statement of {line} for {of_period} does not stand in the dispute {dispute}");
        Err(Problem::new(codes::STATEMENT_STATE, words).field("dispute").into())
    }

    /// One correction: any with a key of the group, else those of lines whose every unit the key reaches.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn correction(&self, actor: &Actor, id: &str) -> Result<CorrectionView, Error> {
        actor.require(Scope::Admin)?;
        let found = find(self.kernel().db.near(), "id", id).await?.map(|(view, _)| view);
        let sees =
            |view: &CorrectionView| self.speaks_for(actor, view.line) || view.counter.is_some_and(|line| self.speaks_for(actor, line));
        Ok(found.filter(sees).ok_or_else(|| Problem::not_found("correction", "of this id"))?)
    }

    /// A page of the corrections after a number, oldest first: all of them with a key of the group, else those of lines whose every unit
    /// the key reaches.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn corrections(&self, actor: &Actor, filter: CorrectionFilter, after: i64, limit: u64) -> Result<Vec<CorrectionView>, Error> {
        actor.require(Scope::Admin)?;
        let own: Vec<Line> = Line::ALL.into_iter().filter(|line| self.speaks_for(actor, *line)).collect();
        if own.is_empty() {
            return Err(Error::refused(kernel_codes::FORBIDDEN, "this key reaches no line whole; a line's key covers all of its units"));
        }
        let lines = sql::placeholders(6, own.len());
        let text = format!(
            "SELECT {COLUMNS} FROM membership_correction_entry WHERE no > $1 AND ($2 = 0 OR of_period = $2) AND ($3 = 0 OR period = $3)
               AND ($4 = '' OR line = $4 OR counter = $4) AND ($5 = '' OR state = $5) AND (line IN ({lines}) OR counter IN ({lines}))
             ORDER BY no LIMIT ${}",
            6 + own.len()
        );
        let month = |period: Option<Period>| period.map_or(0, Period::number);
        let mut values: Vec<sea_orm::Value> = vec![
            after.into(),
            month(filter.of_period).into(),
            month(filter.period).into(),
            filter.line.map_or("", Line::as_str).into(),
            filter.state.map_or("", CorrectionState::as_str).into(),
        ];
        values.extend(own.iter().map(|line| line.as_str().into()));
        values.push(limit.into());
        let rows = sql::all(self.kernel().db.reader(), &text, values).await?;
        rows.iter().map(|row| Ok(read(row)?.0)).collect()
    }
}

/// What a correction comes to in fen, if it is one.
fn checked(correction: &Correction) -> Result<i64, Problem> {
    settlement::check_words(&correction.reason)?;
    if correction.counter == Some(correction.line) {
        return Err(Problem::invalid("counter", "expected the centre, or another line than the correction's own"));
    }
    let (field, fen) = match correction.amount {
        Amount::Fen(fen) => ("fen", fen),
        Amount::Points(points, cost) => ("points", whole_fen(points, cost)?),
    };
    if fen == 0 {
        return Err(Problem::invalid(field, "expected an amount other than nothing"));
    }
    settlement::check_correction(field, fen)?;
    Ok(fen)
}

/// Points at a unit cost as whole fen.
fn whole_fen(points: i64, cost: Ratio) -> Result<i64, Problem> {
    if !(-POINTS_MAX..=POINTS_MAX).contains(&points) {
        return Err(Problem::invalid("points", format!("expected points between -{POINTS_MAX} and {POINTS_MAX}")));
    }
    let (above, below) = (i128::from(points) * i128::from(cost.numerator()), i128::from(cost.denominator()));
    if above % below != 0 {
        let words = format!("{points} points at {}/{} fen are no whole fen; correct in fen", cost.numerator(), cost.denominator());
        return Err(Problem::invalid("points", words));
    }
    i64::try_from(above / below).map_err(|_| Problem::invalid("points", "expected points that cost less"))
}

/// A correction that answers a dispute at once: two sides spoke, the line and the group.
pub(crate) struct Answered<'a> {
    pub(crate) of: (Period, Line),
    pub(crate) fen: i64,
    pub(crate) words: &'a str,
    pub(crate) dispute: Option<String>,
    pub(crate) counts_in: Period,
    pub(crate) at: Timestamp,
}

/// Writes a correction that answers a dispute.
pub(crate) async fn answered(tx: &Tx, actor: &Actor, answer: Answered<'_>) -> Result<(), Error> {
    let Answered { of: (of_period, line), fen, words, dispute, counts_in, at } = answer;
    let id = Kernel::new_id::<EntryId>("cor").to_string();
    settlement::correct(tx, &id, of_period, line, fen, counts_in, at).await?;
    let by = actor.name().to_owned();
    let view = CorrectionView {
        number: 0,
        id,
        of_period,
        line,
        counter: None,
        fen,
        points: None,
        reason: words.to_owned(),
        dispute,
        state: CorrectionState::Approved,
        proposed_by: by.clone(),
        proposed_at: at,
        decided_by: Some(by),
        decided_at: Some(at),
        decision: None,
        period: Some(counts_in),
    };
    insert(tx, &view, None).await?;
    Ok(())
}

fn counter_name(counter: Option<Line>) -> &'static str {
    counter.map_or("centre", Line::as_str)
}

/// Writes a correction; `None` when its key made one already.
async fn insert(tx: &Tx, view: &CorrectionView, key: Option<&IdempotencyKey>) -> Result<Option<i64>, Error> {
    let text =
        "INSERT INTO membership_correction_entry (id, of_period, line, counter, fen, points, cost_numerator, cost_denominator, reason,
                  dispute, state, proposed_by, proposed_at, decided_by, decided_at, period, idempotency, idempotency_digest)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
                ON CONFLICT (idempotency) DO NOTHING RETURNING no";
    let row = sql::one(
        tx.conn(),
        text,
        [
            view.id.clone().into(),
            view.of_period.number().into(),
            view.line.as_str().into(),
            counter_name(view.counter).into(),
            view.fen.into(),
            view.points.map(|(points, _)| points).into(),
            view.points.map(|(_, cost)| cost.numerator()).into(),
            view.points.map(|(_, cost)| cost.denominator()).into(),
            view.reason.clone().into(),
            view.dispute.clone().into(),
            view.state.as_str().into(),
            view.proposed_by.clone().into(),
            view.proposed_at.ms().into(),
            view.decided_by.clone().into(),
            view.decided_at.map(Timestamp::ms).into(),
            view.period.map(Period::number).into(),
            key.map(|key| key.stored.clone()).into(),
            key.map_or("", |key| key.digest.as_str()).into(),
        ],
    )
    .await?;
    Ok(row.map(|row| sql::get(&row, "no")).transpose()?)
}

async fn update(tx: &Tx, view: &CorrectionView) -> Result<(), Error> {
    let text =
        "UPDATE membership_correction_entry SET state = $2, decided_by = $3, decided_at = $4, decision = $5, period = $6 WHERE id = $1";
    let values = [
        view.id.clone().into(),
        view.state.as_str().into(),
        view.decided_by.clone().into(),
        view.decided_at.map(Timestamp::ms).into(),
        view.decision.clone().into(),
        view.period.map(Period::number).into(),
    ];
    sql::execute(tx.conn(), text, values).await?;
    Ok(())
}

async fn find<C: sql::Connection>(conn: &C, column: &'static str, value: &str) -> Result<Option<(CorrectionView, String)>, Error> {
    let text = format!("SELECT {COLUMNS} FROM membership_correction_entry WHERE {column} = $1");
    sql::one(conn, &text, [value.into()]).await?.as_ref().map(read).transpose()
}

fn read(row: &sql::Row) -> Result<(CorrectionView, String), Error> {
    let month = |number: i64| Period::from_number(number).ok_or_else(|| corrupt("correction", number));
    let (line, counter): (String, String) = (sql::get(row, "line")?, sql::get(row, "counter")?);
    let state: String = sql::get(row, "state")?;
    let points: Option<i64> = sql::get(row, "points")?;
    let points = match points {
        None => None,
        Some(points) => {
            let cost = Ratio::new(sql::get(row, "cost_numerator")?, sql::get(row, "cost_denominator")?);
            Some((points, cost.map_err(|e| corrupt("correction", e))?))
        }
    };
    let view = CorrectionView {
        number: sql::get(row, "no")?,
        id: sql::get(row, "id")?,
        of_period: month(sql::get(row, "of_period")?)?,
        line: Line::parse(&line).ok_or_else(|| corrupt("correction", &line))?,
        counter: Line::parse(&counter),
        fen: sql::get(row, "fen")?,
        points,
        reason: sql::get(row, "reason")?,
        dispute: sql::get(row, "dispute")?,
        state: CorrectionState::parse(&state).ok_or_else(|| corrupt("correction", &state))?,
        proposed_by: sql::get(row, "proposed_by")?,
        proposed_at: Timestamp::clamped(sql::get(row, "proposed_at")?),
        decided_by: sql::get(row, "decided_by")?,
        decided_at: sql::get::<Option<i64>>(row, "decided_at")?.map(Timestamp::clamped),
        decision: sql::get(row, "decision")?,
        period: sql::get::<Option<i64>>(row, "period")?.map(month).transpose()?,
    };
    Ok((view, sql::get(row, "idempotency_digest")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn correction(amount: Amount, counter: Option<Line>, reason: &str) -> Correction {
        Correction { of_period: "2026-11".into(), line: Line::Mall, counter, amount, reason: reason.into(), dispute: None }
    }

    #[test]
    fn an_amount_is_whole_fen_or_refused_with_its_field() {
        let fifth = Ratio::new(6, 5).expect("a ratio");
        for (amount, expected) in [
            (Amount::Fen(60), Ok(60)),
            (Amount::Fen(-60), Ok(-60)),
            (Amount::Fen(0), Err("fen")),
            (Amount::Fen(i64::MIN), Err("fen")),
            (Amount::Points(50, fifth), Ok(60)),
            (Amount::Points(-50, fifth), Ok(-60)),
            (Amount::Points(51, fifth), Err("points")),
            (Amount::Points(0, fifth), Err("points")),
            (Amount::Points(i64::MAX, fifth), Err("points")),
        ] {
            let found = checked(&correction(amount, None, "a double import")).map_err(|problem| problem.body().field);
            assert_eq!(found, expected.map_err(|field: &str| Some(field.to_owned())), "{amount:?}");
        }
    }

    #[test]
    fn the_other_side_is_another_and_the_reason_is_given() {
        let field = |counter, reason| checked(&correction(Amount::Fen(1), counter, reason)).err().and_then(|problem| problem.body().field);
        assert_eq!(field(Some(Line::Hotel), "ours"), None);
        assert_eq!(field(Some(Line::Mall), "ours").as_deref(), Some("counter"));
        assert_eq!(field(None, " ").as_deref(), Some("reason"));
    }
}
