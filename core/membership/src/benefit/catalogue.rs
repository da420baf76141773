//! The catalogue: what a line contributes and on which terms, in numbered versions.

use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::corrupt;
use futures::FutureExt;
use heyuan_contract::{Line, OrgUnitId, ProductId, Timestamp};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Problem, Scope, Tx, audit, sql};
use serde::{Deserialize, Serialize};

/// Benefits of one tenant: a step of the clockwork reads those of tiers at once.
const BENEFITS_MAX: i64 = 1_000;
/// Longest code, in bytes: a rule's effect names it.
const CODE_BYTES_MAX: usize = 63;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Longest unit of measure, in bytes.
const MEASURE_BYTES_MAX: usize = 30;
/// Most units of one grant.
pub(super) const QUANTITY_MAX: i64 = 10_000;
/// Most vouchers of one grant: each is an event and a record of the mall.
pub(super) const VOUCHERS_MAX: i64 = 20;
/// Highest cost of a unit, in fen: a hundred thousand yuan.
const COST_FEN_MAX: i64 = 10_000_000;
/// Highest price of a unit, in points.
const PRICE_POINTS_MAX: i64 = 100_000;
/// Most units of a stock.
const STOCK_MAX: i64 = 1_000_000_000;
/// Longest life of a grant, in days.
const VALID_DAYS_MAX: i32 = 3_660;
/// Tiers of one benefit.
const TIERS_MAX: usize = 20;

pub(super) const COLUMNS: &str = "b.code, b.version, b.line, b.body, b.created_at";
pub(super) const NEWEST: &str = "b.version = (SELECT MAX(n.version) FROM membership_benefit n WHERE n.code = b.code)";

/// Whether a benefit can be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BenefitState {
    /// Being prepared: nobody sees or gets it.
    Draft,
    /// Shown and granted.
    Active,
    /// No longer granted; what was granted can be used.
    Retired,
}

impl BenefitState {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            BenefitState::Draft => "draft",
            BenefitState::Active => "active",
            BenefitState::Retired => "retired",
        }
    }
}

/// How often a tier gets a benefit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// Once a calendar month in the tenant's zone.
    Month,
    /// Once a calendar year.
    Year,
    /// Once in a membership.
    Once,
}

/// What a tier gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierBenefit {
    /// The tier's code.
    pub tier: String,
    /// Units of each grant.
    pub quantity: i64,
    /// How often.
    pub every: Every,
}

/// How many units there are to grant; without a limit as many as wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenefitStock {
    /// Units a month.
    pub month: Option<i64>,
    /// Units in all.
    pub total: Option<i64>,
    /// Whether what expires or is withdrawn can be granted again.
    pub returns: bool,
}

/// What a benefit is. A grant keeps the terms that it was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenefitTerms {
    /// Its name in English.
    pub name: String,
    /// Its name in Chinese.
    pub name_zh: String,
    /// The unit that contributes it; its line carries the cost.
    pub unit: OrgUnitId,
    /// What is counted: `times`, `hours`.
    pub measure: String,
    /// Units of a grant that names no other quantity.
    pub quantity: i64,
    /// What a used unit costs the line, in fen.
    pub cost_fen: i64,
    /// What there is to grant.
    pub stock: BenefitStock,
    /// Full days that a grant is good for, after the day of the grant.
    pub valid_days: i32,
    /// The mall's voucher product when the benefit is a voucher: its use is the voucher's. Whoever writes the benefit reaches its unit.
    pub voucher: Option<ProductId>,
    /// Whether units of other lines honour it as well.
    pub anywhere: bool,
    /// Points that a unit is given for; none: it is not given for points.
    #[serde(default)]
    pub points_price: Option<i64>,
    /// Whether it can be granted.
    pub state: BenefitState,
    /// What tiers get by themselves.
    pub tiers: Vec<TierBenefit>,
}

/// A benefit in its newest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Benefit {
    /// Its code.
    pub code: String,
    /// Counted from 1.
    pub version: i64,
    /// The contributing unit's line.
    pub line: Line,
    /// What it is.
    pub terms: BenefitTerms,
    /// When this version was written.
    pub created_at: Timestamp,
}

impl BenefitTerms {
    fn check(&self) -> Result<(), Problem> {
        let text = |field: &str, text: &str, max: usize| {
            if is_line(text, max) { Ok(()) } else { Err(Problem::invalid(field, format!("expected 1 to {max} bytes of text"))) }
        };
        let number = |field: &str, value: i64, min: i64, max: i64| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(Problem::invalid(field, format!("expected {min} to {max}"))) }
        };
        let quantity_max = if self.voucher.is_some() { VOUCHERS_MAX } else { QUANTITY_MAX };
        text("name", &self.name, NAME_BYTES_MAX)?;
        text("name_zh", &self.name_zh, NAME_BYTES_MAX)?;
        text("measure", &self.measure, MEASURE_BYTES_MAX)?;
        number("quantity", self.quantity, 1, quantity_max)?;
        number("cost_fen", self.cost_fen, 0, COST_FEN_MAX)?;
        number("points_price", self.points_price.unwrap_or(1), 1, PRICE_POINTS_MAX)?;
        number("valid_days", self.valid_days.into(), 0, VALID_DAYS_MAX.into())?;
        number("stock.month", self.stock.month.unwrap_or(0), 0, STOCK_MAX)?;
        number("stock.total", self.stock.total.unwrap_or(0), 0, STOCK_MAX)?;
        if self.tiers.len() > TIERS_MAX {
            return Err(Problem::invalid("tiers", format!("at most {TIERS_MAX} tiers")));
        }
        for (index, tier) in self.tiers.iter().enumerate() {
            number(&format!("tiers[{index}].quantity"), tier.quantity, 1, quantity_max)?;
            if self.tiers[..index].iter().any(|other| other.tier == tier.tier) {
                return Err(Problem::invalid(&format!("tiers[{index}].tier"), "each tier once"));
            }
        }
        Ok(())
    }

    /// The quantity of one grant, refused outside what one may hold.
    pub(super) fn granted(&self, wanted: Option<i64>) -> Result<i64, Problem> {
        let max = if self.voucher.is_some() { VOUCHERS_MAX } else { QUANTITY_MAX };
        let quantity = wanted.unwrap_or(self.quantity);
        if (1..=max).contains(&quantity) { Ok(quantity) } else { Err(Problem::invalid("quantity", format!("expected 1 to {max}"))) }
    }
}

/// Refuses what can't be a benefit's code.
fn check_code(code: &str) -> Result<(), Problem> {
    let plain = code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    // The report stands beside the benefits.
    if code.is_empty() || code.len() > CODE_BYTES_MAX || !plain || code == "report" {
        return Err(Problem::invalid("code", format!("expected 1 to {CODE_BYTES_MAX} characters of a-z 0-9 -, and not report")));
    }
    Ok(())
}

pub(super) fn read(row: &sql::Row) -> Result<Benefit, Error> {
    let (line, body): (String, String) = (sql::get(row, "line")?, sql::get(row, "body")?);
    Ok(Benefit {
        code: sql::get(row, "code")?,
        version: sql::get(row, "version")?,
        line: Line::parse(&line).ok_or_else(|| corrupt("benefit's line", line))?,
        terms: serde_json::from_str(&body).map_err(|e| corrupt("benefit", e))?,
        created_at: Timestamp::clamped(sql::get(row, "created_at")?),
    })
}

pub(super) async fn find<C: sql::Connection>(conn: &C, code: &str) -> Result<Option<Benefit>, Error> {
    let text = format!("SELECT {COLUMNS} FROM membership_benefit b WHERE b.code = $1 AND {NEWEST}");
    sql::one(conn, &text, [code.into()]).await?.as_ref().map(read).transpose()
}

/// The active benefits that tiers get by themselves.
pub(super) async fn of_tiers<C: sql::Connection>(conn: &C) -> Result<Vec<Benefit>, Error> {
    let text = format!(
        "SELECT {COLUMNS} FROM membership_benefit b WHERE b.tiered = 1 AND b.state = 'active' AND {NEWEST} ORDER BY b.code LIMIT $1"
    );
    sql::all(conn, &text, [BENEFITS_MAX.into()]).await?.iter().map(read).collect()
}

impl Membership {
    /// Writes a benefit, or a new version of it; the same terms again change nothing.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `conflict` for a code that another unit contributes.
    pub async fn put_benefit(&self, actor: &Actor, code: &str, terms: &BenefitTerms) -> Result<Benefit, Error> {
        actor.require(Scope::Admin)?;
        check_code(code)?;
        terms.check()?;
        let line = self.line_of(actor, &terms.unit).await?;
        // Also those of versions that are still to start.
        let policies = self.tier_policies(self.kernel().db.near()).await?;
        let unknown = terms.tiers.iter().position(|tier| !policies.iter().any(|policy| policy.rank(&tier.tier).is_some()));
        if let Some(index) = unknown {
            return Err(Problem::invalid(&format!("tiers[{index}].tier"), "there is no such tier").into());
        }
        self.check_voucher(actor, terms).await?;
        self.kernel()
            .db
            .settle(|| async {
                let known = find(self.kernel().db.near(), code).await?;
                if known.as_ref().is_some_and(|known| known.terms.unit != terms.unit) {
                    let words = format!("the benefit {code} is contributed by another unit; choose another code");
                    return Err(Error::Refused(Problem::new(kernel_codes::CONFLICT, words).field("unit")));
                }
                if let Some(same) = known.as_ref().filter(|known| known.terms == *terms) {
                    return Ok(same.clone());
                }
                let version = known.map_or(1, |known| known.version + 1);
                let benefit = Benefit { code: code.to_owned(), version, line, terms: terms.clone(), created_at: self.kernel().clock.now() };
                let entry = audit::Entry::new(actor, "put benefit", code).detail("version", version);
                let written = benefit.clone();
                self.kernel()
                    .db
                    .write("put a benefit", move |tx| {
                        let (benefit, entry) = (written.clone(), entry.clone());
                        async move { write_benefit(tx, &benefit, &entry).await }.boxed()
                    })
                    .await?;
                Ok(benefit)
            })
            .await
    }

    /// Refuses a voucher that the mall does not have or that is redeemed where the actor has no say. A benefit can be retired all the same.
    async fn check_voucher(&self, actor: &Actor, terms: &BenefitTerms) -> Result<(), Error> {
        let Some(product) = terms.voucher.as_ref().filter(|_| terms.state != BenefitState::Retired) else { return Ok(()) };
        let within = self.vouchers().unit_of(product).await?.is_some_and(|unit| actor.reach().covers(&unit));
        let words = || format!("the mall has no voucher product {product} that this key reaches");
        if within { Ok(()) } else { Err(Problem::invalid("voucher", words()).into()) }
    }

    /// Benefits by code: active ones for members and apps, all for an admin key that reaches their unit.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn benefits(&self, actor: &Actor, after: Option<String>, limit: u64) -> Result<Vec<Benefit>, Error> {
        self.may_read_catalogue(actor).await?;
        let text = format!("SELECT {COLUMNS} FROM membership_benefit b WHERE {NEWEST} ORDER BY b.code LIMIT $1");
        let rows = sql::all(self.kernel().db.reader(), &text, [BENEFITS_MAX.into()]).await?;
        let all = rows.iter().map(read).collect::<Result<Vec<Benefit>, Error>>()?;
        let shown = all.into_iter().filter(|benefit| shows(actor, benefit) && after.as_ref().is_none_or(|after| benefit.code > *after));
        Ok(shown.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
    }

    /// One benefit, seen as in the list.
    ///
    /// # Errors
    /// `forbidden`, `unknown_benefit`.
    pub async fn benefit(&self, actor: &Actor, code: &str) -> Result<Benefit, Error> {
        self.may_read_catalogue(actor).await?;
        let found = find(self.kernel().db.near(), code).await?.filter(|benefit| shows(actor, benefit));
        found.ok_or_else(|| Error::refused(codes::UNKNOWN_BENEFIT, format!("there is no benefit {code} that this key may see")))
    }

    async fn may_read_catalogue(&self, actor: &Actor) -> Result<(), Error> {
        match actor.as_member() {
            Some(member) => self.visible_member(actor, member).await.map(drop),
            None => Ok(actor.require_any(&[Scope::App, Scope::Admin])?),
        }
    }
}

pub(super) fn shows(actor: &Actor, benefit: &Benefit) -> bool {
    benefit.terms.state == BenefitState::Active || (actor.has(Scope::Admin) && actor.reach().covers(&benefit.terms.unit))
}

async fn write_benefit(tx: &Tx, benefit: &Benefit, entry: &audit::Entry) -> Result<(), Error> {
    if benefit.version == 1 {
        let known = sql::count(tx.conn(), "SELECT COUNT(*) AS n FROM membership_benefit WHERE version = 1", []).await?;
        if known >= BENEFITS_MAX {
            return Err(Problem::invalid("code", format!("a tenant has at most {BENEFITS_MAX} benefits")).into());
        }
    }
    let inserted = sql::execute(
        tx.conn(),
        "INSERT INTO membership_benefit (code, version, unit, line, state, tiered, body, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (code, version) DO NOTHING",
        [
            benefit.code.as_str().into(),
            benefit.version.into(),
            benefit.terms.unit.as_str().into(),
            benefit.line.as_str().into(),
            benefit.terms.state.as_str().into(),
            i64::from(!benefit.terms.tiers.is_empty()).into(),
            serde_json::to_string(&benefit.terms).map_err(|e| corrupt("benefit", e))?.into(),
            benefit.created_at.ms().into(),
        ],
    )
    .await?;
    if inserted == 0 {
        return Err(heyuan_kernel::Error::Stale("the benefit").into());
    }
    // Whoever has a tier of it is looked at again at once.
    sql::execute(tx.conn(), "DELETE FROM membership_benefit_round WHERE benefit = $1", [benefit.code.as_str().into()]).await?;
    Ok(audit::record(tx, entry).await?)
}
