//! Sealing: committed transfers are numbered and chained by hash within a second, and the head is signed.

use crate::book::Ledger;
use crate::bulk::{self, Column};
use crate::error::Error;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::Timestamp;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task};
use heyuan_kernel::{Kernel, Problem, Tx, sql};
use sea_orm::{ConnectionTrait, QueryResult};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Transfers sealed in one transaction: bounds how long the sealer holds it.
const SEALED_MAX: u64 = 2000;
/// What the first link follows.
pub(crate) const ROOT: &str = "heyuan ledger";

/// The end of the chain at some moment, under a signature that needs the key outside the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Links so far.
    pub number: i64,
    /// The last link's hash, in hex.
    pub hash: String,
    /// HMAC of number and hash, in hex.
    pub signature: String,
    /// When it was signed.
    pub at: Timestamp,
}

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

/// The columns of `ledger_transfer t` that [`link`] reads.
pub(crate) const SEALED_COLUMNS: &str = "t.no, t.key, t.unit, t.debit, t.credit, t.amount, t.debit_version, t.debit_balance,
  t.credit_version, t.credit_balance, t.occurred_at, t.period, t.kind, t.reference, t.posted_at";

/// The next hash: SHA-256 of the one before and the transfer.
pub(crate) fn link(previous: &str, row: &QueryResult) -> Result<String, Error> {
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
    let bytes = serde_json::to_vec(&canonical).map_err(|e| heyuan_kernel::Error::Corrupt { what: "transfer", why: e.to_string() })?;
    Ok(hex::encode(Sha256::new().chain_update(previous.as_bytes()).chain_update(bytes).finalize()))
}

pub(crate) fn signature(kernel: &Kernel, number: i64, hash: &str) -> String {
    hex::encode(kernel.keys.head().mac(&[b"ledger", &number.to_be_bytes(), hash.as_bytes()]))
}

pub(crate) fn read_head(row: &QueryResult) -> Result<Head, Error> {
    Ok(Head {
        number: sql::get(row, "number")?,
        hash: sql::get(row, "hash")?,
        signature: sql::get(row, "signature")?,
        at: Timestamp::clamped(sql::get(row, "at")?),
    })
}

async fn last_head<C: ConnectionTrait>(conn: &C) -> Result<Option<Head>, Error> {
    let row = sql::one(conn, "SELECT number, hash, signature, at FROM ledger_head ORDER BY number DESC LIMIT 1", []).await?;
    row.as_ref().map(read_head).transpose()
}

impl Ledger {
    /// The newest signed head, to be kept outside the database: nobody can then shorten or rewrite the book unseen.
    ///
    /// # Errors
    /// The database's.
    pub async fn head(&self) -> Result<Option<Head>, Error> {
        last_head(self.kernel.db.reader()).await
    }

    /// Seals what is committed and not sealed yet, up to a bound; answers how many. The caller holds the lease.
    ///
    /// # Errors
    /// The database's.
    pub async fn seal(&self, tx: &Tx) -> Result<u64, Error> {
        let text = format!(
            "SELECT {SEALED_COLUMNS} FROM ledger_unsealed u JOIN ledger_transfer t ON t.no = u.transfer ORDER BY u.transfer LIMIT $1"
        );
        let rows = sql::all(tx.conn(), &text, [SEALED_MAX.into()]).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let (mut number, mut hash) = last_head(tx.conn()).await?.map_or((0, ROOT.to_owned()), |head| (head.number, head.hash));
        let (mut numbers, mut transfers, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            hash = link(&hash, row)?;
            number += 1;
            numbers.push(number);
            transfers.push(sql::get::<i64>(row, "no")?);
            hashes.push(hash.clone());
        }
        let columns = [Column::numbers(numbers), Column::numbers(transfers.iter().copied()), Column::texts(hashes)];
        let (from, values) = bulk::source(tx.conn(), &["number", "transfer", "hash"], &columns);
        let text = format!("INSERT INTO ledger_seal (number, transfer, hash) SELECT number, transfer, hash FROM {from}");
        sql::execute(tx.conn(), &text, values).await?;
        let (one_of, value) = bulk::one_of_numbers(tx.conn(), 1, transfers);
        sql::execute(tx.conn(), &format!("DELETE FROM ledger_unsealed WHERE transfer {one_of}"), [value]).await?;
        let signature = signature(&self.kernel, number, &hash);
        let text = "INSERT INTO ledger_head (number, hash, signature, at) VALUES ($1, $2, $3, $4)";
        let values = [number.into(), hash.into(), signature.into(), self.kernel.clock.now().ms().into()];
        sql::execute(tx.conn(), text, values).await?;
        Ok(u64::try_from(rows.len()).unwrap_or(SEALED_MAX))
    }
}

/// The processor's task that seals.
pub struct Sealer {
    ledger: Ledger,
}

impl Sealer {
    /// A sealer of the book.
    pub fn new(ledger: Ledger) -> Sealer {
        Sealer { ledger }
    }

    async fn seal(&self, fence: &Fence) -> Result<Progress, Error> {
        let db = &self.ledger.kernel.db;
        if sql::one(db.reader(), "SELECT transfer FROM ledger_unsealed LIMIT 1", []).await?.is_none() {
            return Ok(Progress::Idle);
        }
        let (ledger, fence) = (self.ledger.clone(), fence.clone());
        let sealed = db
            .write("seal transfers", move |tx| {
                let (ledger, fence) = (ledger.clone(), fence.clone());
                async move {
                    fence.check(tx).await?;
                    ledger.seal(tx).await
                }
                .boxed()
            })
            .await?;
        Ok(if sealed == SEALED_MAX { Progress::Busy } else { Progress::Idle })
    }
}

impl Task for Sealer {
    fn name(&self) -> &'static str {
        "ledger sealer"
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move { Ok(self.seal(fence).await?) }.boxed()
    }
}
