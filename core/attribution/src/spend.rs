//! Spend: files taken in, and the unit that each plan advertises.

use crate::error::Error;
use crate::spend_file::{Platform, SpendFile, SpendRow, parse};
use crate::wing::Attribution;
use futures::FutureExt;
use heyuan_contract::{LeadId, OrgUnitId};
use heyuan_kernel::table::RowError;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Kernel, Problem, Reach, Scope, Tx, sql};
use sea_orm::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Rows of one write: bounds how long the writer is held, and the parameters of a statement.
const ROWS_A_WRITE: usize = 1_000;
/// Longest plan id, in bytes.
const PLAN_BYTES_MAX: usize = 200;

/// A file to import.
#[derive(Debug, Clone)]
pub struct ImportSpend {
    /// Whose export it is.
    pub platform: Platform,
    /// The unit that pays, for plans without a unit of their own.
    pub unit: OrgUnitId,
    /// The file.
    pub bytes: Vec<u8>,
    /// The declared encoding, if any.
    pub charset: Option<String>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// `imp_…`
    pub id: String,
    /// Rows that count now.
    pub rows_accepted: u64,
    /// Rows among them that took the place of earlier ones.
    pub rows_replaced: u64,
    /// Rows left out.
    pub rows_refused: u64,
    /// The first thousand of the rows left out.
    pub errors: Vec<RowError>,
}

/// Which unit a plan advertises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanUnit {
    /// The platform.
    pub platform: Platform,
    /// The plan's id there.
    pub plan: String,
    /// The unit.
    pub unit: OrgUnitId,
}

type Key = (String, String, String, String);

impl Attribution {
    /// Imports a file: what can be read counts, the rest is told by row and field. The same day, account, plan and creative
    /// imported again takes the place of the earlier row.
    ///
    /// # Errors
    /// `unknown_header`, `too_many_rows`, `invalid_request`, `forbidden`.
    pub async fn import_spend(&self, actor: &Actor, import: ImportSpend) -> Result<Imported, Error> {
        actor.require_any(&[Scope::Admin, Scope::Import])?;
        self.kernel.org.require("unit", &import.unit).await?;
        actor.require_unit(&import.unit)?;
        let mut file = parse(import.platform, &import.bytes, import.charset.as_deref())?;
        let units = self.units_of_plans(import.platform, &file).await?;
        let id: LeadId = Kernel::new_id("imp");
        let (mut accepted, mut replaced) = (0, 0);
        let rows = std::mem::take(&mut file.rows);
        for chunk in rows.chunks(ROWS_A_WRITE) {
            let batch: Vec<(u64, SpendRow, String)> = chunk
                .iter()
                .map(|(line, row)| (*line, row.clone(), units.get(&row.plan).unwrap_or(&import.unit).as_str().to_owned()))
                .collect();
            let written = self.write_chunk(actor, import.platform, id.as_str(), Arc::new(batch)).await?;
            accepted += written.accepted;
            replaced += written.replaced;
            for line in written.foreign {
                let detail = "this day of the creative belongs to a unit that this key does not reach".to_owned();
                file.refuse(RowError { row: line, field: "row", detail });
            }
        }
        file.errors.sort_by_key(|error| error.row);
        let imported = Imported {
            id: id.to_string(),
            rows_accepted: accepted,
            rows_replaced: replaced,
            rows_refused: file.refused,
            errors: file.errors,
        };
        self.write_import(actor, &import, &imported).await?;
        Ok(imported)
    }

    /// Says which unit a plan advertises, for the spend imported so far and from now on.
    ///
    /// # Errors
    /// `invalid_request`, `forbidden`.
    pub async fn put_plan(&self, actor: &Actor, put: PlanUnit) -> Result<PlanUnit, Error> {
        actor.require_any(&[Scope::Admin, Scope::Import])?;
        self.kernel.org.require("unit", &put.unit).await?;
        actor.require_unit(&put.unit)?;
        let (platform, plan) = (put.platform.as_str(), put.plan.clone());
        if !is_line(&plan, PLAN_BYTES_MAX) {
            return Err(Problem::invalid("plan", format!("expected 1 to {PLAN_BYTES_MAX} bytes without control characters")).into());
        }
        let text = "SELECT DISTINCT unit FROM attribution_spend WHERE platform = $1 AND plan = $2
                    UNION SELECT unit FROM attribution_plan WHERE platform = $1 AND plan = $2";
        for row in sql::all(self.kernel.db.reader(), text, [platform.into(), plan.as_str().into()]).await? {
            let unit: String = sql::get(&row, "unit")?;
            if !covers(actor.reach(), &unit) {
                let words = "the plan's spend belongs to a unit that this key does not reach";
                return Err(Problem::new(heyuan_kernel::error::codes::FORBIDDEN, words).field("plan").into());
            }
        }
        let written = put.clone();
        self.kernel
            .db
            .write("put plan's unit", move |tx| {
                let put = written.clone();
                async move {
                    let values = || -> [Value; 3] { [put.platform.as_str().into(), put.plan.as_str().into(), put.unit.as_str().into()] };
                    let text = "INSERT INTO attribution_plan (platform, plan, unit) VALUES ($1, $2, $3)
                                ON CONFLICT (platform, plan) DO UPDATE SET unit = excluded.unit";
                    sql::execute(tx.conn(), text, values()).await?;
                    let text = "UPDATE attribution_spend SET unit = $3 WHERE platform = $1 AND plan = $2";
                    sql::execute(tx.conn(), text, values()).await?;
                    Ok::<(), Error>(())
                }
                .boxed()
            })
            .await?;
        Ok(put)
    }

    async fn units_of_plans(&self, platform: Platform, file: &SpendFile) -> Result<HashMap<String, OrgUnitId>, Error> {
        let plans: BTreeSet<&str> = file.rows.iter().map(|(_, row)| row.plan.as_str()).collect();
        let plans: Vec<&str> = plans.into_iter().collect();
        let mut units = HashMap::new();
        for chunk in plans.chunks(ROWS_A_WRITE) {
            let text =
                format!("SELECT plan, unit FROM attribution_plan WHERE platform = $1 AND plan IN ({})", sql::placeholders(2, chunk.len()));
            let values = std::iter::once(Value::from(platform.as_str())).chain(chunk.iter().map(|plan| Value::from(*plan)));
            for row in sql::all(self.kernel.db.reader(), &text, values.collect::<Vec<_>>()).await? {
                let unit: String = sql::get(&row, "unit")?;
                units.insert(sql::get(&row, "plan")?, OrgUnitId::new(unit).map_err(|e| crate::error::corrupt("unit id", e))?);
            }
        }
        Ok(units)
    }

    async fn write_chunk(
        &self,
        actor: &Actor,
        platform: Platform,
        import: &str,
        batch: Arc<Vec<(u64, SpendRow, String)>>,
    ) -> Result<Written, Error> {
        let (reach, import) = (actor.reach().clone(), import.to_owned());
        self.kernel
            .db
            .write("import spend", move |tx| {
                let (reach, import, batch) = (reach.clone(), import.clone(), batch.clone());
                async move { write_rows(tx, platform, &import, &reach, &batch).await }.boxed()
            })
            .await
    }

    async fn write_import(&self, actor: &Actor, import: &ImportSpend, imported: &Imported) -> Result<(), Error> {
        let number = |rows: u64| Value::from(i64::try_from(rows).unwrap_or(i64::MAX));
        let values: [Value; 8] = [
            imported.id.as_str().into(),
            import.platform.as_str().into(),
            import.unit.as_str().into(),
            actor.name().into(),
            self.kernel.clock.now().ms().into(),
            number(imported.rows_accepted),
            number(imported.rows_replaced),
            number(imported.rows_refused),
        ];
        self.kernel
            .db
            .write("record spend import", move |tx| {
                let values = values.clone();
                async move {
                    let text = "INSERT INTO attribution_import (id, platform, unit, actor, imported_at, rows_accepted, rows_replaced, rows_refused)
                                VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
                    sql::execute(tx.conn(), text, values).await?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }
}

struct Written {
    accepted: u64,
    replaced: u64,
    /// Lines whose earlier row belongs to a unit out of reach.
    foreign: Vec<u64>,
}

fn covers(reach: &Reach, unit: &str) -> bool {
    OrgUnitId::new(unit).is_ok_and(|unit| reach.covers(&unit))
}

fn key_of(row: &SpendRow) -> Key {
    (row.day.clone(), row.account.clone(), row.plan.clone(), row.creative.clone())
}

async fn write_rows(tx: &Tx, platform: Platform, import: &str, reach: &Reach, batch: &[(u64, SpendRow, String)]) -> Result<Written, Error> {
    let there = earlier(tx.conn(), platform, batch).await?;
    let (mut values, mut written): (Vec<Value>, Written) = (Vec::new(), Written { accepted: 0, replaced: 0, foreign: Vec::new() });
    for (line, row, unit) in batch {
        let before = there.get(&key_of(row));
        if before.is_some_and(|unit| !covers(reach, unit)) || !covers(reach, unit) {
            written.foreign.push(*line);
            continue;
        }
        written.accepted += 1;
        written.replaced += u64::from(before.is_some());
        values.extend::<[Value; 11]>([
            row.day.as_str().into(),
            platform.as_str().into(),
            row.account.as_str().into(),
            row.plan.as_str().into(),
            row.creative.as_str().into(),
            row.plan_name.as_str().into(),
            unit.as_str().into(),
            row.impressions.into(),
            row.clicks.into(),
            row.amount.0.into(),
            import.into(),
        ]);
    }
    if !values.is_empty() {
        let text = format!(
            "INSERT INTO attribution_spend (day, platform, account, plan, creative, plan_name, unit, impressions, clicks, amount, import)
             VALUES {}
             ON CONFLICT (day, platform, account, plan, creative) DO UPDATE SET plan_name = excluded.plan_name, unit = excluded.unit,
               impressions = excluded.impressions, clicks = excluded.clicks, amount = excluded.amount, import = excluded.import",
            sql::rows(values.len() / 11, 11)
        );
        sql::execute(tx.conn(), &text, values).await?;
    }
    Ok(written)
}

/// The rows that are there already, with their unit.
async fn earlier<C: sql::Connection>(
    conn: &C,
    platform: Platform,
    batch: &[(u64, SpendRow, String)],
) -> Result<BTreeMap<Key, String>, Error> {
    let plans: BTreeSet<&str> = batch.iter().map(|(_, row, _)| row.plan.as_str()).collect();
    let days: BTreeSet<&str> = batch.iter().map(|(_, row, _)| row.day.as_str()).collect();
    let (Some(first), Some(last)) = (days.first(), days.last()) else { return Ok(BTreeMap::new()) };
    let text = format!(
        "SELECT day, account, plan, creative, unit FROM attribution_spend WHERE platform = $1 AND day >= $2 AND day <= $3 AND plan IN ({})",
        sql::placeholders(4, plans.len())
    );
    let head: [Value; 3] = [platform.as_str().into(), (*first).into(), (*last).into()];
    let values: Vec<Value> = head.into_iter().chain(plans.iter().map(|plan| Value::from(*plan))).collect();
    let mut there = BTreeMap::new();
    for row in sql::all(conn, &text, values).await? {
        let key = (sql::get(&row, "day")?, sql::get(&row, "account")?, sql::get(&row, "plan")?, sql::get(&row, "creative")?);
        there.insert(key, sql::get(&row, "unit")?);
    }
    Ok(there)
}
