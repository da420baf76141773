//! A transaction of a line: as it is reported, as it is stored, as it is shown.

use crate::customers::Identifier;
use crate::error::{Error, codes};
use crate::join::verified;
use crate::member::corrupt;
use crate::missed::Missed;
use crate::rule::Effect;
use heyuan_contract::{Fen, Line, MemberId, OrderLine, OrgUnitId, Ratio, Timestamp, TransactionId};
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::{Actor, Kernel, Problem, Scope, Tx, sql};
use heyuan_ledger::Period;
use serde::Serialize;
use std::collections::HashMap;

/// What is read of a row of `membership_transaction`.
pub(crate) const COLUMNS: &str = "no, id, unit, line, kind, refund_of, member, amount, occurred_at, arrived_at, period, state, why, lines, \
     digest, idempotency, idempotency_digest, earn_version, base_growth, base_points, growth, points, receivable, \
     points_balance, tier, cost_numerator, cost_denominator, refunded, growth_kept, points_kept, decision, hinted";

/// Largest amount, in fen: ten billion yuan.
const AMOUNT_MAX: i64 = 1_000_000_000_000;
/// Lines of one transaction.
const LINES_MAX: usize = 500;
/// Longest sku or category, in bytes.
const CODE_BYTES_MAX: usize = 100;
/// How far an own time may be ahead of our clock.
const AHEAD_MS: i64 = 5 * 60_000;
/// How far back a key without the `import` right may report.
const BACK_MS: i64 = 5 * 366 * 86_400_000;

/// What was bought or went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Money came in.
    Purchase,
    /// Money of a purchase went back.
    Refund,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Kind::Purchase => "purchase",
            Kind::Refund => "refund",
        }
    }
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In the books.
    Posted,
    /// A refund that came before its purchase.
    Waiting,
    /// A refund that waited and did not fit its purchase.
    Refused,
    /// A quote: nothing is posted.
    Quoted,
}

impl State {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Posted => "posted",
            State::Waiting => "waiting",
            State::Refused => "refused",
            State::Quoted => "quoted",
        }
    }

    fn parse(text: &str) -> Result<State, Error> {
        let all = [State::Posted, State::Waiting, State::Refused, State::Quoted];
        Ok(all.into_iter().find(|state| state.as_str() == text).ok_or_else(|| corrupt("transaction state", text))?)
    }
}

/// Whose transaction it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A member by its id.
    Member(MemberId),
    /// The member behind identifiers, each with the word of the app that it has verified it.
    Identifiers(Vec<(Identifier, bool)>),
}

/// A transaction as a line reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The line's own id, unique within the unit.
    pub id: TransactionId,
    /// Where.
    pub unit: OrgUnitId,
    /// What.
    pub kind: Kind,
    /// The purchase that a refund takes back, of the same unit.
    pub refund_of: Option<TransactionId>,
    /// Its own time.
    pub occurred_at: Timestamp,
    /// Above zero, also of a refund.
    pub amount: Fen,
    /// `CNY`.
    pub currency: String,
    /// A refund may leave it out: it is the purchase's member that it is taken back from.
    pub who: Option<Who>,
    /// The lines of the order.
    pub lines: Vec<OrderLine>,
}

/// What of a report its digest covers: everything, with identifiers as keyed hashes.
#[derive(Serialize)]
pub(crate) struct Digested<'a> {
    id: &'a str,
    unit: &'a str,
    kind: &'static str,
    refund_of: Option<&'a str>,
    occurred_at: i64,
    amount: i64,
    currency: &'a str,
    who: Vec<String>,
    lines: &'a [OrderLine],
}

impl Report {
    pub(crate) fn digested(&self, kernel: &Kernel) -> Digested<'_> {
        let hashed = |identifier: &Identifier| {
            let app = identifier.app.as_deref().unwrap_or_default();
            let parts = [b"membership".as_slice(), identifier.kind.as_bytes(), app.as_bytes(), identifier.value.as_bytes()];
            heyuan_kernel::secret::sha256_hex(&kernel.keys.lookup().mac(&parts))
        };
        Digested {
            id: self.id.as_str(),
            unit: self.unit.as_str(),
            kind: self.kind.as_str(),
            refund_of: self.refund_of.as_ref().map(TransactionId::as_str),
            occurred_at: self.occurred_at.ms(),
            amount: self.amount.0,
            currency: &self.currency,
            who: match &self.who {
                None => Vec::new(),
                Some(Who::Member(member)) => vec![member.to_string()],
                Some(Who::Identifiers(list)) => list.iter().map(|(identifier, _)| hashed(identifier)).collect(),
            },
            lines: &self.lines,
        }
    }

    /// Refuses what can't be a transaction.
    pub(crate) fn check(&self, actor: &Actor, now: Timestamp) -> Result<(), Error> {
        let invalid = |field: &str, words: &str| Err(Error::from(Problem::invalid(field, words)));
        if self.currency != "CNY" {
            return Err(Problem::new(codes::UNKNOWN_CURRENCY, "CNY is the only currency settled here").field("amount.currency").into());
        }
        if self.amount.0 <= 0 || self.amount.0 > AMOUNT_MAX {
            let words = format!("expected 1 to {AMOUNT_MAX} fen; a refund's amount is positive, too");
            return Err(Problem::new(codes::AMOUNT_OUT_OF_RANGE, words).field("amount.amount").into());
        }
        let ahead = self.occurred_at.ms() > now.ms() + AHEAD_MS;
        let far_back = self.occurred_at.ms() < now.ms() - BACK_MS && !actor.has(Scope::Import);
        if ahead || far_back {
            let words = "expected at most 5 minutes ahead of the server and, without the import scope, at most 5 years back";
            return Err(Problem::new(codes::TIME_OUT_OF_RANGE, words).field("occurred_at").into());
        }
        match (self.kind, &self.refund_of) {
            (Kind::Purchase, Some(_)) => return invalid("refund_of", "a purchase takes nothing back"),
            (Kind::Refund, None) => return invalid("refund_of", "name the purchase that it takes back"),
            (Kind::Refund, Some(of)) if *of == self.id => return invalid("refund_of", "a refund has an id of its own"),
            _ => {}
        }
        match &self.who {
            None if self.kind == Kind::Purchase => return invalid("member", "name the member, or identifiers of it"),
            Some(Who::Identifiers(list)) => drop(verified(list)?),
            _ => {}
        }
        self.check_lines()
    }

    fn check_lines(&self) -> Result<(), Error> {
        if self.lines.len() > LINES_MAX {
            return Err(Problem::invalid("lines", format!("at most {LINES_MAX} lines")).into());
        }
        for (index, line) in self.lines.iter().enumerate() {
            let at = |name: &str| format!("lines[{index}].{name}");
            if !(1..=1_000_000).contains(&line.quantity) {
                return Err(Problem::invalid(&at("quantity"), "expected 1 to 1,000,000 pieces").into());
            }
            if !(0..=AMOUNT_MAX).contains(&line.amount.0) {
                return Err(Problem::invalid(&at("amount"), format!("expected 0 to {AMOUNT_MAX} fen")).into());
            }
            let fits = |text: &str| text.len() <= CODE_BYTES_MAX && !text.chars().any(char::is_control);
            if !fits(&line.sku) || !fits(&line.category) {
                return Err(
                    Problem::invalid(&at("sku"), format!("a sku and a category have at most {CODE_BYTES_MAX} bytes of text")).into()
                );
            }
        }
        Ok(())
    }
}

/// A transaction as stored.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) no: i64,
    pub(crate) id: TransactionId,
    pub(crate) unit: OrgUnitId,
    pub(crate) line: Line,
    pub(crate) kind: Kind,
    pub(crate) refund_of: Option<TransactionId>,
    pub(crate) member: Option<MemberId>,
    /// Of a purchase the members of its customer, where there were several; of a refund those that its identifiers lead or led to.
    pub(crate) hinted: Vec<MemberId>,
    pub(crate) amount: i64,
    pub(crate) occurred_at: Timestamp,
    pub(crate) arrived_at: Timestamp,
    pub(crate) period: i64,
    pub(crate) state: State,
    pub(crate) why: String,
    pub(crate) lines: String,
    pub(crate) digest: String,
    pub(crate) idempotency: Option<String>,
    pub(crate) earn_version: i64,
    pub(crate) base_growth: i64,
    pub(crate) base_points: i64,
    pub(crate) growth: i64,
    pub(crate) points: i64,
    pub(crate) receivable: i64,
    pub(crate) points_balance: i64,
    pub(crate) tier: String,
    pub(crate) cost: Ratio,
    pub(crate) refunded: i64,
    pub(crate) growth_kept: i64,
    pub(crate) points_kept: i64,
    pub(crate) decision: Option<String>,
}

impl Row {
    /// From when on its growth counts for the tier: its own time, or its arrival where that is earlier.
    pub(crate) fn growth_at(&self) -> Timestamp {
        self.occurred_at.min(self.arrived_at)
    }
}

/// The columns in the order of [`columns`].
const WRITTEN: [&str; 31] = [
    "id",
    "unit",
    "line",
    "kind",
    "refund_of",
    "member",
    "amount",
    "occurred_at",
    "arrived_at",
    "period",
    "state",
    "why",
    "lines",
    "digest",
    "idempotency",
    "idempotency_digest",
    "earn_version",
    "base_growth",
    "base_points",
    "growth",
    "points",
    "receivable",
    "points_balance",
    "tier",
    "cost_numerator",
    "cost_denominator",
    "refunded",
    "growth_kept",
    "points_kept",
    "decision",
    "hinted",
];

fn columns(rows: &[&Row]) -> [Column; 31] {
    let text = |field: fn(&Row) -> &str| Column::texts(rows.iter().map(|row| field(row).to_owned()));
    let own = |field: fn(&Row) -> Option<String>| Column::Texts(rows.iter().map(|row| field(row)).collect());
    let number = |field: fn(&Row) -> i64| Column::numbers(rows.iter().map(|row| field(row)));
    [
        text(|row| row.id.as_str()),
        text(|row| row.unit.as_str()),
        text(|row| row.line.as_str()),
        text(|row| row.kind.as_str()),
        own(|row| row.refund_of.as_ref().map(ToString::to_string)),
        own(|row| row.member.as_ref().map(ToString::to_string)),
        number(|row| row.amount),
        number(|row| row.occurred_at.ms()),
        number(|row| row.arrived_at.ms()),
        number(|row| row.period),
        text(|row| row.state.as_str()),
        text(|row| &row.why),
        text(|row| &row.lines),
        text(|row| &row.digest),
        own(|row| row.idempotency.clone()),
        text(|row| &row.digest),
        number(|row| row.earn_version),
        number(|row| row.base_growth),
        number(|row| row.base_points),
        number(|row| row.growth),
        number(|row| row.points),
        number(|row| row.receivable),
        number(|row| row.points_balance),
        text(|row| &row.tier),
        number(|row| row.cost.numerator()),
        number(|row| row.cost.denominator()),
        number(|row| row.refunded),
        number(|row| row.growth_kept),
        number(|row| row.points_kept),
        own(|row| row.decision.clone()),
        own(|row| hinted(&row.hinted)),
    ]
}

/// Members as one column holds them: by spaces, which no id has.
fn hinted(members: &[MemberId]) -> Option<String> {
    let ids: Vec<&str> = members.iter().map(MemberId::as_str).collect();
    (!ids.is_empty()).then(|| ids.join(" "))
}

/// Writes new transactions and answers their numbers; [`heyuan_kernel::Error::Stale`] when the id or the key of one is there already.
pub(crate) async fn insert(tx: &Tx, rows: &[&Row]) -> Result<Vec<i64>, Error> {
    let (from, values) = bulk::source(tx.conn(), &WRITTEN, &columns(rows));
    let list = WRITTEN.join(", ");
    let text = format!(
        "INSERT INTO membership_transaction ({list}) SELECT {list} FROM {from} WHERE true ORDER BY place ON CONFLICT DO NOTHING
         RETURNING no, unit, id"
    );
    let mut numbers = HashMap::with_capacity(rows.len());
    for row in sql::all(tx.conn(), &text, values).await? {
        numbers.insert((sql::get::<String>(&row, "unit")?, sql::get::<String>(&row, "id")?), sql::get::<i64>(&row, "no")?);
    }
    let number = |row: &&Row| numbers.get(&(row.unit.to_string(), row.id.to_string())).copied();
    let found: Option<Vec<i64>> = rows.iter().map(number).collect();
    // Two of the same id are one row, which is neither's alone.
    let all = found.filter(|_| numbers.len() == rows.len());
    Ok(all.ok_or(heyuan_kernel::Error::Stale("the transaction"))?)
}

/// Writes what a posting made of a waiting refund, or a refund of its purchase.
pub(crate) async fn update(tx: &Tx, row: &Row) -> Result<(), Error> {
    sql::execute(
        tx.conn(),
        "UPDATE membership_transaction SET member = $2, period = $3, state = $4, why = $5, growth = $6, points = $7, receivable = $8,
           points_balance = $9, tier = $10, cost_numerator = $11, cost_denominator = $12, refunded = $13, growth_kept = $14,
           points_kept = $15, earn_version = $16 WHERE no = $1",
        [
            row.no.into(),
            row.member.as_ref().map(ToString::to_string).into(),
            row.period.into(),
            row.state.as_str().into(),
            row.why.clone().into(),
            row.growth.into(),
            row.points.into(),
            row.receivable.into(),
            row.points_balance.into(),
            row.tier.clone().into(),
            row.cost.numerator().into(),
            row.cost.denominator().into(),
            row.refunded.into(),
            row.growth_kept.into(),
            row.points_kept.into(),
            row.earn_version.into(),
        ],
    )
    .await?;
    Ok(())
}

pub(crate) fn read(row: &sql::Row) -> Result<Row, Error> {
    let text = |name: &str| sql::get::<String>(row, name);
    let number = |name: &str| sql::get::<i64>(row, name);
    let (kind, line, state) = (text("kind")?, text("line")?, text("state")?);
    let refund_of: Option<String> = sql::get(row, "refund_of")?;
    let member: Option<String> = sql::get(row, "member")?;
    let hinted: Option<String> = sql::get(row, "hinted")?;
    let id_error = |e: heyuan_contract::InvalidId| corrupt("transaction", e);
    let cost = Ratio::new(number("cost_numerator")?, number("cost_denominator")?);
    Ok(Row {
        no: number("no")?,
        id: TransactionId::new(text("id")?).map_err(id_error)?,
        unit: OrgUnitId::new(text("unit")?).map_err(id_error)?,
        line: Line::parse(&line).ok_or_else(|| corrupt("transaction line", line))?,
        kind: if kind == "refund" { Kind::Refund } else { Kind::Purchase },
        refund_of: refund_of.map(TransactionId::new).transpose().map_err(id_error)?,
        member: member.map(MemberId::new).transpose().map_err(id_error)?,
        hinted: hinted.iter().flat_map(|ids| ids.split(' ')).map(MemberId::new).collect::<Result<_, _>>().map_err(id_error)?,
        amount: number("amount")?,
        occurred_at: Timestamp::clamped(number("occurred_at")?),
        arrived_at: Timestamp::clamped(number("arrived_at")?),
        period: number("period")?,
        state: State::parse(&state)?,
        why: text("why")?,
        lines: text("lines")?,
        digest: text("digest")?,
        idempotency: sql::get(row, "idempotency")?,
        earn_version: number("earn_version")?,
        base_growth: number("base_growth")?,
        base_points: number("base_points")?,
        growth: number("growth")?,
        points: number("points")?,
        receivable: number("receivable")?,
        points_balance: number("points_balance")?,
        tier: text("tier")?,
        cost: cost.map_err(|e| corrupt("unit cost", e))?,
        refunded: number("refunded")?,
        growth_kept: number("growth_kept")?,
        points_kept: number("points_kept")?,
        decision: sql::get(row, "decision")?,
    })
}

pub(crate) async fn find<C: sql::Connection>(conn: &C, unit: &OrgUnitId, id: &TransactionId) -> Result<Option<Row>, Error> {
    let text = format!("SELECT {COLUMNS} FROM membership_transaction WHERE unit = $1 AND id = $2");
    sql::one(conn, &text, [unit.as_str().into(), id.as_str().into()]).await?.as_ref().map(read).transpose()
}

/// What a report may be known by.
#[derive(Clone)]
pub(crate) struct KnownBy {
    /// Its idempotency key, as it is stored.
    pub(crate) key: String,
    pub(crate) unit: OrgUnitId,
    pub(crate) id: TransactionId,
}

/// For each the transactions that its key made or that have its id, two at most; all in one statement.
pub(crate) async fn find_known<C: sql::Connection>(conn: &C, asked: &[KnownBy]) -> Result<Vec<Vec<Row>>, Error> {
    let columns = [
        Column::texts(asked.iter().map(|by| by.key.clone())),
        Column::texts(asked.iter().map(|by| by.unit.to_string())),
        Column::texts(asked.iter().map(|by| by.id.to_string())),
    ];
    let (from, values) = bulk::source(conn, &["known_key", "known_unit", "known_id"], &columns);
    let text = format!(
        "SELECT v.place, {COLUMNS} FROM {from} JOIN membership_transaction ON idempotency = v.known_key
         UNION ALL SELECT v.place, {COLUMNS} FROM {from} JOIN membership_transaction ON unit = v.known_unit AND id = v.known_id"
    );
    let mut found: Vec<Vec<Row>> = asked.iter().map(|_| Vec::new()).collect();
    for row in sql::all(conn, &text, values).await? {
        bulk::of_place(&mut found, &row)?.push(read(&row)?);
    }
    Ok(found)
}

/// An effect with the rule that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleEffect {
    /// The plugin's name.
    pub rule: String,
    /// What it does, after limits and budgets.
    pub effect: Effect,
    /// Why that could not be given, if it could not.
    pub missed: Option<Missed>,
}

/// A transaction as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionView {
    /// The line's own id.
    pub id: TransactionId,
    /// Where.
    pub unit: OrgUnitId,
    /// The business line.
    pub line: Line,
    /// What.
    pub kind: Kind,
    /// The purchase that a refund takes back.
    pub refund_of: Option<TransactionId>,
    /// Where it stands.
    pub state: State,
    /// Why a refund was refused.
    pub why: Option<String>,
    /// Whose it is; a waiting refund may not know yet.
    pub member: Option<MemberId>,
    /// What was paid or went back.
    pub amount: Fen,
    /// Its own time.
    pub occurred_at: Timestamp,
    /// The month that it counts in.
    pub period: Option<Period>,
    /// The version of the earn rules.
    pub earn_version: i64,
    /// Before any plugin.
    pub base_growth: i64,
    /// Before any plugin.
    pub base_points: i64,
    /// Growth earned, or with a minus taken back.
    pub growth: i64,
    /// Points earned, or with a minus taken back.
    pub points: i64,
    /// Of the points taken back: those that had been spent, and are owed now.
    pub points_owed: i64,
    /// What can be spent after it.
    pub points_balance: i64,
    /// The tier after it.
    pub tier: String,
    /// Of a purchase: what went back so far.
    pub refunded: Fen,
    /// What rules added, and what of it could not be given.
    pub effects: Vec<RuleEffect>,
    /// The decision behind it.
    pub decision: Option<String>,
}

impl TransactionView {
    pub(crate) fn of(row: Row, effects: Vec<RuleEffect>) -> TransactionView {
        TransactionView {
            id: row.id,
            unit: row.unit,
            line: row.line,
            kind: row.kind,
            refund_of: row.refund_of,
            state: row.state,
            why: (!row.why.is_empty()).then_some(row.why),
            member: row.member,
            amount: Fen(row.amount),
            occurred_at: row.occurred_at,
            period: Period::from_number(row.period),
            earn_version: row.earn_version,
            base_growth: row.base_growth,
            base_points: row.base_points,
            growth: row.growth,
            points: row.points,
            points_owed: row.receivable,
            points_balance: row.points_balance,
            tier: row.tier,
            refunded: Fen(row.refunded),
            effects,
            decision: row.decision,
        }
    }
}
