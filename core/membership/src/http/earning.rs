//! Earn rules over HTTP, by version.

use crate::earn::{EarnRules, LineRule, Rates};
use crate::facade::Membership;
use actix_web::{get, put, web};
use heyuan_contract::{Line, Ratio, Timestamp};
use heyuan_kernel::error::ProblemBody;
use heyuan_kernel::http::{Authenticated, Body};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// An exact ratio.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RatioBody {
    /// Zero or more.
    #[schema(examples(1))]
    numerator: i64,
    /// Above zero.
    #[schema(examples(100))]
    denominator: i64,
}

impl RatioBody {
    fn parsed(self, at: &str) -> Result<Ratio, Problem> {
        Ratio::new(self.numerator, self.denominator)
            .map_err(|_| Problem::invalid(at, "expected a numerator of zero or more over a denominator above zero"))
    }
}

impl From<Ratio> for RatioBody {
    fn from(ratio: Ratio) -> RatioBody {
        RatioBody { numerator: ratio.numerator(), denominator: ratio.denominator() }
    }
}

/// What a fen of a category earns.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RatesBody {
    /// Growth for a fen.
    growth: RatioBody,
    /// Points for a fen.
    points: RatioBody,
}

/// What one line gives.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LineRuleBody {
    /// Growth for a fen paid: a hundredth is one for a yuan.
    growth: RatioBody,
    /// Points for a fen paid.
    points: RatioBody,
    /// What a point costs the line, in fen.
    cost: RatioBody,
    /// A transaction below it earns nothing, in fen.
    #[serde(default)]
    amount_min: i64,
    /// Rates of their own for order lines of these categories.
    #[serde(default)]
    categories: BTreeMap<String, RatesBody>,
    /// Categories whose order lines earn nothing.
    #[serde(default)]
    excluded: BTreeSet<String>,
}

/// A version of the earn rules.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutEarnRulesBody {
    /// From when on transactions earn under it, by their own time: at least ten minutes ahead.
    #[schema(value_type = String, format = DateTime)]
    starts_at: Rfc3339,
    /// Points can be spent until the end of this many days after the transaction's own day.
    #[schema(examples(365))]
    points_days: i32,
    /// What each line gives, by line; one that is not named gives nothing.
    lines: BTreeMap<String, LineRuleBody>,
}

/// A version as it is kept.
#[derive(Serialize, ToSchema)]
struct EarnRulesBody {
    /// Counted from 1; of those in force at an instant the highest counts.
    version: i64,
    /// From when on it is in force; absent for the first one.
    starts_at: Option<Rfc3339>,
    /// Points can be spent until the end of this many days after the transaction's own day.
    points_days: i32,
    /// What each line gives.
    lines: BTreeMap<String, LineRuleBody>,
}

/// Every version.
#[derive(Serialize, ToSchema)]
struct EarnRulesListBody {
    /// The newest first.
    items: Vec<EarnRulesBody>,
}

impl From<LineRule> for LineRuleBody {
    fn from(rule: LineRule) -> LineRuleBody {
        let rates = |rates: Rates| RatesBody { growth: rates.growth.into(), points: rates.points.into() };
        LineRuleBody {
            growth: rule.growth.into(),
            points: rule.points.into(),
            cost: rule.cost.into(),
            amount_min: rule.amount_min,
            categories: rule.categories.into_iter().map(|(category, own)| (category, rates(own))).collect(),
            excluded: rule.excluded,
        }
    }
}

impl From<EarnRules> for EarnRulesBody {
    fn from(rules: EarnRules) -> EarnRulesBody {
        let first = Timestamp::MIN.ms();
        EarnRulesBody {
            version: rules.version,
            starts_at: (rules.starts_at_ms != first).then(|| Rfc3339(Timestamp::clamped(rules.starts_at_ms))),
            points_days: rules.points_days,
            lines: rules.lines.into_iter().map(|(line, rule)| (line.to_string(), rule.into())).collect(),
        }
    }
}

impl LineRuleBody {
    fn parsed(self, at: &str) -> Result<LineRule, Problem> {
        let rates = |at: &str, body: RatesBody| {
            Ok::<_, Problem>(Rates {
                growth: body.growth.parsed(&format!("{at}.growth"))?,
                points: body.points.parsed(&format!("{at}.points"))?,
            })
        };
        let own = rates(at, RatesBody { growth: self.growth, points: self.points })?;
        let categories = self.categories.into_iter().map(|(category, body)| {
            let parsed = rates(&format!("{at}.categories.{category}"), body)?;
            Ok((category, parsed))
        });
        Ok(LineRule {
            growth: own.growth,
            points: own.points,
            cost: self.cost.parsed(&format!("{at}.cost"))?,
            amount_min: self.amount_min,
            categories: categories.collect::<Result<_, Problem>>()?,
            excluded: self.excluded,
        })
    }
}

impl PutEarnRulesBody {
    fn parsed(self, version: i64) -> Result<EarnRules, Problem> {
        let mut lines = BTreeMap::new();
        for (name, body) in self.lines {
            let at = format!("lines.{name}");
            let line = Line::parse(&name);
            let line = line.ok_or_else(|| Problem::invalid(&at, "expected residential, mall, office, hotel or community"))?;
            lines.insert(line, body.parsed(&at)?);
        }
        Ok(EarnRules { version, starts_at_ms: self.starts_at.0.ms(), points_days: self.points_days, lines })
    }
}

/// Writes the next version of the earn rules. It never changes afterwards; transactions whose own time lies before it earn under the
/// version of their time, however late they are reported. The same body again is answered as it is.
#[utoipa::path(
    tag = "membership", summary = "Put earn rules", security(("key" = [])), request_body = PutEarnRulesBody,
    params(("version" = i64, Path, description = "The next number")),
    responses(
        (status = 200, body = EarnRulesBody),
        (status = 400, body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[put("/v1/earn-rules/{version}")]
pub(super) async fn put_earn_rules(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    version: web::Path<String>,
    body: Body<PutEarnRulesBody>,
) -> Result<web::Json<EarnRulesBody>, Problem> {
    let number = version.parse::<i64>().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| Problem::not_found("version of the earn rules", &*version))?;
    let Body(body) = body;
    Ok(web::Json(membership.put_earn_rules(&actor, &body.parsed(number)?).await?.into()))
}

/// Lists every version of the earn rules.
#[utoipa::path(
    tag = "membership", summary = "List earn rules", security(("key" = [])),
    responses(
        (status = 200, body = EarnRulesListBody),
        (status = 401, body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/v1/earn-rules")]
pub(super) async fn list_earn_rules(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
) -> Result<web::Json<EarnRulesListBody>, Problem> {
    let items = membership.list_earn_rules(&actor).await?.into_iter().map(EarnRulesBody::from).collect();
    Ok(web::Json(EarnRulesListBody { items }))
}
