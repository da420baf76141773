//! Counters: what a member was granted under a rule or a cap, by period, net of refunds. They change under the member's lock alone.

use crate::error::Error;
use heyuan_contract::MemberId;
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::{Tx, sql};
use std::collections::BTreeMap;

/// Which counter: the member, the name of the rule or the cap, the period that it is kept by.
pub(crate) type Counter = (MemberId, String, i64);

/// Adds to counters, or with a minus takes from them.
pub(crate) async fn add(tx: &Tx, counts: Vec<(Counter, i64)>) -> Result<(), Error> {
    let mut sums: BTreeMap<Counter, i64> = BTreeMap::new();
    for (counter, points) in counts {
        *sums.entry(counter).or_default() += points;
    }
    sums.retain(|_, points| *points != 0);
    if sums.is_empty() {
        return Ok(());
    }
    let [members, names, periods] = columns(sums.keys());
    let (from, values) = bulk::source(
        tx.conn(),
        &["member", "rule", "period", "points"],
        &[members, names, periods, Column::numbers(sums.values().copied())],
    );
    let text = format!(
        "INSERT INTO membership_counter (member, rule, period, points) SELECT member, rule, period, points FROM {from} WHERE true ORDER BY place
         ON CONFLICT (member, rule, period) DO UPDATE SET points = membership_counter.points + excluded.points"
    );
    sql::execute(tx.conn(), &text, values).await?;
    Ok(())
}

/// What counters hold, in their order.
pub(crate) async fn read<C: sql::Connection>(conn: &C, counters: &[Counter]) -> Result<Vec<i64>, Error> {
    if counters.is_empty() {
        return Ok(Vec::new());
    }
    let (from, values) = bulk::source(conn, &["member", "rule", "period"], &columns(counters.iter()));
    let text = format!(
        "SELECT v.place, c.points FROM {from} JOIN membership_counter c ON c.member = v.member AND c.rule = v.rule AND c.period = v.period"
    );
    let mut found = vec![0; counters.len()];
    for row in sql::all(conn, &text, values).await? {
        *bulk::of_place(&mut found, &row)? = sql::get(&row, "points")?;
    }
    Ok(found)
}

fn columns<'a>(counters: impl Iterator<Item = &'a Counter> + Clone) -> [Column; 3] {
    [
        Column::texts(counters.clone().map(|(member, _, _)| member.to_string())),
        Column::texts(counters.clone().map(|(_, name, _)| name.clone())),
        Column::numbers(counters.map(|(_, _, period)| *period)),
    ]
}
