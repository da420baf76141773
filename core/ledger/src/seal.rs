//! Sealing: committed transfers are chained by the kernel's sealer within a second; here stands what a transfer's hash sees.

use crate::book::Ledger;
use crate::error::Error;
use heyuan_kernel::chain::{Chain, Head, Records};
use heyuan_kernel::{Tx, sql};
use serde::Serialize;

/// How transfers are chained. Names, root and bytes never change: books written before must still hold.
static RECORDS: Records = Records {
    name: "ledger",
    root: "heyuan ledger",
    task: "ledger sealer",
    table: "ledger_transfer",
    id: "no",
    record: "transfer",
    queue: "ledger_unsealed",
    links: "ledger_seal",
    heads: "ledger_head",
    columns: "t.no, t.key, t.unit, t.debit, t.credit, t.amount, t.debit_version, t.debit_balance,
  t.credit_version, t.credit_balance, t.occurred_at, t.period, t.kind, t.reference, t.posted_at,
  (SELECT a.no || ' ' || a.shape || ' ' || COALESCE(CAST(a.floor AS TEXT), '-') || ' ' || LENGTH(a.unit) || ' ' || LENGTH(a.owner) || ' '
     || a.unit || ' ' || a.owner || ' ' || a.id FROM ledger_account a WHERE a.no = t.debit) AS debit_account,
  (SELECT a.no || ' ' || a.shape || ' ' || COALESCE(CAST(a.floor AS TEXT), '-') || ' ' || LENGTH(a.unit) || ' ' || LENGTH(a.owner) || ' '
     || a.unit || ' ' || a.owner || ' ' || a.id FROM ledger_account a WHERE a.no = t.credit) AS credit_account,
  (SELECT l.no || ' ' || l.account || ' ' || l.cost_numerator || ' ' || l.cost_denominator || ' ' || l.amount || ' ' || l.expires_at || ' '
     || l.period || ' ' || l.issuer FROM ledger_lot l WHERE l.source = t.key) AS opened_lot,
  (SELECT STRING_AGG(m.no || ' ' || m.lot || ' ' || m.amount || ' ' || COALESCE(CAST(m.restores AS TEXT), '-') || ' ' || m.period, ','
     ORDER BY m.no) FROM ledger_lot_move m WHERE m.transfer = t.no) AS lot_moves",
    formats: &[canonical, with_lots],
    label: |row| sql::get(row, "key"),
};

/// The first format: the fields of a transfer's own row, in this order, for ever.
#[derive(Serialize)]
struct Canonical<'a> {
    no: i64,
    key: &'a str,
    unit: &'a str,
    debit: i64,
    credit: i64,
    amount: i64,
    debit_version: Option<i64>,
    debit_balance: Option<i64>,
    credit_version: Option<i64>,
    credit_balance: Option<i64>,
    occurred_at: i64,
    period: i64,
    kind: &'a str,
    reference: &'a str,
    posted_at: i64,
}

/// The texts of a transfer's row.
struct Texts {
    key: String,
    unit: String,
    kind: String,
    reference: String,
}

impl Texts {
    fn read(row: &sql::Row) -> Result<Texts, heyuan_kernel::Error> {
        Ok(Texts {
            key: sql::get(row, "key")?,
            unit: sql::get(row, "unit")?,
            kind: sql::get(row, "kind")?,
            reference: sql::get(row, "reference")?,
        })
    }

    fn canonical(&self, row: &sql::Row) -> Result<Canonical<'_>, heyuan_kernel::Error> {
        Ok(Canonical {
            no: sql::get(row, "no")?,
            key: &self.key,
            unit: &self.unit,
            debit: sql::get(row, "debit")?,
            credit: sql::get(row, "credit")?,
            amount: sql::get(row, "amount")?,
            debit_version: sql::get(row, "debit_version")?,
            debit_balance: sql::get(row, "debit_balance")?,
            credit_version: sql::get(row, "credit_version")?,
            credit_balance: sql::get(row, "credit_balance")?,
            occurred_at: sql::get(row, "occurred_at")?,
            period: sql::get(row, "period")?,
            kind: &self.kind,
            reference: &self.reference,
            posted_at: sql::get(row, "posted_at")?,
        })
    }
}

fn canonical(row: &sql::Row) -> Result<Vec<u8>, heyuan_kernel::Error> {
    bytes(&Texts::read(row)?.canonical(row)?)
}

/// The second format: a transfer with its accounts, the terms of the lot that it opened and what it did to lots, each as one text.
#[derive(Serialize)]
struct WithLots<'a> {
    transfer: Canonical<'a>,
    debit_account: Option<String>,
    credit_account: Option<String>,
    opened_lot: Option<String>,
    lot_moves: Option<String>,
}

fn with_lots(row: &sql::Row) -> Result<Vec<u8>, heyuan_kernel::Error> {
    let texts = Texts::read(row)?;
    bytes(&WithLots {
        transfer: texts.canonical(row)?,
        debit_account: sql::get(row, "debit_account")?,
        credit_account: sql::get(row, "credit_account")?,
        opened_lot: sql::get(row, "opened_lot")?,
        lot_moves: sql::get(row, "lot_moves")?,
    })
}

fn bytes<T: Serialize>(seen: &T) -> Result<Vec<u8>, heyuan_kernel::Error> {
    serde_json::to_vec(seen).map_err(|e| heyuan_kernel::Error::Corrupt { what: "transfer", why: e.to_string() })
}

impl Ledger {
    /// The chain of transfers: its sealer, its heads.
    pub fn chain(&self) -> Chain {
        Chain::new(&self.kernel, &RECORDS)
    }

    /// The newest signed head, to be kept outside the database.
    ///
    /// # Errors
    /// The database's.
    pub async fn head(&self) -> Result<Option<Head>, Error> {
        Ok(self.chain().head().await?)
    }

    /// Seals what is committed and not sealed yet, up to a bound; answers how many. The caller holds the lease.
    ///
    /// # Errors
    /// The database's.
    pub async fn seal(&self, tx: &Tx) -> Result<u64, Error> {
        Ok(self.chain().seal(tx).await?)
    }
}
