//! A month of benefits, by benefit: what was granted, reserved, used, and what it costs the line.

use crate::error::Error;
use crate::facade::Membership;
use crate::member::corrupt;
use heyuan_contract::{Line, OrgUnitId};
use heyuan_kernel::{Actor, Problem, Scope, sql};
use heyuan_ledger::Period;
use std::collections::BTreeMap;

/// One benefit's month, in units; the cost is exact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenefitFigures {
    /// The benefit's code.
    pub benefit: String,
    /// The line that carries its cost.
    pub line: Line,
    /// The unit that contributes it.
    pub unit: OrgUnitId,
    /// Units granted in the month.
    pub granted: i64,
    /// Grants that a rule or a tier could not make when they were due, mostly for want of stock.
    pub missed: i64,
    /// Units reserved in the month, whatever became of them.
    pub reserved: i64,
    /// Units used in the month.
    pub used: i64,
    /// Units that expired in the month.
    pub expired: i64,
    /// Units that were withdrawn in the month: of refunded purchases, of tiers that a refund took, of exchanges that were given back.
    pub withdrawn: i64,
    /// What the used ones cost the line, in fen.
    pub cost_fen: i64,
}

/// The figures by name, each with the table that it is summed from. Every statement groups by benefit.
const SUMS: [(&str, &str); 7] = [
    ("granted", "SUM(quantity) AS n, benefit, line, unit FROM membership_benefit_grant WHERE period = $1 AND state <> 'missed'"),
    ("missed", "COUNT(*) AS n, benefit, line, unit FROM membership_benefit_grant WHERE period = $1 AND state = 'missed'"),
    ("expired", "SUM(lapsed) AS n, benefit, line, unit FROM membership_benefit_grant WHERE ended_period = $1 AND state = 'expired'"),
    ("withdrawn", "SUM(lapsed) AS n, benefit, line, unit FROM membership_benefit_grant WHERE ended_period = $1 AND state = 'withdrawn'"),
    ("reserved", "SUM(quantity) AS n, benefit, line, contributor AS unit FROM membership_benefit_use WHERE reserved_period = $1"),
    ("used", "SUM(quantity) AS n, benefit, line, contributor AS unit FROM membership_benefit_use WHERE used_period = $1"),
    ("cost_fen", "SUM(cost_fen) AS n, benefit, line, contributor AS unit FROM membership_benefit_use WHERE used_period = $1"),
];

impl Membership {
    /// The month's figures of every benefit within the key's reach, by code.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`.
    pub async fn benefit_report(&self, actor: &Actor, period: &str) -> Result<Vec<BenefitFigures>, Error> {
        actor.require(Scope::Admin)?;
        let period = Period::parse(period).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))?;
        let mut figures: BTreeMap<String, BenefitFigures> = BTreeMap::new();
        for (name, sums) in SUMS {
            let (sum, rest) = sums.split_once(" AS n").ok_or_else(|| corrupt("report", "a figure has no sum"))?;
            let unit = if rest.contains("contributor AS unit") { "contributor" } else { "unit" };
            let text = format!("SELECT CAST({sum} AS BIGINT) AS n{rest} GROUP BY benefit, line, {unit}");
            for row in sql::all(self.kernel().db.reader(), &text, [period.number().into()]).await? {
                let (benefit, line): (String, String) = (sql::get(&row, "benefit")?, sql::get(&row, "line")?);
                let unit = OrgUnitId::new(sql::get::<String>(&row, "unit")?).map_err(|e| corrupt("benefit", e))?;
                let line = Line::parse(&line).ok_or_else(|| corrupt("benefit's line", line))?;
                if !actor.reach().covers(&unit) {
                    continue;
                }
                let one = figures.entry(benefit.clone()).or_insert_with(|| none_of(benefit, line, unit));
                *one.place(name) = sql::get(&row, "n")?;
            }
        }
        Ok(figures.into_values().collect())
    }
}

impl BenefitFigures {
    fn place(&mut self, name: &str) -> &mut i64 {
        match name {
            "granted" => &mut self.granted,
            "missed" => &mut self.missed,
            "expired" => &mut self.expired,
            "withdrawn" => &mut self.withdrawn,
            "reserved" => &mut self.reserved,
            "used" => &mut self.used,
            _ => &mut self.cost_fen,
        }
    }
}

fn none_of(benefit: String, line: Line, unit: OrgUnitId) -> BenefitFigures {
    BenefitFigures { benefit, line, unit, granted: 0, missed: 0, reserved: 0, used: 0, expired: 0, withdrawn: 0, cost_fen: 0 }
}
