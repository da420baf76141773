//! Earn rules as the API spells them.

use crate::caps::{Cap, Caps};
use crate::earn::{EarnRules, LineRule, Multiplier, Rates, When};
use heyuan_contract::{Line, Ratio, Timestamp};
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
    /// Articles, by `sku`, whose order lines earn nothing.
    #[serde(default)]
    excluded_articles: BTreeSet<String>,
    /// More for some members or at some times. Of those that apply the largest counts, for growth and for points each.
    #[serde(default)]
    multipliers: Vec<MultiplierBody>,
    /// The most that a member earns at this line before any benefit rule.
    #[serde(default)]
    caps: CapsBody,
}

/// More for some members or at some times; every condition that is named must hold.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MultiplierBody {
    /// As the explanation of a transaction tells it.
    #[schema(examples("gold weekend"))]
    name: String,
    /// For members of these tiers; for all when empty.
    #[serde(default)]
    tiers: BTreeSet<String>,
    /// For transactions whose own time is not before.
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Rfc3339>,
    /// For transactions whose own time is before.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Rfc3339>,
    /// On these days of the week, 1 for Monday to 7 for Sunday; on all when empty.
    #[serde(default)]
    weekdays: BTreeSet<u8>,
    /// On these days of the month; on all when empty.
    #[serde(default)]
    days: BTreeSet<u8>,
    /// From this time of the day on, in the tenant's zone.
    #[schema(examples("18:00"))]
    daily_from: Option<String>,
    /// Before this time of the same day; `24:00` is its end.
    #[schema(examples("22:00"))]
    daily_until: Option<String>,
    /// What growth is multiplied with; at least 1.
    growth: RatioBody,
    /// What points are multiplied with; at least 1.
    points: RatioBody,
}

/// The most that a member earns by the earn rules, net of refunds, by the transaction's own day and month.
#[derive(Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct CapsBody {
    /// In a day of the tenant's calendar.
    day: CapBody,
    /// In a month.
    month: CapBody,
    /// In all.
    ever: CapBody,
}

/// The most of each figure; what is left out has no end.
#[derive(Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct CapBody {
    /// Growth.
    growth: Option<i64>,
    /// Points.
    #[schema(examples(500))]
    points: Option<i64>,
}

/// A version of the earn rules.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutEarnRulesBody {
    /// From when on transactions earn under it, by their own time: at least ten minutes ahead.
    #[schema(value_type = String, format = DateTime)]
    starts_at: Rfc3339,
    /// Points can be spent until the end of this many days after the transaction's own day.
    #[schema(examples(365))]
    points_days: i32,
    /// What each line gives, by line; one that is not named gives nothing.
    lines: BTreeMap<String, LineRuleBody>,
    /// The most that a member earns at all lines together before any benefit rule.
    #[serde(default)]
    caps: CapsBody,
}

/// A version as it is kept.
#[derive(Serialize, ToSchema)]
pub(super) struct EarnRulesBody {
    /// Counted from 1; of those in force at an instant the highest counts.
    version: i64,
    /// From when on it is in force; absent for the first one.
    starts_at: Option<Rfc3339>,
    /// Points can be spent until the end of this many days after the transaction's own day.
    points_days: i32,
    /// What each line gives.
    lines: BTreeMap<String, LineRuleBody>,
    /// The most that a member earns at all lines together.
    caps: CapsBody,
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
            excluded_articles: rule.excluded_articles,
            multipliers: rule.multipliers.into_iter().map(MultiplierBody::from).collect(),
            caps: rule.caps.into(),
        }
    }
}

impl From<Caps> for CapsBody {
    fn from(caps: Caps) -> CapsBody {
        let cap = |cap: Cap| CapBody { growth: cap.growth, points: cap.points };
        CapsBody { day: cap(caps.day), month: cap(caps.month), ever: cap(caps.ever) }
    }
}

impl From<CapsBody> for Caps {
    fn from(body: CapsBody) -> Caps {
        let cap = |cap: CapBody| Cap { growth: cap.growth, points: cap.points };
        Caps { day: cap(body.day), month: cap(body.month), ever: cap(body.ever) }
    }
}

impl From<Multiplier> for MultiplierBody {
    fn from(multiplier: Multiplier) -> MultiplierBody {
        let instant = |ms: Option<i64>| ms.map(|ms| Rfc3339(Timestamp::clamped(ms)));
        let minute = |minute: Option<u16>| minute.map(|minute| format!("{:02}:{:02}", minute / 60, minute % 60));
        let when = multiplier.when;
        MultiplierBody {
            name: multiplier.name,
            tiers: multiplier.tiers,
            from: instant(when.from_ms),
            until: instant(when.until_ms),
            weekdays: when.weekdays,
            days: when.days,
            daily_from: minute(when.daily_from),
            daily_until: minute(when.daily_until),
            growth: multiplier.growth.into(),
            points: multiplier.points.into(),
        }
    }
}

impl MultiplierBody {
    fn parsed(self, at: &str) -> Result<Multiplier, Problem> {
        let minute = |field: &str, text: Option<String>| {
            let parsed = |text: &String| {
                minute_of_day(text).ok_or_else(|| Problem::invalid(&format!("{at}.{field}"), "expected a time such as 18:00, up to 24:00"))
            };
            text.as_ref().map(parsed).transpose()
        };
        Ok(Multiplier {
            tiers: self.tiers,
            when: When {
                from_ms: self.from.map(|from| from.0.ms()),
                until_ms: self.until.map(|until| until.0.ms()),
                weekdays: self.weekdays,
                days: self.days,
                daily_from: minute("daily_from", self.daily_from)?,
                daily_until: minute("daily_until", self.daily_until)?,
            },
            growth: self.growth.parsed(&format!("{at}.growth"))?,
            points: self.points.parsed(&format!("{at}.points"))?,
            name: self.name,
        })
    }
}

/// Reads `18:00` as minutes of a day.
fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str| digits.parse::<u16>().ok().filter(|_| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()));
    let (hour, minute) = (two(hour)?, two(minute)?);
    ((hour < 24 && minute < 60) || (hour, minute) == (24, 0)).then_some(hour * 60 + minute)
}

impl From<EarnRules> for EarnRulesBody {
    fn from(rules: EarnRules) -> EarnRulesBody {
        let first = Timestamp::MIN.ms();
        EarnRulesBody {
            version: rules.version,
            starts_at: (rules.starts_at_ms != first).then(|| Rfc3339(Timestamp::clamped(rules.starts_at_ms))),
            points_days: rules.points_days,
            lines: rules.lines.into_iter().map(|(line, rule)| (line.to_string(), rule.into())).collect(),
            caps: rules.caps.into(),
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
        let multipliers = self.multipliers.into_iter().enumerate();
        let multipliers = multipliers.map(|(place, body)| body.parsed(&format!("{at}.multipliers.{place}")));
        Ok(LineRule {
            growth: own.growth,
            points: own.points,
            cost: self.cost.parsed(&format!("{at}.cost"))?,
            amount_min: self.amount_min,
            categories: categories.collect::<Result<_, Problem>>()?,
            excluded: self.excluded,
            excluded_articles: self.excluded_articles,
            multipliers: multipliers.collect::<Result<_, Problem>>()?,
            caps: self.caps.into(),
        })
    }
}

impl PutEarnRulesBody {
    pub(super) fn parsed(self, version: i64) -> Result<EarnRules, Problem> {
        let mut lines = BTreeMap::new();
        for (name, body) in self.lines {
            let at = format!("lines.{name}");
            let line = Line::parse(&name);
            let line = line.ok_or_else(|| Problem::invalid(&at, "expected residential, mall, office, hotel or community"))?;
            lines.insert(line, body.parsed(&at)?);
        }
        Ok(EarnRules { version, starts_at_ms: self.starts_at.0.ms(), points_days: self.points_days, lines, caps: self.caps.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_day_are_read() {
        let read = ["00:00", "18:30", "24:00", "24:01", "7:00", "12:60", "+1:00", ""].map(minute_of_day);
        assert_eq!(read, [Some(0), Some(1_110), Some(1_440), None, None, None, None, None]);
    }

    #[test]
    fn what_is_put_is_what_is_shown() {
        let put = r#"{"starts_at": "2027-01-01T00:00:00+08:00", "points_days": 365, "caps": {"month": {"points": 5000}},
            "lines": {"mall": {"growth": {"numerator": 1, "denominator": 100}, "points": {"numerator": 1, "denominator": 100},
              "cost": {"numerator": 1, "denominator": 1}, "excluded_articles": ["gift"], "caps": {"day": {"growth": 10, "points": 20}},
              "multipliers": [{"name": "gold weekend", "tiers": ["gold"], "weekdays": [6, 7], "days": [18], "daily_from": "18:00",
                "daily_until": "24:00", "from": "2027-01-01T00:00:00Z", "until": "2027-02-01T00:00:00Z",
                "growth": {"numerator": 1, "denominator": 1}, "points": {"numerator": 3, "denominator": 2}}]}}}"#;
        let body: PutEarnRulesBody = serde_json::from_str(put).expect("it is a body");
        let rules = body.parsed(2).expect("it can be rules");
        let shown = serde_json::to_value(EarnRulesBody::from(rules.clone())).expect("it is JSON");
        let mut again = shown.clone();
        again.as_object_mut().expect("an object").remove("version");
        let again: PutEarnRulesBody = serde_json::from_value(again).expect("what is shown can be put");
        assert_eq!(again.parsed(2).expect("it can be rules"), rules);
        assert_eq!(shown["lines"]["mall"]["multipliers"][0]["daily_until"], "24:00");
    }
}
