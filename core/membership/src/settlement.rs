//! What lines say to their statements of a closed period: each confirms its own or disputes it, and the group answers a dispute, where
//! it is right with a correction.
//!
//! A closed period never changes. A correction is money between the line and the points centre that counts in the first open one, as a
//! column of its own.

use crate::books;
use crate::clearing::ClearingLine;
use crate::correction::{self, Answered};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::corrupt;
use futures::FutureExt;
use heyuan_contract::{EntryId, Line, Timestamp};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::keys::same_hand;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Kernel, Problem, Reach, Scope, Tx, audit, sql};
use heyuan_ledger::Period;
use serde::Serialize;

/// Longest words of a dispute or an answer, in bytes.
const WORDS_BYTES_MAX: usize = 500;
/// Largest correction: a hundred million yuan.
const CORRECTION_FEN_MAX: i64 = 10_000_000_000;

/// The act of speaking to a statement in the audit record; never renamed.
pub(crate) const SAID: &str = "say to a statement";

/// Where a statement stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementState {
    /// The line has not spoken.
    Issued,
    /// The line agrees, for good.
    Confirmed,
    /// The line disagrees.
    Disputed,
    /// The group has answered the dispute; the line speaks again.
    Answered,
}

impl StatementState {
    const ALL: [StatementState; 4] =
        [StatementState::Issued, StatementState::Confirmed, StatementState::Disputed, StatementState::Answered];

    /// The word in tables and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            StatementState::Issued => "issued",
            StatementState::Confirmed => "confirmed",
            StatementState::Disputed => "disputed",
            StatementState::Answered => "answered",
        }
    }
}

/// One line's statement of a closed period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineStatement {
    /// The closed month.
    pub period: Period,
    /// Its figures, for ever.
    pub figures: ClearingLine,
    /// Where it stands.
    pub state: StatementState,
    /// What was said last, in people's words.
    pub words: Option<String>,
    /// Who spoke last.
    pub by: Option<String>,
    /// When.
    pub at: Option<Timestamp>,
    /// Corrections that were made because of it, in fen: what the line gets, or with a minus owes, beyond its figures.
    pub corrected_fen: i64,
    /// The dispute that it stands in: what a correction names that answers it.
    pub dispute: Option<String>,
}

/// What a line says to its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// The line agrees.
    Confirm,
    /// The line disagrees, and why.
    Dispute(String),
}

/// What the group answers to a dispute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// In people's words, without personal data.
    pub words: String,
    /// What the line gets, or with a minus owes; 0 for an answer without a correction.
    pub correction_fen: i64,
    /// The dispute that is answered, where the caller says which it read: another one is not.
    pub dispute: Option<String>,
}

impl Say {
    const fn state(&self) -> StatementState {
        match self {
            Say::Confirm => StatementState::Confirmed,
            Say::Dispute(_) => StatementState::Disputed,
        }
    }

    fn words(&self) -> &str {
        match self {
            Say::Confirm => "",
            Say::Dispute(words) => words,
        }
    }

    fn check(&self) -> Result<(), Problem> {
        match self {
            Say::Confirm => Ok(()),
            Say::Dispute(words) => check_words(words),
        }
    }
}

impl Membership {
    /// The statements of a closed period that the actor may see: every line's with a key of the group, else those of lines whose every
    /// unit the key reaches.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for no month; `not_found` for one that is not closed.
    pub async fn statements(&self, actor: &Actor, period: &str) -> Result<Vec<LineStatement>, Error> {
        actor.require(Scope::Admin)?;
        let period = Period::parse(period).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))?;
        let reader = self.kernel().db.reader();
        let clearing = self.closed_clearing(reader, period).await?;
        let mut statements = Vec::with_capacity(clearing.lines.len());
        for figures in clearing.lines.into_iter().filter(|row| self.speaks_for(actor, row.line)) {
            statements.push(read(reader, period, figures).await?);
        }
        if statements.is_empty() {
            return Err(Error::refused(kernel_codes::FORBIDDEN, "this key reaches no line whole; a line's key covers all of its units"));
        }
        Ok(statements)
    }

    /// Confirms or disputes a line's statement. Saying the same again changes nothing.
    ///
    /// # Errors
    /// `forbidden` to a key that does not reach all of the line's units; `invalid_request`; `not_found`; `statement_state` when it stands
    /// otherwise, as a dispute of what was confirmed.
    pub async fn say(&self, actor: &Actor, period: &str, line: Line, say: Say) -> Result<LineStatement, Error> {
        actor.require(Scope::Admin)?;
        check_allowed(self.speaks_for(actor, line))?;
        say.check()?;
        let (period, figures) = self.figures_of(period, line).await?;
        let (membership, actor) = (self.clone(), actor.clone());
        self.kernel()
            .db
            .write("say to a statement", move |tx| {
                let (membership, actor, figures, say) = (membership.clone(), actor.clone(), figures.clone(), say.clone());
                async move { membership.write_say(tx, &actor, period, figures, &say).await }.boxed()
            })
            .await
    }

    /// Answers a disputed statement for the group, with a correction in fen or none. The same key again is answered from what it did,
    /// whatever was said since.
    ///
    /// # Errors
    /// `forbidden` to any key but the group's; `invalid_request`; `not_found`; `statement_state` when the statement stands in no dispute, or
    /// in another one than is named; `four_eyes` for a correction by whoever disputed; `idempotency_key_reused`.
    pub async fn answer(
        &self,
        actor: &Actor,
        period: &str,
        line: Line,
        answer: &Answer,
        header: Option<&str>,
    ) -> Result<LineStatement, Error> {
        actor.require(Scope::Admin)?;
        check_allowed(*actor.reach() == Reach::Everything)?;
        let key = IdempotencyKey::new(actor, "answer a dispute", header, &(period, line, answer))?;
        check_words(&answer.words)?;
        check_correction("correction_fen", answer.correction_fen)?;
        let (period, figures) = self.figures_of(period, line).await?;
        let (membership, actor, answer) = (self.clone(), actor.clone(), answer.clone());
        self.kernel()
            .db
            .settle(|| async {
                let (membership, actor, answer) = (membership.clone(), actor.clone(), answer.clone());
                let (figures, key) = (figures.clone(), key.clone());
                self.kernel()
                    .db
                    .write("answer a dispute", move |tx| {
                        let (membership, actor, answer) = (membership.clone(), actor.clone(), answer.clone());
                        let (figures, key) = (figures.clone(), key.clone());
                        async move { membership.write_answer(tx, &actor, (period, figures), &answer, &key).await }.boxed()
                    })
                    .await
            })
            .await
    }

    /// The month that somebody names, with the figures of a line in its statement.
    async fn figures_of(&self, period: &str, line: Line) -> Result<(Period, ClearingLine), Error> {
        let period = Period::parse(period).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))?;
        let clearing = self.closed_clearing(self.kernel().db.reader(), period).await?;
        let figures = clearing.lines.into_iter().find(|row| row.line == line);
        Ok((period, figures.ok_or_else(|| Problem::not_found("statement of line", line))?))
    }

    async fn write_say(&self, tx: &Tx, actor: &Actor, period: Period, figures: ClearingLine, say: &Say) -> Result<LineStatement, Error> {
        // The statement's own name keeps two voices apart.
        self.ledger().enter_alone(tx, books::POINTS, &lock_name(period, figures.line)).await?;
        let before = read(tx.conn(), period, figures.clone()).await?;
        let repeated = before.state == say.state() && before.words.as_deref().unwrap_or_default() == say.words();
        if repeated {
            return Ok(before);
        }
        if !matches!(before.state, StatementState::Issued | StatementState::Answered) {
            return Err(stands_otherwise(&before));
        }
        let (now, line) = (self.kernel().clock.now(), figures.line);
        record(tx, period, line, say.state(), say.words(), actor, now).await?;
        audit::record(tx, &said(actor, period, line, say.state())).await?;
        read(tx.conn(), period, figures).await
    }

    async fn write_answer(
        &self,
        tx: &Tx,
        actor: &Actor,
        (period, figures): (Period, ClearingLine),
        answer: &Answer,
        key: &IdempotencyKey,
    ) -> Result<LineStatement, Error> {
        let line = figures.line;
        // A correction counts in the first open month, which nobody closes meanwhile.
        let book = self.ledger().enter_alone(tx, books::POINTS, &lock_name(period, line)).await?;
        let before = read(tx.conn(), period, figures).await?;
        if let Some(known) = answered_before(tx, key, &before).await? {
            return Ok(known);
        }
        let other = answer.dispute.is_some() && answer.dispute != before.dispute;
        if before.state != StatementState::Disputed || other {
            return Err(stands_otherwise(&before));
        }
        let (now, fen) = (self.kernel().clock.now(), answer.correction_fen);
        let mut entry = said(actor, period, line, StatementState::Answered);
        if fen != 0 {
            if let Some(by) = &before.by
                && same_hand(tx.conn(), actor.name(), by).await?
            {
                let words = "this key, or one that has a maker in common with it, disputed the statement; somebody else answers it with a correction";
                return Err(Error::refused(codes::FOUR_EYES, words));
            }
            entry = entry.detail("correction_fen", fen);
            let counts_in = book.period(Period::of(&self.kernel().zone, now));
            let (of, words, dispute) = ((period, line), answer.words.as_str(), before.dispute.clone());
            correction::answered(tx, actor, Answered { of, fen, words, dispute, counts_in, at: now }).await?;
        }
        let word = record(tx, period, line, StatementState::Answered, &answer.words, actor, now).await?;
        audit::record(tx, &entry).await?;
        let after = read(tx.conn(), period, before.figures.clone()).await?;
        keep_answer(tx, &word, key, before.dispute.as_deref(), after.corrected_fen).await?;
        Ok(after)
    }

    /// Whether a key may speak for a line: it reaches every unit of it.
    pub(crate) fn speaks_for(&self, actor: &Actor, line: Line) -> bool {
        let tree = self.kernel().org.tree();
        let mut units = tree.units().filter(|unit| unit.line == Some(line)).peekable();
        *actor.reach() == Reach::Everything || (units.peek().is_some() && units.all(|unit| actor.reach().covers(&unit.id)))
    }
}

fn check_allowed(allowed: bool) -> Result<(), Error> {
    let words = "a line's own key, which covers all of its units, confirms or disputes; a key of the whole group answers";
    if allowed { Ok(()) } else { Err(Error::refused(kernel_codes::FORBIDDEN, words)) }
}

fn stands_otherwise(statement: &LineStatement) -> Error {
    let dispute = statement.dispute.as_deref().map_or(String::new(), |dispute| format!(", by {dispute}"));
    let words = format!("the statement of {} for {} is {}{dispute}", statement.figures.line, statement.period, statement.state.as_str());
    Error::refused(codes::STATEMENT_STATE, words)
}

fn said(actor: &Actor, period: Period, line: Line, state: StatementState) -> audit::Entry {
    audit::Entry::new(actor, SAID, &format!("{period}/{line}")).detail("state", state.as_str())
}

/// Refuses what is no reason.
pub(crate) fn check_words(words: &str) -> Result<(), Problem> {
    if words.trim().is_empty() || !is_line(words, WORDS_BYTES_MAX) {
        return Err(Problem::invalid("reason", format!("expected 1 to {WORDS_BYTES_MAX} bytes of text without personal data")));
    }
    Ok(())
}

/// Refuses what is too much for one correction.
pub(crate) fn check_correction(field: &str, fen: i64) -> Result<(), Problem> {
    if (-CORRECTION_FEN_MAX..=CORRECTION_FEN_MAX).contains(&fen) {
        return Ok(());
    }
    let words = format!("expected fen between -{CORRECTION_FEN_MAX} and {CORRECTION_FEN_MAX}; positive when the line gets it");
    Err(Problem::invalid(field, words))
}

/// The name under which one unit of work at a time speaks to a statement.
pub(crate) fn lock_name(period: Period, line: Line) -> String {
    format!("membership/statement/{period}/{line}")
}

/// Writes where a statement stands now, and keeps what was said; answers under which id.
pub(crate) async fn record(
    tx: &Tx,
    period: Period,
    line: Line,
    state: StatementState,
    words: &str,
    actor: &Actor,
    at: Timestamp,
) -> Result<String, Error> {
    let values = || -> [sea_orm::Value; 6] {
        [period.number().into(), line.as_str().into(), state.as_str().into(), words.into(), actor.name().into(), at.ms().into()]
    };
    let text = "INSERT INTO membership_statement (period, line, state, words, actor, at) VALUES ($1, $2, $3, $4, $5, $6)
                ON CONFLICT (period, line) DO UPDATE SET state = excluded.state, words = excluded.words, actor = excluded.actor, at = excluded.at";
    sql::execute(tx.conn(), text, values()).await?;
    let text = "INSERT INTO membership_statement_word (period, line, state, words, actor, at, id) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let id = Kernel::new_id::<EntryId>("say").to_string();
    sql::execute(tx.conn(), text, values().into_iter().chain([id.clone().into()])).await?;
    Ok(id)
}

/// Keeps with an answer the key that made it, and what its caller hears.
async fn keep_answer(tx: &Tx, word: &str, key: &IdempotencyKey, dispute: Option<&str>, corrected_fen: i64) -> Result<(), Error> {
    let text =
        "UPDATE membership_statement_word SET idempotency = $2, idempotency_digest = $3, dispute = $4, corrected_fen = $5 WHERE id = $1";
    let (dispute, corrected) = (dispute.map(str::to_owned), corrected_fen);
    let values = [word.into(), key.stored.clone().into(), key.digest.clone().into(), dispute.into(), corrected.into()];
    sql::execute(tx.conn(), text, values).await?;
    Ok(())
}

/// What a key answered before, as its caller heard it: what was said since then changes nothing of it.
async fn answered_before(tx: &Tx, key: &IdempotencyKey, now: &LineStatement) -> Result<Option<LineStatement>, Error> {
    let text = "SELECT words, actor, at, corrected_fen, idempotency_digest FROM membership_statement_word WHERE idempotency = $1";
    let Some(row) = sql::one(tx.conn(), text, [key.stored.clone().into()]).await? else { return Ok(None) };
    key.check(&sql::get::<String>(&row, "idempotency_digest")?)?;
    Ok(Some(LineStatement {
        state: StatementState::Answered,
        words: Some(sql::get(&row, "words")?),
        by: Some(sql::get(&row, "actor")?),
        at: Some(Timestamp::clamped(sql::get(&row, "at")?)),
        corrected_fen: sql::get(&row, "corrected_fen")?,
        dispute: None,
        ..now.clone()
    }))
}

/// Writes a correction as the clearing sums it.
pub(crate) async fn correct(
    tx: &Tx,
    id: &str,
    of_period: Period,
    line: Line,
    fen: i64,
    period: Period,
    at: Timestamp,
) -> Result<(), Error> {
    let text = "INSERT INTO membership_correction (id, of_period, line, fen, period, at) VALUES ($1, $2, $3, $4, $5, $6)";
    let values = [id.into(), of_period.number().into(), line.as_str().into(), fen.into(), period.number().into(), at.ms().into()];
    sql::execute(tx.conn(), text, values).await?;
    Ok(())
}

/// The dispute that a line's statement stands in, if it does.
pub(crate) async fn disputed<C: sql::Connection>(conn: &C, period: Period, line: Line) -> Result<Option<String>, Error> {
    let text = "SELECT w.id FROM membership_statement s JOIN membership_statement_word w ON w.period = s.period AND w.line = s.line
                WHERE s.period = $1 AND s.line = $2 AND s.state = 'disputed' AND w.state = 'disputed' ORDER BY w.at DESC, w.id DESC LIMIT 1";
    let row = sql::one(conn, text, [period.number().into(), line.as_str().into()]).await?;
    Ok(row.map(|row| sql::get(&row, "id")).transpose()?)
}

/// Corrections that count in a month, in fen by line.
pub(crate) async fn corrections<C: sql::Connection>(conn: &C, period: Period) -> Result<Vec<(Line, i64)>, Error> {
    let text = "SELECT line, CAST(SUM(fen) AS BIGINT) AS fen FROM membership_correction WHERE period = $1 GROUP BY line ORDER BY line";
    let rows = sql::all(conn, text, [period.number().into()]).await?;
    rows.iter().map(|row| Ok((read_line(row)?, sql::get(row, "fen")?))).collect()
}

fn read_line(row: &sql::Row) -> Result<Line, Error> {
    let line: String = sql::get(row, "line")?;
    Ok(Line::parse(&line).ok_or_else(|| corrupt("correction line", line))?)
}

async fn read<C: sql::Connection>(conn: &C, period: Period, figures: ClearingLine) -> Result<LineStatement, Error> {
    let line = figures.line.as_str();
    let text = "SELECT CAST(COALESCE(SUM(fen), 0) AS BIGINT) AS fen FROM membership_correction WHERE of_period = $1 AND line = $2";
    let row = sql::one(conn, text, [period.number().into(), line.into()]).await?;
    let corrected_fen: i64 = row.map_or(Ok(0), |row| sql::get(&row, "fen"))?;
    let fresh = LineStatement {
        period,
        figures: figures.clone(),
        state: StatementState::Issued,
        words: None,
        by: None,
        at: None,
        corrected_fen,
        dispute: None,
    };
    let text = "SELECT state, words, actor, at FROM membership_statement WHERE period = $1 AND line = $2";
    let Some(row) = sql::one(conn, text, [period.number().into(), line.into()]).await? else { return Ok(fresh) };
    let state: String = sql::get(&row, "state")?;
    let known = StatementState::ALL.into_iter().find(|known| known.as_str() == state);
    Ok(LineStatement {
        state: known.ok_or_else(|| corrupt("statement", state))?,
        words: Some(sql::get::<String>(&row, "words")?).filter(|words| !words.is_empty()),
        by: Some(sql::get(&row, "actor")?),
        at: Some(Timestamp::clamped(sql::get(&row, "at")?)),
        dispute: disputed(conn, period, figures.line).await?,
        ..fresh
    })
}
