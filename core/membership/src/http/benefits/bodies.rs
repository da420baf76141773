//! Benefits as JSON.

use crate::benefit::{Benefit, BenefitFigures, BenefitGrant, BenefitState, BenefitStock, BenefitTerms, BenefitUse, Every, TierBenefit};
use heyuan_contract::{OrgUnitId, ProductId};
use heyuan_kernel::{Actor, Rfc3339, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Whether a benefit can be granted.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum BenefitStateBody {
    Draft,
    Active,
    Retired,
}

/// How often a tier gets a benefit.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum BenefitEveryBody {
    Month,
    Year,
    Once,
}

/// What a tier gets.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TierBenefitBody {
    /// The tier's code.
    #[schema(examples("gold"))]
    pub(super) tier: String,
    /// Units of each grant.
    #[schema(examples(2))]
    pub(super) quantity: i64,
    /// How often.
    pub(super) every: BenefitEveryBody,
}

/// What there is to grant; without a limit as much as wanted.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BenefitStockBody {
    /// Units a month.
    pub(super) month: Option<i64>,
    /// Units in all.
    pub(super) total: Option<i64>,
    /// Whether what expires or is withdrawn can be granted again.
    #[serde(default)]
    pub(super) returns: bool,
}

/// What a benefit is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutBenefitBody {
    /// Its name in English.
    #[schema(examples("Parking"))]
    pub(super) name: String,
    /// Its name in Chinese.
    #[schema(examples("停车"))]
    pub(super) name_zh: String,
    /// The unit that contributes it; its line carries the cost.
    #[schema(value_type = String, examples("mall-1"))]
    pub(super) unit: OrgUnitId,
    /// What is counted.
    #[schema(examples("hours"))]
    pub(super) measure: String,
    /// Units of a grant that names no other quantity.
    #[schema(examples(10))]
    pub(super) quantity: i64,
    /// What a used unit costs the line, in fen.
    #[schema(examples(500))]
    pub(super) cost_fen: i64,
    /// What there is to grant.
    #[serde(default)]
    pub(super) stock: BenefitStockBody,
    /// Full days that a grant is good for, after its day.
    #[schema(examples(30))]
    pub(super) valid_days: i32,
    /// The mall's product when the benefit is a voucher.
    #[schema(value_type = Option<String>)]
    pub(super) voucher: Option<ProductId>,
    /// Whether units of other lines honour it as well.
    #[serde(default)]
    pub(super) anywhere: bool,
    /// Points that a unit is given for; not given for points when left out.
    #[schema(examples(200))]
    pub(super) points_price: Option<i64>,
    /// `draft`, `active` or `retired`.
    pub(super) state: BenefitStateBody,
    /// What tiers get by themselves.
    #[serde(default)]
    pub(super) tiers: Vec<TierBenefitBody>,
}

impl From<PutBenefitBody> for BenefitTerms {
    fn from(body: PutBenefitBody) -> BenefitTerms {
        let every = |every| match every {
            BenefitEveryBody::Month => Every::Month,
            BenefitEveryBody::Year => Every::Year,
            BenefitEveryBody::Once => Every::Once,
        };
        BenefitTerms {
            name: body.name,
            name_zh: body.name_zh,
            unit: body.unit,
            measure: body.measure,
            quantity: body.quantity,
            cost_fen: body.cost_fen,
            stock: BenefitStock { month: body.stock.month, total: body.stock.total, returns: body.stock.returns },
            valid_days: body.valid_days,
            voucher: body.voucher,
            anywhere: body.anywhere,
            points_price: body.points_price,
            state: match body.state {
                BenefitStateBody::Draft => BenefitState::Draft,
                BenefitStateBody::Active => BenefitState::Active,
                BenefitStateBody::Retired => BenefitState::Retired,
            },
            tiers: body
                .tiers
                .into_iter()
                .map(|tier| TierBenefit { tier: tier.tier, quantity: tier.quantity, every: every(tier.every) })
                .collect(),
        }
    }
}

/// A benefit in its newest version.
#[derive(Serialize, ToSchema)]
pub(super) struct BenefitBody {
    /// Its code.
    pub(super) code: String,
    /// Counted from 1.
    pub(super) version: i64,
    /// Its name in English.
    pub(super) name: String,
    /// Its name in Chinese.
    pub(super) name_zh: String,
    /// The unit that contributes it.
    pub(super) unit: String,
    /// Its line.
    pub(super) line: String,
    /// What is counted.
    pub(super) measure: String,
    /// Units of a grant that names no other quantity.
    pub(super) quantity: i64,
    /// What a used unit costs the line, in fen; for admin keys that reach the unit.
    pub(super) cost_fen: Option<i64>,
    /// What there is to grant; for admin keys that reach the unit.
    pub(super) stock: Option<BenefitStockBody>,
    /// Full days that a grant is good for, after its day.
    pub(super) valid_days: i32,
    /// The mall's product when the benefit is a voucher.
    pub(super) voucher: Option<String>,
    /// Whether units of other lines honour it as well.
    pub(super) anywhere: bool,
    /// Points that a unit is given for.
    pub(super) points_price: Option<i64>,
    /// `draft`, `active` or `retired`.
    pub(super) state: &'static str,
    /// What tiers get by themselves.
    pub(super) tiers: Vec<TierBenefitBody>,
    /// When this version was written.
    pub(super) created_at: Rfc3339,
}

impl BenefitBody {
    pub(super) fn shown(actor: &Actor, benefit: Benefit) -> BenefitBody {
        let Benefit { code, version, line, terms, created_at } = benefit;
        let whole = actor.has(Scope::Admin) && actor.reach().covers(&terms.unit);
        let every = |every| match every {
            Every::Month => BenefitEveryBody::Month,
            Every::Year => BenefitEveryBody::Year,
            Every::Once => BenefitEveryBody::Once,
        };
        let stock = BenefitStockBody { month: terms.stock.month, total: terms.stock.total, returns: terms.stock.returns };
        BenefitBody {
            code,
            version,
            name: terms.name,
            name_zh: terms.name_zh,
            unit: terms.unit.to_string(),
            line: line.to_string(),
            measure: terms.measure,
            quantity: terms.quantity,
            cost_fen: whole.then_some(terms.cost_fen),
            stock: whole.then_some(stock),
            valid_days: terms.valid_days,
            voucher: terms.voucher.map(|product| product.to_string()),
            anywhere: terms.anywhere,
            points_price: terms.points_price,
            state: terms.state.as_str(),
            tiers: terms
                .tiers
                .into_iter()
                .map(|tier| TierBenefitBody { tier: tier.tier, quantity: tier.quantity, every: every(tier.every) })
                .collect(),
            created_at: Rfc3339(created_at),
        }
    }
}

/// What a member was granted: available, reserved, used and lapsed units add up to the quantity.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct BenefitGrantBody {
    /// Its id.
    pub(super) id: String,
    /// Whose.
    pub(super) member: String,
    /// The benefit's code.
    pub(super) benefit: String,
    /// The version whose terms it keeps.
    pub(super) version: i64,
    /// The unit that contributed it.
    pub(super) unit: String,
    /// Its line.
    pub(super) line: String,
    /// Units granted.
    pub(super) quantity: i64,
    /// Units that can be reserved or used.
    pub(super) available: i64,
    /// Units that are reserved.
    pub(super) reserved: i64,
    /// Units that were used.
    pub(super) used: i64,
    /// Units that expired or were withdrawn.
    pub(super) lapsed: i64,
    /// `live`, `spent`, `expired`, `withdrawn`.
    pub(super) state: String,
    /// When it was made.
    pub(super) granted_at: Rfc3339,
    /// When it ends.
    pub(super) expires_at: Rfc3339,
    /// Why.
    pub(super) reason: String,
}

impl From<BenefitGrant> for BenefitGrantBody {
    fn from(grant: BenefitGrant) -> BenefitGrantBody {
        BenefitGrantBody {
            id: grant.id,
            member: grant.member.to_string(),
            benefit: grant.benefit,
            version: grant.version,
            unit: grant.unit.to_string(),
            line: grant.line.to_string(),
            quantity: grant.quantity,
            available: grant.available,
            reserved: grant.reserved,
            used: grant.used,
            lapsed: grant.lapsed,
            state: grant.state,
            granted_at: Rfc3339(grant.granted_at),
            expires_at: Rfc3339(grant.expires_at),
            reason: grant.reason,
        }
    }
}

/// Units that were reserved or used.
#[derive(Serialize, ToSchema)]
pub(super) struct BenefitUseBody {
    /// Its id.
    pub(super) id: String,
    /// The code to show at the counter; none when they were used at once.
    pub(super) code: Option<String>,
    /// The grant that they are from.
    pub(super) grant: String,
    /// Whose.
    pub(super) member: String,
    /// The benefit's code.
    pub(super) benefit: String,
    /// The line that carries the cost.
    pub(super) line: String,
    /// Where they are to be used, or were.
    pub(super) unit: String,
    /// How many.
    pub(super) quantity: i64,
    /// `reserved`, `used`, `returned`, `lapsed`.
    pub(super) state: String,
    /// Until when a reservation stands.
    pub(super) deadline: Option<Rfc3339>,
    /// When they were used or given back.
    pub(super) ended_at: Option<Rfc3339>,
}

impl From<BenefitUse> for BenefitUseBody {
    fn from(taken: BenefitUse) -> BenefitUseBody {
        BenefitUseBody {
            id: taken.id,
            code: taken.code,
            grant: taken.grant,
            member: taken.member.to_string(),
            benefit: taken.benefit,
            line: taken.line.to_string(),
            unit: taken.unit.to_string(),
            quantity: taken.quantity,
            state: taken.state,
            deadline: taken.deadline.map(Rfc3339),
            ended_at: taken.ended_at.map(Rfc3339),
        }
    }
}

/// A grant by people.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantBenefitBody {
    /// The benefit's code.
    #[schema(examples("parking"))]
    pub(super) benefit: String,
    /// Units; the benefit's own quantity when left out.
    pub(super) quantity: Option<i64>,
    /// Why; no personal data.
    #[schema(examples("a late delivery"))]
    pub(super) reason: String,
}

/// Units to reserve.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReserveBenefitBody {
    /// How many.
    #[schema(examples(3))]
    pub(super) quantity: i64,
    /// Where they will be used.
    #[schema(value_type = String, examples("mall-1"))]
    pub(super) unit: OrgUnitId,
    /// How long the reservation stands: a day when left out, thirty at most, and never longer than the grant.
    pub(super) minutes: Option<i64>,
}

/// Units to use at a counter.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UseBenefitBody {
    /// How many.
    #[schema(examples(3))]
    pub(super) quantity: i64,
    /// The counter's unit.
    #[schema(value_type = String, examples("mall-1"))]
    pub(super) unit: OrgUnitId,
}

/// A reservation to give back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReturnBenefitBody {
    /// The reservation's code.
    pub(super) code: String,
}

/// Where a reservation is used.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UseReservationBody {
    /// The counter's unit.
    #[schema(value_type = String, examples("mall-1"))]
    pub(super) unit: OrgUnitId,
}

/// Which month.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct BenefitReportQuery {
    /// The month.
    #[param(example = "2026-11")]
    pub(super) period: String,
}

/// A month of benefits.
#[derive(Serialize, ToSchema)]
pub(super) struct BenefitReportBody {
    /// The month.
    pub(super) period: String,
    /// By benefit.
    pub(super) benefits: Vec<BenefitFiguresBody>,
}

/// One benefit's month, in units.
#[derive(Serialize, ToSchema)]
pub(super) struct BenefitFiguresBody {
    /// The benefit's code.
    pub(super) benefit: String,
    /// The line that carries its cost.
    pub(super) line: String,
    /// The unit that contributes it.
    pub(super) unit: String,
    /// Units granted.
    pub(super) granted: i64,
    /// Grants that a rule or a tier could not make when they were due, mostly for want of stock.
    pub(super) missed: i64,
    /// Units reserved, whatever became of them.
    pub(super) reserved: i64,
    /// Units used.
    pub(super) used: i64,
    /// Units that expired.
    pub(super) expired: i64,
    /// Units that were withdrawn: of refunded purchases, of tiers that a refund took, of exchanges that were given back.
    pub(super) withdrawn: i64,
    /// What the used ones cost the line, in fen.
    pub(super) cost_fen: i64,
}

impl From<BenefitFigures> for BenefitFiguresBody {
    fn from(figures: BenefitFigures) -> BenefitFiguresBody {
        BenefitFiguresBody {
            benefit: figures.benefit,
            line: figures.line.to_string(),
            unit: figures.unit.to_string(),
            granted: figures.granted,
            missed: figures.missed,
            reserved: figures.reserved,
            used: figures.used,
            expired: figures.expired,
            withdrawn: figures.withdrawn,
            cost_fen: figures.cost_fen,
        }
    }
}
