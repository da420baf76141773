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
use heyuan_kernel::keys::same_hand;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Kernel, Problem, Reach, Scope, Tx, audit, sql};
use heyuan_ledger::Period;

/// Longest words of a dispute or an answer, in bytes.
const WORDS_BYTES_MAX: usize = 500;
/// Largest correction: a hundred million yuan.
const CORRECTION_FEN_MAX: i64 = 10_000_000_000;

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

/// What somebody says to a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// The line agrees.
    Confirm,
    /// The line disagrees, and why.
    Dispute(String),
    /// The group answers, with a correction in fen or none.
    Answer(String, i64),
}

impl Say {
    const fn state(&self) -> StatementState {
        match self {
            Say::Confirm => StatementState::Confirmed,
            Say::Dispute(_) => StatementState::Disputed,
            Say::Answer(..) => StatementState::Answered,
        }
    }

    fn words(&self) -> &str {
        match self {
            Say::Confirm => "",
            Say::Dispute(words) | Say::Answer(words, _) => words,
        }
    }

    /// From which states it leads on.
    const fn follows(&self, state: StatementState) -> bool {
        match self {
            Say::Confirm | Say::Dispute(_) => matches!(state, StatementState::Issued | StatementState::Answered),
            Say::Answer(..) => matches!(state, StatementState::Disputed),
        }
    }

    fn check(&self) -> Result<(), Problem> {
        match self {
            Say::Confirm => Ok(()),
            Say::Dispute(words) => check_words(words),
            Say::Answer(words, fen) => check_words(words).and_then(|()| check_correction("correction_fen", *fen)),
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

    /// Confirms, disputes or answers a line's statement. Saying the same again changes nothing: the same words, and of an answer the same
    /// correction.
    ///
    /// # Errors
    /// `forbidden`, for the line's part to a key that does not reach all of its units, and for the answer to any but the group's;
    /// `invalid_request`; `not_found`; `statement_state` when it stands otherwise, as a dispute of what was confirmed; `four_eyes` for a
    /// correction by whoever disputed.
    pub async fn say(&self, actor: &Actor, period: &str, line: Line, say: Say) -> Result<LineStatement, Error> {
        actor.require(Scope::Admin)?;
        let allowed = if matches!(say, Say::Answer(..)) { *actor.reach() == Reach::Everything } else { self.speaks_for(actor, line) };
        if !allowed {
            let words = "a line's own key, which covers all of its units, confirms or disputes; a key of the whole group answers";
            return Err(Error::refused(kernel_codes::FORBIDDEN, words));
        }
        say.check()?;
        let period = Period::parse(period).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))?;
        let clearing = self.closed_clearing(self.kernel().db.reader(), period).await?;
        let figures = clearing.lines.into_iter().find(|row| row.line == line);
        let figures = figures.ok_or_else(|| Problem::not_found("statement of line", line))?;
        let (membership, actor) = (self.clone(), actor.clone());
        self.kernel()
            .db
            .write("say to a statement", move |tx| {
                let (membership, actor, figures, say) = (membership.clone(), actor.clone(), figures.clone(), say.clone());
                async move { membership.write_say(tx, &actor, period, figures, &say).await }.boxed()
            })
            .await
    }

    async fn write_say(&self, tx: &Tx, actor: &Actor, period: Period, figures: ClearingLine, say: &Say) -> Result<LineStatement, Error> {
        // A correction counts in the first open month, which nobody closes meanwhile; the statement's own name keeps two voices apart.
        let book = self.ledger().enter_alone(tx, books::POINTS, &lock_name(period, figures.line)).await?;
        let before = read(tx.conn(), period, figures.clone()).await?;
        let in_words = before.state == say.state() && before.words.as_deref().unwrap_or_default() == say.words();
        let repeated = match say {
            Say::Answer(_, fen) if in_words => answered_with(tx, period, figures.line).await? == *fen,
            _ => in_words,
        };
        if repeated {
            return Ok(before);
        }
        if !say.follows(before.state) {
            let words = format!("the statement of {} for {period} is {}", figures.line, before.state.as_str());
            return Err(Error::refused(codes::STATEMENT_STATE, words));
        }
        let (now, line) = (self.kernel().clock.now(), figures.line);
        let mut entry = audit::Entry::new(actor, "say to a statement", &format!("{period}/{line}")).detail("state", say.state().as_str());
        if let Say::Answer(words, fen) = say
            && *fen != 0
        {
            if let Some(by) = &before.by
                && same_hand(tx.conn(), actor.name(), by).await?
            {
                let words = "this key, or one that has a maker in common with it, disputed the statement; somebody else answers it with a correction";
                return Err(Error::refused(codes::FOUR_EYES, words));
            }
            entry = entry.detail("correction_fen", *fen);
            let counts_in = book.period(Period::of(&self.kernel().zone, now));
            correction::answered(tx, actor, Answered { of: (period, line), fen: *fen, words, dispute: before.dispute, counts_in, at: now })
                .await?;
        }
        record(tx, period, line, say.state(), say.words(), actor, now).await?;
        audit::record(tx, &entry).await?;
        read(tx.conn(), period, figures).await
    }

    /// Whether a key may speak for a line: it reaches every unit of it.
    pub(crate) fn speaks_for(&self, actor: &Actor, line: Line) -> bool {
        let tree = self.kernel().org.tree();
        let mut units = tree.units().filter(|unit| unit.line == Some(line)).peekable();
        *actor.reach() == Reach::Everything || (units.peek().is_some() && units.all(|unit| actor.reach().covers(&unit.id)))
    }
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

/// Writes where a statement stands now, and keeps what was said.
pub(crate) async fn record(
    tx: &Tx,
    period: Period,
    line: Line,
    state: StatementState,
    words: &str,
    actor: &Actor,
    at: Timestamp,
) -> Result<(), Error> {
    let values = || -> [sea_orm::Value; 6] {
        [period.number().into(), line.as_str().into(), state.as_str().into(), words.into(), actor.name().into(), at.ms().into()]
    };
    let text = "INSERT INTO membership_statement (period, line, state, words, actor, at) VALUES ($1, $2, $3, $4, $5, $6)
                ON CONFLICT (period, line) DO UPDATE SET state = excluded.state, words = excluded.words, actor = excluded.actor, at = excluded.at";
    sql::execute(tx.conn(), text, values()).await?;
    let text = "INSERT INTO membership_statement_word (period, line, state, words, actor, at, id) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let id = Kernel::new_id::<EntryId>("say").to_string();
    sql::execute(tx.conn(), text, values().into_iter().chain([id.into()])).await?;
    Ok(())
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

/// The correction that answered a line's last dispute, in fen; nothing where the answer had none.
async fn answered_with(tx: &Tx, period: Period, line: Line) -> Result<i64, Error> {
    let text = "SELECT fen FROM membership_correction_entry WHERE state = 'approved' AND dispute = (
                  SELECT id FROM membership_statement_word WHERE period = $1 AND line = $2 AND state = 'disputed' ORDER BY at DESC, id DESC LIMIT 1)";
    let row = sql::one(tx.conn(), text, [period.number().into(), line.as_str().into()]).await?;
    Ok(row.map_or(Ok(0), |row| sql::get(&row, "fen"))?)
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
