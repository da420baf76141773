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
  t.credit_version, t.credit_balance, t.occurred_at, t.period, t.kind, t.reference, t.posted_at",
    bytes: canonical,
    label: |row| sql::get(row, "key"),
};

/// A transfer as its hash sees it: every field, in this order, for ever.
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

fn canonical(row: &sql::Row) -> Result<Vec<u8>, heyuan_kernel::Error> {
    let (key, unit): (String, String) = (sql::get(row, "key")?, sql::get(row, "unit")?);
    let (kind, reference): (String, String) = (sql::get(row, "kind")?, sql::get(row, "reference")?);
    let canonical = Canonical {
        no: sql::get(row, "no")?,
        key: &key,
        unit: &unit,
        debit: sql::get(row, "debit")?,
        credit: sql::get(row, "credit")?,
        amount: sql::get(row, "amount")?,
        debit_version: sql::get(row, "debit_version")?,
        debit_balance: sql::get(row, "debit_balance")?,
        credit_version: sql::get(row, "credit_version")?,
        credit_balance: sql::get(row, "credit_balance")?,
        occurred_at: sql::get(row, "occurred_at")?,
        period: sql::get(row, "period")?,
        kind: &kind,
        reference: &reference,
        posted_at: sql::get(row, "posted_at")?,
    };
    serde_json::to_vec(&canonical).map_err(|e| heyuan_kernel::Error::Corrupt { what: "transfer", why: e.to_string() })
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
