//! Reconciling (对账): what a line's own books say of a month beside the transactions that it reported, row by row.
//!
//! Months are those of the transactions' own time, since that is how a line keeps its books; in which accounting month a transaction counts
//! is told beside it. No figure is changed: what differs is mended by people, with a refund, a late report or a correction.

use crate::error::Error;
use crate::facade::Membership;
use futures::FutureExt;
use heyuan_contract::{Line, OrgUnitId, TransactionId};
use heyuan_kernel::table::{self, Heading, Row, RowError, Table};
use heyuan_kernel::{Actor, Problem, Scope, Zone, audit, sql};
use heyuan_ledger::Period;
use std::collections::HashMap;

/// Rows of one file.
const ROWS_MAX: usize = 500_000;
/// Differences and refused rows told in one answer; the counts are always whole.
const TOLD_MAX: usize = 1_000;
/// Transactions read at once.
const PAGE: i64 = 5_000;

const HEADINGS: [Heading; 4] = [
    Heading { field: "transaction", names: &["交易号", "单号", "transaction", "transaction_id", "id"], needed: true },
    Heading { field: "unit", names: &["项目", "门店", "unit", "unit_id"], needed: true },
    Heading { field: "kind", names: &["类型", "kind", "type"], needed: true },
    Heading { field: "amount_fen", names: &["金额(分)", "amount_fen"], needed: true },
];

/// How a transaction differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The line's books have it, and it was never reported.
    NotReported,
    /// It was reported, and the line's books don't have it.
    NotInBooks,
    /// Both have it, with other amounts.
    AmountDiffers,
}

impl Difference {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Difference::NotReported => "not_reported",
            Difference::NotInBooks => "not_in_books",
            Difference::AmountDiffers => "amount_differs",
        }
    }
}

/// A transaction on which the two sides differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// How.
    pub difference: Difference,
    /// Where.
    pub unit: OrgUnitId,
    /// The line's own id.
    pub transaction: TransactionId,
    /// `purchase` or `refund`.
    pub kind: String,
    /// What the line's books say, in fen; `None` when they don't have it.
    pub books_fen: Option<i64>,
    /// What was reported, in fen; `None` when it was not.
    pub reported_fen: Option<i64>,
    /// Points that the report gave, or with a minus took back.
    pub points: i64,
    /// The month that the report counts in.
    pub period: Option<Period>,
    /// Another transaction of the same member, unit, moment and amount that the line's books do have: this one may be a second import of it.
    pub twin: Option<TransactionId>,
}

/// What a comparison came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// Rows of the file that could be read.
    pub rows: u64,
    /// Transactions that both sides have alike.
    pub alike: u64,
    /// All that differ.
    pub differing: u64,
    /// The first thousand of them: what was reported by its own time, then what was not by unit and id.
    pub differences: Vec<Differing>,
    /// Rows that could not be read.
    pub refused: u64,
    /// The first thousand of them.
    pub errors: Vec<RowError>,
}

impl Reconciliation {
    fn differ(&mut self, differing: Differing) {
        self.differing += 1;
        if self.differences.len() < TOLD_MAX {
            self.differences.push(differing);
        }
    }
}

/// A row of the line's books.
struct Booked {
    kind: String,
    fen: i64,
    seen: bool,
}

/// A reported transaction, as far as it is compared.
struct Reported {
    unit: OrgUnitId,
    id: TransactionId,
    kind: String,
    member: Option<String>,
    fen: i64,
    occurred_at: i64,
    points: i64,
    period: i64,
}

/// What two imports of one transaction have in common: unit, member, moment, amount and kind.
type Likeness = (String, Option<String>, i64, i64, String);

impl Reported {
    fn key(&self) -> (String, String) {
        (self.unit.to_string(), self.id.to_string())
    }

    fn likeness(&self) -> Likeness {
        (self.unit.to_string(), self.member.clone(), self.occurred_at, self.fen, self.kind.clone())
    }
}

type Books = HashMap<(String, String), Booked>;

impl Membership {
    /// Compares a file of a line's own books for a month with what it reported with an own time in that month, as far as the key reaches.
    /// The file is CSV with the columns transaction (交易号), unit (项目), kind (`purchase`/消费 or `refund`/退款) and `amount_fen`
    /// (金额(分)), UTF-8 or GBK. The counts of the last comparison of each unit's keys are kept, for the check list of the close.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for no month, no such file, or more than 500,000 rows.
    pub async fn reconcile(
        &self,
        actor: &Actor,
        period: &str,
        line: Line,
        bytes: &[u8],
        charset: Option<&str>,
    ) -> Result<Reconciliation, Error> {
        actor.require(Scope::Admin)?;
        let period = Period::parse(period).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))?;
        let text = table::decode(bytes, charset)?;
        let mut found = Reconciliation::default();
        let mut books = self.read_books(actor, line, &text, &mut found)?;
        let mut strays: Vec<(Likeness, usize)> = Vec::new();
        let mut pages = Pages::new(line, period, &self.kernel().zone);
        while let Some(page) = pages.next(self.kernel().db.reader(), actor).await? {
            for one in page {
                if let Some(differing) = compare(&mut books, &one) {
                    if differing.difference == Difference::NotInBooks && found.differences.len() < TOLD_MAX {
                        strays.push((one.likeness(), found.differences.len()));
                    }
                    found.differ(differing);
                } else {
                    found.alike += 1;
                }
            }
        }
        let mut rest: Vec<Differing> = books.iter().filter(|(_, booked)| !booked.seen).filter_map(not_reported).collect();
        rest.sort_by(|a, b| (a.unit.as_str(), a.transaction.as_str()).cmp(&(b.unit.as_str(), b.transaction.as_str())));
        rest.into_iter().for_each(|differing| found.differ(differing));
        if !strays.is_empty() {
            self.find_twins(actor, &mut Pages::new(line, period, &self.kernel().zone), &books, &strays, &mut found).await?;
        }
        // A file of which nothing could be read compares nothing.
        if found.rows > 0 || found.refused == 0 {
            self.keep_counts(actor, period, line, &found).await?;
        }
        Ok(found)
    }

    async fn keep_counts(&self, actor: &Actor, period: Period, line: Line, found: &Reconciliation) -> Result<(), Error> {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let counts = [count(found.rows), count(found.alike), count(found.differing), count(found.refused)];
        let unit = actor.unit().map_or("", OrgUnitId::as_str).to_owned();
        let (name, at) = (actor.name().to_owned(), self.kernel().clock.now().ms());
        let entry = audit::Entry::new(actor, "reconcile", &format!("{period}/{line}")).detail("differing", counts[2]);
        self.kernel()
            .db
            .write("keep a reconciliation", move |tx| {
                let (unit, name, entry) = (unit.clone(), name.clone(), entry.clone());
                async move {
                    let text = "INSERT INTO membership_reconciliation (period, line, unit, at, actor, read, alike, differing, refused)
                                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (period, line, unit) DO UPDATE SET at = excluded.at,
                                  actor = excluded.actor, read = excluded.read, alike = excluded.alike, differing = excluded.differing,
                                  refused = excluded.refused";
                    let place: [sea_orm::Value; 5] = [period.number().into(), line.as_str().into(), unit.into(), at.into(), name.into()];
                    sql::execute(tx.conn(), text, place.into_iter().chain(counts.map(sea_orm::Value::from))).await?;
                    audit::record(tx, &entry).await?;
                    Ok::<(), Error>(())
                }
                .boxed()
            })
            .await
    }

    /// Goes through the month once more for what the strays may be second imports of.
    async fn find_twins(
        &self,
        actor: &Actor,
        pages: &mut Pages,
        books: &Books,
        strays: &[(Likeness, usize)],
        found: &mut Reconciliation,
    ) -> Result<(), Error> {
        let places: HashMap<&Likeness, Vec<usize>> = strays.iter().fold(HashMap::new(), |mut places, (likeness, place)| {
            places.entry(likeness).or_insert_with(Vec::new).push(*place);
            places
        });
        while let Some(page) = pages.next(self.kernel().db.reader(), actor).await? {
            for one in page.iter().filter(|one| books.contains_key(&one.key())) {
                for place in places.get(&one.likeness()).into_iter().flatten() {
                    found.differences[*place].twin = Some(one.id.clone());
                }
            }
        }
        Ok(())
    }

    fn read_books(&self, actor: &Actor, line: Line, text: &str, found: &mut Reconciliation) -> Result<Books, Error> {
        let table = Table::open(text, HEADINGS.to_vec(), &["合计", "总计", "total"]).map_err(|missing| {
            Problem::invalid("header", format!("the column {} is missing; it may be called {}", missing.field, missing.names.join(", ")))
        })?;
        let mut books = Books::new();
        for row in table {
            match row.and_then(|row| self.read_row(actor, line, &row)) {
                Ok((key, booked)) => {
                    found.rows += 1;
                    if books.insert(key, booked).is_some() {
                        return Err(Problem::invalid("transaction", "two rows have the same unit and transaction; send one").into());
                    }
                }
                Err(error) => {
                    found.refused += 1;
                    if found.errors.len() < TOLD_MAX {
                        found.errors.push(error);
                    }
                }
            }
            if books.len() > ROWS_MAX {
                return Err(Problem::invalid("body", format!("expected at most {ROWS_MAX} rows; send the units one by one")).into());
            }
        }
        Ok(books)
    }

    fn read_row(&self, actor: &Actor, line: Line, row: &Row) -> Result<((String, String), Booked), RowError> {
        let (unit, id) = (row.cell("unit"), row.cell("transaction"));
        let known = OrgUnitId::new(unit).ok().filter(|unit| actor.reach().covers(unit));
        let tree = self.kernel().org.tree();
        if known.and_then(|unit| tree.get(&unit)).is_none_or(|unit| unit.line != Some(line)) {
            return Err(row.wrong("unit", format!("expected a unit of the line {line} within the key's reach")));
        }
        if TransactionId::new(id).is_err() {
            return Err(row.wrong("transaction", "expected the id under which the line reports it"));
        }
        let kind = match row.cell("kind") {
            "purchase" | "消费" => "purchase",
            "refund" | "退款" => "refund",
            _ => return Err(row.wrong("kind", "expected purchase (消费) or refund (退款)")),
        };
        let fen = row.cell("amount_fen").parse::<i64>().ok().filter(|fen| *fen > 0);
        let fen = fen.ok_or_else(|| row.wrong("amount_fen", "expected fen, a whole number above 0; a refund's is positive, too"))?;
        Ok(((unit.to_owned(), id.to_owned()), Booked { kind: kind.to_owned(), fen, seen: false }))
    }
}

/// What a line reported with an own time in a month, page by page. A refund that waits or was refused is reported, too: it stands under its
/// id.
struct Pages {
    line: Line,
    from_ms: i64,
    until_ms: i64,
    last: (i64, i64),
}

impl Pages {
    fn new(line: Line, period: Period, zone: &Zone) -> Pages {
        let from_ms = period.start(zone).ms();
        Pages { line, from_ms, until_ms: period.next().start(zone).ms(), last: (from_ms - 1, 0) }
    }

    /// The next page, as far as the actor reaches; `None` after the last.
    async fn next<C: sql::Connection>(&mut self, conn: &C, actor: &Actor) -> Result<Option<Vec<Reported>>, Error> {
        let text = "SELECT no, id, unit, kind, member, amount, occurred_at, points, period FROM membership_transaction
                    WHERE line = $1 AND occurred_at >= $2 AND occurred_at < $3 AND (occurred_at > $4 OR (occurred_at = $4 AND no > $5))
                    ORDER BY occurred_at, no LIMIT $6";
        let (at, no) = self.last;
        let values = [self.line.as_str().into(), at.max(self.from_ms).into(), self.until_ms.into(), at.into(), no.into(), PAGE.into()];
        let rows = sql::all(conn, text, values).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.last = (sql::get(last, "occurred_at")?, sql::get(last, "no")?);
        let page = rows.iter().map(read_reported).collect::<Result<Vec<_>, Error>>()?;
        Ok(Some(page.into_iter().filter(|one| actor.reach().covers(&one.unit)).collect()))
    }
}

/// How a reported transaction differs from the books, if it does.
fn compare(books: &mut Books, one: &Reported) -> Option<Differing> {
    let books_fen = books.get_mut(&one.key()).map(|booked| {
        booked.seen = true;
        // The other kind moves the money the other way.
        if booked.kind == one.kind { booked.fen } else { -booked.fen }
    });
    if books_fen == Some(one.fen) {
        return None;
    }
    Some(Differing {
        difference: if books_fen.is_some() { Difference::AmountDiffers } else { Difference::NotInBooks },
        unit: one.unit.clone(),
        transaction: one.id.clone(),
        kind: one.kind.clone(),
        books_fen,
        reported_fen: Some(one.fen),
        points: one.points,
        period: Period::from_number(one.period),
        twin: None,
    })
}

fn read_reported(row: &sql::Row) -> Result<Reported, Error> {
    let corrupt = |e: heyuan_contract::InvalidId| crate::member::corrupt("transaction", e);
    Ok(Reported {
        unit: OrgUnitId::new(sql::get::<String>(row, "unit")?).map_err(corrupt)?,
        id: TransactionId::new(sql::get::<String>(row, "id")?).map_err(corrupt)?,
        kind: sql::get(row, "kind")?,
        member: sql::get(row, "member")?,
        fen: sql::get(row, "amount")?,
        occurred_at: sql::get(row, "occurred_at")?,
        points: sql::get(row, "points")?,
        period: sql::get(row, "period")?,
    })
}

fn not_reported(((unit, id), booked): (&(String, String), &Booked)) -> Option<Differing> {
    Some(Differing {
        difference: Difference::NotReported,
        unit: OrgUnitId::new(unit).ok()?,
        transaction: TransactionId::new(id).ok()?,
        kind: booked.kind.clone(),
        books_fen: Some(booked.fen),
        reported_fen: None,
        points: 0,
        period: None,
        twin: None,
    })
}
