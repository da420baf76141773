//! Import of opening balances: what members had in the programs before becomes lots of their lines, each row once.

use crate::books::{self, LineAccount, Movement};
use crate::error::Error;
use crate::facade::Membership;
use crate::member::{self, MemberRow};
use crate::opening::{self, Balance, OpeningRow, Reading, Whom};
use crate::post::{self, Growth};
use crate::standing::MemberState;
use futures::FutureExt;
use futures::future::try_join_all;
use heyuan_contract::{EntryId, Line, MemberId, OrgUnitId, Timestamp};
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::secret::sha256_hex;
use heyuan_kernel::table::RowError;
use heyuan_kernel::{Actor, Kernel, Problem, Reach, Scope, Tx, audit, sql};
use heyuan_ledger::{Lots, NewLot, Period, Transfer};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter;
use std::sync::Arc;

/// Rows of one unit of work: bounds how long the writer is held.
const ROWS_A_UNIT: usize = 200;
/// Members looked up at once.
const LOOKUPS_AT_ONCE: usize = 16;
/// Errors told in the answer.
const ERRORS_TOLD_MAX: usize = 1_000;
/// Errors of the error file; the count is always whole.
const ERRORS_KEPT_MAX: usize = 10_000;

/// A file of opening balances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOpenings {
    /// Whose file it is: a unit, whose line then issues every lot, or one without a line for a key of the whole group, whose rows name theirs.
    pub unit: OrgUnitId,
    /// What the file calls its columns, where that is not their own name: `points:剩余积分,phone:手机号码`.
    pub mapping: String,
    /// Whether the file is only checked.
    pub dry_run: bool,
    /// CSV.
    pub bytes: Vec<u8>,
    /// The declared encoding, if any.
    pub charset: Option<String>,
}

/// What is in the books of a line by this file, or with a dry run would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineSum {
    /// Rows.
    pub rows: u64,
    /// Points.
    pub points: i64,
    /// Growth.
    pub growth: i64,
}

/// What became of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportedOpenings {
    /// `imp_…`
    pub id: String,
    /// Whether nothing was posted, since the file was only checked.
    pub dry_run: bool,
    /// Rows that were posted now, or with a dry run would be.
    pub posted: u64,
    /// Rows that were in the books before.
    pub known: u64,
    /// Rows left out.
    pub refused: u64,
    /// What of the file is in the books, by line.
    pub lines: BTreeMap<Line, LineSum>,
    /// The first thousand of the rows left out.
    pub errors: Vec<RowError>,
}

/// A row with whose it is.
#[derive(Debug, Clone)]
struct Opening {
    number: u64,
    /// What makes it once.
    key: String,
    /// Of a row without a name, which one it is of those that are alike in its file.
    place: Option<i64>,
    member: MemberRow,
    balance: Balance,
    digest: String,
}

/// What became of a row.
enum Outcome {
    Posted,
    Known,
    Refused(&'static str, &'static str),
}

/// What an earlier unit of work posted under a row's key.
struct Earlier {
    member: String,
    digest: String,
}

impl Membership {
    /// Takes opening balances over: each row becomes a lot of its line with its own cost and expiry, and growth with its own time. Rows are
    /// posted some hundred at a time; a row that comes again, in this file or another one of the unit, is known: by its `external_id`, or
    /// where it has none by member and balance, as often as they come in one file. So what a crash left is taken up, too.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for a header, mapping or encoding that can't be read, or too many rows; `idempotency_key_reused`.
    pub async fn import_openings(&self, actor: &Actor, import: &ImportOpenings, header: Option<&str>) -> Result<ImportedOpenings, Error> {
        actor.require(Scope::Import)?;
        let unit = self.kernel().org.require("unit", &import.unit).await?;
        actor.require_unit(&import.unit)?;
        if unit.line.is_none() && *actor.reach() != Reach::Everything {
            let words = "a unit without a line takes rows of every line and needs a key of the whole group; name a unit with a line";
            return Err(Problem::invalid("unit", words).into());
        }
        let operation = if import.dry_run { "check opening balances" } else { "import opening balances" };
        let key = IdempotencyKey::new(actor, operation, header, &(&import.unit, &import.mapping, sha256_hex(&import.bytes)))?;
        let reading = Reading {
            mapping: &import.mapping,
            charset: import.charset.as_deref(),
            line: unit.line,
            zone: &self.kernel().zone,
            now: self.kernel().clock.now(),
        };
        let rows = opening::parse(&import.bytes, &reading)?;
        let id = self.enter_import(actor, import, &key).await?;
        let mut told = Told::new(ImportedOpenings { id, dry_run: import.dry_run, ..ImportedOpenings::default() });
        for chunk in rows.chunks(ROWS_A_UNIT) {
            self.import_chunk(import, chunk, &mut told).await?;
        }
        told.kept.sort_by_key(|error| error.row);
        told.done.errors = told.kept.iter().take(ERRORS_TOLD_MAX).cloned().collect();
        self.leave_import(actor, &told).await?;
        Ok(told.done)
    }

    /// Every kept error of an import, as CSV.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn import_errors(&self, actor: &Actor, id: &str) -> Result<String, Error> {
        actor.require_any(&[Scope::Import, Scope::Admin])?;
        let none = || Error::from(Problem::not_found("import", id));
        let row = sql::one(self.kernel().db.near(), "SELECT unit, errors FROM membership_import WHERE id = $1", [id.into()]).await?;
        let row = row.ok_or_else(none)?;
        let unit = OrgUnitId::new(sql::get::<String>(&row, "unit")?).map_err(|e| member::corrupt("import", e))?;
        if actor.reach().covers(&unit) { Ok(sql::get(&row, "errors")?) } else { Err(none()) }
    }

    /// The import that a key stands for: a new one, or the one that it began.
    async fn enter_import(&self, actor: &Actor, import: &ImportOpenings, key: &IdempotencyKey) -> Result<String, Error> {
        let text = "SELECT id, idempotency_digest FROM membership_import WHERE idempotency = $1";
        self.kernel()
            .db
            .settle(|| async {
                if let Some(row) = sql::one(self.kernel().db.near(), text, [key.stored.clone().into()]).await? {
                    key.check(&sql::get::<String>(&row, "idempotency_digest")?)?;
                    return Ok(sql::get(&row, "id")?);
                }
                let id = Kernel::new_id::<EntryId>("imp").to_string();
                let values: Vec<sea_orm::Value> = vec![
                    id.as_str().into(),
                    import.unit.as_str().into(),
                    actor.name().into(),
                    self.kernel().clock.now().ms().into(),
                    i64::from(import.dry_run).into(),
                    key.stored.clone().into(),
                    key.digest.clone().into(),
                ];
                self.kernel()
                    .db
                    .write("begin an import", move |tx| {
                        let values = values.clone();
                        async move {
                            let text = "INSERT INTO membership_import (id, unit, actor, started_at, dry_run, rows_posted, rows_known, rows_refused,
                                          errors, idempotency, idempotency_digest)
                                        VALUES ($1, $2, $3, $4, $5, 0, 0, 0, '', $6, $7) ON CONFLICT (idempotency) DO NOTHING";
                            match sql::execute(tx.conn(), text, values).await? {
                                0 => Err(Error::from(heyuan_kernel::Error::Stale("an import with the same key"))),
                                _ => Ok(()),
                            }
                        }
                        .boxed()
                    })
                    .await?;
                Ok(id)
            })
            .await
    }

    async fn import_chunk(&self, import: &ImportOpenings, rows: &[Result<OpeningRow, RowError>], told: &mut Told) -> Result<(), Error> {
        let mut openings = Vec::with_capacity(rows.len());
        for part in rows.chunks(LOOKUPS_AT_ONCE) {
            let found = try_join_all(part.iter().flatten().map(|row| self.whose_opening(row))).await?;
            for (row, found) in part.iter().flatten().zip(found) {
                match found {
                    Ok(member) => openings.push(Opening::new(row, member, import, &mut told.alike)?),
                    Err(error) => told.refuse(error),
                }
            }
        }
        rows.iter().filter_map(|row| row.as_ref().err()).for_each(|error| told.refuse(error.clone()));
        let openings = Arc::new(openings);
        let outcomes = if import.dry_run {
            self.check_openings(&import.unit, &openings).await?
        } else {
            self.post_openings(import, &told.done.id, &openings).await?
        };
        for (opening, outcome) in openings.iter().zip(outcomes) {
            told.tell(opening, &outcome);
        }
        Ok(())
    }

    /// The member that a row is about, or what is wrong with it; never the value.
    async fn whose_opening(&self, row: &OpeningRow) -> Result<Result<MemberRow, RowError>, Error> {
        let wrong = |field: &'static str, detail: &str| RowError { row: row.number, field, detail: detail.to_owned() };
        let identifier = match &row.whom {
            Whom::Member(id) => {
                let found = member::find(self.kernel().db.near(), id).await?;
                return Ok(found.ok_or_else(|| wrong("member", "there is no such member")));
            }
            Whom::Identifier(identifier) => identifier,
        };
        let field = if identifier.kind == "phone" { "phone" } else { "openid" };
        let anchors = match self.customers().find_anchors(std::slice::from_ref(identifier)).await {
            Ok(anchors) => anchors,
            // Anything else says nothing about the row: the whole file is sent again.
            Err(problem) if problem.code() == kernel_codes::INVALID_REQUEST => {
                return Ok(Err(wrong(field, "expected a phone number such as 13800138000, or an openid of a known app")));
            }
            Err(problem) => return Err(problem.into()),
        };
        if let Some(found) = self.member_among(&anchors).await? {
            return Ok(Ok(found));
        }
        Ok(Err(wrong(field, "nobody with this identifier has joined; let the person join first")))
    }

    /// What would become of rows, without posting them.
    async fn check_openings(&self, unit: &OrgUnitId, openings: &[Opening]) -> Result<Vec<Outcome>, Error> {
        let earlier = earlier(self.kernel().db.near(), unit, openings).await?;
        Ok(openings.iter().map(|opening| judge(opening, opening.member.state, earlier.get(&opening.key))).collect())
    }

    async fn post_openings(&self, import: &ImportOpenings, id: &str, openings: &Arc<Vec<Opening>>) -> Result<Vec<Outcome>, Error> {
        self.kernel()
            .db
            .settle(|| async {
                let (membership, unit, id, openings) = (self.clone(), import.unit.clone(), id.to_owned(), openings.clone());
                self.kernel()
                    .db
                    .write("import opening balances", move |tx| {
                        let (membership, unit, id, openings) = (membership.clone(), unit.clone(), id.clone(), openings.clone());
                        async move { membership.write_openings(tx, &unit, &id, &openings).await }.boxed()
                    })
                    .await
            })
            .await
    }

    async fn write_openings(&self, tx: &Tx, unit: &OrgUnitId, import: &str, openings: &[Opening]) -> Result<Vec<Outcome>, Error> {
        let book = self.ledger().enter(tx, books::POINTS).await?;
        let mut locked: HashMap<MemberId, MemberRow> = HashMap::new();
        // In one order for everybody who locks several.
        for id in openings.iter().map(|opening| &opening.member.id).collect::<BTreeSet<_>>() {
            locked.insert(id.clone(), member::lock_any(tx, id).await?);
        }
        let earlier = earlier(tx.conn(), unit, openings).await?;
        let state = |opening: &Opening| locked.get(&opening.member.id).map_or(opening.member.state, |row| row.state);
        let outcomes: Vec<Outcome> = openings.iter().map(|opening| judge(opening, state(opening), earlier.get(&opening.key))).collect();
        let fresh: Vec<&Opening> =
            openings.iter().zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Posted)).map(|(opening, _)| opening).collect();
        if fresh.is_empty() {
            return Ok(outcomes);
        }
        // Opened now, whenever they were earned: the month in which the group takes them over.
        let now = self.kernel().clock.now();
        let period = book.period(Period::of(&self.kernel().zone, now));
        let transfers: Vec<Transfer> = fresh.iter().flat_map(|opening| transfers(opening, import, now, period)).collect();
        self.ledger().post(tx, &transfers).await?;
        insert(tx, import, &fresh, now).await?;
        // Points that come in pay first what the member owes.
        for id in fresh.iter().filter(|opening| opening.balance.points > 0).map(|opening| &opening.member.id).collect::<BTreeSet<_>>() {
            self.recover_owed(tx, id, book).await?;
        }
        let grown: Vec<Growth<'_>> = fresh
            .iter()
            .map(|opening| Growth {
                member: &opening.member.id,
                transaction: 0,
                amount: opening.balance.growth,
                at: opening.balance.earned_at.unwrap_or(now).min(now),
            })
            .filter(|growth| growth.amount > 0)
            .collect();
        post::add_growth(tx, &grown).await?;
        for row in grown.iter().map(|growth| growth.member).collect::<BTreeSet<_>>().into_iter().filter_map(|id| locked.get(id)) {
            self.settle_tier(tx, row).await?;
        }
        Ok(outcomes)
    }

    async fn leave_import(&self, actor: &Actor, told: &Told) -> Result<(), Error> {
        let number = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
        let done = &told.done;
        let values: Vec<sea_orm::Value> = vec![
            done.id.as_str().into(),
            self.kernel().clock.now().ms().into(),
            number(done.posted).into(),
            number(done.known).into(),
            number(done.refused).into(),
            told.error_file().into(),
        ];
        let entry = audit::Entry::new(actor, if done.dry_run { "check opening balances" } else { "import opening balances" }, &done.id);
        let entry = entry.detail("posted", done.posted).detail("known", done.known).detail("refused", done.refused);
        self.kernel()
            .db
            .write("end an import", move |tx| {
                let (values, entry) = (values.clone(), entry.clone());
                async move {
                    let text =
                        "UPDATE membership_import SET finished_at = $2, rows_posted = $3, rows_known = $4, rows_refused = $5, errors = $6
                                WHERE id = $1";
                    sql::execute(tx.conn(), text, values).await?;
                    Ok(audit::record(tx, &entry).await?)
                }
                .boxed()
            })
            .await
    }
}

impl Opening {
    fn new(row: &OpeningRow, member: MemberRow, import: &ImportOpenings, alike: &mut Alike) -> Result<Opening, Error> {
        let body = serde_json::to_vec(&row.balance).map_err(|e| member::corrupt("opening balance", e))?;
        let digest = sha256_hex(&body);
        let (key, place) = match &row.external_id {
            Some(external) => (format!("id/{}/{external}", import.unit), None),
            None => {
                // Without a name of its own a row is the nth one of its member with just this balance, in whichever file of the unit.
                let place = alike.entry((member.id.clone(), digest.clone())).or_default();
                *place += 1;
                (format!("balance/{}/{}/{digest}/{place}", import.unit, member.id), Some(*place))
            }
        };
        Ok(Opening { number: row.number, key, place, member, balance: row.balance.clone(), digest })
    }
}

/// Rows without a name that a file has had so far, by member and balance.
type Alike = HashMap<(MemberId, String), i64>;

/// The answer as it grows, with more errors than it tells.
struct Told {
    done: ImportedOpenings,
    kept: Vec<RowError>,
    alike: Alike,
}

impl Told {
    fn new(done: ImportedOpenings) -> Told {
        Told { done, kept: Vec::new(), alike: Alike::new() }
    }

    fn refuse(&mut self, error: RowError) {
        self.done.refused += 1;
        if self.kept.len() < ERRORS_KEPT_MAX {
            self.kept.push(error);
        }
    }

    fn tell(&mut self, opening: &Opening, outcome: &Outcome) {
        match outcome {
            Outcome::Posted => self.done.posted += 1,
            Outcome::Known => self.done.known += 1,
            Outcome::Refused(field, detail) => {
                return self.refuse(RowError { row: opening.number, field, detail: (*detail).to_owned() });
            }
        }
        let sum = self.done.lines.entry(opening.balance.line).or_default();
        sum.rows += 1;
        sum.points += opening.balance.points;
        sum.growth += opening.balance.growth;
    }

    fn error_file(&self) -> String {
        let mut text = String::from("row,field,detail\n");
        for error in &self.kept {
            text.push_str(&format!("{},{},\"{}\"\n", error.row, error.field, error.detail.replace('"', "\"\"")));
        }
        text
    }
}

/// Whether a row is posted, was posted before, or does not fit.
fn judge(opening: &Opening, state: MemberState, earlier: Option<&Earlier>) -> Outcome {
    match (earlier, state) {
        (Some(earlier), _) if earlier.digest != opening.digest => {
            Outcome::Refused("external_id", "was imported with another balance; correct what is in the books by an adjustment")
        }
        (Some(earlier), _) if earlier.member != opening.member.id.as_str() => {
            Outcome::Refused("external_id", "was imported for another member")
        }
        (Some(_), _) => Outcome::Known,
        (None, MemberState::Open) => Outcome::Posted,
        (None, MemberState::Blocked) => Outcome::Refused("member", "the member is blocked"),
        (None, MemberState::Closed) => Outcome::Refused("member", "the member has left"),
    }
}

/// What stands under the keys of rows. An earlier release kept rows without a name by their import and line: those of the unit that are
/// alike stand for the first ones of a file.
async fn earlier<C: sql::Connection>(conn: &C, unit: &OrgUnitId, openings: &[Opening]) -> Result<HashMap<String, Earlier>, Error> {
    let (one_of, keys) = bulk::one_of_texts(conn, 1, openings.iter().map(|opening| opening.key.clone()));
    let text = format!("SELECT opening, member, digest FROM membership_opening WHERE opening {one_of}");
    let mut found = HashMap::new();
    for row in sql::all(conn, &text, keys).await? {
        found.insert(sql::get(&row, "opening")?, Earlier { member: sql::get(&row, "member")?, digest: sql::get(&row, "digest")? });
    }
    let nameless: Vec<&Opening> = openings.iter().filter(|opening| opening.place.is_some()).collect();
    if nameless.is_empty() {
        return Ok(found);
    }
    let members: BTreeSet<&str> = nameless.iter().map(|opening| opening.member.id.as_str()).collect();
    let (one_of, members) = bulk::one_of_texts(conn, 2, members.into_iter().map(str::to_owned));
    let text = format!(
        "SELECT o.member, o.digest, CAST(COUNT(*) AS BIGINT) AS n FROM membership_opening o JOIN membership_import i ON i.id = o.import
         WHERE i.unit = $1 AND o.member {one_of} AND o.opening LIKE 'row/%' GROUP BY o.member, o.digest"
    );
    let mut numbered: HashMap<(String, String), i64> = HashMap::new();
    for row in sql::all(conn, &text, iter::once(unit.as_str().into()).chain(members)).await? {
        numbered.insert((sql::get(&row, "member")?, sql::get(&row, "digest")?), sql::get(&row, "n")?);
    }
    for opening in nameless {
        let before = numbered.get(&(opening.member.id.to_string(), opening.digest.clone()));
        if opening.place <= before.copied() {
            let earlier = Earlier { member: opening.member.id.to_string(), digest: opening.digest.clone() };
            found.entry(opening.key.clone()).or_insert(earlier);
        }
    }
    Ok(found)
}

fn transfers(opening: &Opening, import: &str, at: Timestamp, period: Period) -> Vec<Transfer> {
    let (balance, member) = (&opening.balance, &opening.member.id);
    let transfer = |what: &str, unit: &str, debit: LineAccount, credit: String, amount: i64, lots: Lots| Transfer {
        key: format!("opening/{}/{what}", opening.key),
        unit: unit.to_owned(),
        debit: books::line_account(balance.line, debit),
        credit,
        amount,
        occurred_at: at,
        period,
        kind: Movement::Open.as_str().to_owned(),
        reference: format!("{import}/{}", opening.number),
        lots,
    };
    let lot = NewLot { issuer: balance.line.as_str().to_owned(), cost: balance.cost, expires_at: balance.expires_at };
    let points = (balance.points > 0)
        .then(|| transfer("points", books::POINTS, LineAccount::Opened, books::points_account(member), balance.points, Lots::New(lot)));
    let growth = (balance.growth > 0)
        .then(|| transfer("growth", books::GROWTH, LineAccount::Growth, books::growth_account(member), balance.growth, Lots::None));
    points.into_iter().chain(growth).collect()
}

/// Writes what was posted; a row that another unit of work wrote meanwhile lets this one start again.
async fn insert(tx: &Tx, import: &str, fresh: &[&Opening], now: Timestamp) -> Result<(), Error> {
    let texts = |value: fn(&Opening) -> String| Column::texts(fresh.iter().map(|opening| value(opening)));
    let numbers = |value: fn(&Opening) -> i64| Column::numbers(fresh.iter().map(|opening| value(opening)));
    let (from, values) = bulk::source(
        tx.conn(),
        &["opening", "import", "member", "line", "points", "growth", "digest", "posted_at"],
        &[
            texts(|opening| opening.key.clone()),
            Column::texts(fresh.iter().map(|_| import.to_owned())),
            texts(|opening| opening.member.id.to_string()),
            texts(|opening| opening.balance.line.as_str().to_owned()),
            numbers(|opening| opening.balance.points),
            numbers(|opening| opening.balance.growth),
            texts(|opening| opening.digest.clone()),
            Column::numbers(fresh.iter().map(|_| now.ms())),
        ],
    );
    let text = format!(
        "INSERT INTO membership_opening (opening, import, member, line, points, growth, digest, posted_at)
         SELECT opening, import, member, line, points, growth, digest, posted_at FROM {from} WHERE true ON CONFLICT DO NOTHING"
    );
    let inserted = sql::execute(tx.conn(), &text, values).await?;
    if usize::try_from(inserted) == Ok(fresh.len()) { Ok(()) } else { Err(heyuan_kernel::Error::Stale("rows of an import").into()) }
}
