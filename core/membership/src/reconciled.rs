//! What the comparisons with the lines' own books came to, for the check list of a close.
//!
//! A comparison covers the units that its key reaches. Those of several keys may overlap; then what the wider one found counts, or what newer
//! ones beneath it found, where that is more: no transaction counts twice, and no difference is forgotten.

use crate::error::Error;
use crate::facade::Membership;
use crate::member::corrupt;
use heyuan_contract::{Line, OrgUnitId};
use heyuan_kernel::org::Tree;
use heyuan_kernel::sql;
use heyuan_ledger::Period;
use std::collections::HashSet;

/// The last comparison of a unit's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Compared {
    line: Line,
    /// The unit of the key; `None` for the whole group's.
    unit: Option<OrgUnitId>,
    at: i64,
    differing: i64,
}

impl Compared {
    /// Whether every unit that another one covers is covered by this one, too, and more.
    fn is_wider(&self, other: &Compared, tree: &Tree) -> bool {
        match (&self.unit, &other.unit) {
            (None, Some(_)) => true,
            (Some(own), Some(other)) => own != other && tree.subtree(own).contains(other),
            (_, None) => false,
        }
    }
}

impl Membership {
    /// Lines with a unit that reported something with an own time in the month and whose books of it were never compared.
    pub(crate) async fn lines_without_books<C: sql::Connection>(&self, conn: &C, period: Period) -> Result<Vec<Line>, Error> {
        let (zone, tree) = (&self.kernel().zone, self.kernel().org.tree());
        let (from, until) = (period.start(zone).ms(), period.next().start(zone).ms());
        let compared = compared(conn, period).await?;
        let mut silent = Vec::new();
        for line in Line::ALL {
            let own: Vec<&Compared> = compared.iter().filter(|one| one.line == line).collect();
            if own.iter().any(|one| one.unit.is_none()) {
                continue;
            }
            let reached: HashSet<OrgUnitId> = own.iter().filter_map(|one| one.unit.as_ref()).flat_map(|unit| tree.subtree(unit)).collect();
            let covered: Vec<&OrgUnitId> = reached.iter().filter(|id| tree.get(id).is_some_and(|unit| unit.line == Some(line))).collect();
            // Where every unit is covered nothing has to be looked up; else a walk along the line's month ends at the first that is not.
            if !covered.is_empty() && tree.units().filter(|unit| unit.line == Some(line)).all(|unit| reached.contains(&unit.id)) {
                continue;
            }
            let others =
                if covered.is_empty() { String::new() } else { format!("AND unit NOT IN ({})", sql::placeholders(4, covered.len())) };
            let text = format!(
                "SELECT no FROM membership_transaction WHERE line = $1 AND occurred_at >= $2 AND occurred_at < $3 {others} LIMIT 1"
            );
            let month: [sea_orm::Value; 3] = [line.as_str().into(), from.into(), until.into()];
            let values = month.into_iter().chain(covered.into_iter().map(|unit| unit.as_str().into()));
            if sql::one(conn, &text, values).await?.is_some() {
                silent.push(line);
            }
        }
        Ok(silent)
    }

    /// How many transactions of a month differ between the lines' books and what they reported, by the last comparisons.
    pub(crate) async fn differing_in<C: sql::Connection>(&self, conn: &C, period: Period) -> Result<i64, Error> {
        let (tree, compared) = (self.kernel().org.tree(), compared(conn, period).await?);
        let of_line = |line: Line| compared.iter().filter(move |one| one.line == line).collect::<Vec<_>>();
        Ok(Line::ALL.into_iter().map(|line| differing(&of_line(line), &tree)).sum())
    }
}

async fn compared<C: sql::Connection>(conn: &C, period: Period) -> Result<Vec<Compared>, Error> {
    let text = "SELECT line, unit, at, differing FROM membership_reconciliation WHERE period = $1 ORDER BY line, unit";
    let read = |row: &sql::Row| {
        let (line, unit): (String, String) = (sql::get(row, "line")?, sql::get(row, "unit")?);
        let unit = if unit.is_empty() { None } else { Some(OrgUnitId::new(unit).map_err(|e| corrupt("reconciliation", e))?) };
        let line = Line::parse(&line).ok_or_else(|| corrupt("reconciliation", line))?;
        Ok(Compared { line, unit, at: sql::get(row, "at")?, differing: sql::get(row, "differing")? })
    };
    sql::all(conn, text, [period.number().into()]).await?.iter().map(read).collect()
}

/// What comparisons of one line found together.
fn differing(compared: &[&Compared], tree: &Tree) -> i64 {
    let is_widest = |one: &&&Compared| !compared.iter().any(|other| other.is_wider(one, tree));
    compared
        .iter()
        .filter(is_widest)
        .map(|widest| {
            let newer: Vec<&Compared> = compared.iter().copied().filter(|one| widest.is_wider(one, tree) && one.at > widest.at).collect();
            widest.differing.max(differing(&newer, tree))
        })
        .sum()
}
