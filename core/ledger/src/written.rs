//! Writing what a draft came to, in a handful of statements however many transfers it holds.

use crate::bulk::{self, Column};
use crate::draft::{Draft, Drafted, Move};
use crate::error::Error;
use crate::gate;
use crate::lot::LotRow;
use crate::transfer::Transfer;
use heyuan_contract::Timestamp;
use heyuan_kernel::{Tx, sql};
use sea_orm::{DbBackend, Value};
use std::collections::HashMap;

/// Rows of a striped account and period at most: as many writers can move it at once.
const STRIPES: u64 = 64;

/// Writes the batch and answers the numbers of its transfers by key.
pub(crate) async fn write(
    tx: &Tx,
    draft: &Draft,
    transfers: &[Transfer],
    fresh: &[(usize, Drafted)],
    now: Timestamp,
) -> Result<HashMap<String, i64>, Error> {
    if fresh.is_empty() {
        return Ok(HashMap::new());
    }
    let numbers = insert_transfers(tx, draft, transfers, fresh, now).await?;
    if numbers.len() < fresh.len() {
        return Err(gate::refusal(tx, transfers, fresh, &numbers).await?);
    }
    let opened = insert_lots(tx, &draft.opened).await?;
    update_lots(tx, draft).await?;
    insert_moves(tx, transfers, fresh, &numbers, &opened).await?;
    move_stripes(tx, draft).await?;
    Ok(numbers)
}

/// Writes the transfers, and the accounts that they move. Where a transfer is refused, what it did to accounts is written all the same:
/// the caller gives the unit of work up.
async fn insert_transfers(
    tx: &Tx,
    draft: &Draft,
    transfers: &[Transfer],
    fresh: &[(usize, Drafted)],
    now: Timestamp,
) -> Result<HashMap<String, i64>, Error> {
    let texts = |field: fn(&Transfer) -> &str| Column::texts(fresh.iter().map(|(index, _)| field(&transfers[*index]).to_owned()));
    let own = |field: fn(&Transfer) -> i64| Column::numbers(fresh.iter().map(|(index, _)| field(&transfers[*index])));
    let side = |field: fn(&Drafted) -> Option<i64>| Column::Numbers(fresh.iter().map(|(_, drafted)| field(drafted)).collect());
    let names = [
        "key",
        "unit",
        "debit",
        "credit",
        "amount",
        "debit_version",
        "debit_balance",
        "credit_version",
        "credit_balance",
        "occurred_at",
        "period",
        "kind",
        "reference",
        "posted_at",
    ];
    let columns = [
        texts(|t| &t.key),
        texts(|t| &t.unit),
        side(|d| Some(d.debit.account)),
        side(|d| Some(d.credit.account)),
        own(|t| t.amount),
        side(|d| d.debit.version),
        side(|d| d.debit.balance),
        side(|d| d.credit.version),
        side(|d| d.credit.balance),
        own(|t| t.occurred_at.ms()),
        own(|t| t.period.number()),
        texts(|t| &t.kind),
        texts(|t| &t.reference),
        Column::numbers(fresh.iter().map(|_| now.ms())),
    ];
    let conn = tx.conn();
    let (from, values) = bulk::source(conn, &names, &columns);
    let list = names.join(", ");
    let insert = format!(
        "INSERT INTO ledger_transfer ({list}) SELECT {list} FROM {from} WHERE {open} ORDER BY place ON CONFLICT (key) DO NOTHING RETURNING no, key",
        open = gate::OPEN
    );
    let rows = if conn.backend() == DbBackend::Postgres {
        // In one statement: every way to the server and back is time in which others wait for the accounts.
        let mut values = values;
        let moved = moved_accounts(tx, draft, values.len()).map(|(update, more)| {
            values.extend(more);
            format!(", moved AS ({update})")
        });
        let text = format!(
            "WITH t AS ({insert}), queued AS (INSERT INTO ledger_unsealed (transfer) SELECT no FROM t){} SELECT no, key FROM t",
            moved.unwrap_or_default()
        );
        sql::all(conn, &text, values).await?
    } else {
        let rows = sql::all(conn, &insert, values).await?;
        let numbers = rows.iter().map(|row| sql::get::<i64>(row, "no")).collect::<Result<Vec<_>, _>>()?;
        let (from, values) = bulk::source(conn, &["transfer"], &[Column::numbers(numbers)]);
        sql::execute(conn, &format!("INSERT INTO ledger_unsealed (transfer) SELECT transfer FROM {from}"), values).await?;
        if let Some((update, values)) = moved_accounts(tx, draft, 0) {
            sql::execute(conn, &update, values).await?;
        }
        rows
    };
    rows.iter().map(|row| Ok((sql::get::<String>(row, "key")?, sql::get::<i64>(row, "no")?))).collect()
}

/// The statement that moves the rows of accounts, in a statement that has so many values before; `None` where none moves.
fn moved_accounts(tx: &Tx, draft: &Draft, before: usize) -> Option<(String, Vec<Value>)> {
    let rows: Vec<_> = draft.moved.iter().filter_map(|id| draft.account(id)).collect();
    if rows.is_empty() {
        return None;
    }
    let columns = [
        Column::numbers(rows.iter().map(|row| row.no)),
        Column::numbers(rows.iter().map(|row| row.balance)),
        Column::numbers(rows.iter().map(|row| row.version)),
    ];
    let (from, values) = bulk::source_behind(tx.conn(), before, &["account", "balance", "version"], &columns);
    let text =
        format!("UPDATE ledger_account SET balance = v.balance, version = v.version FROM {from} WHERE ledger_account.no = v.account");
    Some((text, values))
}

async fn insert_lots(tx: &Tx, lots: &[LotRow]) -> Result<HashMap<String, i64>, Error> {
    if lots.is_empty() {
        return Ok(HashMap::new());
    }
    let numbers = |field: fn(&LotRow) -> i64| Column::numbers(lots.iter().map(field));
    let names =
        ["account", "source", "issuer", "cost_numerator", "cost_denominator", "amount", "remaining", "held", "expires_at", "period"];
    let columns = [
        numbers(|lot| lot.account),
        Column::texts(lots.iter().map(|lot| lot.source.clone())),
        Column::texts(lots.iter().map(|lot| lot.issuer.clone())),
        numbers(|lot| lot.cost.numerator()),
        numbers(|lot| lot.cost.denominator()),
        numbers(|lot| lot.amount),
        numbers(|lot| lot.remaining),
        numbers(|_| 0),
        numbers(|lot| lot.expires_at.ms()),
        numbers(|lot| lot.period),
    ];
    let (from, values) = bulk::source(tx.conn(), &names, &columns);
    let list = names.join(", ");
    let text = format!("INSERT INTO ledger_lot ({list}) SELECT {list} FROM {from} WHERE true ORDER BY place RETURNING no, source");
    let rows = sql::all(tx.conn(), &text, values).await?;
    rows.iter().map(|row| Ok((sql::get::<String>(row, "source")?, sql::get::<i64>(row, "no")?))).collect()
}

async fn update_lots(tx: &Tx, draft: &Draft) -> Result<(), Error> {
    let lots: Vec<&LotRow> = draft.drawn.iter().filter_map(|number| draft.lot(*number)).collect();
    if lots.is_empty() {
        return Ok(());
    }
    let columns = [Column::numbers(lots.iter().map(|lot| lot.no)), Column::numbers(lots.iter().map(|lot| lot.remaining))];
    let (from, values) = bulk::source(tx.conn(), &["lot", "remaining"], &columns);
    let text = format!("UPDATE ledger_lot SET remaining = v.remaining FROM {from} WHERE ledger_lot.no = v.lot");
    sql::execute(tx.conn(), &text, values).await?;
    Ok(())
}

async fn insert_moves(
    tx: &Tx,
    transfers: &[Transfer],
    fresh: &[(usize, Drafted)],
    numbers: &HashMap<String, i64>,
    opened: &HashMap<String, i64>,
) -> Result<(), Error> {
    let moves: Vec<(i64, i64, &Move)> = fresh
        .iter()
        .flat_map(|(index, drafted)| {
            let transfer = &transfers[*index];
            let number = numbers.get(&transfer.key).copied().unwrap_or_default();
            drafted.moves.iter().map(move |part| (number, transfer.period.number(), part))
        })
        .collect();
    if moves.is_empty() {
        return Ok(());
    }
    let lot = |part: &Move| if part.lot > 0 { Some(part.lot) } else { opened.get(&part.used.source).copied() };
    let columns = [
        Column::Numbers(moves.iter().map(|(_, _, part)| lot(part)).collect()),
        Column::numbers(moves.iter().map(|(number, _, _)| *number)),
        Column::numbers(moves.iter().map(|(_, _, part)| part.amount)),
        Column::Numbers(moves.iter().map(|(_, _, part)| part.restores).collect()),
        Column::numbers(moves.iter().map(|(_, period, _)| *period)),
    ];
    let (from, values) = bulk::source(tx.conn(), &["lot", "transfer", "amount", "restores", "period"], &columns);
    let text = format!(
        "INSERT INTO ledger_lot_move (lot, transfer, amount, restores, period) SELECT lot, transfer, amount, restores, period FROM {from}
         WHERE true ORDER BY place"
    );
    sql::execute(tx.conn(), &text, values).await?;
    Ok(())
}

/// Each unit of work moves the stripe of its connection, which no other unit uses meanwhile, but where two connections fall on one. SQLite
/// has one writer, and needs one stripe.
async fn move_stripes(tx: &Tx, draft: &Draft) -> Result<(), Error> {
    if draft.stripes.is_empty() {
        return Ok(());
    }
    let stripe = match tx.conn().backend() {
        DbBackend::Postgres => format!("pg_backend_pid() % {STRIPES}"),
        _ => "0".to_owned(),
    };
    let columns = [
        Column::numbers(draft.stripes.keys().map(|(account, _)| *account)),
        Column::numbers(draft.stripes.keys().map(|(_, period)| *period)),
        Column::numbers(draft.stripes.values().map(|(debits, _)| *debits)),
        Column::numbers(draft.stripes.values().map(|(_, credits)| *credits)),
    ];
    let (from, values) = bulk::source(tx.conn(), &["account", "period", "debits", "credits"], &columns);
    let text = format!(
        "INSERT INTO ledger_stripe (account, period, stripe, debits, credits) SELECT account, period, {stripe}, debits, credits FROM {from}
         WHERE true ORDER BY place ON CONFLICT (account, period, stripe) DO UPDATE
         SET debits = ledger_stripe.debits + excluded.debits, credits = ledger_stripe.credits + excluded.credits"
    );
    sql::execute(tx.conn(), &text, values).await?;
    Ok(())
}
