//! Writing what a draft came to, in a handful of statements however many transfers it holds.

use crate::bulk::{self, Column};
use crate::draft::{Draft, Drafted, Move};
use crate::error::Error;
use crate::gate;
use crate::lot::LotRow;
use crate::transfer::Transfer;
use heyuan_contract::Timestamp;
use heyuan_kernel::sql::UnitConnection;
use heyuan_kernel::{Tx, sql};
use sea_orm::{DbBackend, Value};
use std::collections::HashMap;

/// Rows of a striped account and period at most: as many writers can move it at once.
const STRIPES: u64 = 64;

/// Writes the batch and answers the numbers of its transfers by key. When some of them were refused, what the others did is written all
/// the same: the caller gives the unit of work up.
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
    let written = if tx.conn().backend() == DbBackend::Postgres {
        write_at_once(tx, draft, transfers, fresh, now).await?
    } else {
        write_in_turn(tx, draft, transfers, fresh, now).await?
    };
    if written.transfers.len() < fresh.len() {
        return Err(gate::refusal(tx, transfers, fresh, &written.transfers).await?);
    }
    if written.lots.len() < draft.opened.len() {
        return Err(heyuan_kernel::Error::Corrupt { what: "lot", why: "one is in the book whose transfer is not".into() }.into());
    }
    insert_moves(tx, transfers, fresh, &written).await?;
    Ok(written.transfers)
}

/// Numbers by key.
#[derive(Default)]
struct Written {
    transfers: HashMap<String, i64>,
    /// The lots that transfers opened, by the key of the transfer.
    lots: HashMap<String, i64>,
}

/// A statement and its values; none where there is nothing to write.
type Piece = Option<(String, Vec<Value>)>;

/// In one statement: every way to the server and back is time in which others wait for the accounts.
async fn write_at_once(
    tx: &Tx,
    draft: &Draft,
    transfers: &[Transfer],
    fresh: &[(usize, Drafted)],
    now: Timestamp,
) -> Result<Written, Error> {
    let conn = tx.conn();
    let (insert, mut values) = insert_transfers(conn, transfers, fresh, now);
    let mut text = format!("WITH t AS ({insert}), queued AS (INSERT INTO ledger_unsealed (transfer) SELECT no FROM t)");
    let mut add = |name: &str, piece: fn(&UnitConnection, &Draft, usize) -> Piece| {
        let piece = piece(conn, draft, values.len());
        let present = piece.is_some();
        if let Some((statement, more)) = piece {
            text.push_str(&format!(", {name} AS ({statement})"));
            values.extend(more);
        }
        present
    };
    add("moved", move_accounts);
    add("drawn", draw_lots);
    add("striped", move_stripes);
    let opened = if add("opened", open_lots) { " UNION ALL SELECT no, source, 1::bigint FROM opened" } else { "" };
    text.push_str(&format!(" SELECT no, key, 0::bigint AS lot FROM t{opened}"));
    let mut written = Written::default();
    for row in sql::all(conn, &text, values).await? {
        let numbers = if sql::get::<i64>(&row, "lot")? == 0 { &mut written.transfers } else { &mut written.lots };
        numbers.insert(sql::get(&row, "key")?, sql::get(&row, "no")?);
    }
    Ok(written)
}

/// One statement after the other, in the process of the database itself.
async fn write_in_turn(
    tx: &Tx,
    draft: &Draft,
    transfers: &[Transfer],
    fresh: &[(usize, Drafted)],
    now: Timestamp,
) -> Result<Written, Error> {
    let conn = tx.conn();
    let (insert, values) = insert_transfers(conn, transfers, fresh, now);
    let transfers = numbers(&sql::all(conn, &insert, values).await?, "key")?;
    bulk::insert(conn, "ledger_unsealed", &["transfer"], &[Column::numbers(transfers.values().copied())]).await?;
    for (statement, values) in [move_accounts, draw_lots, move_stripes].iter().filter_map(|piece| piece(conn, draft, 0)) {
        sql::execute(conn, &statement, values).await?;
    }
    let lots = match open_lots(conn, draft, 0) {
        Some((statement, values)) => numbers(&sql::all(conn, &statement, values).await?, "source")?,
        None => HashMap::new(),
    };
    Ok(Written { transfers, lots })
}

fn numbers(rows: &[sql::Row], key: &str) -> Result<HashMap<String, i64>, Error> {
    rows.iter().map(|row| Ok((sql::get(row, key)?, sql::get(row, "no")?))).collect()
}

fn insert_transfers(conn: &UnitConnection, transfers: &[Transfer], fresh: &[(usize, Drafted)], now: Timestamp) -> (String, Vec<Value>) {
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
    let (from, values) = bulk::source(conn, &names, &columns);
    let list = names.join(", ");
    let text = format!(
        "INSERT INTO ledger_transfer ({list}) SELECT {list} FROM {from} WHERE {open} ORDER BY place ON CONFLICT (key) DO NOTHING RETURNING no, key",
        open = gate::OPEN
    );
    (text, values)
}

/// The statement that moves the rows of accounts, in one that has so many values before; the other pieces likewise.
fn move_accounts(conn: &UnitConnection, draft: &Draft, before: usize) -> Piece {
    let rows: Vec<_> = draft.moved.iter().filter_map(|id| draft.account(id)).collect();
    if rows.is_empty() {
        return None;
    }
    let columns = [
        Column::numbers(rows.iter().map(|row| row.no)),
        Column::numbers(rows.iter().map(|row| row.balance)),
        Column::numbers(rows.iter().map(|row| row.version)),
    ];
    let (from, values) = bulk::source_behind(conn, before, &["account", "balance", "version"], &columns);
    let text =
        format!("UPDATE ledger_account SET balance = v.balance, version = v.version FROM {from} WHERE ledger_account.no = v.account");
    Some((text, values))
}

/// A lot that is there already is its transfer's, which was refused then.
fn open_lots(conn: &UnitConnection, draft: &Draft, before: usize) -> Piece {
    let lots = &draft.opened;
    if lots.is_empty() {
        return None;
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
    let (from, values) = bulk::source_behind(conn, before, &names, &columns);
    let list = names.join(", ");
    Some((
        format!(
            "INSERT INTO ledger_lot ({list}) SELECT {list} FROM {from} WHERE true ORDER BY place ON CONFLICT (source) DO NOTHING RETURNING no, source"
        ),
        values,
    ))
}

fn draw_lots(conn: &UnitConnection, draft: &Draft, before: usize) -> Piece {
    let lots: Vec<&LotRow> = draft.drawn.iter().filter_map(|number| draft.lot(*number)).collect();
    if lots.is_empty() {
        return None;
    }
    let columns = [Column::numbers(lots.iter().map(|lot| lot.no)), Column::numbers(lots.iter().map(|lot| lot.remaining))];
    let (from, values) = bulk::source_behind(conn, before, &["lot", "remaining"], &columns);
    Some((format!("UPDATE ledger_lot SET remaining = v.remaining FROM {from} WHERE ledger_lot.no = v.lot"), values))
}

/// Each unit of work moves the stripe of its connection, which no other unit uses meanwhile, but where two connections fall on one. SQLite
/// has one writer, and needs one stripe.
fn move_stripes(conn: &UnitConnection, draft: &Draft, before: usize) -> Piece {
    if draft.stripes.is_empty() {
        return None;
    }
    let stripe = match conn.backend() {
        DbBackend::Postgres => format!("pg_backend_pid() % {STRIPES}"),
        _ => "0".to_owned(),
    };
    let columns = [
        Column::numbers(draft.stripes.keys().map(|(account, _)| *account)),
        Column::numbers(draft.stripes.keys().map(|(_, period)| *period)),
        Column::numbers(draft.stripes.values().map(|(debits, _)| *debits)),
        Column::numbers(draft.stripes.values().map(|(_, credits)| *credits)),
    ];
    let (from, values) = bulk::source_behind(conn, before, &["account", "period", "debits", "credits"], &columns);
    let text = format!(
        "INSERT INTO ledger_stripe (account, period, stripe, debits, credits) SELECT account, period, {stripe}, debits, credits FROM {from}
         WHERE true ORDER BY place ON CONFLICT (account, period, stripe) DO UPDATE
         SET debits = ledger_stripe.debits + excluded.debits, credits = ledger_stripe.credits + excluded.credits"
    );
    Some((text, values))
}

async fn insert_moves(tx: &Tx, transfers: &[Transfer], fresh: &[(usize, Drafted)], written: &Written) -> Result<(), Error> {
    let moves: Vec<(i64, i64, &Move)> = fresh
        .iter()
        .flat_map(|(index, drafted)| {
            let transfer = &transfers[*index];
            let number = written.transfers.get(&transfer.key).copied().unwrap_or_default();
            drafted.moves.iter().map(move |part| (number, transfer.period.number(), part))
        })
        .collect();
    if moves.is_empty() {
        return Ok(());
    }
    let lot = |part: &Move| if part.lot > 0 { Some(part.lot) } else { written.lots.get(&part.used.source).copied() };
    let columns = [
        Column::Numbers(moves.iter().map(|(_, _, part)| lot(part)).collect()),
        Column::numbers(moves.iter().map(|(number, _, _)| *number)),
        Column::numbers(moves.iter().map(|(_, _, part)| part.amount)),
        Column::Numbers(moves.iter().map(|(_, _, part)| part.restores).collect()),
        Column::numbers(moves.iter().map(|(_, period, _)| *period)),
    ];
    Ok(bulk::insert(tx.conn(), "ledger_lot_move", &["lot", "transfer", "amount", "restores", "period"], &columns).await?)
}
