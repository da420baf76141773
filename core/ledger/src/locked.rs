//! Locking accounts before they are posted to, for a unit of work that posts more than once.

use crate::book::Ledger;
use crate::error::Error;
use heyuan_kernel::Tx;

impl Ledger {
    /// Locks accounts until the commit, in the order in which every posting locks: a unit that posts to some of them first and to more of
    /// them later waits for nobody in between.
    ///
    /// # Errors
    /// The database's.
    pub async fn lock_accounts(&self, tx: &Tx, ids: &[String]) -> Result<(), Error> {
        self.lock(tx, ids).await.map(drop)
    }
}
