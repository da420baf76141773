//! What expires ahead: lots in the order of their expiry, page by page, and what of one account expires within a span.

use crate::book::Ledger;
use crate::error::Error;
use heyuan_contract::Timestamp;
use heyuan_kernel::sql;

/// A place in the order of expiry: the instant, and the number of the lot within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpiryPlace {
    /// When the lot expires.
    pub expires_at: Timestamp,
    /// Its number; zero stands before every lot of the instant.
    pub lot: i64,
}

/// A lot that expires, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiringLot {
    /// Its place.
    pub place: ExpiryPlace,
    /// The account that it stands in.
    pub account: String,
    /// Whose account that is.
    pub owner: String,
}

/// A page of lots of a unit that still hold something. The row comparison walks the index of expiry from the place on.
pub(crate) const PAGE: &str = "
  SELECT l.no, l.expires_at, a.id, a.owner FROM ledger_lot l JOIN ledger_account a ON a.no = l.account
  WHERE l.remaining > 0 AND (l.expires_at, l.no) > ($1, $2) AND l.expires_at < $3 AND a.unit = $4
  ORDER BY l.expires_at, l.no LIMIT $5";

impl Ledger {
    /// Lots of a unit that still hold something, after a place in the order of their expiry and before an instant.
    ///
    /// # Errors
    /// The database's.
    pub async fn expiring_lots(&self, unit: &str, after: ExpiryPlace, before: Timestamp, limit: u64) -> Result<Vec<ExpiringLot>, Error> {
        let values = [after.expires_at.ms().into(), after.lot.into(), before.ms().into(), unit.into(), limit.into()];
        let rows = sql::all(self.kernel.db.reader(), PAGE, values).await?;
        let lot = |row: &sql::Row| {
            let expires_at = Timestamp::clamped(sql::get(row, "expires_at")?);
            let place = ExpiryPlace { expires_at, lot: sql::get(row, "no")? };
            Ok(ExpiringLot { place, account: sql::get(row, "id")?, owner: sql::get(row, "owner")? })
        };
        rows.iter().map(lot).collect()
    }

    /// What is free in an account with lots and expires from one instant on and before another, and when the first of it does.
    ///
    /// # Errors
    /// The database's.
    pub async fn expiring<C: sql::Connection>(
        &self,
        conn: &C,
        account: &str,
        from: Timestamp,
        before: Timestamp,
    ) -> Result<Option<(i64, Timestamp)>, Error> {
        let text = "SELECT CAST(COALESCE(SUM(l.remaining), 0) AS BIGINT) AS amount, MIN(l.expires_at) AS first FROM ledger_lot l
                    JOIN ledger_account a ON a.no = l.account
                    WHERE a.id = $1 AND l.remaining > 0 AND l.expires_at >= $2 AND l.expires_at < $3";
        let Some(row) = sql::one(conn, text, [account.into(), from.ms().into(), before.ms().into()]).await? else { return Ok(None) };
        let first: Option<i64> = sql::get(&row, "first")?;
        let amount: i64 = sql::get(&row, "amount")?;
        Ok(first.map(|first| (amount, Timestamp::clamped(first))))
    }
}
