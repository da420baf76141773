//! Chains of records: what is committed is numbered and linked by hash within a second, under heads signed with a key outside the database.
//!
//! A writer queues its record in the same unit of work; the sealer, who holds the processor's lease, takes the queue in the order of
//! the records' ids and links them. So no writer waits for the chain, and what is not linked yet is a tail of at most a second.

use crate::bulk::{self, Column};
use crate::database::{Database, Tx};
use crate::error::{Error, Problem};
use crate::lease::Fence;
use crate::processor::{Progress, Task, Waits};
use crate::secret::TenantKeys;
use crate::time::Clock;
use crate::{Kernel, sql};
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::Duration;

/// Records sealed in one transaction: bounds how long the sealer holds it.
const SEALED_MAX: u64 = 2000;
/// A day of UTC.
const DAY_MS: i64 = 86_400_000;
/// Links of one page of a walk.
const PAGE: i64 = 5000;

/// A record as a hash sees it.
pub type Bytes = fn(&sql::Row) -> Result<Vec<u8>, Error>;

/// A kind of record that is chained, and where its chain stands.
#[derive(Debug)]
pub struct Records {
    /// The chain's name in signatures and exported heads; never changed.
    pub name: &'static str,
    /// What the first link follows; never changed.
    pub root: &'static str,
    /// The name of the sealer's task, in logs.
    pub task: &'static str,
    /// The table of the records.
    pub table: &'static str,
    /// Its column that counts up.
    pub id: &'static str,
    /// What one record is called; also the column that names it in queue and links.
    pub record: &'static str,
    /// The table of what waits for the sealer.
    pub queue: &'static str,
    /// The table of links: number, record, hash.
    pub links: &'static str,
    /// The table of heads: number, hash, signature, at; the newest, and the last one of each day before.
    pub heads: &'static str,
    /// Every column of `table t` that is sealed.
    pub columns: &'static str,
    /// A record as its hash sees it, for ever the same bytes. Links are made in the last of the formats; where there are several, the
    /// links have a column `format` that counts from 1, so that those of an earlier release still hold.
    pub formats: &'static [Bytes],
    /// What people know a record by, for findings.
    pub label: fn(&sql::Row) -> Result<String, Error>,
}

/// The end of a chain at some moment, under a signature that needs the key outside the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Links so far.
    pub number: i64,
    /// The last link's hash, in hex.
    pub hash: String,
    /// HMAC of chain, number and hash, in hex.
    pub signature: String,
    /// When it was signed.
    pub at: Timestamp,
}

/// Something that can't be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked: `chain`, `head`, `unsealed`; for the book also `sum`, `balance`, `version`, `lot`, `stripe`, `hold`;
    /// `unfinished` where a check broke off.
    pub check: &'static str,
    /// The record, link, account, lot or unit.
    pub place: String,
    /// What is wrong with it.
    pub why: String,
}

/// What a walk of a whole chain found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    /// Links that were checked.
    pub sealed: i64,
    /// Records that are committed and not sealed yet.
    pub tail: i64,
    /// The newest signed head.
    pub head: Option<Head>,
    /// What is wrong, the first broken link first.
    pub findings: Vec<Finding>,
}

impl Walk {
    fn find(&mut self, check: &'static str, place: impl Into<String>, why: impl Into<String>) {
        self.findings.push(Finding { check, place: place.into(), why: why.into() });
    }

    fn finish(&mut self, checked: &str, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            self.find("unfinished", checked, format!("the check broke off: {error}"));
        }
    }
}

/// The chain of one kind of record in a tenant's database.
#[derive(Clone)]
pub struct Chain {
    db: Database,
    keys: TenantKeys,
    clock: Clock,
    records: &'static Records,
}

impl Chain {
    /// The chain of these records.
    pub fn new(kernel: &Kernel, records: &'static Records) -> Chain {
        Chain { db: kernel.db.clone(), keys: kernel.keys.clone(), clock: kernel.clock.clone(), records }
    }

    /// Its name in exported heads.
    pub fn name(&self) -> &'static str {
        self.records.name
    }

    /// The newest signed head, to be kept outside the database: nobody can then shorten or rewrite the chain unseen.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn head(&self) -> Result<Option<Head>, Error> {
        self.last_head(self.db.reader()).await
    }

    async fn last_head<C: sql::Connection>(&self, conn: &C) -> Result<Option<Head>, Error> {
        let text = format!("SELECT number, hash, signature, at FROM {} ORDER BY number DESC LIMIT 1", self.records.heads);
        sql::one(conn, &text, []).await?.as_ref().map(read_head).transpose()
    }

    fn sign(&self, number: i64, hash: &str) -> String {
        hex::encode(self.keys.head().mac(&[self.records.name.as_bytes(), &number.to_be_bytes(), hash.as_bytes()]))
    }

    fn is_signed(&self, head: &Head) -> bool {
        head.signature == self.sign(head.number, &head.hash)
    }

    /// SHA-256 of the hash before and the record; `None` for a format that this release does not know.
    fn link(&self, previous: &str, row: &sql::Row, format: usize) -> Result<Option<String>, Error> {
        let Some(bytes) = format.checked_sub(1).and_then(|index| self.records.formats.get(index)) else { return Ok(None) };
        Ok(Some(hex::encode(Sha256::new().chain_update(previous.as_bytes()).chain_update(bytes(row)?).finalize())))
    }

    /// Seals what is committed and not sealed yet, up to a bound; answers how many. The caller holds the lease.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn seal(&self, tx: &Tx) -> Result<u64, Error> {
        let Records { table, id, record, queue, links, heads, columns, formats, .. } = self.records;
        let text = format!(
            "SELECT u.{record} AS sealed, {columns} FROM {queue} u JOIN {table} t ON t.{id} = u.{record} ORDER BY u.{record} LIMIT $1"
        );
        let rows = sql::all(tx.conn(), &text, [SEALED_MAX.into()]).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let first = || (0, self.records.root.to_owned());
        let last = self.last_head(tx.conn()).await?;
        let (mut number, mut hash) = last.as_ref().map_or_else(first, |head| (head.number, head.hash.clone()));
        let (mut numbers, mut sealed, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            hash = self.link(&hash, row, formats.len())?.ok_or(Error::Broken("seal records"))?;
            number += 1;
            numbers.push(number);
            sealed.push(sql::get::<i64>(row, "sealed")?);
            hashes.push(hash.clone());
        }
        let linked = [Column::numbers(numbers), Column::numbers(sealed.iter().copied()), Column::texts(hashes)];
        let (from, values) = bulk::source(tx.conn(), &["number", record, "hash"], &linked);
        let (name, format) = if formats.len() > 1 { (", format", format!(", {}", formats.len())) } else { ("", String::new()) };
        let text = format!("INSERT INTO {links} (number, {record}, hash{name}) SELECT number, {record}, hash{format} FROM {from}");
        sql::execute(tx.conn(), &text, values).await?;
        let (one_of, values) = bulk::one_of_numbers(tx.conn(), 1, sealed);
        sql::execute(tx.conn(), &format!("DELETE FROM {queue} WHERE {record} {one_of}"), values).await?;
        let signature = self.sign(number, &hash);
        let text = format!("INSERT INTO {heads} (number, hash, signature, at) VALUES ($1, $2, $3, $4)");
        let now = self.clock.now();
        let values = [number.into(), hash.into(), signature.into(), now.ms().into()];
        sql::execute(tx.conn(), &text, values).await?;
        // The newest head stands for those before it; the last one of each day stays beside it.
        let day = |at: Timestamp| at.ms().div_euclid(DAY_MS);
        if let Some(last) = last.filter(|last| day(last.at) == day(now)) {
            sql::execute(tx.conn(), &format!("DELETE FROM {heads} WHERE number = $1"), [last.number.into()]).await?;
        }
        Ok(u64::try_from(rows.len()).unwrap_or(SEALED_MAX))
    }

    /// Walks the whole chain in bounded memory, against its own heads and those exported earlier: a chain that was cut or written anew
    /// does not hold these. Writers may go on meanwhile.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn verify(&self, exported: &[Head]) -> Result<Walk, Error> {
        let mut walk = Walk { head: self.head().await?, ..Walk::default() };
        for head in exported.iter().filter(|head| !self.is_signed(head)) {
            walk.find("head", head.number.to_string(), "the exported head is not signed with this tenant's key");
        }
        // What one walk found is told also where it, or the other one, can't go on.
        let done = self.check_links(&mut walk, exported).await;
        walk.finish("links", done);
        let done = self.check_unsealed(&mut walk).await;
        walk.finish("unsealed records", done);
        Ok(walk)
    }

    /// Ends at the first link that does not hold: what follows it says nothing any more.
    async fn check_links(&self, walk: &mut Walk, exported: &[Head]) -> Result<(), Error> {
        let Records { table, id, record, links, columns, formats, .. } = self.records;
        let format = if formats.len() > 1 { "s.format" } else { "CAST(1 AS BIGINT)" };
        let text = format!(
            "SELECT s.number, s.hash, {format} AS link_format, s.{record} AS sealed, t.{id} AS found, {columns} FROM {links} s
             LEFT JOIN {table} t ON t.{id} = s.{record} WHERE s.number > $1 ORDER BY s.number LIMIT $2"
        );
        let (mut number, mut hash) = (0, self.records.root.to_owned());
        loop {
            let rows = sql::all(self.db.reader(), &text, [number.into(), PAGE.into()]).await?;
            let heads = self.heads(number, number + PAGE, exported).await?;
            for row in &rows {
                if let Some(finding) = self.check_link(row, number, &hash)? {
                    walk.findings.push(finding);
                    return Ok(());
                }
                number += 1;
                hash = sql::get(row, "hash")?;
                if heads.get(&number).into_iter().flatten().any(|head| head.hash != hash || !self.is_signed(head)) {
                    walk.find("head", number.to_string(), "the signed head differs from the chain");
                    return Ok(());
                }
                walk.sealed += 1;
            }
            if rows.is_empty() {
                break;
            }
        }
        let newest = exported.iter().chain(walk.head.as_ref()).map(|head| head.number).max().unwrap_or(0);
        if newest > number {
            walk.find("head", newest.to_string(), format!("the chain ends at {number}, before a signed head"));
        }
        self.check_end(walk, number).await
    }

    /// Links and their head are written together, so that the last link that was walked is signed, or one after it that was sealed meanwhile.
    async fn check_end(&self, walk: &mut Walk, number: i64) -> Result<(), Error> {
        let signed = self.head().await?.map_or(0, |head| head.number);
        if signed < number {
            walk.find("head", number.to_string(), "the end of the chain is not signed");
        }
        Ok(())
    }

    fn check_link(&self, row: &sql::Row, number: i64, hash: &str) -> Result<Option<Finding>, Error> {
        let record = self.records.record;
        let at: i64 = sql::get(row, "number")?;
        let finding = |place: String, why: String| Ok(Some(Finding { check: "chain", place, why }));
        if at != number + 1 {
            return finding(format!("link {}", number + 1), "it is missing".to_owned());
        }
        let sealed: i64 = sql::get(row, "sealed")?;
        if sql::get::<Option<i64>>(row, "found")?.is_none() {
            return finding(format!("{record} {sealed}, link {at}"), format!("the {record} is gone"));
        }
        let (stored, format): (String, i64) = (sql::get(row, "hash")?, sql::get(row, "link_format")?);
        let link = self.link(hash, row, usize::try_from(format).unwrap_or(0));
        let why = match link {
            Ok(Some(link)) if link == stored => return Ok(None),
            Ok(Some(_)) => format!("the {record} or its link was changed after it was sealed"),
            Ok(None) => format!("this release does not know format {format} of a link"),
            Err(error) => format!("the {record} can't be read: {error}"),
        };
        finding(format!("{record} {sealed} {}, link {at}", (self.records.label)(row)?), why)
    }

    async fn heads(&self, after: i64, to: i64, exported: &[Head]) -> Result<HashMap<i64, Vec<Head>>, Error> {
        let text = format!("SELECT number, hash, signature, at FROM {} WHERE number > $1 AND number <= $2", self.records.heads);
        let mut heads: HashMap<i64, Vec<Head>> = HashMap::new();
        for row in sql::all(self.db.reader(), &text, [after.into(), to.into()]).await? {
            let head = read_head(&row)?;
            heads.entry(head.number).or_default().push(head);
        }
        for head in exported.iter().filter(|head| head.number > after && head.number <= to) {
            heads.entry(head.number).or_default().push(head.clone());
        }
        Ok(heads)
    }

    /// Records that the chain should hold and does not; what waits for the sealer is the tail.
    async fn check_unsealed(&self, walk: &mut Walk) -> Result<(), Error> {
        let Records { table, id, record, queue, links, columns, .. } = self.records;
        let reader = self.db.reader();
        let row = sql::one(reader, &format!("SELECT COUNT(*) AS tail FROM {queue}"), []).await?;
        walk.tail = row.map_or(Ok(0), |row| sql::get(&row, "tail"))?;
        let row = sql::one(reader, &format!("SELECT COALESCE(MAX({id}), 0) AS last FROM {table}"), []).await?;
        let last: i64 = row.map_or(Ok(0), |row| sql::get(&row, "last"))?;
        let text = format!(
            "SELECT t.{id} AS stray, {columns} FROM {table} t LEFT JOIN {links} s ON s.{record} = t.{id}
             LEFT JOIN {queue} u ON u.{record} = t.{id}
             WHERE t.{id} > $1 AND t.{id} <= $2 AND s.{record} IS NULL AND u.{record} IS NULL ORDER BY t.{id} LIMIT 1"
        );
        let mut from = 0;
        while from < last {
            if let Some(row) = sql::one(reader, &text, [from.into(), (from + 10 * PAGE).into()]).await? {
                let (stray, label): (i64, String) = (sql::get(&row, "stray")?, (self.records.label)(&row)?);
                walk.find("unsealed", format!("{record} {stray} {label}"), "it never passed the sealer");
                return Ok(());
            }
            from += 10 * PAGE;
        }
        Ok(())
    }
}

fn read_head(row: &sql::Row) -> Result<Head, Error> {
    Ok(Head {
        number: sql::get(row, "number")?,
        hash: sql::get(row, "hash")?,
        signature: sql::get(row, "signature")?,
        at: Timestamp::clamped(sql::get(row, "at")?),
    })
}

/// The processor's task that seals a chain.
pub struct Sealer {
    chain: Chain,
}

impl Sealer {
    /// A sealer of the chain.
    pub fn new(chain: Chain) -> Sealer {
        Sealer { chain }
    }

    async fn seal(&self, fence: &Fence) -> Result<Progress, Error> {
        let db = &self.chain.db;
        let Records { record, queue, .. } = self.chain.records;
        if sql::one(db.reader(), &format!("SELECT {record} FROM {queue} LIMIT 1"), []).await?.is_none() {
            return Ok(Progress::Idle);
        }
        let (chain, fence) = (self.chain.clone(), fence.clone());
        let sealed = db
            .write("seal records", move |tx| {
                let (chain, fence) = (chain.clone(), fence.clone());
                async move {
                    fence.check(tx).await?;
                    chain.seal(tx).await
                }
                .boxed()
            })
            .await?;
        Ok(if sealed == SEALED_MAX { Progress::Busy } else { Progress::Idle })
    }
}

impl Task for Sealer {
    #[expect(clippy::misnamed_getters, reason = "the chain has a name of its own; this is the task's")]
    fn name(&self) -> &'static str {
        self.chain.records.task
    }

    fn waits(&self) -> Waits {
        // No commit wakes it: half a second of records are sealed together.
        Waits::time(Duration::from_millis(500))
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move { Ok(self.seal(fence).await?) }.boxed()
    }
}
